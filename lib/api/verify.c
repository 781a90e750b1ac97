/* SPDX-License-Identifier: MIT */
/*
 * rouse_image_verify(): reads all of an image and names everything that is broken, as far as what
 * is whole leads on. The sections have been verified by opening; they are read again here, because
 * the file may have changed since.
 */
#include "api/image.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/observer.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define READ_AHEAD (1u << 20)

struct verify {
	struct rouse_image *image;
	const struct rouse_disk_superblock *superblock;
	rouse_damage_fn *damage;
	void *damage_user;
	const struct rouse_observer *observer;
	uint64_t damages, done, total;

	uint16_t *chunk_pages; /* of each chunk; 0: its table is broken */
	unsigned char *plain, *window;
	uint64_t window_offset, window_bytes;
};

static void verify_finish(struct verify *verify)
{
	free(verify->chunk_pages);
	free(verify->plain);
	free(verify->window);
}

static void __attribute__((format(printf, 4, 5)))
report(struct verify *verify, uint64_t offset, uint64_t length, const char *format, ...)
{
	char what[256];
	va_list args;

	verify->damages++;
	if (verify->damage == NULL)
		return;
	va_start(args, format);
	(void)vsnprintf(what, sizeof(what), format, args);
	va_end(args);
	verify->damage(verify->damage_user, what, offset, length);
}

static void progress(struct verify *verify, uint64_t bytes)
{
	verify->done += bytes;
	rouse_progress(verify->observer, "verifying", verify->done, verify->total);
}

/* ---- Sections ---- */

static int verify_superblock(struct verify *verify)
{
	struct rouse_disk_superblock now;
	int code = rouse_source_read(verify->image->source, 0, &now, sizeof(now), ROUSE_READ_BULK);

	if (code < 0)
		report(verify, 0, sizeof(now), "the superblock cannot be read");
	else if (memcmp(&now, verify->superblock, sizeof(now)) != 0)
		report(verify, 0, sizeof(now), "the superblock is not what it was on opening");
	return code;
}

static int verify_section(struct verify *verify, unsigned int type)
{
	static const char *const names[] = {
		"METADATA", "BLOCKS", "CONFIG", "DEVICES", "WSET", "PAGE_DIR", "CHUNK_DIR"};
	const char *name = type < ROUSE_SECTION_COUNT ? names[type] : "of a later format";
	const struct rouse_disk_section *section = &verify->superblock->sections[type];
	uint64_t offset = le64_get(section->offset), length = le64_get(section->length);
	cleanup_free void *bytes = malloc(length + 1);

	if (bytes == NULL)
		return -ENOMEM;
	if (length > 0 && rouse_source_read(verify->image->source, offset, bytes, length,
				  ROUSE_READ_BULK) < 0)
		report(verify, offset, length, "section %s cannot be read", name);
	else if (rouse_section_check(section, bytes, length, name, NULL) < 0)
		report(verify, offset, length, "section %s: wrong checksum", name);
	progress(verify, length);
	return 0;
}

/* ---- Chunks ---- */

/* A read of much at once, unless there is something in it that cannot be read. */
static int read_stored(
	struct verify *verify, const struct rouse_chunk *chunk, const unsigned char **stored)
{
	uint64_t left = le64_get(verify->superblock->file_bytes) - chunk->offset;
	uint64_t bytes = chunk->stored_bytes > READ_AHEAD ? chunk->stored_bytes : READ_AHEAD;
	int code = 0;

	if (chunk->offset < verify->window_offset ||
		chunk->offset + chunk->stored_bytes >
			verify->window_offset + verify->window_bytes) {
		if (bytes > left)
			bytes = left;
		code = rouse_source_read(verify->image->source, chunk->offset, verify->window,
			bytes, ROUSE_READ_BULK);
		if (code < 0) {
			bytes = chunk->stored_bytes;
			code = rouse_source_read(verify->image->source, chunk->offset,
				verify->window, bytes, ROUSE_READ_BULK);
		}
		verify->window_offset = chunk->offset;
		verify->window_bytes = code < 0 ? 0 : bytes;
	}
	*stored = verify->window + (chunk->offset - verify->window_offset);
	return code;
}

static void verify_chunk(struct verify *verify, uint64_t number, const struct rouse_chunk *chunk)
{
	const unsigned char *stored;

	if (read_stored(verify, chunk, &stored) < 0)
		report(verify, chunk->offset, chunk->stored_bytes,
			"chunk %" PRIu64 " cannot be read", number);
	else if (rouse_chunk_decode(chunk, stored, verify->plain) < 0)
		report(verify, chunk->offset, chunk->stored_bytes,
			"chunk %" PRIu64 ": wrong checksum or content", number);
	progress(verify, chunk->stored_bytes);
}

/* Chunks that the WSET section describes must be the same in the chunk tables. */
static void compare_wset_chunk(
	struct verify *verify, uint64_t number, const struct rouse_chunk *chunk)
{
	const struct rouse_image_wset *wset = rouse_reader_wset(verify->image->reader);
	const struct rouse_chunk *other;

	if (number >= wset->chunk_count)
		return;
	other = &wset->chunks[number];
	if (other->offset != chunk->offset || other->checksum != chunk->checksum ||
		other->stored_bytes != chunk->stored_bytes || other->pages != chunk->pages ||
		other->codec != chunk->codec)
		report(verify, other->offset, other->stored_bytes,
			"chunk %" PRIu64 " of the working set is another one in the chunk table",
			number);
}

static int verify_chunks(struct verify *verify)
{
	struct rouse_reader *reader = verify->image->reader;
	uint64_t count = rouse_reader_chunk_count(reader);

	for (uint64_t i = 0; i < count;) {
		uint64_t end = i + ROUSE_CHUNK_TABLE_CHUNKS, offset, length;
		struct rouse_chunk chunk;

		if (rouse_reader_chunk(reader, i, ROUSE_READ_BULK, &chunk) < 0) {
			rouse_reader_chunk_table_place(
				reader, i / ROUSE_CHUNK_TABLE_CHUNKS, &offset, &length);
			report(verify, offset, length,
				"chunk table %" PRIu64 ": wrong checksum or content",
				i / ROUSE_CHUNK_TABLE_CHUNKS);
			i = end;
			continue;
		}
		for (; i < end && i < count; i++) {
			if (rouse_cancelled(verify->observer))
				return -ECANCELED;
			(void)rouse_reader_chunk(reader, i, ROUSE_READ_BULK, &chunk);
			verify->chunk_pages[i] = chunk.pages;
			compare_wset_chunk(verify, i, &chunk);
			verify_chunk(verify, i, &chunk);
		}
	}
	return 0;
}

/* ---- Pages ---- */

static uint64_t verify_page_table(
	struct verify *verify, uint64_t index, const le64_t *table, uint32_t entries)
{
	uint64_t zero = 0, offset, length;

	rouse_reader_page_table_place(verify->image->reader, index, &offset, &length);
	for (uint32_t k = 0; k < entries; k++) {
		uint64_t locator = le64_get(table[k]);

		if (locator == ROUSE_LOCATOR_ZERO) {
			zero++;
			continue;
		}
		/* What lies in a broken chunk table has been reported with it. */
		if (verify->chunk_pages[rouse_locator_chunk(locator)] != 0 &&
			rouse_locator_slot(locator) >=
				verify->chunk_pages[rouse_locator_chunk(locator)])
			report(verify, offset + k * sizeof(*table), sizeof(*table),
				"page %" PRIu64 " leads to no stored page",
				index * ROUSE_PAGE_TABLE_PAGES + k);
	}
	return zero;
}

static int verify_pages(struct verify *verify)
{
	struct rouse_reader *reader = verify->image->reader;
	uint64_t zero = 0;
	bool whole = true;

	for (uint64_t i = 0; i < rouse_reader_page_tables(reader); i++) {
		const le64_t *table;
		uint32_t entries;
		uint64_t offset, length;

		if (rouse_cancelled(verify->observer))
			return -ECANCELED;
		rouse_reader_page_table_place(reader, i, &offset, &length);
		if (rouse_reader_page_table(reader, i, ROUSE_READ_BULK, &table, &entries) < 0) {
			report(verify, offset, length,
				"page table %" PRIu64 ": wrong checksum or content", i);
			whole = false;
		} else if (table == NULL) {
			zero += entries;
		} else {
			zero += verify_page_table(verify, i, table, entries);
		}
		progress(verify, length);
	}
	if (whole && zero != le64_get(verify->superblock->zero_pages))
		report(verify, 0, sizeof(*verify->superblock),
			"the image has %" PRIu64 " zero pages, its superblock says %" PRIu64, zero,
			le64_get(verify->superblock->zero_pages));
	return 0;
}

/* The WSET section leads the restore: it must say the same as the page tables. */
static void verify_wset(struct verify *verify)
{
	const struct rouse_image_wset *wset = rouse_reader_wset(verify->image->reader);
	const struct rouse_disk_section *section =
		&verify->superblock->sections[ROUSE_SECTION_WSET];

	for (uint32_t i = 0; i < wset->page_count; i++) {
		uint64_t locator;

		if (rouse_reader_locate(verify->image->reader, wset->pages[i].page, ROUSE_READ_BULK,
			    &locator) == 0 &&
			locator != wset->pages[i].locator)
			report(verify, le64_get(section->offset), le64_get(section->length),
				"page %" PRIu64
				" of the working set lies elsewhere in the page table",
				wset->pages[i].page);
	}
}

static int verify_begin(struct verify *verify)
{
	size_t chunk_bytes =
		(size_t)le32_get(verify->superblock->chunk_pages) * ROUSE_IMAGE_PAGE_BYTES;
	uint64_t chunks = rouse_reader_chunk_count(verify->image->reader), offset, length;

	verify->chunk_pages = calloc(chunks + 1, sizeof(*verify->chunk_pages));
	verify->plain = malloc(chunk_bytes);
	verify->window = malloc(chunk_bytes > READ_AHEAD ? chunk_bytes : READ_AHEAD);
	verify->total = le64_get(verify->superblock->stored_bytes);
	for (unsigned int i = 0; i < le32_get(verify->superblock->section_count); i++)
		verify->total += le64_get(verify->superblock->sections[i].length);
	for (uint64_t i = 0; i < rouse_reader_page_tables(verify->image->reader); i++) {
		rouse_reader_page_table_place(verify->image->reader, i, &offset, &length);
		verify->total += length;
	}
	return verify->chunk_pages == NULL || verify->plain == NULL || verify->window == NULL
		       ? -ENOMEM
		       : 0;
}

static int verify_all(struct verify *verify)
{
	int code = verify_begin(verify);

	if (code == 0)
		(void)verify_superblock(verify);
	for (unsigned int i = 0; code == 0 && i < le32_get(verify->superblock->section_count); i++)
		code = verify_section(verify, i);
	if (code == 0)
		code = verify_chunks(verify);
	if (code == 0)
		code = verify_pages(verify);
	if (code == 0)
		verify_wset(verify);
	return code;
}

int rouse_image_verify(struct rouse_image *image, rouse_damage_fn *damage, void *damage_user,
	const struct rouse_observer *observer, struct rouse_error *error)
{
	cleanup_with(verify_finish) struct verify verify = {
		.image = image,
		.superblock = rouse_reader_superblock(image->reader),
		.damage = damage,
		.damage_user = damage_user,
		.observer = observer,
	};
	int code = verify_all(&verify);

	if (code < 0)
		return rouse_error_errno(error, code, "cannot verify the image");
	if (verify.damages > 0)
		return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
			"the image is damaged in %" PRIu64 " places", verify.damages);
	return 0;
}
