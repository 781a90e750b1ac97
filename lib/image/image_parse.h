/* SPDX-License-Identifier: MIT */
/*
 * Bytes of an image into numbers that can be trusted. Pure functions over untrusted bytes: no I/O,
 * every length checked before use, every limit of format.h enforced. What they accept is consistent
 * in itself; that bytes are what was written is for the checksums, which they check too.
 *
 * All return 0, -EUCLEAN (damaged), -EPROTONOSUPPORT (newer format) or -ENOMEM, with @error filled.
 */
#ifndef ROUSE_IMAGE_IMAGE_PARSE_H
#define ROUSE_IMAGE_IMAGE_PARSE_H

#include "image/format.h"

#include <rouse.h>

/** A RAM block. */
struct rouse_block {
	char name[ROUSE_IMAGE_MAX_BLOCK_NAME + 1];
	uint64_t used_bytes;
	uint64_t page_bytes;
	uint64_t first_page; /* its page number: the sum of the pages of the blocks before */
};

/** A chunk: where it is and how to check and decompress it. */
struct rouse_chunk {
	uint64_t offset;
	uint64_t checksum;
	uint32_t stored_bytes;
	uint16_t pages;
	uint8_t codec;
};

struct rouse_wset_entry {
	uint64_t page;
	uint64_t locator;
	uint32_t time_us;
};

/** The working set inside an image. */
struct rouse_image_wset {
	struct rouse_chunk *chunks; /* chunk_count of them, malloc'ed */
	struct rouse_wset_entry *pages;
	uint32_t chunk_count, page_count;
};

/**
 * Checks a superblock. @file_bytes: the real size of the file, to find truncation.
 * After it every section lies inside the file and every count is within its limit.
 */
int rouse_superblock_parse(const void *bytes, size_t size, uint64_t file_bytes,
	struct rouse_disk_superblock *superblock, struct rouse_error *error);

/** Checks a section's bytes against its checksum. @what: its name, for the error. */
int rouse_section_check(const struct rouse_disk_section *section, const void *bytes, size_t size,
	const char *what, struct rouse_error *error);

/** The BLOCKS section. The caller frees *blocks. Their pages add up to the superblock's count. */
int rouse_blocks_parse(const void *bytes, size_t size,
	const struct rouse_disk_superblock *superblock, struct rouse_block **blocks,
	struct rouse_error *error);

/** The WSET section. Free with rouse_image_wset_finish(). No page stands in it twice. */
int rouse_image_wset_parse(const void *bytes, size_t size,
	const struct rouse_disk_superblock *superblock, struct rouse_image_wset *wset,
	struct rouse_error *error);
void rouse_image_wset_finish(struct rouse_image_wset *wset);

/** One chunk descriptor: inside the file, within the limits. @number: for the error. */
int rouse_chunk_parse(const struct rouse_disk_chunk *disk,
	const struct rouse_disk_superblock *superblock, uint64_t number, struct rouse_chunk *chunk,
	struct rouse_error *error);

/**
 * Verifies the stored bytes of a chunk and decompresses them into @pages, which has room for
 * chunk->pages pages. Allocates and formats nothing: it is on the fault path. Needs 200 KiB of
 * stack. 0, -EUCLEAN: a wrong checksum or length; then @pages may hold anything.
 */
int rouse_chunk_decode(const struct rouse_chunk *chunk, const void *stored, void *pages);

/** What decoding took: each call adds to it. */
struct rouse_decode_time {
	uint64_t verify_ns, decompress_ns;
};

/** The same. @time: what it took; NULL: nobody wants to know. */
int rouse_chunk_decode_timed(const struct rouse_chunk *chunk, const void *stored, void *pages,
	struct rouse_decode_time *time);

/**
 * In two steps, for who waits for one of its pages: all stored bytes are verified, and at least the
 * first @front pages decompressed; more with codecs that cannot stop. *decoded: how many. 0,
 * -EUCLEAN: as above, or it has not that many pages.
 */
int rouse_chunk_decode_front(const struct rouse_chunk *chunk, const void *stored, uint32_t front,
	void *pages, uint32_t *decoded, struct rouse_decode_time *time);

/**
 * All pages of a chunk whose @stored bytes rouse_chunk_decode_front() has verified. -EUCLEAN: a
 * wrong length.
 */
int rouse_chunk_decode_behind(const struct rouse_chunk *chunk, const void *stored, void *pages,
	struct rouse_decode_time *time);

#endif
