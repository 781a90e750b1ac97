/* SPDX-License-Identifier: MIT */
/* Working-set files: from untrusted bytes to the structure. wset.h draws the file. */
#include "wset/wset.h"

#include "base/bitmap.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <string.h>

/* The state of a checksum in pieces has a size only inside the library, or inlined. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#define PAGE_BYTES 4096u
#define MAX_VM_PAGES (UINT64_C(1) << 32) /* page numbers have 32 bits */

/* What is left to parse. */
struct body {
	const unsigned char *at;
	size_t left;
};

static int damaged(struct rouse_error *error, const char *what)
{
	return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN, "%s", what);
}

uint64_t rouse_wset_checksum(
	const struct rouse_disk_wset_header *header, const void *body, size_t body_bytes)
{
	XXH3_state_t state;

	XXH3_INITSTATE(&state);
	(void)XXH3_64bits_reset(&state);
	(void)XXH3_64bits_update(&state, header, offsetof(struct rouse_disk_wset_header, checksum));
	(void)XXH3_64bits_update(&state, body, body_bytes);
	return XXH3_64bits_digest(&state);
}

static int check_header(const struct rouse_disk_wset_header *header, const struct body *body,
	struct rouse_error *error)
{
	uint32_t version = le32_get(header->version);

	if (memcmp(header->magic, ROUSE_WSET_MAGIC, sizeof(header->magic)) != 0)
		return damaged(error, "not a working-set file");
	if (version > ROUSE_WSET_VERSION)
		return rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, -EPROTONOSUPPORT,
			"the working-set file has format %u; this Rouse knows up to %u", version,
			ROUSE_WSET_VERSION);
	if (le64_get(header->body_bytes) != body->left)
		return damaged(error, le64_get(header->body_bytes) > body->left
					      ? "the working-set file is truncated"
					      : "the working-set file has bytes behind its end");
	if (rouse_wset_checksum(header, body->at, body->left) != le64_get(header->checksum))
		return damaged(error, "the checksum of the working-set file is wrong");
	if (version == 0 || le32_get(header->block_count) == 0 ||
		le32_get(header->block_count) > ROUSE_WSET_MAX_BLOCKS ||
		le32_get(header->page_count) > ROUSE_WSET_MAX_PAGES)
		return damaged(error, "the header of the working-set file makes no sense");
	return 0;
}

static bool take(struct body *body, void *bytes, size_t size)
{
	if (body->left < size)
		return false;
	memcpy(bytes, body->at, size);
	body->at += size;
	body->left -= size;
	return true;
}

static bool take_block(struct body *body, struct rouse_wset_block *block)
{
	le64_t used_bytes;
	uint8_t name_bytes;

	if (!take(body, &used_bytes, sizeof(used_bytes)) ||
		!take(body, &name_bytes, sizeof(name_bytes)) || name_bytes == 0 ||
		!take(body, block->name, name_bytes))
		return false;
	block->name[name_bytes] = '\0';
	block->used_bytes = le64_get(used_bytes);
	return strlen(block->name) == name_bytes && block->used_bytes % PAGE_BYTES == 0;
}

/* *total: pages of the VM. */
static int parse_blocks(
	struct rouse_wset *wset, struct body *body, uint64_t *total, struct rouse_error *error)
{
	wset->blocks = calloc(wset->block_count, sizeof(*wset->blocks));
	if (wset->blocks == NULL)
		return rouse_error_errno(error, -ENOMEM, "working set");
	*total = 0;
	for (uint32_t i = 0; i < wset->block_count; i++) {
		if (!take_block(body, &wset->blocks[i]))
			return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
				"RAM block %u of the working-set file makes no sense", i);
		*total += wset->blocks[i].used_bytes / PAGE_BYTES;
		if (*total > MAX_VM_PAGES)
			return damaged(error, "the VM of the working-set file is beyond 16 TiB");
	}
	return 0;
}

static int parse_learned(struct rouse_wset *wset, struct body *body, struct rouse_error *error)
{
	struct rouse_disk_wset_learned learned;

	if (!take(body, &learned, sizeof(learned)))
		return damaged(error, "the working-set file is truncated");
	wset->runs = le32_get(learned.runs);
	wset->waiting_count = le32_get(learned.waiting_count);
	wset->look = (struct rouse_wset_look){.prefetched = le32_get(learned.prefetched),
		.sampled = le32_get(learned.sampled),
		.used = le32_get(learned.used),
		.missed = le32_get(learned.missed)};
	if (wset->runs == 0 || wset->runs > ROUSE_WSET_MAX_RUNS ||
		wset->waiting_count > ROUSE_WSET_MAX_PAGES - wset->page_count ||
		wset->look.used > wset->look.sampled || wset->look.sampled > wset->look.prefetched)
		return damaged(error, "what the working-set file has learned makes no sense");
	return 0;
}

/* False: the history of the page contradicts itself. */
static bool take_page(struct body *body, uint32_t runs, struct rouse_wset_page *page)
{
	struct rouse_disk_wset_record disk = {0};

	(void)take(body, &disk, runs > 0 ? sizeof(disk) : sizeof(disk.page));
	*page = (struct rouse_wset_page){.page = le32_get(disk.page.page),
		.time_us = le32_get(disk.page.time_us),
		.vcpu = le16_get(disk.page.vcpu),
		.flags = le16_get(disk.page.flags),
		.last = le32_get(disk.last),
		.count = le16_get(disk.count),
		.looks = le16_get(disk.looks),
		.weight = le16_get(disk.weight)};
	return runs == 0 || (page->count > 0 && page->count <= page->looks && page->looks <= runs &&
				    page->last > 0 && page->last <= runs);
}

/* What the lists of pages are checked against. */
struct checks {
	uint64_t total; /* pages of the VM */
	uint32_t runs;
	struct rouse_bitmap seen;
};

static void checks_finish(struct checks *checks)
{
	rouse_bitmap_finish(&checks->seen);
}

static int parse_list(struct rouse_wset_page *pages, uint32_t count, struct body *body,
	struct checks *checks, struct rouse_error *error)
{
	for (uint32_t i = 0; i < count; i++) {
		bool sensible = take_page(body, checks->runs, &pages[i]);
		uint32_t page = pages[i].page;

		if (page >= checks->total || rouse_bitmap_test_and_set(&checks->seen, page))
			return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
				"page %u of the working-set file is %s", page,
				page >= checks->total ? "outside its VM" : "there twice");
		if (!sensible)
			return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
				"the history of page %u of the working-set file makes no sense",
				page);
	}
	return 0;
}

static int parse_pages(
	struct rouse_wset *wset, struct body *body, uint64_t total, struct rouse_error *error)
{
	cleanup_with(checks_finish) struct checks checks = {.total = total, .runs = wset->runs};
	const uint64_t count = (uint64_t)wset->page_count + wset->waiting_count;
	const size_t size = wset->runs > 0 ? sizeof(struct rouse_disk_wset_record)
					   : sizeof(struct rouse_disk_wset_page);
	int code;

	if (body->left != count * size)
		return damaged(
			error, "the working-set file does not have as many pages as it says");
	if (count == 0)
		return 0;
	wset->pages = calloc((size_t)wset->page_count + 1, sizeof(*wset->pages));
	wset->waiting = calloc((size_t)wset->waiting_count + 1, sizeof(*wset->waiting));
	if (wset->pages == NULL || wset->waiting == NULL ||
		rouse_bitmap_init(&checks.seen, total) < 0)
		return rouse_error_errno(error, -ENOMEM, "working set");
	code = parse_list(wset->pages, wset->page_count, body, &checks, error);
	if (code == 0)
		code = parse_list(wset->waiting, wset->waiting_count, body, &checks, error);
	return code;
}

static void close_wset(struct rouse_wset **wset)
{
	rouse_wset_close(*wset);
}

int rouse_wset_parse(
	const void *bytes, size_t size, struct rouse_wset **wset, struct rouse_error *error)
{
	cleanup_with(close_wset) struct rouse_wset *w = NULL;
	struct body body = {.at = bytes, .left = size};
	struct rouse_disk_wset_header header;
	uint64_t total = 0;
	int code;

	if (!take(&body, &header, sizeof(header)))
		return damaged(error,
			size >= sizeof(header.magic) &&
					memcmp(bytes, ROUSE_WSET_MAGIC, sizeof(header.magic)) == 0
				? "the working-set file is truncated"
				: "not a working-set file");
	code = check_header(&header, &body, error);
	if (code < 0)
		return code;
	w = calloc(1, sizeof(*w));
	if (w == NULL)
		return rouse_error_errno(error, -ENOMEM, "working set");
	w->block_count = le32_get(header.block_count);
	w->page_count = le32_get(header.page_count);
	w->flags = le32_get(header.flags);
	code = le32_get(header.version) >= 2 ? parse_learned(w, &body, error) : 0;
	if (code == 0)
		code = parse_blocks(w, &body, &total, error);
	if (code == 0)
		code = parse_pages(w, &body, total, error);
	if (code < 0)
		return code;
	*wset = take_ptr(&w);
	return 0;
}

void rouse_wset_close(struct rouse_wset *wset)
{
	if (wset == NULL)
		return;
	free(wset->blocks);
	free(wset->pages);
	free(wset->waiting);
	free(wset);
}
