/* SPDX-License-Identifier: MIT */
#include "image/image_reader.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "image/image_tables.h"

#include <stdlib.h>

/*
 * First the superblock, then the sections up to their end and no further: what is read next are the
 * working set's chunks behind them, and then the disk need not go back.
 */
#define FIRST_READ_BYTES ROUSE_IMAGE_SUPERBLOCK_BYTES
/* Sections with no more than this between them count as lying together. */
#define GAP_BYTES (256u << 10)

struct section {
	unsigned char *bytes; /* with a NUL behind it, which does not count */
	size_t size;
};

struct rouse_reader {
	struct rouse_source *source;
	struct rouse_disk_superblock superblock;
	struct rouse_block *blocks;
	struct section sections[ROUSE_SECTION_COUNT]; /* METADATA, CONFIG, DEVICES: kept */
	struct rouse_image_wset wset;
	struct rouse_tables pages, chunks;
	struct rouse_reader_opening opening;
};

/* The beginning of the file, as much as has been read. */
struct front {
	unsigned char *bytes;
	uint64_t size;
};

static const char *const section_names[ROUSE_SECTION_COUNT] = {
	"METADATA", "BLOCKS", "CONFIG", "DEVICES", "WSET", "PAGE_DIR", "CHUNK_DIR"};

static void front_finish(struct front *front)
{
	free(front->bytes);
}

/* Reads on until the front has @size bytes. */
static int front_extend(
	struct rouse_source *source, struct front *front, uint64_t size, struct rouse_error *error)
{
	unsigned char *more = realloc(front->bytes, size > 0 ? size : 1);
	int code;

	if (more == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot open the image");
	front->bytes = more;
	code = rouse_source_read(
		source, front->size, more + front->size, size - front->size, ROUSE_READ_BULK);
	if (code < 0)
		return rouse_error_errno(error, code, "cannot read the front of the image");
	front->size = size;
	return 0;
}

/* Where the sections end if they lie together behind the superblock, 0 if one is far away. */
static uint64_t sections_end(const struct rouse_disk_superblock *superblock)
{
	uint64_t end = 0, sum = ROUSE_IMAGE_SUPERBLOCK_BYTES;

	for (unsigned int i = 0; i < ROUSE_SECTION_COUNT; i++) {
		uint64_t length = le64_get(superblock->sections[i].length);
		uint64_t last = le64_get(superblock->sections[i].offset) + length;

		if (length > 0 && last > end)
			end = last;
		sum += length;
	}
	return end <= sum + GAP_BYTES ? end : 0;
}

static int read_front(struct rouse_reader *reader, struct front *front, struct rouse_error *error)
{
	struct rouse_reader_opening *opening = &reader->opening;
	uint64_t size = rouse_source_size(reader->source), end, begun_ns = rouse_clock_ns();
	int code = front_extend(
		reader->source, front, size < FIRST_READ_BYTES ? size : FIRST_READ_BYTES, error);

	opening->first_ns = rouse_clock_ns() - begun_ns;
	if (code < 0)
		return code;
	code = rouse_superblock_parse(front->bytes, front->size, size, &reader->superblock, error);
	if (code < 0)
		return code;
	end = sections_end(&reader->superblock);
	if (end <= front->size)
		return 0;
	opening->rest_bytes = end - front->size;
	begun_ns = rouse_clock_ns();
	code = front_extend(reader->source, front, end, error);
	opening->rest_ns = rouse_clock_ns() - begun_ns;
	return code;
}

/* Copies a section out of the front, or reads it if it lies elsewhere, and verifies it. */
static int load_section(struct rouse_reader *reader, const struct front *front,
	enum rouse_section_type type, struct section *section, struct rouse_error *error)
{
	const struct rouse_disk_section *disk = &reader->superblock.sections[type];
	uint64_t offset = le64_get(disk->offset), length = le64_get(disk->length);
	int code = 0;

	section->size = length;
	section->bytes = malloc(length + 1);
	if (section->bytes == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot open the image");
	section->bytes[length] = '\0';
	if (length > 0 && offset + length <= front->size)
		memcpy(section->bytes, front->bytes + offset, length);
	else if (length > 0)
		code = rouse_source_read(
			reader->source, offset, section->bytes, length, ROUSE_READ_BULK);
	if (code < 0)
		return rouse_error_errno(
			error, code, "cannot read section %s", section_names[type]);
	return rouse_section_check(disk, section->bytes, length, section_names[type], error);
}

static int open_tables(
	struct rouse_reader *reader, struct section *sections, struct rouse_error *error)
{
	const struct rouse_disk_superblock *superblock = &reader->superblock;
	struct section *pages = &sections[ROUSE_SECTION_PAGE_DIR];
	struct section *chunks = &sections[ROUSE_SECTION_CHUNK_DIR];
	int code = rouse_tables_init(&reader->pages, &rouse_page_tables, superblock, reader->source,
		(struct rouse_disk_table *)(void *)take_ptr(&pages->bytes),
		le64_get(superblock->page_count), error);

	if (code == 0)
		code = rouse_tables_init(&reader->chunks, &rouse_chunk_tables, superblock,
			reader->source, (struct rouse_disk_table *)(void *)take_ptr(&chunks->bytes),
			le64_get(superblock->chunk_count), error);
	return code;
}

static void drop_section(struct section *section)
{
	free(section->bytes);
	section->bytes = NULL;
}

static int open_sections(
	struct rouse_reader *reader, const struct front *front, struct rouse_error *error)
{
	struct section *sections = reader->sections;
	int code = 0;

	for (unsigned int i = 0; code == 0 && i < ROUSE_SECTION_COUNT; i++)
		code = load_section(reader, front, i, &sections[i], error);
	if (code == 0)
		code = rouse_blocks_parse(sections[ROUSE_SECTION_BLOCKS].bytes,
			sections[ROUSE_SECTION_BLOCKS].size, &reader->superblock, &reader->blocks,
			error);
	if (code == 0)
		code = rouse_image_wset_parse(sections[ROUSE_SECTION_WSET].bytes,
			sections[ROUSE_SECTION_WSET].size, &reader->superblock, &reader->wset,
			error);
	if (code == 0)
		code = open_tables(reader, sections, error);
	drop_section(&sections[ROUSE_SECTION_BLOCKS]);
	drop_section(&sections[ROUSE_SECTION_WSET]);
	return code;
}

int rouse_reader_open(
	struct rouse_source *source, struct rouse_reader **reader, struct rouse_error *error)
{
	cleanup_with(front_finish) struct front front = {0};
	struct rouse_reader *new = calloc(1, sizeof(*new));
	int code;

	if (new == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot open the image");
	new->source = source;
	code = read_front(new, &front, error);
	if (code == 0)
		code = open_sections(new, &front, error);
	if (code < 0) {
		rouse_reader_close(new);
		return code;
	}
	*reader = new;
	return 0;
}

void rouse_reader_close(struct rouse_reader *reader)
{
	if (reader == NULL)
		return;
	rouse_tables_finish(&reader->pages);
	rouse_tables_finish(&reader->chunks);
	rouse_image_wset_finish(&reader->wset);
	for (unsigned int i = 0; i < ROUSE_SECTION_COUNT; i++)
		drop_section(&reader->sections[i]);
	free(reader->blocks);
	free(reader);
}

void rouse_reader_get_opening(
	const struct rouse_reader *reader, struct rouse_reader_opening *opening)
{
	*opening = reader->opening;
}

void rouse_reader_expect_quick_reads(struct rouse_reader *reader)
{
	rouse_tables_expect_quick_reads(&reader->pages);
	rouse_tables_expect_quick_reads(&reader->chunks);
}

const struct rouse_disk_superblock *rouse_reader_superblock(const struct rouse_reader *reader)
{
	return &reader->superblock;
}

uint64_t rouse_reader_page_count(const struct rouse_reader *reader)
{
	return le64_get(reader->superblock.page_count);
}

uint64_t rouse_reader_chunk_count(const struct rouse_reader *reader)
{
	return le64_get(reader->superblock.chunk_count);
}

const struct rouse_block *rouse_reader_blocks(const struct rouse_reader *reader, uint32_t *count)
{
	*count = le32_get(reader->superblock.block_count);
	return reader->blocks;
}

const void *rouse_reader_section(
	const struct rouse_reader *reader, enum rouse_section_type type, size_t *size)
{
	*size = reader->sections[type].bytes != NULL ? reader->sections[type].size : 0;
	return reader->sections[type].bytes;
}

const struct rouse_image_wset *rouse_reader_wset(const struct rouse_reader *reader)
{
	return &reader->wset;
}

int rouse_reader_page_table(struct rouse_reader *reader, uint64_t index,
	enum rouse_read_priority priority, const le64_t **table, uint32_t *entries)
{
	const void *found = NULL;
	int code;

	if (index >= reader->pages.count)
		return -ERANGE;
	code = rouse_tables_get(&reader->pages, index, priority, &found);
	*table = found;
	*entries = le32_get(reader->pages.directory[index].entries);
	return code;
}

int rouse_reader_locate(struct rouse_reader *reader, uint64_t page,
	enum rouse_read_priority priority, uint64_t *locator)
{
	const le64_t *table;
	uint32_t entries;
	int code;

	if (page >= rouse_reader_page_count(reader))
		return -ERANGE;
	code = rouse_reader_page_table(
		reader, page / ROUSE_PAGE_TABLE_PAGES, priority, &table, &entries);
	if (code < 0)
		return code;
	*locator =
		table == NULL ? ROUSE_LOCATOR_ZERO : le64_get(table[page % ROUSE_PAGE_TABLE_PAGES]);
	return 0;
}

int rouse_reader_chunk(struct rouse_reader *reader, uint64_t number,
	enum rouse_read_priority priority, struct rouse_chunk *chunk)
{
	const struct rouse_disk_chunk *disk;
	const void *table;
	int code;

	if (number >= rouse_reader_chunk_count(reader))
		return -ERANGE;
	code = rouse_tables_get(
		&reader->chunks, number / ROUSE_CHUNK_TABLE_CHUNKS, priority, &table);
	if (code < 0)
		return code;
	disk = table;
	return rouse_chunk_parse(
		&disk[number % ROUSE_CHUNK_TABLE_CHUNKS], &reader->superblock, number, chunk, NULL);
}

uint64_t rouse_reader_page_tables(const struct rouse_reader *reader)
{
	return reader->pages.count;
}

uint64_t rouse_reader_chunk_tables(const struct rouse_reader *reader)
{
	return reader->chunks.count;
}

void rouse_reader_page_table_place(
	const struct rouse_reader *reader, uint64_t index, uint64_t *offset, uint64_t *length)
{
	rouse_tables_place(&reader->pages, index, offset, length);
}

void rouse_reader_chunk_table_place(
	const struct rouse_reader *reader, uint64_t index, uint64_t *offset, uint64_t *length)
{
	rouse_tables_place(&reader->chunks, index, offset, length);
}

int rouse_reader_load_tables(
	struct rouse_reader *reader, enum rouse_read_priority priority, struct rouse_error *error)
{
	int code = rouse_tables_load_all(&reader->pages, priority, error);

	return code == 0 ? rouse_tables_load_all(&reader->chunks, priority, error) : code;
}

uint64_t rouse_reader_memory(const struct rouse_reader *reader)
{
	uint64_t bytes = sizeof(*reader);

	bytes += le32_get(reader->superblock.block_count) * sizeof(*reader->blocks);
	for (unsigned int i = 0; i < ROUSE_SECTION_COUNT; i++)
		bytes += reader->sections[i].bytes != NULL ? reader->sections[i].size : 0;
	bytes += reader->wset.chunk_count * sizeof(*reader->wset.chunks);
	bytes += reader->wset.page_count * sizeof(*reader->wset.pages);
	return bytes + atomic_load(&reader->pages.memory) + atomic_load(&reader->chunks.memory);
}
