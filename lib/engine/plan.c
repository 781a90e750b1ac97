/* SPDX-License-Identifier: MIT */
#include "engine/plan.h"

#include <errno.h>
#include <stdlib.h>

#define REGION_TABLES 64u /* a GiB of the VM */

static int compare_locators(const void *a, const void *b)
{
	const struct rouse_feed_page *x = a, *y = b;

	return x->locator < y->locator ? -1 : x->locator > y->locator;
}

/* Images are written in address order: mostly there is nothing to sort. */
static void sort_pages(struct rouse_feed_page *pages, size_t count)
{
	for (size_t i = 1; i < count; i++) {
		if (pages[i].locator < pages[i - 1].locator) {
			qsort(pages, count, sizeof(*pages), compare_locators);
			return;
		}
	}
}

int rouse_wset_plan_init(struct rouse_wset_plan *plan, const struct rouse_reader *reader)
{
	const struct rouse_image_wset *wset = rouse_reader_wset(reader);

	*plan = (struct rouse_wset_plan){.count = wset->page_count};
	plan->pages = malloc((plan->count + 1) * sizeof(*plan->pages));
	if (plan->pages == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < plan->count; i++) {
		plan->pages[i] = (struct rouse_feed_page){.locator = wset->pages[i].locator,
			.page = (uint32_t)wset->pages[i].page,
			.time_us = wset->pages[i].time_us};
	}
	sort_pages(plan->pages, plan->count);
	return 0;
}

int rouse_wset_plan_init_from(
	struct rouse_wset_plan *plan, struct rouse_reader *reader, const struct rouse_wset *wset)
{
	*plan = (struct rouse_wset_plan){.count = wset->page_count};
	plan->pages = malloc((plan->count + 1) * sizeof(*plan->pages));
	if (plan->pages == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < plan->count; i++) {
		int code;

		plan->pages[i].page = wset->pages[i].page;
		plan->pages[i].time_us = wset->pages[i].time_us;
		code = rouse_reader_locate(
			reader, plan->pages[i].page, ROUSE_READ_BULK, &plan->pages[i].locator);
		if (code < 0) {
			rouse_wset_plan_finish(plan);
			return code;
		}
	}
	sort_pages(plan->pages, plan->count);
	return 0;
}

void rouse_wset_plan_leave_out(struct rouse_wset_plan *plan, const struct rouse_bitmap *pages)
{
	size_t kept = 0;

	for (size_t i = 0; i < plan->count; i++) {
		const uint64_t page = plan->pages[i].page;

		if (page >= pages->bits || !rouse_bitmap_test(pages, page))
			plan->pages[kept++] = plan->pages[i];
	}
	plan->count = kept;
}

void rouse_wset_plan_finish(struct rouse_wset_plan *plan)
{
	free(plan->pages);
	plan->pages = NULL;
}

int rouse_wset_plan_next(void *user, const struct rouse_feed_page **pages, size_t *count)
{
	struct rouse_wset_plan *plan = user;

	*pages = plan->pages;
	*count = plan->given ? 0 : plan->count;
	plan->given = true;
	return 0;
}

void rouse_rest_plan_init(struct rouse_rest_plan *plan, struct rouse_reader *reader, bool zeros,
	bool (*skip)(void *user, uint64_t page), void *skip_user)
{
	const uint64_t near = le64_get(rouse_reader_superblock(reader)->near_chunks);

	/* With zeros all is wanted before the start; one region is in this order anyway. */
	*plan = (struct rouse_rest_plan){.reader = reader,
		.zeros = zeros,
		.skip = skip,
		.skip_user = skip_user,
		.near_chunks =
			!zeros && rouse_reader_page_tables(reader) > REGION_TABLES ? near : 0};
}

void rouse_rest_plan_finish(struct rouse_rest_plan *plan)
{
	free(plan->pages);
	plan->pages = NULL;
}

/* Whether a page has its turn in the present pass. */
static bool is_of_pass(const struct rouse_rest_plan *plan, uint64_t locator)
{
	return plan->near_chunks == 0 ||
	       (rouse_locator_chunk(locator) < plan->near_chunks) != plan->near_done;
}

/* Adds what is wanted of one page table to the region. */
static int add_table(struct rouse_rest_plan *plan, uint64_t index, size_t *count)
{
	const uint64_t first = index * ROUSE_PAGE_TABLE_PAGES;
	const le64_t *table;
	uint32_t entries;
	int code = rouse_reader_page_table(plan->reader, index, ROUSE_READ_BULK, &table, &entries);

	if (code < 0 || (table == NULL && !plan->zeros))
		return code;
	if (*count + entries > plan->room) {
		size_t room = plan->room > 0 ? plan->room * 2 : 4 * ROUSE_PAGE_TABLE_PAGES;
		struct rouse_feed_page *more = realloc(plan->pages, room * sizeof(*more));

		if (more == NULL)
			return -ENOMEM;
		plan->pages = more;
		plan->room = room;
	}
	for (uint32_t i = 0; i < entries; i++) {
		uint64_t locator = table != NULL ? le64_get(table[i]) : ROUSE_LOCATOR_ZERO;

		if (locator == ROUSE_LOCATOR_ZERO && !plan->zeros)
			continue;
		if (!is_of_pass(plan, locator))
			continue;
		if (plan->skip != NULL && plan->skip(plan->skip_user, first + i))
			continue;
		plan->pages[(*count)++] =
			(struct rouse_feed_page){.locator = locator, .page = (uint32_t)(first + i)};
	}
	return 0;
}

/* Whether there is a table left, of this pass or of the next one. */
static bool has_more(struct rouse_rest_plan *plan)
{
	const uint64_t tables = rouse_reader_page_tables(plan->reader);

	if (plan->next_table == tables && plan->near_chunks > 0 && !plan->near_done) {
		plan->near_done = true;
		plan->next_table = 0;
	}
	return plan->next_table < tables;
}

int rouse_rest_plan_next(void *user, const struct rouse_feed_page **pages, size_t *count)
{
	struct rouse_rest_plan *plan = user;
	const uint64_t tables = rouse_reader_page_tables(plan->reader);
	size_t n = 0;

	/* A region may be empty (all zero, or placed already): only the last one ends the plan. */
	while (n == 0 && has_more(plan)) {
		uint64_t end = plan->next_table + REGION_TABLES;

		if (end > tables)
			end = tables;
		while (plan->next_table < end) {
			int code = add_table(plan, plan->next_table++, &n);

			if (code < 0)
				return code;
		}
	}
	sort_pages(plan->pages, n);
	*pages = plan->pages;
	*count = n;
	return 0;
}
