/* SPDX-License-Identifier: MIT */
/*
 * The end of writing an image. Ordinary chunks are in the file from front_limit on. What is done
 * here, in this order:
 *
 *   1. equal pages of the working set are found, so that its chunks are counted
 *   2. sections are placed behind the superblock, one behind the other; those that the space does
 *      not suffice for go to the end of the file
 *   3. the working set's chunks are written behind them, and numbered before all others
 *   4. page and chunk tables are written to the end, with final chunk numbers
 *   5. the sections that know all this, then the superblock
 */
#include "base/bitmap.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/io.h"
#include "image/writer_private.h"

#include <stddef.h>
#include <stdlib.h>
#include <sys/random.h>
#include <xxhash.h>

#define ALIGNMENT 8u
#define APPEND_BYTES (1u << 20)

struct commit {
	struct rouse_writer *writer;
	struct rouse_disk_chunk *wset_chunks, *chunks; /* malloc'ed */
	uint64_t wset_chunk_count, chunk_count;        /* chunk_count: of the ordinary ones */
	uint64_t *wset_locators;                       /* of each page of the working set */
	uint32_t *wset_unique; /* index of the first page with each content, in order */
	uint64_t wset_unique_count;
	struct rouse_disk_section places[ROUSE_SECTION_COUNT];
	struct rouse_disk_table *page_dir, *chunk_dir;
	uint64_t page_dir_count, chunk_dir_count;
	uint64_t front_end; /* behind the last of the wset's chunks */
	uint64_t nonzero, duplicates, stored_bytes;

	/* Appending at the end of the file. */
	unsigned char *pending;
	size_t pending_bytes;
	uint64_t end;
};

static void commit_finish(struct commit *commit)
{
	free(commit->wset_chunks);
	free(commit->chunks);
	free(commit->wset_locators);
	free(commit->wset_unique);
	free(commit->page_dir);
	free(commit->chunk_dir);
	free(commit->pending);
}

static uint64_t align(uint64_t offset)
{
	return rouse_divide_up(offset, ALIGNMENT) * ALIGNMENT;
}

/* ---- Appending ---- */

static int append_flush(struct commit *commit)
{
	int code = rouse_io_pwrite(commit->writer->file.fd, commit->pending, commit->pending_bytes,
		commit->end - commit->pending_bytes);

	commit->pending_bytes = 0;
	return code;
}

static int append(struct commit *commit, const void *bytes, size_t size)
{
	int code = 0;

	if (size > APPEND_BYTES - commit->pending_bytes)
		code = append_flush(commit);
	if (code < 0)
		return code;
	if (size > APPEND_BYTES) {
		code = rouse_io_pwrite(commit->writer->file.fd, bytes, size, commit->end);
	} else {
		memcpy(commit->pending + commit->pending_bytes, bytes, size);
		commit->pending_bytes += size;
	}
	commit->end += size;
	return code;
}

static int append_aligned(struct commit *commit, const void *bytes, size_t size, uint64_t *offset)
{
	static const unsigned char zeros[ALIGNMENT];
	int code = append(commit, zeros, align(commit->end) - commit->end);

	*offset = commit->end;
	return code == 0 ? append(commit, bytes, size) : code;
}

/* ---- 1. and 3. The working set ---- */

static void free_dedup(struct rouse_dedup **dedup)
{
	rouse_dedup_free(*dedup);
}

/* Finds out which pages of the working set have to be stored. */
static int dedup_wset(struct commit *commit)
{
	struct rouse_writer *writer = commit->writer;
	uint32_t slots = writer->layout.chunk_pages;
	cleanup_with(free_dedup) struct rouse_dedup *dedup = NULL;
	int code;

	commit->wset_locators = calloc((size_t)writer->wset_count + 1, sizeof(uint64_t));
	commit->wset_unique = calloc((size_t)writer->wset_count + 1, sizeof(uint32_t));
	if (commit->wset_locators == NULL || commit->wset_unique == NULL)
		return -ENOMEM;
	code = rouse_dedup_new(ROUSE_WRITER_DEDUP_PAGES, &dedup);
	if (code < 0)
		return code;
	for (uint32_t i = 0; i < writer->wset_count; i++) {
		uint64_t *known, next = commit->wset_unique_count;
		const void *data;

		if (!writer->wset_present[i])
			continue;
		code = rouse_page_spool_get(writer->wset_data, i, &data);
		if (code < 0)
			return code;
		known = rouse_dedup_find(dedup, data);
		if (known != NULL && *known != 0) {
			commit->wset_locators[i] = *known;
			continue;
		}
		commit->wset_locators[i] =
			rouse_locator_make(next / slots, (uint32_t)(next % slots));
		commit->wset_unique[commit->wset_unique_count++] = i;
		if (known != NULL)
			*known = commit->wset_locators[i];
	}
	commit->wset_chunk_count = rouse_divide_up(commit->wset_unique_count, slots);
	return 0;
}

static int write_wset_chunks(struct commit *commit, uint64_t offset)
{
	struct rouse_writer *writer = commit->writer;
	uint64_t count;
	int code = 0;

	commit->front_end = offset;
	if (commit->wset_unique_count == 0)
		return 0;
	rouse_packer_begin(writer->packer, offset);
	for (uint64_t i = 0; code == 0 && i < commit->wset_unique_count; i++) {
		uint32_t index = commit->wset_unique[i];
		uint64_t locator = 0;
		const void *data;

		code = rouse_page_spool_get(writer->wset_data, index, &data);
		if (code == 0)
			code = rouse_packer_add(writer->packer, data, &locator);
		/* Both count the same way; if they did not, memory would be wrong. */
		if (code == 0 && locator != commit->wset_locators[index])
			code = -EIO;
	}
	if (code == 0)
		code = rouse_packer_flush(
			writer->packer, &commit->wset_chunks, &count, &commit->front_end);
	if (code == 0 &&
		(count != commit->wset_chunk_count || commit->front_end > writer->front_limit))
		code = -EIO;
	return code;
}

/* ---- 2. Sections ---- */

static int make_section(struct rouse_writer *writer, enum rouse_section_type type, uint64_t size)
{
	if (size > ROUSE_IMAGE_MAX_SECTION)
		return -EFBIG;
	writer->sections[type].bytes = calloc(1, size + 1);
	writer->sections[type].size = size;
	return writer->sections[type].bytes == NULL ? -ENOMEM : 0;
}

/* The directories and the index of the working set: their sizes now, their content later. */
static int size_sections(struct commit *commit)
{
	struct rouse_writer *writer = commit->writer;
	uint64_t wset_bytes =
		writer->wset_count == 0
			? 0
			: sizeof(struct rouse_disk_wset) +
				  commit->wset_chunk_count * sizeof(struct rouse_disk_chunk) +
				  writer->wset_count * sizeof(struct rouse_disk_wset_entry);
	int code;

	commit->page_dir_count = writer->map_tables;
	commit->chunk_dir_count = rouse_divide_up(
		commit->wset_chunk_count + commit->chunk_count, ROUSE_CHUNK_TABLE_CHUNKS);
	code = make_section(writer, ROUSE_SECTION_WSET, wset_bytes);
	if (code == 0)
		code = make_section(writer, ROUSE_SECTION_PAGE_DIR,
			commit->page_dir_count * sizeof(struct rouse_disk_table));
	if (code == 0)
		code = make_section(writer, ROUSE_SECTION_CHUNK_DIR,
			commit->chunk_dir_count * sizeof(struct rouse_disk_table));
	return code;
}

/*
 * Returns where the working set's chunks begin: right behind the last section, without padding, so
 * that reading on is no random read. Sections that do not fit keep offset 0.
 */
static uint64_t place_sections(struct commit *commit)
{
	/* The small and the important ones first; DEVICES may be large. */
	static const enum rouse_section_type order[] = {ROUSE_SECTION_BLOCKS, ROUSE_SECTION_CONFIG,
		ROUSE_SECTION_PAGE_DIR, ROUSE_SECTION_CHUNK_DIR, ROUSE_SECTION_METADATA,
		ROUSE_SECTION_WSET, ROUSE_SECTION_DEVICES};
	uint64_t at = sizeof(struct rouse_disk_superblock), end = at;
	uint64_t limit =
		commit->writer->front_limit - rouse_writer_pages_bound(commit->wset_unique_count);

	for (unsigned int i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
		uint64_t size = commit->writer->sections[order[i]].size;

		if (size == 0 || align(at + size) > limit)
			continue;
		commit->places[order[i]].offset = le64_make(at);
		end = at + size;
		at = align(end);
	}
	return end;
}

static int write_sections(struct commit *commit)
{
	int code = 0;

	for (unsigned int i = 0; code == 0 && i < ROUSE_SECTION_COUNT; i++) {
		const struct rouse_writer_section *section = &commit->writer->sections[i];
		struct rouse_disk_section *place = &commit->places[i];
		uint64_t offset = le64_get(place->offset);

		place->length = le64_make(section->size);
		place->checksum = le64_make(XXH3_64bits(section->bytes, section->size));
		if (section->size > 0 && offset == 0)
			code = append_aligned(commit, section->bytes, section->size, &offset);
		else
			code = rouse_io_pwrite(
				commit->writer->file.fd, section->bytes, section->size, offset);
		place->offset = le64_make(offset);
	}
	return code;
}

static void fill_wset_section(struct commit *commit)
{
	struct rouse_writer *writer = commit->writer;
	unsigned char *at = writer->sections[ROUSE_SECTION_WSET].bytes;
	struct rouse_disk_wset head = {
		.page_count = le32_make(writer->wset_count),
		.chunk_count = le32_make((uint32_t)commit->wset_chunk_count),
	};

	if (writer->wset_count == 0)
		return;
	memcpy(at, &head, sizeof(head));
	at += sizeof(head);
	if (commit->wset_chunk_count > 0)
		memcpy(at, commit->wset_chunks,
			commit->wset_chunk_count * sizeof(struct rouse_disk_chunk));
	at += commit->wset_chunk_count * sizeof(struct rouse_disk_chunk);
	for (uint32_t i = 0; i < writer->wset_count; i++) {
		struct rouse_disk_wset_entry entry = {
			.page = le32_make((uint32_t)writer->touches[i].page),
			.time_us = le32_make(writer->touches[i].time_us),
			.locator = le64_make(commit->wset_locators[i]),
		};

		memcpy(at + i * sizeof(entry), &entry, sizeof(entry));
	}
}

/* ---- 4. Tables ---- */

/* The final locator of a page map's entry. */
static uint64_t final_locator(const struct commit *commit, uint64_t entry)
{
	if (entry & ROUSE_WRITER_WSET_BIT)
		return commit->wset_locators[entry & ~ROUSE_WRITER_WSET_BIT];
	if (entry == ROUSE_LOCATOR_ZERO)
		return entry;
	return rouse_locator_make(
		rouse_locator_chunk(entry) + commit->wset_chunk_count, rouse_locator_slot(entry));
}

/* Turns a table of the page map into one of the file, in its place. How many are not zero. */
static uint32_t finish_page_table(
	struct commit *commit, uint64_t *map, uint32_t entries, struct rouse_bitmap *seen)
{
	uint32_t nonzero = 0;

	for (uint32_t i = 0; i < entries; i++) {
		uint64_t locator = final_locator(commit, map[i]);

		map[i] = htole64(locator);
		if (locator == ROUSE_LOCATOR_ZERO)
			continue;
		nonzero++;
		if (rouse_bitmap_test_and_set(seen,
			    rouse_locator_chunk(locator) * commit->writer->layout.chunk_pages +
				    rouse_locator_slot(locator)))
			commit->duplicates++;
	}
	return nonzero;
}

static int write_table(struct commit *commit, const void *table, uint32_t entries,
	uint32_t entry_bytes, struct rouse_disk_table *entry)
{
	uint64_t offset, size = (uint64_t)entries * entry_bytes;
	int code = append_aligned(commit, table, size, &offset);

	entry->offset = le64_make(offset);
	entry->checksum = le64_make(XXH3_64bits(table, size));
	return code;
}

static int write_page_tables(struct commit *commit)
{
	struct rouse_writer *writer = commit->writer;
	struct rouse_disk_table *directory = writer->sections[ROUSE_SECTION_PAGE_DIR].bytes;
	cleanup_with(rouse_bitmap_finish) struct rouse_bitmap seen = {0};
	int code = rouse_bitmap_init(&seen,
		(commit->wset_chunk_count + commit->chunk_count) * writer->layout.chunk_pages);

	for (uint64_t i = 0; code == 0 && i < writer->map_tables; i++) {
		uint64_t left = writer->page_count - i * ROUSE_PAGE_TABLE_PAGES;
		uint32_t entries =
			left < ROUSE_PAGE_TABLE_PAGES ? (uint32_t)left : ROUSE_PAGE_TABLE_PAGES;
		uint32_t nonzero = 0;

		directory[i].entries = le32_make(entries);
		if (writer->map[i] != NULL)
			nonzero = finish_page_table(commit, writer->map[i], entries, &seen);
		commit->nonzero += nonzero;
		if (nonzero > 0)
			code = write_table(
				commit, writer->map[i], entries, sizeof(le64_t), &directory[i]);
	}
	return code;
}

static int write_chunk_tables(struct commit *commit)
{
	struct rouse_writer *writer = commit->writer;
	struct rouse_disk_table *directory = writer->sections[ROUSE_SECTION_CHUNK_DIR].bytes;
	uint64_t total = commit->wset_chunk_count + commit->chunk_count;
	cleanup_free struct rouse_disk_chunk *table =
		calloc(ROUSE_CHUNK_TABLE_CHUNKS, sizeof(*table));
	int code = table == NULL ? -ENOMEM : 0;

	for (uint64_t i = 0; code == 0 && i < total; i += ROUSE_CHUNK_TABLE_CHUNKS) {
		uint32_t entries = 0;

		for (; entries < ROUSE_CHUNK_TABLE_CHUNKS && i + entries < total; entries++) {
			uint64_t number = i + entries;

			table[entries] =
				number < commit->wset_chunk_count
					? commit->wset_chunks[number]
					: commit->chunks[number - commit->wset_chunk_count];
			commit->stored_bytes += le32_get(table[entries].stored_bytes);
		}
		directory[i / ROUSE_CHUNK_TABLE_CHUNKS].entries = le32_make(entries);
		code = write_table(commit, table, entries, sizeof(*table),
			&directory[i / ROUSE_CHUNK_TABLE_CHUNKS]);
	}
	return code;
}

/* ---- 5. The superblock ---- */

static int write_superblock(struct commit *commit)
{
	struct rouse_writer *writer = commit->writer;
	struct rouse_disk_superblock superblock = {
		.magic = ROUSE_IMAGE_MAGIC,
		.version = le32_make(ROUSE_IMAGE_VERSION),
		.header_bytes = le32_make(sizeof(superblock)),
		.file_bytes = le64_make(commit->end),
		.front_bytes = le64_make(commit->front_end),
		.page_count = le64_make(writer->page_count),
		.chunk_count = le64_make(commit->wset_chunk_count + commit->chunk_count),
		.zero_pages = le64_make(writer->page_count - commit->nonzero),
		.duplicate_pages = le64_make(commit->duplicates),
		.stored_bytes = le64_make(commit->stored_bytes),
		.page_bytes = le32_make(ROUSE_IMAGE_PAGE_BYTES),
		.chunk_pages = le32_make(writer->layout.chunk_pages),
		.block_count = le32_make(writer->block_count),
		.section_count = le32_make(ROUSE_SECTION_COUNT),
	};

	if (getrandom(superblock.id, sizeof(superblock.id), 0) != (ssize_t)sizeof(superblock.id))
		return -EIO;
	memcpy(superblock.sections, commit->places, sizeof(commit->places));
	if (writer->near_chunks > 0)
		superblock.near_chunks = le64_make(commit->wset_chunk_count + writer->near_chunks);
	superblock.checksum = le64_make(
		XXH3_64bits(&superblock, offsetof(struct rouse_disk_superblock, checksum)));
	return rouse_io_pwrite(writer->file.fd, &superblock, sizeof(superblock), 0);
}

static int write_rest(struct commit *commit)
{
	struct rouse_writer *writer = commit->writer;
	int code = rouse_packer_flush(
		writer->packer, &commit->chunks, &commit->chunk_count, &commit->end);

	/* Nothing was stored: the file still ends behind its front. */
	commit->pending = malloc(APPEND_BYTES);
	if (commit->pending == NULL)
		code = -ENOMEM;
	if (code == 0)
		code = dedup_wset(commit);
	if (code == 0)
		code = size_sections(commit);
	if (code == 0)
		code = write_wset_chunks(commit, place_sections(commit));
	if (code == 0)
		code = write_page_tables(commit);
	if (code == 0)
		code = write_chunk_tables(commit);
	if (code == 0) {
		fill_wset_section(commit);
		code = write_sections(commit);
	}
	if (code == 0)
		code = append_flush(commit);
	if (code == 0)
		code = write_superblock(commit);
	/* If nothing lies behind the front, the file has to be made as long as it says. */
	if (code == 0 && ftruncate(writer->file.fd, (off_t)commit->end) < 0)
		code = -errno;
	return code;
}

static void fill_stats(const struct commit *commit, struct rouse_writer_stats *stats)
{
	*stats = (struct rouse_writer_stats){
		.pages = commit->writer->page_count,
		.zero_pages = commit->writer->page_count - commit->nonzero,
		.duplicate_pages = commit->duplicates,
		.wset_pages = commit->writer->wset_count,
		.stored_bytes = commit->stored_bytes,
		.image_bytes = commit->end,
	};
}

int rouse_writer_commit(
	struct rouse_writer *writer, struct rouse_writer_stats *stats, struct rouse_error *error)
{
	cleanup_with(commit_finish) struct commit commit = {.writer = writer};
	int code = writer->error;

	if (code == 0 && writer->packer == NULL)
		code = -EINVAL;
	if (code == 0)
		code = write_rest(&commit);
	if (code < 0)
		rouse_error_errno(error, code, "cannot write %s", writer->file.name);
	else
		code = rouse_temp_file_commit(&writer->file, error);
	if (code == 0 && stats != NULL)
		fill_stats(&commit, stats);
	rouse_writer_destroy(writer);
	return code;
}
