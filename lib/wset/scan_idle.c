/* SPDX-License-Identifier: MIT */
#include "base/cleanup.h"
#include "wset/scan_idle_batch.h"

#include <errno.h>

#define PAGE UINT64_C(4096)
#define MAX_TO_HEAD ((1u << SCAN_IDLE_MAX_ORDER) - 1)
#define BATCH 16384u /* pages: 64 MiB of the process, and less than 1 MiB of ours */

struct scan_idle {
	struct scan_idle_kernel kernel;
	const struct rouse_observer *observer;
	struct scan_idle_page *pages;
	uint64_t words[BATCH]; /* of the page map */
	struct scan_idle_item items[BATCH];
	uint8_t bits[BATCH]; /* enum scan_idle_bit, by page of the batch */
};

/* A part of the process's memory. */
struct batch {
	struct scan_idle_page *pages;
	uint64_t address;
	uint32_t count;
};

int scan_idle_new(const struct scan_idle_kernel *kernel, uint64_t pages,
	const struct rouse_observer *observer, struct scan_idle **idle)
{
	struct scan_idle *i = calloc(1, sizeof(*i));

	if (i == NULL)
		return -ENOMEM;
	i->kernel = *kernel;
	i->observer = observer;
	i->pages = calloc(pages + 1, sizeof(*i->pages));
	if (i->pages == NULL) {
		scan_idle_free(i);
		return -ENOMEM;
	}
	*idle = i;
	return 0;
}

void scan_idle_free(struct scan_idle *idle)
{
	if (idle == NULL)
		return;
	free(idle->pages);
	free(idle);
}

static int read_pagemap(struct scan_idle *idle, const struct batch *batch)
{
	size_t have;
	int code = scan_idle_words_read(&idle->kernel, SCAN_IDLE_PAGEMAP, batch->address / PAGE,
		idle->words, batch->count, &have);

	/* The page map of a process ends with the process. */
	return code == 0 && have < batch->count ? -ESRCH : code;
}

static bool has(const struct batch *batch, enum scan_idle_state state)
{
	for (uint32_t i = 0; i < batch->count; i++) {
		if (batch->pages[i].state == state)
			return true;
	}
	return false;
}

/* ---- Marking --------------------------------------------------------------------------------- */

/* Those of the batch that are somewhere and need a mark become items. */
static int collect_unmarked(struct scan_idle *idle, const struct batch *batch, size_t *count)
{
	*count = 0;
	for (uint32_t i = 0; i < batch->count; i++) {
		struct scan_idle_page *page = &batch->pages[i];
		const struct scan_idle_entry now = scan_idle_entry_parse(idle->words[i]);

		if (page->state != SCAN_IDLE_TO_MARK)
			continue;
		if (now.where == SCAN_IDLE_HIDDEN)
			return -EPERM;
		*page = (struct scan_idle_page){.state = SCAN_IDLE_ABSENT};
		if (now.where == SCAN_IDLE_NOWHERE)
			continue;
		page->state = SCAN_IDLE_UNWATCHED;
		page->pfn = now.pfn % SCAN_IDLE_PFNS;
		if (now.pfn < SCAN_IDLE_PFNS)
			idle->items[(*count)++] =
				(struct scan_idle_item){.pfn = now.pfn, .page = i};
	}
	scan_idle_sort(idle->items, *count);
	return 0;
}

/* Puts the heads, which have the bits, in the place of the pages. Some need none. */
static void turn_to_heads(struct scan_idle *idle, const struct batch *batch, size_t *count)
{
	size_t kept = 0;

	for (size_t i = 0; i < *count; i++) {
		struct scan_idle_item item = idle->items[i];
		struct scan_idle_page *page = &batch->pages[item.page];

		if ((item.flags & SCAN_IDLE_FLAG_ZERO) != 0)
			page->state = SCAN_IDLE_EMPTY;
		if ((item.flags & SCAN_IDLE_FLAG_ZERO) != 0 || item.head == SCAN_IDLE_NO_HEAD ||
			item.pfn - item.head > MAX_TO_HEAD)
			continue;
		page->to_head = (item.pfn - item.head) & MAX_TO_HEAD;
		page->huge = (item.flags & (SCAN_IDLE_FLAG_HEAD | SCAN_IDLE_FLAG_TAIL)) != 0;
		item.pfn = item.head;
		idle->items[kept++] = item;
	}
	*count = kept;
	scan_idle_sort(idle->items, kept);
}

static int mark_batch(struct scan_idle *idle, const struct batch *batch)
{
	struct scan_idle_item *items = idle->items;
	size_t count = 0;
	int code;

	if (!has(batch, SCAN_IDLE_TO_MARK))
		return 0;
	code = read_pagemap(idle, batch);
	if (code == 0)
		code = collect_unmarked(idle, batch, &count);
	if (code == 0)
		code = scan_idle_flags_read(&idle->kernel, items, count);
	if (code == 0)
		code = scan_idle_heads_find(&idle->kernel, items, count);
	if (code < 0)
		return code;
	turn_to_heads(idle, batch, &count);
	code = scan_idle_bits_write(&idle->kernel, items, count);
	if (code == 0)
		code = scan_idle_flags_read(&idle->kernel, items, count);
	if (code < 0)
		return code;
	/* The kernel ignores in silence what it cannot mark. */
	for (size_t i = 0; i < count; i++) {
		if ((items[i].flags & SCAN_IDLE_FLAG_IDLE) != 0 &&
			(items[i].flags & SCAN_IDLE_FLAG_TAIL) == 0)
			batch->pages[items[i].page].state = SCAN_IDLE_WATCHED;
	}
	return 0;
}

/* ---- Reading --------------------------------------------------------------------------------- */

/* Watched pages become items; with @tails only those that go by the bit of another page. */
static size_t collect_watched(struct scan_idle *idle, const struct batch *batch, bool tails)
{
	size_t count = 0;

	for (uint32_t i = 0; i < batch->count; i++) {
		const struct scan_idle_page *page = &batch->pages[i];

		if (page->state != SCAN_IDLE_WATCHED || (tails && page->to_head == 0))
			continue;
		idle->items[count++] = (struct scan_idle_item){
			.pfn = tails ? page->pfn : page->pfn - page->to_head, .page = i};
	}
	scan_idle_sort(idle->items, count);
	return count;
}

static int read_bits(struct scan_idle *idle, size_t count)
{
	int code = scan_idle_bits_read(&idle->kernel, idle->items, count);

	for (size_t i = 0; i < count && code == 0; i++)
		idle->bits[idle->items[i].page] = idle->items[i].bit;
	return code;
}

/* Tails whose huge page is not whole any more go by other bits than those that were read. */
static int check_tails(struct scan_idle *idle, const struct batch *batch)
{
	struct scan_idle_item *items = idle->items;
	size_t count = collect_watched(idle, batch, true), own = 0;
	int code = scan_idle_flags_read(&idle->kernel, items, count);

	if (code == 0)
		code = scan_idle_heads_find(&idle->kernel, items, count);
	for (size_t i = 0; i < count && code == 0; i++) {
		const struct scan_idle_item item = items[i];

		switch (scan_idle_tail_now(&batch->pages[item.page], &item)) {
		case SCAN_IDLE_BIT_OF_ITS_OWN:
			items[own++] = item;
			break;
		case SCAN_IDLE_BIT_LOST:
			idle->bits[item.page] = SCAN_IDLE_CLEAR;
			break;
		case SCAN_IDLE_BIT_OF_HEAD:
			break;
		}
	}
	return code == 0 ? read_bits(idle, own) : code;
}

static int read_batch(struct scan_idle *idle, const struct batch *batch,
	void (*found)(void *user, uint64_t address, uint64_t bytes), void *user)
{
	int code = read_bits(idle, collect_watched(idle, batch, false));

	if (code == 0)
		code = check_tails(idle, batch);
	if (code == 0)
		code = read_pagemap(idle, batch);
	for (uint32_t i = 0; i < batch->count && code == 0; i++) {
		struct scan_idle_page *page = &batch->pages[i];
		const struct scan_idle_entry now = scan_idle_entry_parse(idle->words[i]);
		const enum scan_idle_verdict verdict =
			scan_idle_judge(page, now, (enum scan_idle_bit)idle->bits[i]);

		if (now.where == SCAN_IDLE_HIDDEN)
			return -EPERM;
		page->state = scan_idle_next(page, now, verdict) & 7u;
		if (verdict == SCAN_IDLE_ACCESSED && found != NULL)
			found(user, batch->address + i * PAGE, PAGE);
	}
	return code;
}

/* ---- All of it ------------------------------------------------------------------------------- */

static int explain(const struct scan_idle *idle, int code, struct rouse_error *error)
{
	if (code == -EPERM)
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, code,
			"the kernel does not tell this user where the process's pages are: "
			"page_idle needs CAP_SYS_ADMIN");
	if (code == -ESRCH)
		return rouse_error_set(
			error, ROUSE_ERROR_SYSTEM, code, "the process's memory is gone");
	if (code == -ECANCELED && rouse_cancelled(idle->observer))
		return rouse_error_set(
			error, ROUSE_ERROR_CANCELLED, code, "the scan was cancelled");
	return code < 0 ? rouse_error_errno(error, code, "cannot scan by page_idle") : 0;
}

static struct batch batch_at(
	struct scan_idle *idle, uint64_t first, uint64_t address, uint64_t pages, uint64_t at)
{
	const uint64_t left = pages - at;

	return (struct batch){.pages = &idle->pages[first + at],
		.address = address + at * PAGE,
		.count = left < BATCH ? (uint32_t)left : BATCH};
}

int scan_idle_mark(struct scan_idle *idle, uint64_t first, uint64_t address, uint64_t pages,
	struct rouse_error *error)
{
	int code = 0;

	for (uint64_t at = 0; at < pages && code == 0; at += BATCH) {
		const struct batch batch = batch_at(idle, first, address, pages, at);

		code = rouse_cancelled(idle->observer) ? -ECANCELED : mark_batch(idle, &batch);
	}
	return explain(idle, code, error);
}

int scan_idle_read(struct scan_idle *idle, uint64_t first, uint64_t address, uint64_t pages,
	void (*found)(void *user, uint64_t address, uint64_t bytes), void *user,
	struct rouse_error *error)
{
	int code = 0;

	for (uint64_t at = 0; at < pages && code == 0; at += BATCH) {
		const struct batch batch = batch_at(idle, first, address, pages, at);

		code = rouse_cancelled(idle->observer) ? -ECANCELED
						       : read_batch(idle, &batch, found, user);
	}
	return explain(idle, code, error);
}

void scan_idle_count(const struct scan_idle *idle, uint64_t first, uint64_t pages,
	struct scan_idle_counts *counts)
{
	for (uint64_t i = first; i < first + pages; i++) {
		const struct scan_idle_page *page = &idle->pages[i];
		const bool watched = page->state == SCAN_IDLE_WATCHED;

		counts->watched += watched;
		counts->unwatched += page->state == SCAN_IDLE_UNWATCHED;
		counts->huge += watched && page->huge;
	}
}
