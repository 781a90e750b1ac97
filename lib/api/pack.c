/* SPDX-License-Identifier: MIT */
/* rouse_pack(): an image laid out anew, for another working set, codec or size of chunks. */
#include "api/image_pages.h"
#include "api/wset_apply.h"
#include "base/bitmap.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define NEIGHBOURHOOD_PAGES 16u

static void close_image(struct rouse_image **image)
{
	rouse_image_close(*image);
}

static void close_wset(struct rouse_wset **wset)
{
	if (*wset != NULL)
		rouse_wset_close(*wset);
}

/* What is laid out, and how far it is. */
struct packing {
	const struct rouse_image *image;
	struct rouse_writer *writer;
	struct rouse_wset *wset;    /* or NULL */
	struct rouse_bitmap placed; /* pages that went in front of their turn */
};

static void packing_finish(struct packing *packing)
{
	close_wset(&packing->wset);
	rouse_bitmap_finish(&packing->placed);
}

static int put_page(void *user, uint64_t page, const void *data)
{
	struct packing *packing = user;

	return rouse_bitmap_test_and_set(&packing->placed, page)
		       ? 0
		       : rouse_writer_put_page(packing->writer, page, data);
}

static int copy_sections(
	const struct rouse_reader *reader, struct rouse_writer *writer, struct rouse_error *error)
{
	static const enum rouse_section_type types[] = {
		ROUSE_SECTION_METADATA, ROUSE_SECTION_CONFIG, ROUSE_SECTION_DEVICES};

	for (unsigned int i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		size_t size;
		const void *bytes = rouse_reader_section(reader, types[i], &size);
		int code = rouse_writer_set_section(writer, types[i], bytes, size);

		if (code < 0)
			return rouse_error_errno(error, code, "cannot copy a section");
	}
	return 0;
}

/* Gives the writer the VM and the working set of the file @wset_path, if there is one. */
static int begin(struct packing *packing, const char *wset_path, struct rouse_error *error)
{
	cleanup_free struct rouse_writer_touch *touches = NULL;
	const struct rouse_block *blocks;
	uint32_t count;
	int code = rouse_bitmap_init(
		&packing->placed, rouse_reader_page_count(packing->image->reader));

	if (code < 0)
		return rouse_error_errno(error, code, "cannot lay out the image");
	blocks = rouse_reader_blocks(packing->image->reader, &count);
	if (wset_path != NULL)
		code = rouse_wset_open(wset_path, &packing->wset, error);
	if (code == 0 && packing->wset != NULL)
		code = rouse_wset_check_blocks(packing->wset, blocks, count, wset_path, error);
	if (code == 0 && packing->wset != NULL)
		code = rouse_wset_touches(packing->wset, &touches, error);
	if (code < 0)
		return code;
	return rouse_writer_set_blocks(packing->writer, blocks, count, touches,
		packing->wset != NULL ? packing->wset->page_count : 0, error);
}

static int by_time(const void *a, const void *b)
{
	const struct rouse_wset_page *x = a, *y = b;

	if (x->time_us != y->time_us)
		return x->time_us < y->time_us ? -1 : 1;
	return (x->page > y->page) - (x->page < y->page);
}

/*
 * Locality blocks (Zhang, Denniston, Baskakov, Garthwaite, USENIX ATC 2013): pages that
 * restores touched, but too few to be of the set, lie together in the order of their times, in
 * front of all others. A fault on one brings those that were touched around it.
 */
static int put_remembered(
	struct packing *packing, const struct rouse_observer *observer, struct rouse_error *error)
{
	const struct rouse_wset *wset = packing->wset;
	cleanup_free struct rouse_wset_page *sorted = NULL;
	cleanup_free uint64_t *pages = NULL;

	if (wset == NULL || wset->waiting_count == 0)
		return 0;
	sorted = calloc(wset->waiting_count, sizeof(*sorted));
	pages = calloc(wset->waiting_count, sizeof(*pages));
	if (sorted == NULL || pages == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot lay out the image");
	memcpy(sorted, wset->waiting, wset->waiting_count * sizeof(*sorted));
	qsort(sorted, wset->waiting_count, sizeof(*sorted), by_time);
	for (uint32_t i = 0; i < wset->waiting_count; i++)
		pages[i] = sorted[i].page;
	return rouse_image_some_pages(packing->image->source, packing->image->reader, pages,
		wset->waiting_count, put_page, packing, "packing what is remembered", observer,
		error);
}

static void mark_near(struct rouse_bitmap *near, uint64_t page)
{
	const uint64_t group = page / NEIGHBOURHOOD_PAGES;

	rouse_bitmap_set(near, group);
	if (page % NEIGHBOURHOOD_PAGES == 0 && group > 0)
		rouse_bitmap_set(near, group - 1);
	if (page % NEIGHBOURHOOD_PAGES == NEIGHBOURHOOD_PAGES - 1 && group + 1 < near->bits)
		rouse_bitmap_set(near, group + 1);
}

/* The neighbourhoods that hold a page of @wset or have one right beside them. -ENOMEM. */
static int find_near(const struct rouse_wset *wset, uint64_t pages, struct rouse_bitmap *near)
{
	int code = rouse_bitmap_init(near, pages / NEIGHBOURHOOD_PAGES + 1);

	for (uint32_t i = 0; code == 0 && i < wset->page_count; i++)
		mark_near(near, wset->pages[i].page);
	for (uint32_t i = 0; code == 0 && i < wset->waiting_count; i++)
		mark_near(near, wset->waiting[i].page);
	return code;
}

/* The pages of neighbourhoods, *count of them, the caller's to free. NULL: no memory. */
static uint64_t *list_pages(const struct rouse_bitmap *near, uint64_t pages, size_t *count)
{
	uint64_t *list = calloc(rouse_bitmap_count(near) + 1, NEIGHBOURHOOD_PAGES * sizeof(*list));

	*count = 0;
	for (uint64_t page = 0; list != NULL && page < pages; page++) {
		if (rouse_bitmap_test(near, page / NEIGHBOURHOOD_PAGES))
			list[(*count)++] = page;
	}
	return list;
}

/*
 * Then what lies beside what is known: a restored guest asks for pages that its set lacks, and two
 * in five of them are in a neighbourhood of 16 pages that has a page of the set in it or right
 * beside it, 4 to 9 % of the memory; of what is farther away no distance is better than another
 * (docs/performance.md, "What a set lacks").
 */
static int put_near(
	struct packing *packing, const struct rouse_observer *observer, struct rouse_error *error)
{
	const struct rouse_wset *wset = packing->wset;
	const uint64_t all = rouse_reader_page_count(packing->image->reader);
	cleanup_with(rouse_bitmap_finish) struct rouse_bitmap near = {0};
	cleanup_free uint64_t *pages = NULL;
	size_t count = 0;
	int code;

	if (wset == NULL)
		return 0;
	code = find_near(wset, all, &near);
	if (code == 0)
		pages = list_pages(&near, all, &count);
	if (pages == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot lay out the image");
	return rouse_image_some_pages(packing->image->source, packing->image->reader, pages, count,
		put_page, packing, "packing the neighbours", observer, error);
}

static int fill(const struct rouse_image *image, const char *wset, struct rouse_writer *writer,
	const struct rouse_observer *observer, struct rouse_error *error)
{
	cleanup_with(packing_finish) struct packing packing = {.image = image, .writer = writer};
	int code = begin(&packing, wset, error);

	if (code == 0)
		code = put_remembered(&packing, observer, error);
	if (code == 0)
		code = put_near(&packing, observer, error);
	rouse_writer_end_near(writer);
	if (code == 0)
		code = rouse_image_each_page(image->source, image->reader, put_page, &packing,
			"packing", observer, error);
	return code == 0 ? copy_sections(image->reader, writer, error) : code;
}

/* Whether the file itself has that name, and not a link to it. */
static bool is_named(const struct stat *file, const char *name)
{
	struct stat there;

	return lstat(name, &there) == 0 && there.st_dev == file->st_dev &&
	       there.st_ino == file->st_ino;
}

int rouse_pack(const char *image_path, const char *wset, const char *out,
	const struct rouse_layout *layout, struct rouse_write_report *report,
	const struct rouse_observer *observer, struct rouse_error *error)
{
	cleanup_with(close_image) struct rouse_image *image = NULL;
	uint64_t began = rouse_clock_us();
	struct rouse_writer_stats stats;
	struct rouse_writer *writer;
	struct stat source = {0};
	/* Before it is opened: of a name that changes hands in between, the commit fails. */
	const bool in_place = stat(image_path, &source) == 0 && is_named(&source, out);
	int code = rouse_image_open(image_path, &image, error);

	if (code < 0)
		return code;
	code = rouse_writer_create(out, layout, &writer, error);
	if (code < 0)
		return code;
	if (in_place)
		rouse_writer_replaces(writer, &source);
	code = fill(image, wset, writer, observer, error);
	if (code < 0) {
		rouse_writer_abort(writer);
		return code;
	}
	code = rouse_writer_commit(writer, &stats, error);
	if (code == 0 && report != NULL)
		*report = (struct rouse_write_report){
			.elapsed_us = rouse_clock_us() - began,
			.image_bytes = stats.image_bytes,
			.stored_bytes = stats.stored_bytes,
			.pages = stats.pages,
			.zero_pages = stats.zero_pages,
			.duplicate_pages = stats.duplicate_pages,
			.wset_pages = stats.wset_pages,
		};
	return code;
}
