/* SPDX-License-Identifier: MIT */
#include "wset/wset_merge.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <math.h>
#include <string.h>

#define PAGE_BYTES 4096u

#define DEFAULT_DECAY 0.75
#define DEFAULT_KEEP 0.25
#define DEFAULT_FORGET 0.05
#define DEFAULT_CONFIRM 2u

/* A page of a set while sets are merged. */
struct entry {
	struct rouse_wset_page page;
	bool member; /* of the set; otherwise it waits */
};

struct entries {
	struct entry *list; /* in order of page numbers */
	size_t count;
};

/* Everything that merging two sets needs. */
struct merge {
	const struct rouse_wset_rules *rules;
	const struct rouse_wset_unseen *unseen;
	struct entries a, b, out;
	uint32_t runs_a, runs_b, runs;
	double share; /* of b */
	size_t group; /* the one that the last page was in */
};

int rouse_wset_rules_complete(
	struct rouse_wset_rules *rules, uint64_t vm_pages, struct rouse_error *error)
{
	if (!(rules->decay >= 0 && rules->decay <= 1 && rules->keep >= 0 && rules->keep <= 1 &&
		    rules->forget >= 0 && rules->forget <= 1))
		return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
			"decay, keep and forget of a working set are numbers from 0 to 1");
	if (rules->budget_bytes == 0)
		rules->budget_bytes = vm_pages * PAGE_BYTES / 2;
	if (rules->budget_bytes < PAGE_BYTES)
		rules->budget_bytes = PAGE_BYTES;
	if (!(rules->decay > 0))
		rules->decay = DEFAULT_DECAY;
	if (!(rules->keep > 0))
		rules->keep = DEFAULT_KEEP;
	if (!(rules->forget > 0))
		rules->forget = DEFAULT_FORGET;
	if (rules->confirm == 0)
		rules->confirm = DEFAULT_CONFIRM;
	return 0;
}

bool rouse_wset_same_vm(const struct rouse_wset *a, const struct rouse_wset *b)
{
	if (a->block_count != b->block_count)
		return false;
	for (uint32_t i = 0; i < a->block_count; i++) {
		if (strcmp(a->blocks[i].name, b->blocks[i].name) != 0 ||
			a->blocks[i].used_bytes != b->blocks[i].used_bytes)
			return false;
	}
	return true;
}

/* ---- From sets to entries -------------------------------------------------------------------- */

static int compare_numbers(const void *x, const void *y)
{
	const struct entry *a = x, *b = y;

	return (a->page.page > b->page.page) - (a->page.page < b->page.page);
}

static int take_entries(const struct rouse_wset *wset, struct entries *entries)
{
	size_t count = (size_t)wset->page_count + wset->waiting_count;

	entries->list = malloc((count + 1) * sizeof(*entries->list));
	if (entries->list == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < wset->page_count; i++)
		entries->list[entries->count++] = (struct entry){
			.page = rouse_wset_adopt(wset, &wset->pages[i]), .member = true};
	for (uint32_t i = 0; i < wset->waiting_count; i++)
		entries->list[entries->count++] =
			(struct entry){.page = rouse_wset_adopt(wset, &wset->waiting[i])};
	qsort(entries->list, entries->count, sizeof(*entries->list), compare_numbers);
	return 0;
}

/* ---- One page -------------------------------------------------------------------------------- */

static uint16_t add_counts(uint32_t a, uint32_t b)
{
	return a + b < UINT16_MAX ? (uint16_t)(a + b) : UINT16_MAX;
}

/* The number of one of b's restores among all of them. */
static uint32_t renumber(const struct merge *m, uint32_t last)
{
	uint64_t number = (uint64_t)m->runs_a + last;

	return number < m->runs ? (uint32_t)number : m->runs;
}

static uint16_t to_weight(double weight)
{
	return (uint16_t)lround(fmin(fmax(weight, 0), ROUSE_WSET_WEIGHT_ONE));
}

/* Whether the page was prefetched; *rate: what the sample says of its neighbours. */
static bool is_hidden(struct merge *m, uint32_t page, double *rate)
{
	const struct rouse_wset_unseen *unseen = m->unseen;

	if (unseen->hidden == NULL || page >= unseen->hidden->bits ||
		!rouse_bitmap_test(unseen->hidden, page))
		return false;
	while (m->group < unseen->group_count && page >= unseen->groups[m->group].end_page)
		m->group++;
	*rate = m->group < unseen->group_count ? unseen->groups[m->group].rate : 1;
	return true;
}

/* A page of a that b has not. */
static struct entry not_touched(struct merge *m, const struct entry *a)
{
	struct entry e = *a;
	double weight = a->page.weight, rate = 1;

	if (a->page.time_us > m->unseen->until_us)
		return e;
	if (is_hidden(m, a->page.page, &rate)) {
		double limit = rate * ROUSE_WSET_WEIGHT_ONE;

		if (weight > limit)
			weight = (1 - m->share) * weight + m->share * limit;
	} else if (m->unseen->whole) {
		weight *= 1 - m->share;
		e.page.looks = add_counts(a->page.looks, m->runs_b);
	}
	e.page.weight = to_weight(weight);
	return e;
}

/* A page that b has and a has not: a's restores did not touch it. */
static struct entry new_page(struct merge *m, const struct entry *b)
{
	struct entry e = *b;

	e.page.weight = to_weight(m->share * b->page.weight);
	e.page.looks = add_counts(m->runs_a < UINT16_MAX ? m->runs_a : UINT16_MAX, b->page.looks);
	e.page.last = renumber(m, b->page.last);
	e.member = b->member && (m->runs_a == 0 || e.page.count >= m->rules->confirm);
	return e;
}

static struct entry touched(struct merge *m, const struct entry *a, const struct entry *b)
{
	const double wa = (1 - m->share) * a->page.weight, wb = m->share * b->page.weight;
	const double part = wa + wb > 0 ? wb / (wa + wb) : m->share;
	const double time = (1 - part) * (double)a->page.time_us + part * (double)b->page.time_us;
	struct entry e = *a;

	e.page.weight = to_weight(wa + wb);
	e.page.time_us = (uint32_t)llround(time);
	e.page.count = add_counts(a->page.count, b->page.count);
	e.page.looks = add_counts(a->page.looks, b->page.looks);
	e.page.last = renumber(m, b->page.last);
	e.page.flags = (uint16_t)(a->page.flags | b->page.flags);
	if (b->page.vcpu != ROUSE_WSET_VCPU_UNKNOWN)
		e.page.vcpu = b->page.vcpu;
	e.member = a->member || (b->member && e.page.count >= m->rules->confirm);
	return e;
}

/* ---- All pages ------------------------------------------------------------------------------- */

/* What @runs restores count, all together. */
static double count_of(double decay, uint32_t runs)
{
	return decay >= 1 ? runs : (1 - pow(decay, runs)) / (1 - decay);
}

static void set_share(struct merge *m)
{
	const double decay = m->rules->decay;
	const double a = count_of(decay, m->runs_a) * pow(decay, m->runs_b);
	const double b = count_of(decay, m->runs_b);

	m->share = b / (a + b);
	m->runs = m->runs_a + m->runs_b < ROUSE_WSET_MAX_RUNS ? m->runs_a + m->runs_b
							      : ROUSE_WSET_MAX_RUNS;
}

/*
 * A page that the newer set has is never forgotten: one of many restores weighs next to nothing,
 * and a page that is new could not wait for the second. The budget bounds what waits.
 */
static int join(struct merge *m)
{
	const struct entry *a = m->a.list, *b = m->b.list;
	const struct entry *end_a = a + m->a.count, *end_b = b + m->b.count;

	m->out.list = malloc((m->a.count + m->b.count + 1) * sizeof(*m->out.list));
	if (m->out.list == NULL)
		return -ENOMEM;
	while (a < end_a || b < end_b) {
		struct entry e;

		if (b == end_b || (a < end_a && a->page.page < b->page.page)) {
			e = not_touched(m, a++);
			if (e.page.weight < m->rules->forget * ROUSE_WSET_WEIGHT_ONE)
				continue;
		} else if (a == end_a || b->page.page < a->page.page) {
			e = new_page(m, b++);
		} else {
			e = touched(m, a++, b++);
		}
		e.member = e.member && e.page.weight >= m->rules->keep * ROUSE_WSET_WEIGHT_ONE;
		m->out.list[m->out.count++] = e;
	}
	return 0;
}

/* ---- From entries to a set, within the budget ------------------------------------------------ */

/* Members first, then by what is likeliest to be of use, then by first touch. */
static int compare_value(const void *x, const void *y)
{
	const struct entry *a = x, *b = y;

	if (a->member != b->member)
		return a->member ? -1 : 1;
	if (a->page.weight != b->page.weight)
		return a->page.weight > b->page.weight ? -1 : 1;
	if (a->page.time_us != b->page.time_us)
		return a->page.time_us < b->page.time_us ? -1 : 1;
	return compare_numbers(a, b);
}

static int compare_touch(const void *x, const void *y)
{
	const struct rouse_wset_page *a = x, *b = y;

	if (a->time_us != b->time_us)
		return a->time_us < b->time_us ? -1 : 1;
	return (a->page > b->page) - (a->page < b->page);
}

/* Copies some entries into an array of pages in order of first touch. */
static int put_pages(const struct entry *list, size_t count, struct rouse_wset_page **pages)
{
	*pages = calloc(count + 1, sizeof(**pages));
	if (*pages == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++)
		(*pages)[i] = list[i].page;
	qsort(*pages, count, sizeof(**pages), compare_touch);
	return 0;
}

/* The likeliest stay in the set; of the others as many are remembered as may be in the set. */
static int fill(struct merge *m, struct rouse_wset *wset)
{
	const uint64_t budget = m->rules->budget_bytes / PAGE_BYTES;
	size_t members = 0, waiting;
	int code;

	qsort(m->out.list, m->out.count, sizeof(*m->out.list), compare_value);
	while (members < m->out.count && m->out.list[members].member && members < budget &&
		members < ROUSE_WSET_MAX_PAGES / 2)
		members++;
	waiting = m->out.count - members;
	if (waiting > budget)
		waiting = budget;
	if (waiting > ROUSE_WSET_MAX_PAGES / 2)
		waiting = ROUSE_WSET_MAX_PAGES / 2;
	code = put_pages(m->out.list, members, &wset->pages);
	if (code == 0)
		code = put_pages(m->out.list + members, waiting, &wset->waiting);
	if (code < 0)
		return code;
	wset->page_count = (uint32_t)members;
	wset->waiting_count = (uint32_t)waiting;
	wset->runs = m->runs;
	return 0;
}

static void merge_finish(struct merge *m)
{
	free(m->a.list);
	free(m->b.list);
	free(m->out.list);
}

static void close_wset(struct rouse_wset **wset)
{
	rouse_wset_close(*wset);
}

static uint32_t runs_of(const struct rouse_wset *wset)
{
	if (wset == NULL)
		return 0;
	return wset->runs > 0 ? wset->runs : 1;
}

int rouse_wset_combine(const struct rouse_wset *a, const struct rouse_wset *b,
	const struct rouse_wset_unseen *unseen, const struct rouse_wset_rules *rules,
	struct rouse_wset **merged)
{
	const struct rouse_wset_unseen by_mark = {
		.whole = (b->flags & ROUSE_WSET_FLAG_COMPLETE) != 0, .until_us = UINT32_MAX};
	cleanup_with(close_wset) struct rouse_wset *wset = NULL;
	cleanup_with(merge_finish) struct merge m = {.rules = rules,
		.unseen = unseen != NULL ? unseen : &by_mark,
		.runs_a = runs_of(a),
		.runs_b = runs_of(b)};
	int code;

	set_share(&m);
	code = a != NULL ? take_entries(a, &m.a) : 0;
	if (code == 0)
		code = take_entries(b, &m.b);
	if (code == 0)
		code = join(&m);
	if (code == 0)
		code = rouse_wset_new_like(b, &wset);
	if (code == 0)
		code = fill(&m, wset);
	if (code < 0 || wset == NULL)
		return code;
	wset->look = b->look;
	wset->flags = a != NULL ? a->flags & b->flags : b->flags;
	*merged = take_ptr(&wset);
	return 0;
}
