/* SPDX-License-Identifier: MIT */
/*
 * The image reader over hostile bytes. Checksums are put right first, level by level, so that the
 * fuzzer gets past them: superblock, sections, tables, and the chunks of the first entries.
 *
 * The bytes are an image as it is. Whatever the reader accepts must be consistent: every locator
 * leads to a chunk that exists, and decoding a chunk stays within its pages.
 */
#include "image/image_reader.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define MAX_INPUT (1u << 20)
#define MAX_LOOKED_AT 64u /* pages and chunks of one input */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- A source over memory ---- */

struct memory_source {
	struct rouse_source base;
	unsigned char *bytes;
	size_t size;
};

static int memory_read(struct rouse_source *source, uint64_t offset, void *buffer, size_t size,
	enum rouse_read_priority priority)
{
	const struct memory_source *memory = (struct memory_source *)source;

	(void)priority;
	if (offset > memory->size || size > memory->size - offset)
		return -ENODATA;
	memcpy(buffer, memory->bytes + offset, size);
	return 0;
}

static uint64_t memory_size(const struct rouse_source *source)
{
	return ((const struct memory_source *)source)->size;
}

static const struct rouse_source_ops memory_ops = {.read = memory_read, .size = memory_size};

/* ---- Checksums ---- */

static bool inside(const struct memory_source *memory, uint64_t offset, uint64_t length)
{
	return offset <= memory->size && length <= memory->size - offset;
}

static void fix_chunk(struct memory_source *memory, unsigned char *at)
{
	struct rouse_disk_chunk chunk;

	memcpy(&chunk, at, sizeof(chunk));
	if (inside(memory, le64_get(chunk.offset), le32_get(chunk.stored_bytes)))
		chunk.checksum = le64_make(XXH3_64bits(
			memory->bytes + le64_get(chunk.offset), le32_get(chunk.stored_bytes)));
	memcpy(at, &chunk, sizeof(chunk));
}

/* The tables of a directory; of chunk tables the first chunks as well. */
static void fix_tables(struct memory_source *memory, uint64_t offset, uint64_t length,
	size_t entry_bytes, bool chunks)
{
	for (uint64_t i = 0; i < length / sizeof(struct rouse_disk_table) && i < 8; i++) {
		unsigned char *at = memory->bytes + offset + i * sizeof(struct rouse_disk_table);
		struct rouse_disk_table entry;
		uint64_t table, bytes;

		memcpy(&entry, at, sizeof(entry));
		table = le64_get(entry.offset);
		bytes = (uint64_t)le32_get(entry.entries) * entry_bytes;
		if (!inside(memory, table, bytes))
			continue;
		for (uint64_t k = 0; chunks && k < le32_get(entry.entries) && k < MAX_LOOKED_AT;
			k++)
			fix_chunk(memory, memory->bytes + table + k * entry_bytes);
		entry.checksum = le64_make(XXH3_64bits(memory->bytes + table, bytes));
		memcpy(at, &entry, sizeof(entry));
	}
}

static void fix_wset(struct memory_source *memory, uint64_t offset, uint64_t length)
{
	struct rouse_disk_wset head;

	if (length < sizeof(head))
		return;
	memcpy(&head, memory->bytes + offset, sizeof(head));
	for (uint64_t i = 0; i < le32_get(head.chunk_count) && i < MAX_LOOKED_AT &&
			     sizeof(head) + (i + 1) * sizeof(struct rouse_disk_chunk) <= length;
		i++)
		fix_chunk(memory, memory->bytes + offset + sizeof(head) +
					  i * sizeof(struct rouse_disk_chunk));
}

static void fix_checksums(struct memory_source *memory)
{
	struct rouse_disk_superblock superblock;

	if (memory->size < sizeof(superblock))
		return;
	memcpy(&superblock, memory->bytes, sizeof(superblock));
	for (unsigned int i = 0; i < ROUSE_IMAGE_SECTION_SLOTS; i++) {
		struct rouse_disk_section *section = &superblock.sections[i];
		uint64_t offset = le64_get(section->offset), length = le64_get(section->length);

		if (!inside(memory, offset, length))
			continue;
		if (i == ROUSE_SECTION_PAGE_DIR)
			fix_tables(memory, offset, length, sizeof(le64_t), false);
		if (i == ROUSE_SECTION_CHUNK_DIR)
			fix_tables(memory, offset, length, sizeof(struct rouse_disk_chunk), true);
		if (i == ROUSE_SECTION_WSET)
			fix_wset(memory, offset, length);
		section->checksum = le64_make(XXH3_64bits(memory->bytes + offset, length));
	}
	superblock.checksum = le64_make(
		XXH3_64bits(&superblock, offsetof(struct rouse_disk_superblock, checksum)));
	memcpy(memory->bytes, &superblock, sizeof(superblock));
}

/* ---- Reading ---- */

static void check(bool condition)
{
	if (!condition)
		abort();
}

/* Of codecs that can stop there is no room behind what was asked for. */
static void decode_front(const struct rouse_chunk *chunk, const unsigned char *stored)
{
	const uint32_t front = (chunk->pages + 1u) / 2;
	const size_t room = chunk->codec == ROUSE_CODEC_ZSTD ? chunk->pages : front;
	unsigned char *pages = malloc(room * ROUSE_IMAGE_PAGE_BYTES);
	uint32_t decoded;

	if (pages != NULL)
		(void)rouse_chunk_decode_front(chunk, stored, front, pages, &decoded, NULL);
	free(pages);
}

static void decode(struct memory_source *memory, const struct rouse_chunk *chunk)
{
	/* Exact sizes, so that the address sanitizer sees a byte too much. */
	unsigned char *stored = malloc(chunk->stored_bytes);
	unsigned char *pages = malloc((size_t)chunk->pages * ROUSE_IMAGE_PAGE_BYTES);

	check(inside(memory, chunk->offset, chunk->stored_bytes));
	if (stored != NULL && pages != NULL) {
		memcpy(stored, memory->bytes + chunk->offset, chunk->stored_bytes);
		(void)rouse_chunk_decode(chunk, stored, pages);
		decode_front(chunk, stored);
	}
	free(stored);
	free(pages);
}

static void read_image(struct memory_source *memory, struct rouse_reader *reader)
{
	const struct rouse_image_wset *wset = rouse_reader_wset(reader);
	uint64_t pages = rouse_reader_page_count(reader);
	struct rouse_chunk chunk;
	uint64_t locator;
	uint32_t blocks;

	check(rouse_reader_blocks(reader, &blocks) != NULL && blocks > 0);
	for (uint32_t i = 0; i < wset->page_count; i++) {
		locator = wset->pages[i].locator;
		check(wset->pages[i].page < pages);
		check(locator == ROUSE_LOCATOR_ZERO ||
			(rouse_locator_chunk(locator) < wset->chunk_count &&
				rouse_locator_in_chunk(
					locator, &wset->chunks[rouse_locator_chunk(locator)])));
	}
	for (uint32_t i = 0; i < wset->chunk_count && i < MAX_LOOKED_AT; i++)
		decode(memory, &wset->chunks[i]);
	for (uint64_t i = 0; i < MAX_LOOKED_AT; i++) {
		uint64_t page = i < MAX_LOOKED_AT / 2 ? i : pages - (i - MAX_LOOKED_AT / 2) - 1;

		if (rouse_reader_locate(reader, page, ROUSE_READ_URGENT, &locator) < 0 ||
			locator == ROUSE_LOCATOR_ZERO)
			continue;
		check(page < pages);
		check(rouse_locator_chunk(locator) < rouse_reader_chunk_count(reader));
	}
	for (uint64_t i = 0; i < MAX_LOOKED_AT; i++) {
		if (rouse_reader_chunk(reader, i, ROUSE_READ_BULK, &chunk) == 0)
			decode(memory, &chunk);
	}
	(void)rouse_reader_load_tables(reader, ROUSE_READ_BULK, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct memory_source memory = {.base.ops = &memory_ops, .size = size};
	struct rouse_reader *reader = NULL;
	struct rouse_error error;

	if (size > MAX_INPUT)
		return 0;
	memory.bytes = malloc(size + 1);
	if (memory.bytes == NULL)
		return 0;
	memcpy(memory.bytes, data, size);
	fix_checksums(&memory);
	if (rouse_reader_open(&memory.base, &reader, &error) == 0)
		read_image(&memory, reader);
	rouse_reader_close(reader);
	free(memory.bytes);
	return 0;
}
