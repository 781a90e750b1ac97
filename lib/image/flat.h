/* SPDX-License-Identifier: MIT */
/*
 * Flat files: parsing (pure, of untrusted bytes), writing, and reading with every page checked.
 */
#ifndef ROUSE_IMAGE_FLAT_H
#define ROUSE_IMAGE_FLAT_H

#include "image/flat_format.h"
#include "image/format.h"

#include <rouse.h>

/** What a footer says, once it can be trusted. */
struct rouse_flat {
	uint8_t id[16];
	uint64_t checkpoint, blocks_checksum;
	uint64_t page_count;
	uint64_t main_first, main_pages;
	uint64_t zero_pages;
	uint64_t table_offset, table_checksum;
	uint64_t file_bytes;
	uint64_t written_s;
};

/**
 * Checks a footer, the last ROUSE_FLAT_FOOTER_BYTES of a file of @file_bytes. Pure. After it all
 * pages and the table lie inside the file and do not overlap. -EUCLEAN: no flat file, damaged or
 * of another length; -EPROTONOSUPPORT: a newer format.
 */
int rouse_flat_parse(const void *bytes, size_t size, uint64_t file_bytes, struct rouse_flat *flat,
	struct rouse_error *error);

/** Makes the footer's bytes. */
void rouse_flat_encode(const struct rouse_flat *flat, struct rouse_disk_flat *disk);

/** Fills in where everything is, out of page_count. */
void rouse_flat_lay_out(struct rouse_flat *flat);

/** Where the page of a number stands, counted in pages from the file's beginning. */
static inline uint64_t rouse_flat_index(const struct rouse_flat *flat, uint64_t page)
{
	if (page < flat->main_first)
		return flat->main_pages + page;
	return page - flat->main_first < flat->main_pages ? page - flat->main_first : page;
}

/** The number of the page at @index: the inverse. */
static inline uint64_t rouse_flat_page(const struct rouse_flat *flat, uint64_t index)
{
	if (index < flat->main_pages)
		return flat->main_first + index;
	return index - flat->main_pages < flat->main_first ? index - flat->main_pages : index;
}

/** The table's entry for a page that is not zero: never ROUSE_FLAT_ZERO. */
uint64_t rouse_flat_checksum(const void *page);

/* ---- Writing -------------------------------------------------------------------------------- */

struct rouse_flat_writer {
	int fd; /* the caller's: an empty file */
	struct rouse_flat flat;
	le64_t *table;
};

/**
 * Begins a file with id, checkpoint, blocks_checksum, page_count, main_first and main_pages of
 * @flat. Free with rouse_flat_writer_finish(). 0, -ENOMEM, or -errno of ftruncate(2).
 */
int rouse_flat_writer_begin(
	int fd, const struct rouse_flat *flat, struct rouse_flat_writer *writer);
/** A page that is not zero; what is not written stays a hole. -errno of pwrite(2). */
int rouse_flat_writer_page(struct rouse_flat_writer *writer, uint64_t page, const void *data);
/** The table, the footer and the time of modification. Nothing may be written afterwards. */
int rouse_flat_writer_end(struct rouse_flat_writer *writer);
void rouse_flat_writer_finish(struct rouse_flat_writer *writer);

/* ---- Reading -------------------------------------------------------------------------------- */

struct rouse_flat_file {
	int fd;
	struct rouse_flat flat;
	/**
	 * Whether its time of modification is the one in its footer. A file that was written to
	 * through the kernel since it was made has another one; so has a copy that did not keep it.
	 */
	bool unchanged;
	uint64_t device, inode;
	le64_t *table; /* after rouse_flat_load_table() */
};

/** Opens a file and checks its footer. Free with rouse_flat_close(), whatever it returns. */
int rouse_flat_open(const char *path, struct rouse_flat_file *file, struct rouse_error *error);
/** Reads and checks the table: 2 MiB for each GiB of the VM. -EUCLEAN, -ENOMEM, and of reading. */
int rouse_flat_load_table(struct rouse_flat_file *file, struct rouse_error *error);
static inline bool rouse_flat_is_zero(const struct rouse_flat_file *file, uint64_t index)
{
	return le64_get(file->table[index]) == ROUSE_FLAT_ZERO;
}
/**
 * Reads @count pages from @index on into @buffer and checks each, zero ones too. So they are in
 * the page cache afterwards, and right. Any thread, after the table was loaded. -EUCLEAN: *wrong
 * is the index of one that is not what was written; or -errno of pread(2).
 */
int rouse_flat_read(const struct rouse_flat_file *file, uint64_t index, uint32_t count,
	void *buffer, uint64_t *wrong);
void rouse_flat_close(struct rouse_flat_file *file);

#endif
