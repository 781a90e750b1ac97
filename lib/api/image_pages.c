/* SPDX-License-Identifier: MIT */
#include "api/image_pages.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/observer.h"

#include <inttypes.h>

#define STRETCH_TABLES 64u /* 1 GiB of the VM */
#define READ_AHEAD (1u << 20)

struct placed_page {
	uint64_t locator, page;
};

struct walk {
	struct rouse_source *source;
	struct rouse_reader *reader;
	rouse_page_fn *page;
	void *user;
	struct rouse_error *error;

	struct placed_page *pages; /* of one stretch */
	size_t count;

	unsigned char *plain;  /* the chunk that was decoded last */
	unsigned char *window; /* what was read last */
	uint64_t window_offset, window_bytes;
	uint64_t read_ahead; /* bytes that are read at least */
	uint64_t done_pages;
};

static void walk_finish(struct walk *walk)
{
	free(walk->pages);
	free(walk->plain);
	free(walk->window);
}

static int compare(const void *a, const void *b)
{
	const struct placed_page *x = a, *y = b;

	if (x->locator != y->locator)
		return x->locator < y->locator ? -1 : 1;
	return (x->page > y->page) - (x->page < y->page);
}

/* Collects the pages of a stretch in the order of their places. */
static int collect(struct walk *walk, uint64_t first_table)
{
	walk->count = 0;
	for (uint64_t i = first_table;
		i < first_table + STRETCH_TABLES && i < rouse_reader_page_tables(walk->reader);
		i++) {
		const le64_t *table;
		uint32_t entries;
		int code =
			rouse_reader_page_table(walk->reader, i, ROUSE_READ_BULK, &table, &entries);

		if (code < 0)
			return rouse_error_errno(
				walk->error, code, "cannot read page table %" PRIu64, i);
		for (uint32_t k = 0; table != NULL && k < entries; k++) {
			uint64_t locator = le64_get(table[k]);

			if (locator != ROUSE_LOCATOR_ZERO)
				walk->pages[walk->count++] = (struct placed_page){
					locator, i * ROUSE_PAGE_TABLE_PAGES + k};
		}
	}
	if (walk->count > 1)
		qsort(walk->pages, walk->count, sizeof(*walk->pages), compare);
	return 0;
}

/* The stored bytes of a chunk, out of a window that is read in large pieces. */
static int read_stored(
	struct walk *walk, const struct rouse_chunk *chunk, const unsigned char **stored)
{
	uint64_t end = chunk->offset + chunk->stored_bytes;

	if (chunk->offset < walk->window_offset || end > walk->window_offset + walk->window_bytes) {
		uint64_t left = rouse_source_size(walk->source) - chunk->offset;
		uint64_t bytes = chunk->stored_bytes > walk->read_ahead ? chunk->stored_bytes
									: walk->read_ahead;
		int code;

		walk->window_bytes = 0;
		if (bytes > left)
			bytes = left;
		code = rouse_source_read(
			walk->source, chunk->offset, walk->window, bytes, ROUSE_READ_BULK);
		if (code < 0)
			return code;
		walk->window_offset = chunk->offset;
		walk->window_bytes = bytes;
	}
	*stored = walk->window + (chunk->offset - walk->window_offset);
	return 0;
}

static int decode(struct walk *walk, uint64_t number, struct rouse_chunk *chunk)
{
	const unsigned char *stored;
	int code = rouse_reader_chunk(walk->reader, number, ROUSE_READ_BULK, chunk);

	if (code < 0)
		return rouse_error_errno(
			walk->error, code, "cannot read the index of chunk %" PRIu64, number);
	code = read_stored(walk, chunk, &stored);
	if (code < 0)
		return rouse_error_errno(walk->error, code, "cannot read chunk %" PRIu64, number);
	code = rouse_chunk_decode(chunk, stored, walk->plain);
	if (code < 0)
		return rouse_error_set(walk->error, ROUSE_ERROR_DAMAGED, code,
			"chunk %" PRIu64 " at offset %" PRIu64 " (%" PRIu32 " bytes) is damaged",
			number, chunk->offset, chunk->stored_bytes);
	return 0;
}

static int walk_stretch(struct walk *walk, const struct rouse_observer *observer)
{
	uint64_t current = UINT64_MAX;
	struct rouse_chunk chunk = {0};

	for (size_t i = 0; i < walk->count; i++) {
		uint64_t locator = walk->pages[i].locator;
		int code = 0;

		if (rouse_locator_chunk(locator) != current) {
			if (rouse_cancelled(observer))
				return rouse_error_errno(walk->error, -ECANCELED, "cancelled");
			current = rouse_locator_chunk(locator);
			code = decode(walk, current, &chunk);
		}
		if (code < 0)
			return code;
		if (!rouse_locator_in_chunk(locator, &chunk))
			return rouse_error_set(walk->error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
				"page %" PRIu64 " leads to no stored page", walk->pages[i].page);
		code = walk->page(walk->user, walk->pages[i].page,
			walk->plain + (size_t)rouse_locator_slot(locator) * ROUSE_IMAGE_PAGE_BYTES);
		if (code < 0)
			return rouse_error_errno(walk->error, code, "cannot write page %" PRIu64,
				walk->pages[i].page);
	}
	return 0;
}

static int walk_begin(struct walk *walk, uint64_t read_ahead)
{
	size_t chunk_bytes = (size_t)le32_get(rouse_reader_superblock(walk->reader)->chunk_pages) *
			     ROUSE_IMAGE_PAGE_BYTES;
	uint64_t pages = rouse_reader_page_count(walk->reader);

	if (pages > (uint64_t)STRETCH_TABLES * ROUSE_PAGE_TABLE_PAGES)
		pages = (uint64_t)STRETCH_TABLES * ROUSE_PAGE_TABLE_PAGES;
	if (pages < ROUSE_PAGE_TABLE_PAGES)
		pages = ROUSE_PAGE_TABLE_PAGES;
	walk->read_ahead = read_ahead;
	walk->pages = malloc(pages * sizeof(*walk->pages));
	walk->plain = malloc(chunk_bytes);
	walk->window = malloc(chunk_bytes > READ_AHEAD ? chunk_bytes : READ_AHEAD);
	return walk->pages == NULL || walk->plain == NULL || walk->window == NULL ? -ENOMEM : 0;
}

int rouse_image_each_page(struct rouse_source *source, struct rouse_reader *reader,
	rouse_page_fn *page, void *user, const char *phase, const struct rouse_observer *observer,
	struct rouse_error *error)
{
	cleanup_with(walk_finish) struct walk walk = {
		.source = source, .reader = reader, .page = page, .user = user, .error = error};
	uint64_t tables = rouse_reader_page_tables(reader), total = rouse_reader_page_count(reader);
	int code = walk_begin(&walk, READ_AHEAD);

	if (code < 0)
		return rouse_error_errno(error, code, "cannot read the pages");
	code = rouse_reader_load_tables(reader, ROUSE_READ_BULK, error);
	for (uint64_t i = 0; code == 0 && i < tables; i += STRETCH_TABLES) {
		uint64_t done = (i + STRETCH_TABLES) * ROUSE_PAGE_TABLE_PAGES;

		code = collect(&walk, i);
		if (code == 0)
			code = walk_stretch(&walk, observer);
		if (code == 0)
			rouse_progress(observer, phase,
				(done < total ? done : total) * ROUSE_IMAGE_PAGE_BYTES,
				total * ROUSE_IMAGE_PAGE_BYTES);
	}
	return code;
}

/* The pages from @pages on, as many as there is room for, where they are stored. */
static int locate(struct walk *walk, const uint64_t *pages, size_t count)
{
	walk->count = 0;
	for (size_t i = 0; i < count; i++) {
		uint64_t locator;
		int code = rouse_reader_locate(walk->reader, pages[i], ROUSE_READ_BULK, &locator);

		if (code < 0)
			return rouse_error_errno(
				walk->error, code, "cannot look up page %" PRIu64, pages[i]);
		if (locator != ROUSE_LOCATOR_ZERO)
			walk->pages[walk->count++] = (struct placed_page){locator, pages[i]};
	}
	return 0;
}

int rouse_image_some_pages(struct rouse_source *source, struct rouse_reader *reader,
	const uint64_t *pages, size_t count, rouse_page_fn *page, void *user, const char *phase,
	const struct rouse_observer *observer, struct rouse_error *error)
{
	cleanup_with(walk_finish) struct walk walk = {
		.source = source, .reader = reader, .page = page, .user = user, .error = error};
	int code = walk_begin(&walk, 0);

	if (code < 0)
		return rouse_error_errno(error, code, "cannot read the pages");
	for (size_t i = 0; code == 0 && i < count; i += ROUSE_PAGE_TABLE_PAGES) {
		const size_t left = count - i;

		code = locate(&walk, pages + i,
			left < ROUSE_PAGE_TABLE_PAGES ? left : ROUSE_PAGE_TABLE_PAGES);
		if (code == 0)
			code = walk_stretch(&walk, observer);
		if (code == 0)
			rouse_progress(observer, phase, i * ROUSE_IMAGE_PAGE_BYTES,
				count * ROUSE_IMAGE_PAGE_BYTES);
	}
	return code;
}
