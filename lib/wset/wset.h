/* SPDX-License-Identifier: MIT */
/*
 * The working set: pages in order of first touch after the checkpoint, and the file it travels in.
 *
 *   file   = header block* page*            (little endian, checksum in the header)
 *   block  = u64 used_bytes, u8 length of name, name      what VM it is of: an image must have the
 *                                                         same blocks for the set to be used
 *   page   = u32 page number, u32 time in us, u16 vcpu (0xffff unknown), u16 flags
 */
#ifndef ROUSE_WSET_WSET_H
#define ROUSE_WSET_WSET_H

#include "base/endian.h"

#include <rouse.h>

#include <assert.h>

#define ROUSE_WSET_MAGIC "ROUSEWST"
#define ROUSE_WSET_VERSION 1u
#define ROUSE_WSET_MAX_PAGES (UINT32_C(1) << 28)
#define ROUSE_WSET_MAX_BLOCKS 1024u

#define ROUSE_WSET_FLAG_COMPLETE 1u /* of the header: see rouse_wset_info.complete */

struct rouse_disk_wset_header {
	char magic[8];
	le32_t version;
	le32_t flags;
	le32_t block_count;
	le32_t page_count;
	le64_t body_bytes; /* behind the header */
	le64_t reserved[2];
	le64_t checksum; /* XXH3-64 of the header before it, continued over the body */
};
static_assert(sizeof(struct rouse_disk_wset_header) == 56, "wset header");

struct rouse_disk_wset_page {
	le32_t page;
	le32_t time_us;
	le16_t vcpu;
	le16_t flags; /* 1: known from a fault; 0: carried over from an earlier set */
};
static_assert(sizeof(struct rouse_disk_wset_page) == 12, "wset page");

#define ROUSE_WSET_VCPU_UNKNOWN 0xffffu
#define ROUSE_WSET_PAGE_FAULTED 1u

struct rouse_wset_page {
	uint32_t page;
	uint32_t time_us;
	uint16_t vcpu;
	uint16_t flags;
};

struct rouse_wset_block {
	char name[256];
	uint64_t used_bytes;
};

/** In memory. Arrays are malloc'ed and belong to the structure. */
struct rouse_wset {
	struct rouse_wset_block *blocks;
	struct rouse_wset_page *pages;
	uint32_t block_count;
	uint32_t page_count;
	uint32_t flags;
};

/**
 * Parses a working-set file from untrusted bytes, without I/O. Afterwards every page number is
 * inside the blocks and stands there once. -EUCLEAN, -EPROTONOSUPPORT, -ENOMEM.
 */
int rouse_wset_parse(
	const void *bytes, size_t size, struct rouse_wset **wset, struct rouse_error *error);

/** The checksum of a file: @header's own field does not count. */
uint64_t rouse_wset_checksum(
	const struct rouse_disk_wset_header *header, const void *body, size_t body_bytes);

/** The bytes of the file for @wset: *bytes is the caller's to free(3). -ENOMEM. */
int rouse_wset_encode(
	const struct rouse_wset *wset, char **bytes, size_t *size, struct rouse_error *error);

/**
 * Writes @wset to @path: temporary name, fsync, rename. Errors of the file; -EINVAL: there is
 * something at @path that is not a regular file.
 */
int rouse_wset_write(const struct rouse_wset *wset, const char *path, struct rouse_error *error);

#endif
