/* SPDX-License-Identifier: MIT */
/*
 * Writes an image in one pass: pages as they come, compressed by worker threads; identical pages
 * once; the working set's pages kept back and laid at the front. The file has a temporary name in
 * the target's directory until rouse_writer_commit() renames it (invariant 5).
 *
 * For one thread at a time. The order of calls: create, set_blocks, put_page and put_zero any
 * number of times, set_section, commit or abort.
 */
#ifndef ROUSE_IMAGE_IMAGE_WRITER_H
#define ROUSE_IMAGE_IMAGE_WRITER_H

#include "image/image_parse.h"

/** A page that belongs to the working set, in order of first touch. */
struct rouse_writer_touch {
	uint64_t page;
	uint32_t time_us;
};

struct rouse_writer_stats {
	uint64_t pages, zero_pages, duplicate_pages, wset_pages, stored_bytes, image_bytes;
};

struct rouse_writer;
struct stat;

/** @layout: NULL or zero members for the defaults. Errors: those of open(2), -EINVAL, -ENOMEM. */
int rouse_writer_create(const char *path, const struct rouse_layout *layout,
	struct rouse_writer **writer, struct rouse_error *error);

/** The commit replaces the file @replaced and no other: rouse_temp_file_replaces(). */
void rouse_writer_replaces(struct rouse_writer *writer, const struct stat *replaced);

/**
 * The RAM blocks (first_page is computed). @wset: copied; may be NULL with @wset_count 0. Its pages
 * are kept in memory until the commit, 4 KiB for each that is not zero.
 * -EINVAL: an image cannot have such blocks, or a page of the set is outside or there twice;
 * -ENOMEM, -EAGAIN (threads), -EIO (no randomness).
 */
int rouse_writer_set_blocks(struct rouse_writer *writer, const struct rouse_block *blocks,
	uint32_t count, const struct rouse_writer_touch *wset, uint32_t wset_count,
	struct rouse_error *error);

/**
 * The content of a page (page number over all blocks): copied. A page may come again: the last
 * content wins. A page that never comes is zero. Blocks while the workers are behind.
 * -ERANGE, -ENOMEM, and what writing gave so far (-ENOSPC): then only abort is left to do.
 */
int rouse_writer_put_page(struct rouse_writer *writer, uint64_t page, const void *data);
int rouse_writer_put_zero(struct rouse_writer *writer, uint64_t page);

/**
 * The pages that have come are near the working set: a restore wants them before all that follow.
 * Without this call an image says nothing of that.
 */
void rouse_writer_end_near(struct rouse_writer *writer);

/** METADATA, CONFIG or DEVICES. The bytes are copied. -ENOMEM, -EINVAL (another type), -EFBIG. */
int rouse_writer_set_section(
	struct rouse_writer *writer, enum rouse_section_type type, const void *bytes, size_t size);

/**
 * Writes what is left, fsync, rename, fsync of the directory; frees the writer whether it succeeds
 * or not, and removes the temporary file if not: rouse_temp_file_commit() says what is under the
 * final name then. @stats may be NULL.
 */
int rouse_writer_commit(
	struct rouse_writer *writer, struct rouse_writer_stats *stats, struct rouse_error *error);

/** Removes the temporary file and frees the writer. NULL is fine. */
void rouse_writer_abort(struct rouse_writer *writer);

#endif
