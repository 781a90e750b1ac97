/* SPDX-License-Identifier: MIT */
/*
 * Reads an image through a source. What is at the front is read on opening, tables when they are
 * first needed. Thread-safe after opening.
 */
#ifndef ROUSE_IMAGE_IMAGE_READER_H
#define ROUSE_IMAGE_IMAGE_READER_H

#include "image/image_parse.h"
#include "source/source.h"

struct rouse_reader;

/**
 * Opens an image over @source, which stays the caller's and must outlive the reader.
 * Reads the superblock, then all sections, in one read if they lie together, which ends where the
 * first chunk of the working set begins.
 * Errors: as image_parse.h, and those of the source.
 */
int rouse_reader_open(
	struct rouse_source *source, struct rouse_reader **reader, struct rouse_error *error);
void rouse_reader_close(struct rouse_reader *reader);

/** How long the reads of opening took: a first look at the medium, which costs nothing. */
struct rouse_reader_opening {
	uint64_t first_ns;            /* the superblock: a random read of 4 KiB */
	uint64_t rest_ns, rest_bytes; /* the sections: goes on where the first one ended */
};

void rouse_reader_get_opening(
	const struct rouse_reader *reader, struct rouse_reader_opening *opening);

/**
 * Tells that random reads cost little here: a table that a fault waits for is read alone, without
 * those beside it in the file, until such a read takes long after all (ROUSE_QUICK_READ_NS).
 */
void rouse_reader_expect_quick_reads(struct rouse_reader *reader);

const struct rouse_disk_superblock *rouse_reader_superblock(const struct rouse_reader *reader);
uint64_t rouse_reader_page_count(const struct rouse_reader *reader);
uint64_t rouse_reader_chunk_count(const struct rouse_reader *reader);
const struct rouse_block *rouse_reader_blocks(const struct rouse_reader *reader, uint32_t *count);
/** CONFIG, DEVICES or METADATA (with a NUL behind it). The bytes are the reader's. */
const void *rouse_reader_section(
	const struct rouse_reader *reader, enum rouse_section_type type, size_t *size);
/** The working set of the image; page_count 0 if it has none. */
const struct rouse_image_wset *rouse_reader_wset(const struct rouse_reader *reader);

/**
 * The locator of a page. Reads its page table if it is not there yet; afterwards it allocates
 * nothing. The chunk of the locator exists, and its slot is below chunk_pages; whether its chunk
 * has so many pages is for the caller to check with rouse_locator_in_chunk(), once it has the
 * chunk. -ERANGE: no such page; -EUCLEAN: damaged; -ENOMEM; and the source's.
 */
int rouse_reader_locate(struct rouse_reader *reader, uint64_t page,
	enum rouse_read_priority priority, uint64_t *locator);

/** Whether the chunk of @locator really has the page: to be asked before its bytes are used. */
static inline bool rouse_locator_in_chunk(uint64_t locator, const struct rouse_chunk *chunk)
{
	return rouse_locator_slot(locator) < chunk->pages;
}

/** The descriptor of a chunk, likewise. */
int rouse_reader_chunk(struct rouse_reader *reader, uint64_t number,
	enum rouse_read_priority priority, struct rouse_chunk *chunk);

/**
 * The @index-th page table (pages index * ROUSE_PAGE_TABLE_PAGES on), as locators; NULL in *table:
 * all its pages are zero. The table is the reader's. *entries: how many it has.
 */
int rouse_reader_page_table(struct rouse_reader *reader, uint64_t index,
	enum rouse_read_priority priority, const le64_t **table, uint32_t *entries);

/** How many page tables and chunk tables there are. */
uint64_t rouse_reader_page_tables(const struct rouse_reader *reader);
uint64_t rouse_reader_chunk_tables(const struct rouse_reader *reader);

/** Where a table lies in the file, for naming damage. *length 0: it does not exist. */
void rouse_reader_page_table_place(
	const struct rouse_reader *reader, uint64_t index, uint64_t *offset, uint64_t *length);
void rouse_reader_chunk_table_place(
	const struct rouse_reader *reader, uint64_t index, uint64_t *offset, uint64_t *length);

/**
 * Reads every table now, as few reads as they lie in runs: for who will need all of them soon.
 */
int rouse_reader_load_tables(
	struct rouse_reader *reader, enum rouse_read_priority priority, struct rouse_error *error);

/** Bytes of memory that the reader holds, for the test of invariant 7. */
uint64_t rouse_reader_memory(const struct rouse_reader *reader);

#endif
