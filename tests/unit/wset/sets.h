/* SPDX-License-Identifier: MIT */
/* Small working sets for tests. */
#ifndef ROUSE_TESTS_SETS_H
#define ROUSE_TESTS_SETS_H

#include "../unit.h"
#include "wset/wset.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VM_PAGES 100000u

/** A plain set of @count pages: first, first + step, ..., touched every 10 us. */
static inline struct rouse_wset *make_set(uint32_t first, uint32_t count, uint32_t step)
{
	struct rouse_wset *wset = calloc(1, sizeof(*wset));

	assert_non_null(wset);
	wset->blocks = calloc(1, sizeof(*wset->blocks));
	wset->pages = calloc((size_t)count + 1, sizeof(*wset->pages));
	assert_non_null(wset->blocks);
	assert_non_null(wset->pages);
	wset->blocks[0] =
		(struct rouse_wset_block){.name = "pc.ram", .used_bytes = VM_PAGES * 4096ull};
	wset->block_count = 1;
	wset->page_count = count;
	wset->flags = ROUSE_WSET_FLAG_COMPLETE;
	for (uint32_t i = 0; i < count; i++)
		wset->pages[i] = (struct rouse_wset_page){.page = first + i * step,
			.time_us = 10 * i,
			.vcpu = ROUSE_WSET_VCPU_UNKNOWN,
			.flags = ROUSE_WSET_PAGE_FAULTED};
	return wset;
}

/** The page of a list, or NULL. */
static inline const struct rouse_wset_page *find_page(
	const struct rouse_wset_page *pages, uint32_t count, uint32_t page)
{
	for (uint32_t i = 0; i < count; i++) {
		if (pages[i].page == page)
			return &pages[i];
	}
	return NULL;
}

static inline bool has_page(const struct rouse_wset *wset, uint32_t page)
{
	return find_page(wset->pages, wset->page_count, page) != NULL;
}

static inline bool waits(const struct rouse_wset *wset, uint32_t page)
{
	return find_page(wset->waiting, wset->waiting_count, page) != NULL;
}

#endif
