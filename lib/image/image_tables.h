/* SPDX-License-Identifier: MIT */
/*
 * The second level of an image's index: page tables or chunk tables, read when they are first
 * needed and kept. Thread-safe; a table that is there is found without a lock.
 */
#ifndef ROUSE_IMAGE_IMAGE_TABLES_H
#define ROUSE_IMAGE_IMAGE_TABLES_H

#include "image/image_parse.h"
#include "source/source.h"

#include <pthread.h>
#include <stdatomic.h>

/** Checks the content of a table whose checksum is right. */
typedef bool rouse_table_check_fn(const struct rouse_disk_superblock *superblock,
	uint64_t first_entry, const void *table, uint32_t entries);

/* What distinguishes page tables from chunk tables. */
struct rouse_table_kind {
	const char *name;
	uint32_t entries;     /* of a full table */
	uint32_t entry_bytes; /* of one entry */
	bool may_be_absent;
	rouse_table_check_fn *check;
};

extern const struct rouse_table_kind rouse_page_tables, rouse_chunk_tables;

/** Reading seven tables more than one takes some 300 us, in fresh memory. */
#define ROUSE_QUICK_READ_NS UINT64_C(500000)

struct rouse_table_run;

struct rouse_tables {
	const struct rouse_table_kind *kind;
	const struct rouse_disk_superblock *superblock;
	struct rouse_source *source;
	struct rouse_disk_table *directory; /* malloc'ed */
	uint64_t count;
	_Atomic uint64_t urgent_bytes; /* of a read for a fault, at most; or one table */
	_Atomic(const void *) *tables; /* NULL: not read yet */
	_Atomic(struct rouse_table_run *) runs;
	_Atomic uint64_t memory; /* bytes, the directory included */
	pthread_mutex_t
		loading[2]; /* one at a time of each priority: urgent never waits for bulk */
};

/**
 * Takes over @directory (also when it fails), the verified section of @entries entries in all.
 * -EUCLEAN: it makes no sense; -ENOMEM.
 */
int rouse_tables_init(struct rouse_tables *tables, const struct rouse_table_kind *kind,
	const struct rouse_disk_superblock *superblock, struct rouse_source *source,
	struct rouse_disk_table *directory, uint64_t entries, struct rouse_error *error);
void rouse_tables_finish(struct rouse_tables *tables);

/**
 * The @index-th table; NULL in *table: it does not exist (all zero). Reads it if it is not there
 * yet, and with it neighbours that lie beside it in the file, because each random read is dear;
 * where it is not, and a fault waits, without them (rouse_tables_expect_quick_reads()).
 * -EUCLEAN, -ENOMEM, and the source's.
 */
int rouse_tables_get(struct rouse_tables *tables, uint64_t index, enum rouse_read_priority priority,
	const void **table);

/**
 * Random reads cost less than reading, checking and keeping neighbours: until one for a fault takes
 * longer than ROUSE_QUICK_READ_NS after all.
 */
void rouse_tables_expect_quick_reads(struct rouse_tables *tables);

/** Reads all that are not there yet, in large reads. */
int rouse_tables_load_all(
	struct rouse_tables *tables, enum rouse_read_priority priority, struct rouse_error *error);

/** Where the @index-th table lies. *length 0: it does not exist. */
void rouse_tables_place(
	const struct rouse_tables *tables, uint64_t index, uint64_t *offset, uint64_t *length);

#endif
