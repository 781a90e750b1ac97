/* SPDX-License-Identifier: MIT */
/*
 * A flat file: a VM's memory as it is, for mapping. docs/format.md, "The flat file", is the
 * specification; this is the same in C.
 *
 *   flat = main block | other blocks | table | footer          (little endian)
 *
 *       0              main_pages     table_offset                        file_bytes
 *       +--------------+--------------+----------------------+------------+
 *       | the block    | the other    | table: u64 for each  | footer,    |
 *       | that is      | blocks, in   | page above, padded   | 4096 bytes |
 *       | mapped       | their order  | to 4096 bytes        |            |
 *       +--------------+--------------+----------------------+------------+
 *       '-- pages; holes where zero --'
 *
 * The main block is first because QEMU 7.2 maps a file from its beginning; what says all this is
 * last for the same reason. A page's place follows from its number: rouse_flat_index().
 */
#ifndef ROUSE_IMAGE_FLAT_FORMAT_H
#define ROUSE_IMAGE_FLAT_FORMAT_H

#include "base/endian.h"

#include <assert.h>
#include <stddef.h>

#define ROUSE_FLAT_MAGIC "ROUSEFLT"
#define ROUSE_FLAT_VERSION 1u
#define ROUSE_FLAT_FOOTER_BYTES 4096u
/** Feature words: an unknown bit in compat is ignored, in incompat refused. None so far. */
#define ROUSE_FLAT_INCOMPAT_KNOWN UINT64_C(0)

/** An entry of the table for a page of zeros. */
#define ROUSE_FLAT_ZERO UINT64_C(0)

struct rouse_disk_flat {
	char magic[8];
	le32_t version;
	le32_t footer_bytes; /* ROUSE_FLAT_FOOTER_BYTES */
	le64_t compat;
	le64_t incompat;
	uint8_t id[16];         /* of the image that it was made of */
	le64_t checkpoint;      /* the checksum of that image's DEVICES section */
	le64_t blocks_checksum; /* of its BLOCKS section */
	le64_t page_count;      /* over all blocks */
	le64_t main_first;      /* page number of the main block's first page */
	le64_t main_pages;
	le64_t zero_pages;
	le64_t table_offset;
	le64_t table_checksum; /* XXH3-64 of the table */
	le64_t file_bytes;
	le64_t written_s; /* the file's time of modification, in seconds since 1970 */
	uint8_t reserved[4096 - 128 - 8];
	le64_t checksum; /* XXH3-64 of the 4088 bytes before */
};
static_assert(sizeof(struct rouse_disk_flat) == ROUSE_FLAT_FOOTER_BYTES, "flat footer");
static_assert(offsetof(struct rouse_disk_flat, reserved) == 128, "flat footer's members");
static_assert(offsetof(struct rouse_disk_flat, checksum) == 4088, "flat footer's checksum");

#endif
