/* SPDX-License-Identifier: MIT */
/* What image_writer.c (pages as they come) and image_commit.c (the file around them) share. */
#ifndef ROUSE_IMAGE_WRITER_PRIVATE_H
#define ROUSE_IMAGE_WRITER_PRIVATE_H

#include "image/chunk_packer.h"
#include "image/image_writer.h"
#include "image/page_dedup.h"
#include "image/page_spool.h"
#include "image/temp_file.h"

/** Pages remembered for finding equal ones: up to 768 MiB of memory, for 64 GiB of the VM. */
#define ROUSE_WRITER_DEDUP_PAGES (UINT64_C(16) << 20)
/** Pages of a working set kept in memory until the end: 256 MiB. The rest waits in a file. */
#define ROUSE_WRITER_SPOOL_PAGES (UINT64_C(64) << 10)

/*
 * The page map is two-level as in the file, so that what a VM never used costs nothing. Its
 * entries while pages come:
 *
 *   0                  zero, or never put
 *   locator            stored; chunk numbers count from the first ordinary chunk
 *   WSET_BIT | index   of the working set: content and state are in the wset arrays
 */
#define ROUSE_WRITER_WSET_BIT (UINT64_C(1) << 63)

struct rouse_writer_section {
	void *bytes;
	size_t size;
};

struct rouse_writer {
	struct rouse_temp_file file;
	struct rouse_layout layout; /* without zeros for defaults */
	struct rouse_packer *packer;
	struct rouse_dedup *dedup;
	int error; /* the first; sticks */

	uint64_t page_count;
	uint32_t block_count;
	uint64_t **map; /* NULL: a table of zero pages */
	uint64_t map_tables;

	struct rouse_writer_touch *touches;
	uint32_t wset_count;
	struct rouse_page_spool *wset_data; /* wset_count pages, those that are not zero */
	bool *wset_present;

	struct rouse_writer_section sections[ROUSE_SECTION_COUNT];
	uint64_t front_limit;               /* where ordinary chunks begin */
	uint64_t chunks_begun, near_chunks; /* ordinary ones */
};

/** Whether a page has zeros only. */
bool rouse_page_is_zero(const void *data);

/** Frees everything and removes the file if it was not committed. */
void rouse_writer_destroy(struct rouse_writer *writer);

/** The most bytes that chunks of @pages pages take. */
static inline uint64_t rouse_writer_pages_bound(uint64_t pages)
{
	return pages * ROUSE_IMAGE_PAGE_BYTES;
}

static inline uint64_t rouse_divide_up(uint64_t a, uint64_t b)
{
	return (a + b - 1) / b;
}

#endif
