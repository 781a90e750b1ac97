/* SPDX-License-Identifier: MIT */
#include "wset/scan_idle_rule.h"

#include <stdlib.h>

#define ENTRY_PRESENT (UINT64_C(1) << 63)
#define ENTRY_PFN ((UINT64_C(1) << 55) - 1)

struct scan_idle_entry scan_idle_entry_parse(uint64_t word)
{
	struct scan_idle_entry entry = {.where = SCAN_IDLE_NOWHERE};

	/* In swap the same bits say where in swap. */
	if ((word & ENTRY_PRESENT) == 0)
		return entry;
	entry.pfn = word & ENTRY_PFN;
	/* Frame 0 is the firmware's: no process has it. */
	entry.where = entry.pfn != 0 ? SCAN_IDLE_SOMEWHERE : SCAN_IDLE_HIDDEN;
	return entry;
}

enum scan_idle_verdict scan_idle_judge(
	const struct scan_idle_page *marked, struct scan_idle_entry now, enum scan_idle_bit bit)
{
	const bool here = now.where != SCAN_IDLE_NOWHERE;

	switch ((enum scan_idle_state)marked->state) {
	case SCAN_IDLE_ABSENT:
		return here ? SCAN_IDLE_ACCESSED : SCAN_IDLE_QUIET;
	case SCAN_IDLE_TO_MARK:
		return here ? SCAN_IDLE_UNKNOWN : SCAN_IDLE_QUIET;
	case SCAN_IDLE_EMPTY:
	case SCAN_IDLE_UNWATCHED:
	case SCAN_IDLE_WATCHED:
		break;
	}
	if (!here)
		return SCAN_IDLE_QUIET;
	if (now.pfn != marked->pfn)
		return SCAN_IDLE_ACCESSED;
	if (marked->state == SCAN_IDLE_EMPTY)
		return SCAN_IDLE_QUIET;
	if (marked->state == SCAN_IDLE_UNWATCHED || bit == SCAN_IDLE_UNREAD)
		return SCAN_IDLE_UNKNOWN;
	return bit == SCAN_IDLE_SET ? SCAN_IDLE_QUIET : SCAN_IDLE_ACCESSED;
}

enum scan_idle_state scan_idle_next(const struct scan_idle_page *marked, struct scan_idle_entry now,
	enum scan_idle_verdict verdict)
{
	if (now.where == SCAN_IDLE_NOWHERE)
		return SCAN_IDLE_ABSENT;
	return verdict == SCAN_IDLE_QUIET ? (enum scan_idle_state)marked->state : SCAN_IDLE_TO_MARK;
}

static int compare(const void *left, const void *right)
{
	const struct scan_idle_item *a = left, *b = right;

	return a->pfn < b->pfn ? -1 : a->pfn > b->pfn;
}

void scan_idle_sort(struct scan_idle_item *items, size_t count)
{
	/* They often are in order: memory that was touched from its beginning to its end. */
	for (size_t i = 1; i < count; i++) {
		if (items[i - 1].pfn > items[i].pfn) {
			qsort(items, count, sizeof(*items), compare);
			return;
		}
	}
}

struct scan_idle_run scan_idle_run_next(const struct scan_idle_item *items, size_t count,
	size_t from, unsigned int pages_per_word, unsigned int gap)
{
	struct scan_idle_run run = {
		.first = items[from].pfn / pages_per_word, .words = 1, .end = from + 1};

	for (; run.end < count; run.end++) {
		const uint64_t at = items[run.end].pfn / pages_per_word - run.first;

		if (at > (uint64_t)run.words + gap || at >= SCAN_IDLE_RUN_WORDS)
			break;
		run.words = (uint32_t)at + 1;
	}
	return run;
}

void scan_idle_bit_put(uint64_t *words, const struct scan_idle_run *run, uint64_t pfn)
{
	words[pfn / SCAN_IDLE_BITS - run->first] |= UINT64_C(1) << pfn % SCAN_IDLE_BITS;
}

enum scan_idle_bit scan_idle_bit_get(
	const uint64_t *words, const struct scan_idle_run *run, uint32_t have, uint64_t pfn)
{
	const uint64_t word = pfn / SCAN_IDLE_BITS - run->first;

	if (word >= have)
		return SCAN_IDLE_UNREAD;
	return (words[word] >> pfn % SCAN_IDLE_BITS & 1) != 0 ? SCAN_IDLE_SET : SCAN_IDLE_CLEAR;
}

uint64_t scan_idle_head(const struct scan_idle_item *before, const struct scan_idle_item *item)
{
	if ((item->flags & SCAN_IDLE_FLAG_TAIL) == 0)
		return item->pfn;
	if (before == NULL)
		return SCAN_IDLE_NO_HEAD;
	if (before->pfn == item->pfn)
		return before->head;
	if (before->pfn + 1 != item->pfn ||
		(before->flags & (SCAN_IDLE_FLAG_HEAD | SCAN_IDLE_FLAG_TAIL)) == 0)
		return SCAN_IDLE_NO_HEAD;
	return before->head;
}

uint64_t scan_idle_head_candidate(uint64_t pfn, unsigned int step)
{
	uint64_t at = pfn;

	for (unsigned int order = 1; order <= SCAN_IDLE_MAX_ORDER; order++) {
		const uint64_t next = pfn & ~((UINT64_C(1) << order) - 1);

		if (next == at)
			continue;
		at = next;
		if (step-- == 0)
			return at;
	}
	return SCAN_IDLE_NO_HEAD;
}

enum scan_idle_source_of_bit scan_idle_tail_now(
	const struct scan_idle_page *marked, const struct scan_idle_item *now)
{
	if ((now->flags & SCAN_IDLE_FLAG_TAIL) == 0)
		return SCAN_IDLE_BIT_OF_ITS_OWN;
	return now->head == marked->pfn - marked->to_head ? SCAN_IDLE_BIT_OF_HEAD
							  : SCAN_IDLE_BIT_LOST;
}
