/* SPDX-License-Identifier: MIT */
#include "image/image_tables.h"

#include "base/clock.h"
#include "base/error.h"

#include <inttypes.h>
#include <stdlib.h>
#include <xxhash.h>

/* What is read around a missing table: little beside the 10 ms of a seek on a slow disk. */
#define NEIGHBOUR_BYTES (256u << 10)
#define LOAD_ALL_BYTES (4u << 20)

/* The memory of tables that were read in one go. Freed with the reader only. */
struct rouse_table_run {
	struct rouse_table_run *next;
	uint64_t bytes;
	unsigned char data[];
};

static bool check_page_table(const struct rouse_disk_superblock *superblock, uint64_t first_entry,
	const void *table, uint32_t entries)
{
	uint64_t chunks = le64_get(superblock->chunk_count);
	uint32_t slots = le32_get(superblock->chunk_pages);
	const le64_t *locators = table;

	(void)first_entry;
	for (uint32_t i = 0; i < entries; i++) {
		uint64_t locator = le64_get(locators[i]);

		if (locator == ROUSE_LOCATOR_ZERO)
			continue;
		/* A chunk part of 0 wraps round to a chunk that cannot be. */
		if (rouse_locator_chunk(locator) >= chunks || rouse_locator_slot(locator) >= slots)
			return false;
	}
	return true;
}

static bool check_chunk_table(const struct rouse_disk_superblock *superblock, uint64_t first_entry,
	const void *table, uint32_t entries)
{
	const struct rouse_disk_chunk *chunks = table;
	struct rouse_chunk chunk;

	for (uint32_t i = 0; i < entries; i++) {
		if (rouse_chunk_parse(&chunks[i], superblock, first_entry + i, &chunk, NULL) < 0)
			return false;
	}
	return true;
}

const struct rouse_table_kind rouse_page_tables = {
	.name = "page table",
	.entries = ROUSE_PAGE_TABLE_PAGES,
	.entry_bytes = sizeof(le64_t),
	.may_be_absent = true,
	.check = check_page_table,
};

const struct rouse_table_kind rouse_chunk_tables = {
	.name = "chunk table",
	.entries = ROUSE_CHUNK_TABLE_CHUNKS,
	.entry_bytes = sizeof(struct rouse_disk_chunk),
	.may_be_absent = false,
	.check = check_chunk_table,
};

static uint64_t table_offset(const struct rouse_tables *tables, uint64_t index)
{
	return le64_get(tables->directory[index].offset);
}

static uint32_t table_entries(const struct rouse_tables *tables, uint64_t index)
{
	return le32_get(tables->directory[index].entries);
}

static uint64_t table_bytes(const struct rouse_tables *tables, uint64_t index)
{
	return (uint64_t)table_entries(tables, index) * tables->kind->entry_bytes;
}

static bool entry_is_good(const struct rouse_tables *tables, uint64_t index, uint64_t entries)
{
	uint64_t left = entries - index * tables->kind->entries, offset, length, end;

	if (table_entries(tables, index) !=
		(left < tables->kind->entries ? left : tables->kind->entries))
		return false;
	offset = table_offset(tables, index);
	length = table_bytes(tables, index);
	end = le64_get(tables->superblock->file_bytes);
	if (offset == 0)
		return tables->kind->may_be_absent;
	return offset >= ROUSE_IMAGE_SUPERBLOCK_BYTES && offset <= end && length <= end - offset;
}

int rouse_tables_init(struct rouse_tables *tables, const struct rouse_table_kind *kind,
	const struct rouse_disk_superblock *superblock, struct rouse_source *source,
	struct rouse_disk_table *directory, uint64_t entries, struct rouse_error *error)
{
	memset(tables, 0, sizeof(*tables));
	tables->kind = kind;
	tables->superblock = superblock;
	tables->source = source;
	tables->directory = directory;
	atomic_init(&tables->urgent_bytes, NEIGHBOUR_BYTES);
	tables->count = (entries + kind->entries - 1) / kind->entries;
	(void)pthread_mutex_init(&tables->loading[ROUSE_READ_URGENT], NULL);
	(void)pthread_mutex_init(&tables->loading[ROUSE_READ_BULK], NULL);
	tables->memory = tables->count * (sizeof(*directory) + sizeof(*tables->tables));
	tables->tables = calloc(tables->count + 1, sizeof(*tables->tables));
	if (tables->tables == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot open the image");
	for (uint64_t i = 0; i < tables->count; i++) {
		if (!entry_is_good(tables, i, entries))
			return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
				"the directory's entry for %s %" PRIu64 " makes no sense",
				kind->name, i);
	}
	return 0;
}

void rouse_tables_finish(struct rouse_tables *tables)
{
	struct rouse_table_run *run = tables->runs;

	if (tables->kind == NULL)
		return;
	while (run != NULL) {
		struct rouse_table_run *next = run->next;

		free(run);
		run = next;
	}
	free(tables->tables);
	free(tables->directory);
	(void)pthread_mutex_destroy(&tables->loading[ROUSE_READ_URGENT]);
	(void)pthread_mutex_destroy(&tables->loading[ROUSE_READ_BULK]);
	memset(tables, 0, sizeof(*tables));
}

static const void *find(const struct rouse_tables *tables, uint64_t index)
{
	return atomic_load_explicit(&tables->tables[index], memory_order_acquire);
}

/* Whether @next is missing as well and begins where @index ends. */
static bool adjoins(const struct rouse_tables *tables, uint64_t index, uint64_t next)
{
	return table_offset(tables, next) != 0 &&
	       table_offset(tables, next) ==
		       table_offset(tables, index) + table_bytes(tables, index) &&
	       find(tables, next) == NULL;
}

/* Widens [*first, *last] around a missing table, forwards first, up to @limit bytes in the file. */
static uint64_t widen(
	const struct rouse_tables *tables, uint64_t limit, uint64_t *first, uint64_t *last)
{
	uint64_t bytes = table_bytes(tables, *first);

	while (*last + 1 < tables->count && adjoins(tables, *last, *last + 1) &&
		bytes + table_bytes(tables, *last + 1) <= limit)
		bytes += table_bytes(tables, ++*last);
	while (*first > 0 && table_offset(tables, *first - 1) != 0 &&
		table_offset(tables, *first - 1) + table_bytes(tables, *first - 1) ==
			table_offset(tables, *first) &&
		find(tables, *first - 1) == NULL &&
		bytes + table_bytes(tables, *first - 1) <= limit)
		bytes += table_bytes(tables, --*first);
	return bytes;
}

/* Makes a table that has been read visible, if it is as it was written. */
static bool publish(struct rouse_tables *tables, uint64_t index, const void *table)
{
	const void *none = NULL;

	if (XXH3_64bits(table, table_bytes(tables, index)) !=
			le64_get(tables->directory[index].checksum) ||
		!tables->kind->check(tables->superblock, index * tables->kind->entries, table,
			table_entries(tables, index)))
		return false;
	/* If a thread of the other priority was faster, its copy is the one that counts. */
	(void)atomic_compare_exchange_strong_explicit(
		&tables->tables[index], &none, table, memory_order_acq_rel, memory_order_acquire);
	return true;
}

/* Damage of a neighbour is left for when that one is asked for. */
static int read_run(struct rouse_tables *tables, uint64_t index, uint64_t limit,
	enum rouse_read_priority priority)
{
	uint64_t first = index, last = index, bytes = widen(tables, limit, &first, &last), at = 0;
	struct rouse_table_run *run = malloc(sizeof(*run) + bytes);
	int code;

	if (run == NULL)
		return -ENOMEM;
	run->bytes = bytes;
	code = rouse_source_read(
		tables->source, table_offset(tables, first), run->data, bytes, priority);
	if (code < 0) {
		free(run);
		return code;
	}
	for (uint64_t i = first; i <= last; i++) {
		if (!publish(tables, i, run->data + at) && i == index)
			code = -EUCLEAN;
		at += table_bytes(tables, i);
	}
	atomic_fetch_add_explicit(&tables->memory, sizeof(*run) + bytes, memory_order_relaxed);
	run->next = atomic_load_explicit(&tables->runs, memory_order_relaxed);
	while (!atomic_compare_exchange_weak(&tables->runs, &run->next, run))
		;
	return code;
}

static int load(struct rouse_tables *tables, uint64_t index, uint64_t limit,
	enum rouse_read_priority priority)
{
	pthread_mutex_t *lock = &tables->loading[priority];
	int code = 0;

	(void)pthread_mutex_lock(lock);
	if (find(tables, index) == NULL)
		code = read_run(tables, index, limit, priority);
	(void)pthread_mutex_unlock(lock);
	return code;
}

/* A fault waits. What opening the image has shown of the medium may have been a cache's doing. */
static int load_urgently(struct rouse_tables *tables, uint64_t index)
{
	const uint64_t begun_ns = rouse_clock_ns();
	const uint64_t limit = atomic_load_explicit(&tables->urgent_bytes, memory_order_relaxed);
	const int code = load(tables, index, limit, ROUSE_READ_URGENT);

	if (rouse_clock_ns() - begun_ns > ROUSE_QUICK_READ_NS)
		atomic_store_explicit(&tables->urgent_bytes, NEIGHBOUR_BYTES, memory_order_relaxed);
	return code;
}

int rouse_tables_get(struct rouse_tables *tables, uint64_t index, enum rouse_read_priority priority,
	const void **table)
{
	int code = 0;

	*table = find(tables, index);
	if (*table == NULL && table_offset(tables, index) != 0) {
		code = priority == ROUSE_READ_URGENT
			       ? load_urgently(tables, index)
			       : load(tables, index, NEIGHBOUR_BYTES, priority);
		*table = find(tables, index);
	}
	return code;
}

void rouse_tables_expect_quick_reads(struct rouse_tables *tables)
{
	atomic_store_explicit(&tables->urgent_bytes, 0, memory_order_relaxed);
}

int rouse_tables_load_all(
	struct rouse_tables *tables, enum rouse_read_priority priority, struct rouse_error *error)
{
	for (uint64_t i = 0; i < tables->count; i++) {
		int code;

		if (table_offset(tables, i) == 0 || find(tables, i) != NULL)
			continue;
		code = load(tables, i, LOAD_ALL_BYTES, priority);
		if (code == -EUCLEAN)
			return rouse_error_set(error, ROUSE_ERROR_DAMAGED, code,
				"%s %" PRIu64 " at offset %" PRIu64 " (%" PRIu64
				" bytes) is damaged",
				tables->kind->name, i, table_offset(tables, i),
				table_bytes(tables, i));
		if (code < 0)
			return rouse_error_errno(
				error, code, "cannot read %s %" PRIu64, tables->kind->name, i);
	}
	return 0;
}

void rouse_tables_place(
	const struct rouse_tables *tables, uint64_t index, uint64_t *offset, uint64_t *length)
{
	*offset = table_offset(tables, index);
	*length = *offset != 0 ? table_bytes(tables, index) : 0;
}
