/* SPDX-License-Identifier: MIT */
#include "image/image_parse.h"

#include "base/bitmap.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <inttypes.h>
#include <stddef.h>
#include <xxhash.h>

/* Whether [offset, offset + length) lies in a file of @end bytes, behind the superblock. */
static bool in_file(uint64_t offset, uint64_t length, uint64_t end)
{
	return offset >= ROUSE_IMAGE_SUPERBLOCK_BYTES && offset <= end && length <= end - offset;
}

static int damaged(struct rouse_error *error, const char *what)
{
	return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN, "%s", what);
}

static const char *section_name(unsigned int type)
{
	static const char *const names[] = {
		"METADATA", "BLOCKS", "CONFIG", "DEVICES", "WSET", "PAGE_DIR", "CHUNK_DIR"};

	return type < ROUSE_SECTION_COUNT ? names[type] : "unknown";
}

/* What tells a damaged image from one that this version cannot read. */
static int check_identity(const struct rouse_disk_superblock *superblock, struct rouse_error *error)
{
	uint32_t version = le32_get(superblock->version);
	uint64_t unknown = le64_get(superblock->incompat) & ~ROUSE_IMAGE_INCOMPAT_KNOWN;

	if (memcmp(superblock->magic, ROUSE_IMAGE_MAGIC, sizeof(superblock->magic)) != 0)
		return damaged(error, "this is not a Rouse image: wrong magic bytes");
	if (version > ROUSE_IMAGE_VERSION)
		return rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, -EPROTONOSUPPORT,
			"the image has format version %" PRIu32
			", and this Rouse reads up to version %u: use a newer Rouse",
			version, ROUSE_IMAGE_VERSION);
	if (XXH3_64bits(superblock, offsetof(struct rouse_disk_superblock, checksum)) !=
		le64_get(superblock->checksum))
		return damaged(error, "the superblock is damaged: wrong checksum");
	if (version == 0)
		return damaged(error, "the superblock makes no sense: format version 0");
	if (unknown != 0)
		return rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, -EPROTONOSUPPORT,
			"the image needs features that this Rouse does not have (0x%" PRIx64
			"): use a newer Rouse",
			unknown);
	return 0;
}

static int check_counts(const struct rouse_disk_superblock *superblock, struct rouse_error *error)
{
	uint64_t pages = le64_get(superblock->page_count);
	uint32_t chunk_pages = le32_get(superblock->chunk_pages);
	uint32_t blocks = le32_get(superblock->block_count);
	uint64_t zero = le64_get(superblock->zero_pages);
	uint64_t duplicate = le64_get(superblock->duplicate_pages);

	if (le32_get(superblock->header_bytes) != sizeof(*superblock))
		return damaged(error, "the superblock makes no sense: its size");
	if (le32_get(superblock->page_bytes) != ROUSE_IMAGE_PAGE_BYTES)
		return rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, -EPROTONOSUPPORT,
			"the image has pages of %" PRIu32 " bytes, and this Rouse reads %u only",
			le32_get(superblock->page_bytes), ROUSE_IMAGE_PAGE_BYTES);
	if (pages == 0 || pages > ROUSE_IMAGE_MAX_PAGES)
		return damaged(error, "the superblock makes no sense: the number of pages");
	if (le64_get(superblock->chunk_count) > ROUSE_IMAGE_MAX_PAGES)
		return damaged(error, "the superblock makes no sense: the number of chunks");
	if (le64_get(superblock->near_chunks) > le64_get(superblock->chunk_count))
		return damaged(error, "the superblock makes no sense: the chunks that come first");
	if (chunk_pages == 0 || chunk_pages > ROUSE_IMAGE_MAX_CHUNK_PAGES)
		return damaged(error, "the superblock makes no sense: the pages in a chunk");
	if (blocks == 0 || blocks > ROUSE_IMAGE_MAX_BLOCKS)
		return damaged(error, "the superblock makes no sense: the number of RAM blocks");
	if (zero > pages || duplicate > pages - zero)
		return damaged(error, "the superblock makes no sense: the zero or equal pages");
	if (le32_get(superblock->section_count) < ROUSE_SECTION_COUNT ||
		le32_get(superblock->section_count) > ROUSE_IMAGE_SECTION_SLOTS)
		return damaged(error, "the superblock makes no sense: the number of sections");
	return 0;
}

static uint64_t tables_of(uint64_t count, uint64_t per_table)
{
	return (count + per_table - 1) / per_table;
}

/* Whether a section can have this length in this image. */
static bool length_fits(
	const struct rouse_disk_superblock *superblock, unsigned int type, uint64_t length)
{
	uint64_t blocks = le32_get(superblock->block_count);

	switch (type) {
	case ROUSE_SECTION_METADATA:
		return length <= ROUSE_IMAGE_MAX_METADATA;
	case ROUSE_SECTION_BLOCKS:
		return length > blocks * sizeof(struct rouse_disk_block) &&
		       length <= blocks * (sizeof(struct rouse_disk_block) +
						  ROUSE_IMAGE_MAX_BLOCK_NAME);
	case ROUSE_SECTION_WSET:
		return length == 0 || length >= sizeof(struct rouse_disk_wset);
	case ROUSE_SECTION_PAGE_DIR:
		return length ==
		       sizeof(struct rouse_disk_table) *
			       tables_of(le64_get(superblock->page_count), ROUSE_PAGE_TABLE_PAGES);
	case ROUSE_SECTION_CHUNK_DIR:
		return length == sizeof(struct rouse_disk_table) *
					 tables_of(le64_get(superblock->chunk_count),
						 ROUSE_CHUNK_TABLE_CHUNKS);
	default:
		return true;
	}
}

static int check_sections(const struct rouse_disk_superblock *superblock, struct rouse_error *error)
{
	uint64_t file_bytes = le64_get(superblock->file_bytes);

	for (unsigned int i = 0; i < le32_get(superblock->section_count); i++) {
		const struct rouse_disk_section *section = &superblock->sections[i];
		uint64_t offset = le64_get(section->offset), length = le64_get(section->length);

		if (length > ROUSE_IMAGE_MAX_SECTION || !length_fits(superblock, i, length))
			return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
				"section %s has an impossible length: %" PRIu64, section_name(i),
				length);
		if (length > 0 && !in_file(offset, length, file_bytes))
			return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
				"section %s lies outside of the file", section_name(i));
	}
	return 0;
}

int rouse_superblock_parse(const void *bytes, size_t size, uint64_t file_bytes,
	struct rouse_disk_superblock *superblock, struct rouse_error *error)
{
	uint64_t expected;
	int code;

	if (size < sizeof(superblock->magic) ||
		memcmp(bytes, ROUSE_IMAGE_MAGIC, sizeof(superblock->magic)) != 0)
		return damaged(error, "this is not a Rouse image: wrong magic bytes");
	if (size < sizeof(*superblock))
		return damaged(error, "the image is truncated: it ends in its superblock");
	memcpy(superblock, bytes, sizeof(*superblock));
	code = check_identity(superblock, error);
	if (code < 0)
		return code;
	expected = le64_get(superblock->file_bytes);
	if (expected > file_bytes)
		return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
			"the image is truncated: it has %" PRIu64 " of %" PRIu64 " bytes",
			file_bytes, expected);
	if (expected < ROUSE_IMAGE_SUPERBLOCK_BYTES || expected > INT64_MAX ||
		le64_get(superblock->front_bytes) > expected)
		return damaged(error, "the superblock makes no sense: the size of the file");
	code = check_counts(superblock, error);
	if (code < 0)
		return code;
	return check_sections(superblock, error);
}

int rouse_section_check(const struct rouse_disk_section *section, const void *bytes, size_t size,
	const char *what, struct rouse_error *error)
{
	if (size != le64_get(section->length) ||
		XXH3_64bits(bytes, size) != le64_get(section->checksum))
		return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
			"section %s at offset %" PRIu64 " (%" PRIu64
			" bytes) is damaged: wrong checksum",
			what, le64_get(section->offset), le64_get(section->length));
	return 0;
}

/* A name goes into messages and to QEMU: visible ASCII, as QEMU's own are. */
static bool name_is_good(const unsigned char *name, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		if (name[i] < 0x20 || name[i] > 0x7e)
			return false;
	}
	return size > 0;
}

static bool name_is_new(const struct rouse_block *blocks, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		if (strcmp(blocks[i].name, blocks[count].name) == 0)
			return false;
	}
	return true;
}

static int parse_block(const unsigned char **at, const unsigned char *end,
	struct rouse_block *blocks, uint32_t number, struct rouse_error *error)
{
	struct rouse_block *block = &blocks[number];
	struct rouse_disk_block disk;
	uint64_t pages =
		number > 0 ? block[-1].first_page + block[-1].used_bytes / ROUSE_IMAGE_PAGE_BYTES
			   : 0;

	if ((size_t)(end - *at) < sizeof(disk))
		return damaged(error, "section BLOCKS ends in the middle of a block");
	memcpy(&disk, *at, sizeof(disk));
	*at += sizeof(disk);
	if ((size_t)(end - *at) < disk.name_bytes || !name_is_good(*at, disk.name_bytes))
		return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
			"RAM block %" PRIu32 " has an impossible name", number);
	memcpy(block->name, *at, disk.name_bytes);
	block->name[disk.name_bytes] = '\0';
	*at += disk.name_bytes;
	if (!name_is_new(blocks, number))
		return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
			"two RAM blocks have the name %s", block->name);
	block->used_bytes = le64_get(disk.used_bytes);
	block->page_bytes = le64_get(disk.page_bytes);
	block->first_page = pages;
	if (block->used_bytes % ROUSE_IMAGE_PAGE_BYTES != 0 ||
		block->used_bytes / ROUSE_IMAGE_PAGE_BYTES > ROUSE_IMAGE_MAX_PAGES - pages)
		return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
			"RAM block %s has an impossible size", block->name);
	if (block->page_bytes < ROUSE_IMAGE_PAGE_BYTES ||
		(block->page_bytes & (block->page_bytes - 1)) != 0)
		return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
			"RAM block %s has an impossible page size", block->name);
	return 0;
}

int rouse_blocks_parse(const void *bytes, size_t size,
	const struct rouse_disk_superblock *superblock, struct rouse_block **blocks,
	struct rouse_error *error)
{
	uint32_t count = le32_get(superblock->block_count);
	const unsigned char *at = bytes, *end = at + size;
	cleanup_free struct rouse_block *new = NULL;
	const struct rouse_block *last;

	if (count == 0 || count > ROUSE_IMAGE_MAX_BLOCKS)
		return damaged(error, "the superblock makes no sense: the number of RAM blocks");
	new = calloc(count, sizeof(*new));
	if (new == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot read the RAM blocks");
	for (uint32_t i = 0; i < count; i++) {
		int code = parse_block(&at, end, new, i, error);

		if (code < 0)
			return code;
	}
	if (at != end)
		return damaged(error, "section BLOCKS has more bytes than blocks");
	last = &new[count - 1];
	if (last->first_page + last->used_bytes / ROUSE_IMAGE_PAGE_BYTES !=
		le64_get(superblock->page_count))
		return damaged(error, "the RAM blocks do not add up to the number of pages");
	*blocks = take_ptr(&new);
	return 0;
}

int rouse_chunk_parse(const struct rouse_disk_chunk *disk,
	const struct rouse_disk_superblock *superblock, uint64_t number, struct rouse_chunk *chunk,
	struct rouse_error *error)
{
	uint32_t plain;

	chunk->offset = le64_get(disk->offset);
	chunk->checksum = le64_get(disk->checksum);
	chunk->stored_bytes = le32_get(disk->stored_bytes);
	chunk->pages = le16_get(disk->pages);
	chunk->codec = disk->codec;
	plain = chunk->pages * ROUSE_IMAGE_PAGE_BYTES;
	if (chunk->pages == 0 || chunk->pages > le32_get(superblock->chunk_pages))
		return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
			"chunk %" PRIu64 " has an impossible number of pages: %u", number,
			chunk->pages);
	if (chunk->codec > ROUSE_CODEC_ZSTD)
		return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
			"chunk %" PRIu64 " has an unknown codec: %u", number, chunk->codec);
	if (chunk->stored_bytes == 0 || chunk->stored_bytes > plain ||
		(chunk->codec == ROUSE_CODEC_NONE && chunk->stored_bytes != plain))
		return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
			"chunk %" PRIu64 " has an impossible length: %" PRIu32, number,
			chunk->stored_bytes);
	if (!in_file(chunk->offset, chunk->stored_bytes, le64_get(superblock->file_bytes)))
		return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
			"chunk %" PRIu64 " lies outside of the file", number);
	return 0;
}

void rouse_image_wset_finish(struct rouse_image_wset *wset)
{
	free(wset->chunks);
	free(wset->pages);
	memset(wset, 0, sizeof(*wset));
}

static int parse_wset_entry(const struct rouse_disk_wset_entry *disk,
	const struct rouse_disk_superblock *superblock, struct rouse_image_wset *wset,
	uint32_t number, struct rouse_bitmap *seen, struct rouse_error *error)
{
	struct rouse_wset_entry *entry = &wset->pages[number];

	entry->page = le32_get(disk->page);
	entry->time_us = le32_get(disk->time_us);
	entry->locator = le64_get(disk->locator);
	if (entry->page >= le64_get(superblock->page_count))
		return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
			"the working set has a page that the VM does not have: %" PRIu64,
			entry->page);
	if (rouse_bitmap_test_and_set(seen, entry->page))
		return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
			"page %" PRIu64 " stands in the working set twice", entry->page);
	if (entry->locator != ROUSE_LOCATOR_ZERO &&
		(rouse_locator_chunk(entry->locator) >= wset->chunk_count ||
			rouse_locator_slot(entry->locator) >=
				wset->chunks[rouse_locator_chunk(entry->locator)].pages))
		return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
			"page %" PRIu64 " of the working set leads to no stored page", entry->page);
	return 0;
}

static int parse_wset_arrays(const unsigned char *bytes,
	const struct rouse_disk_superblock *superblock, struct rouse_image_wset *wset,
	struct rouse_bitmap *seen, struct rouse_error *error)
{
	const unsigned char *pages = bytes + wset->chunk_count * sizeof(struct rouse_disk_chunk);
	int code = 0;

	for (uint32_t i = 0; code == 0 && i < wset->chunk_count; i++) {
		struct rouse_disk_chunk disk;

		memcpy(&disk, bytes + i * sizeof(disk), sizeof(disk));
		code = rouse_chunk_parse(&disk, superblock, i, &wset->chunks[i], error);
	}
	for (uint32_t i = 0; code == 0 && i < wset->page_count; i++) {
		struct rouse_disk_wset_entry disk;

		memcpy(&disk, pages + i * sizeof(disk), sizeof(disk));
		code = parse_wset_entry(&disk, superblock, wset, i, seen, error);
	}
	return code;
}

int rouse_image_wset_parse(const void *bytes, size_t size,
	const struct rouse_disk_superblock *superblock, struct rouse_image_wset *wset,
	struct rouse_error *error)
{
	cleanup_with(rouse_image_wset_finish) struct rouse_image_wset new = {0};
	cleanup_with(rouse_bitmap_finish) struct rouse_bitmap seen = {0};
	struct rouse_disk_wset head;
	int code;

	memset(wset, 0, sizeof(*wset));
	if (size == 0)
		return 0;
	if (size < sizeof(head))
		return damaged(error, "section WSET ends in its head");
	memcpy(&head, bytes, sizeof(head));
	new.page_count = le32_get(head.page_count);
	new.chunk_count = le32_get(head.chunk_count);
	if (size - sizeof(head) != new.chunk_count * sizeof(struct rouse_disk_chunk) +
					   new.page_count * sizeof(struct rouse_disk_wset_entry))
		return damaged(error, "section WSET has another length than its counts say");
	if (new.page_count > le64_get(superblock->page_count) ||
		new.chunk_count > le64_get(superblock->chunk_count))
		return damaged(error, "the working set has more pages or chunks than the image");
	new.chunks = calloc((size_t) new.chunk_count + 1, sizeof(*new.chunks));
	new.pages = calloc((size_t) new.page_count + 1, sizeof(*new.pages));
	if (new.chunks == NULL || new.pages == NULL ||
		rouse_bitmap_init(&seen, le64_get(superblock->page_count)) < 0)
		return rouse_error_errno(error, -ENOMEM, "cannot read the working set");
	code = parse_wset_arrays(
		(const unsigned char *)bytes + sizeof(head), superblock, &new, &seen, error);
	if (code == 0) {
		*wset = new;
		memset(&new, 0, sizeof(new));
	}
	return code;
}
