/* SPDX-License-Identifier: MIT */
#include "image/image_writer.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "image/chunk_encode.h"
#include "image/writer_private.h"

#include <inttypes.h>
#include <stdlib.h>

#define DEFAULT_CHUNK_PAGES 16u
#define DEFAULT_MAX_THREADS 4
/*
 * Room at the front for METADATA, BLOCKS, CONFIG and DEVICES, whose sizes are not known when the
 * first page comes. DEVICES of an ordinary machine has 50 to 150 KiB. What does not fit goes
 * behind.
 */
#define FRONT_RESERVE_MIN (4u << 10)
#define FRONT_RESERVE_MAX (256u << 10)
#define FRONT_RESERVE_SHARE 64u /* of the VM: a tiny one makes a tiny file */

bool rouse_page_is_zero(const void *data)
{
	const char *bytes = data;
	uint64_t first;

	memcpy(&first, bytes, sizeof(first));
	/* If the first word is zero, and each word is equal to the one before... */
	return first == 0 &&
	       memcmp(bytes, bytes + sizeof(first), ROUSE_IMAGE_PAGE_BYTES - sizeof(first)) == 0;
}

/* ---- Creating and freeing ---- */

static int fill_layout(const struct rouse_layout *from, struct rouse_layout *layout)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);

	/* Zero bytes are not a layout of defaults: codec 0 means none. */
	if (from != NULL)
		*layout = *from;
	else
		*layout = (struct rouse_layout){.codec = ROUSE_CODEC_LZ4};
	if (layout->chunk_pages == 0)
		layout->chunk_pages = DEFAULT_CHUNK_PAGES;
	if (layout->threads == 0 && processors > 0)
		layout->threads =
			(unsigned int)(processors < DEFAULT_MAX_THREADS ? processors
									: DEFAULT_MAX_THREADS);
	if (layout->threads == 0)
		layout->threads = 1;
	return layout->chunk_pages > ROUSE_IMAGE_MAX_CHUNK_PAGES ||
			       !rouse_codec_has_level(layout->codec, layout->level)
		       ? -EINVAL
		       : 0;
}

int rouse_writer_create(const char *path, const struct rouse_layout *layout,
	struct rouse_writer **writer, struct rouse_error *error)
{
	struct rouse_writer *new = calloc(1, sizeof(*new));
	int code;

	if (new == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot create %s", path);
	new->file = (struct rouse_temp_file){.fd = -1, .directory_fd = -1};
	code = fill_layout(layout, &new->layout);
	if (code < 0) {
		rouse_error_set(error, ROUSE_ERROR_USAGE, code,
			"there is no such codec, compression level or size of chunks");
	} else {
		code = rouse_temp_file_open(path, &new->file, error);
	}
	if (code < 0) {
		rouse_writer_destroy(new);
		return code;
	}
	*writer = new;
	return 0;
}

void rouse_writer_replaces(struct rouse_writer *writer, const struct stat *replaced)
{
	rouse_temp_file_replaces(&writer->file, replaced);
}

void rouse_writer_destroy(struct rouse_writer *writer)
{
	if (writer == NULL)
		return;
	rouse_packer_free(writer->packer);
	rouse_dedup_free(writer->dedup);
	for (uint64_t i = 0; writer->map != NULL && i < writer->map_tables; i++)
		free(writer->map[i]);
	free(writer->map);
	rouse_page_spool_free(writer->wset_data);
	free(writer->wset_present);
	free(writer->touches);
	for (unsigned int i = 0; i < ROUSE_SECTION_COUNT; i++)
		free(writer->sections[i].bytes);
	rouse_temp_file_discard(&writer->file);
	free(writer);
}

void rouse_writer_abort(struct rouse_writer *writer)
{
	rouse_writer_destroy(writer);
}

/* ---- The VM ---- */

/* The BLOCKS section, as it will be in the file. */
static int make_blocks_section(
	struct rouse_writer *writer, const struct rouse_block *blocks, uint32_t count)
{
	struct rouse_writer_section *section = &writer->sections[ROUSE_SECTION_BLOCKS];
	unsigned char *at;

	section->bytes =
		malloc(count * (sizeof(struct rouse_disk_block) + ROUSE_IMAGE_MAX_BLOCK_NAME) + 1);
	if (section->bytes == NULL)
		return -ENOMEM;
	at = section->bytes;
	for (uint32_t i = 0; i < count; i++) {
		struct rouse_disk_block disk = {
			.used_bytes = le64_make(blocks[i].used_bytes),
			.page_bytes = le64_make(blocks[i].page_bytes != 0 ? blocks[i].page_bytes
									  : ROUSE_IMAGE_PAGE_BYTES),
			.name_bytes = (uint8_t)strnlen(blocks[i].name, ROUSE_IMAGE_MAX_BLOCK_NAME),
		};

		memcpy(at, &disk, sizeof(disk));
		memcpy(at + sizeof(disk), blocks[i].name, disk.name_bytes);
		at += sizeof(disk) + disk.name_bytes;
	}
	section->size = (size_t)(at - (unsigned char *)section->bytes);
	return 0;
}

/* What the reader would refuse must not be written. */
static int check_blocks(struct rouse_writer *writer, struct rouse_error *error)
{
	const struct rouse_writer_section *section = &writer->sections[ROUSE_SECTION_BLOCKS];
	struct rouse_disk_superblock superblock = {
		.page_count = le64_make(writer->page_count),
		.block_count = le32_make(writer->block_count),
	};
	cleanup_free struct rouse_block *parsed = NULL;
	int code;

	if (writer->page_count == 0 || writer->page_count > ROUSE_IMAGE_MAX_PAGES)
		return rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, -EINVAL,
			"the VM has no memory, or more than 16 TiB");
	code = rouse_blocks_parse(section->bytes, section->size, &superblock, &parsed, error);
	if (code == -EUCLEAN)
		return rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, -EINVAL,
			"the RAM blocks of the VM do not fit into an image");
	return code;
}

static uint64_t *make_map_entry(struct rouse_writer *writer, uint64_t page)
{
	uint64_t **table = &writer->map[page / ROUSE_PAGE_TABLE_PAGES];

	if (*table == NULL)
		*table = calloc(ROUSE_PAGE_TABLE_PAGES, sizeof(**table));
	return *table != NULL ? &(*table)[page % ROUSE_PAGE_TABLE_PAGES] : NULL;
}

static int take_wset(struct rouse_writer *writer, const struct rouse_writer_touch *wset,
	uint32_t count, struct rouse_error *error)
{
	if (count == 0)
		return 0;
	writer->touches = malloc(count * sizeof(*wset));
	writer->wset_present = calloc(count, sizeof(*writer->wset_present));
	if (writer->touches == NULL || writer->wset_present == NULL ||
		rouse_page_spool_new(
			&writer->file, count, ROUSE_WRITER_SPOOL_PAGES, &writer->wset_data) < 0)
		return rouse_error_errno(error, -ENOMEM, "cannot keep the working set");
	writer->wset_count = count;
	memcpy(writer->touches, wset, count * sizeof(*wset));
	for (uint32_t i = 0; i < count; i++) {
		uint64_t *entry = wset[i].page < writer->page_count
					  ? make_map_entry(writer, wset[i].page)
					  : NULL;

		if (entry == NULL && wset[i].page < writer->page_count)
			return rouse_error_errno(error, -ENOMEM, "cannot keep the working set");
		if (entry == NULL || *entry != 0)
			return rouse_error_set(error, ROUSE_ERROR_MISMATCH, -EINVAL,
				"page %" PRIu64 " of the working set is not in the VM, or "
				"stands in the set twice",
				wset[i].page);
		*entry = ROUSE_WRITER_WSET_BIT | i;
	}
	return 0;
}

/* How much to keep free at the front: enough for all but unusual sections. */
static uint64_t front_bound(const struct rouse_writer *writer)
{
	uint64_t wset_chunks = rouse_divide_up(writer->wset_count, writer->layout.chunk_pages);
	uint64_t chunks =
		wset_chunks + rouse_divide_up(writer->page_count, writer->layout.chunk_pages);
	uint64_t reserve = rouse_writer_pages_bound(writer->page_count) / FRONT_RESERVE_SHARE;
	uint64_t bytes;

	if (reserve < FRONT_RESERVE_MIN)
		reserve = FRONT_RESERVE_MIN;
	if (reserve > FRONT_RESERVE_MAX)
		reserve = FRONT_RESERVE_MAX;
	bytes = ROUSE_IMAGE_SUPERBLOCK_BYTES + reserve;
	bytes += sizeof(struct rouse_disk_wset) + wset_chunks * sizeof(struct rouse_disk_chunk) +
		 writer->wset_count * sizeof(struct rouse_disk_wset_entry);
	bytes += writer->map_tables * sizeof(struct rouse_disk_table);
	bytes +=
		rouse_divide_up(chunks, ROUSE_CHUNK_TABLE_CHUNKS) * sizeof(struct rouse_disk_table);
	bytes += rouse_writer_pages_bound(writer->wset_count);
	return rouse_divide_up(bytes, ROUSE_IMAGE_PAGE_BYTES) * ROUSE_IMAGE_PAGE_BYTES;
}

int rouse_writer_set_blocks(struct rouse_writer *writer, const struct rouse_block *blocks,
	uint32_t count, const struct rouse_writer_touch *wset, uint32_t wset_count,
	struct rouse_error *error)
{
	int code;

	if (count == 0 || count > ROUSE_IMAGE_MAX_BLOCKS || writer->map != NULL)
		return rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, -EINVAL,
			"the VM has %" PRIu32 " RAM blocks: an image has 1 to %u", count,
			ROUSE_IMAGE_MAX_BLOCKS);
	for (uint32_t i = 0; i < count; i++)
		writer->page_count += blocks[i].used_bytes / ROUSE_IMAGE_PAGE_BYTES;
	writer->block_count = count;
	code = make_blocks_section(writer, blocks, count);
	if (code < 0)
		return rouse_error_errno(error, code, "cannot keep the RAM blocks");
	code = check_blocks(writer, error);
	if (code < 0)
		return code;
	writer->map_tables = rouse_divide_up(writer->page_count, ROUSE_PAGE_TABLE_PAGES);
	writer->map = calloc(writer->map_tables + 1, sizeof(*writer->map));
	if (writer->map == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot keep the page index");
	code = take_wset(writer, wset, wset_count, error);
	if (code < 0)
		return code;
	code = rouse_dedup_new(ROUSE_WRITER_DEDUP_PAGES, &writer->dedup);
	if (code == 0)
		code = rouse_packer_new(writer->file.fd, &writer->layout, &writer->packer);
	if (code < 0)
		return rouse_error_errno(error, code, "cannot start writing the image");
	writer->front_limit = front_bound(writer);
	rouse_packer_begin(writer->packer, writer->front_limit);
	return 0;
}

/* ---- Pages ---- */

static int fail(struct rouse_writer *writer, int code)
{
	if (writer->error == 0)
		writer->error = code;
	return code;
}

/* The locator of a page's content, which is stored unless it is already. */
static int store(struct rouse_writer *writer, const void *data, uint64_t *locator)
{
	uint64_t *known = rouse_dedup_find(writer->dedup, data);
	int code;

	if (known != NULL && *known != 0) {
		*locator = *known;
		return 0;
	}
	code = rouse_packer_add(writer->packer, data, locator);
	if (code < 0)
		return fail(writer, code);
	writer->chunks_begun = rouse_locator_chunk(*locator) + 1;
	if (known != NULL)
		*known = *locator;
	return 0;
}

int rouse_writer_put_page(struct rouse_writer *writer, uint64_t page, const void *data)
{
	uint64_t *entry;

	if (writer->error < 0)
		return writer->error;
	if (page >= writer->page_count || writer->packer == NULL)
		return -ERANGE;
	if (rouse_page_is_zero(data))
		return rouse_writer_put_zero(writer, page);
	entry = make_map_entry(writer, page);
	if (entry == NULL)
		return fail(writer, -ENOMEM);
	if (*entry & ROUSE_WRITER_WSET_BIT) {
		uint64_t index = *entry & ~ROUSE_WRITER_WSET_BIT;
		int code = rouse_page_spool_put(writer->wset_data, index, data);

		if (code < 0)
			return fail(writer, code);
		writer->wset_present[index] = true;
		return 0;
	}
	return store(writer, data, entry);
}

void rouse_writer_end_near(struct rouse_writer *writer)
{
	writer->near_chunks = writer->chunks_begun;
}

int rouse_writer_put_zero(struct rouse_writer *writer, uint64_t page)
{
	uint64_t *table;
	uint64_t *entry;

	if (writer->error < 0)
		return writer->error;
	if (page >= writer->page_count || writer->packer == NULL)
		return -ERANGE;
	table = writer->map[page / ROUSE_PAGE_TABLE_PAGES];
	if (table == NULL)
		return 0;
	entry = &table[page % ROUSE_PAGE_TABLE_PAGES];
	if (*entry & ROUSE_WRITER_WSET_BIT)
		writer->wset_present[*entry & ~ROUSE_WRITER_WSET_BIT] = false;
	else
		*entry = ROUSE_LOCATOR_ZERO;
	return 0;
}

int rouse_writer_set_section(
	struct rouse_writer *writer, enum rouse_section_type type, const void *bytes, size_t size)
{
	void *copy;

	if (type != ROUSE_SECTION_METADATA && type != ROUSE_SECTION_CONFIG &&
		type != ROUSE_SECTION_DEVICES)
		return -EINVAL;
	if (size > (type == ROUSE_SECTION_METADATA ? ROUSE_IMAGE_MAX_METADATA
						   : ROUSE_IMAGE_MAX_SECTION))
		return -EFBIG;
	copy = malloc(size + 1);
	if (copy == NULL)
		return -ENOMEM;
	if (size > 0)
		memcpy(copy, bytes, size);
	free(writer->sections[type].bytes);
	writer->sections[type] = (struct rouse_writer_section){copy, size};
	return 0;
}
