/* SPDX-License-Identifier: MIT */
/*
 * The working set: pages in order of first touch after the checkpoint, and the file it travels in.
 *
 *   file   = header block* page*                           version 1: what one restore touched
 *          | header learned block* record* record*         version 2: what several restores taught;
 *                                                          the set, then the pages that wait
 *   block  = u64 used_bytes, u8 length of name, name       what VM it is of: an image must have the
 *                                                          same blocks for the set to be used
 *   page   = u32 page number, u32 time in us, u16 vcpu (0xffff unknown), u16 flags
 *   record = page, u32 last, u16 count, u16 looks, u16 weight, u16 reserved
 *
 * Little endian, without gaps; the checksum is in the header. A set that was never learned into is
 * written as version 1, which older readers know. A page that waits is remembered but is not of
 * the set: nobody prefetches it, so the next restore that touches it says so (wset_merge.h).
 */
#ifndef ROUSE_WSET_WSET_H
#define ROUSE_WSET_WSET_H

#include "base/endian.h"

#include <rouse.h>

#include <assert.h>

#define ROUSE_WSET_MAGIC "ROUSEWST"
#define ROUSE_WSET_VERSION 2u                    /* the newest; 1 is read and written, too */
#define ROUSE_WSET_MAX_PAGES (UINT32_C(1) << 28) /* of the set and waiting, together */
#define ROUSE_WSET_MAX_RUNS (UINT32_C(1) << 30)
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

/* Version 2. Numbers of the latest restore that was learned from: what struct rouse_wset says. */
struct rouse_disk_wset_learned {
	le32_t runs;
	le32_t waiting_count;
	le32_t prefetched, sampled, used, missed;
	le64_t reserved;
};
static_assert(sizeof(struct rouse_disk_wset_learned) == 32, "wset learned");

struct rouse_disk_wset_record {
	struct rouse_disk_wset_page page;
	le32_t last;
	le16_t count, looks;
	le16_t weight;
	le16_t reserved;
};
static_assert(sizeof(struct rouse_disk_wset_record) == 24, "wset record");

#define ROUSE_WSET_VCPU_UNKNOWN 0xffffu
#define ROUSE_WSET_PAGE_FAULTED 1u
#define ROUSE_WSET_WEIGHT_ONE 0xffffu

/**
 * Who makes a plain set fills in the first four and leaves the others 0: that stands for one
 * restore, which touched the page (rouse_wset_adopt() writes it out).
 */
struct rouse_wset_page {
	uint32_t page;
	uint32_t time_us;
	uint16_t vcpu;
	uint16_t flags;
	uint32_t last;   /* the latest restore that was seen to touch it, counted from 1 */
	uint16_t count;  /* restores that were seen to touch it; stays at its largest value */
	uint16_t looks;  /* restores in which it could have been seen; likewise */
	uint16_t weight; /* how likely the next restore touches it, of ROUSE_WSET_WEIGHT_ONE */
};

struct rouse_wset_block {
	char name[256];
	uint64_t used_bytes;
};

/** Of the latest restore that a set learned from. */
struct rouse_wset_look {
	uint32_t prefetched; /* pages of the set that came before the start, or would have */
	uint32_t sampled;    /* of these, those left out at random to see whether they are used */
	uint32_t used;       /* of these, those that were asked for */
	uint32_t missed;     /* pages that were touched and were not of the set */
};

/** In memory. Arrays are malloc'ed and belong to the structure. */
struct rouse_wset {
	struct rouse_wset_block *blocks;
	struct rouse_wset_page *pages; /* the set */
	uint32_t block_count;
	uint32_t page_count;
	uint32_t flags;
	/* 0: a plain set, of one restore; there is nothing of the following then. */
	uint32_t runs; /* restores that it has learned from */
	uint32_t waiting_count;
	struct rouse_wset_page *waiting; /* remembered, not of the set */
	struct rouse_wset_look look;
};

/**
 * Parses a working-set file from untrusted bytes, without I/O. Afterwards every page number is
 * inside the blocks and stands there once. -EUCLEAN, -EPROTONOSUPPORT, -ENOMEM.
 */
int rouse_wset_parse(
	const void *bytes, size_t size, struct rouse_wset **wset, struct rouse_error *error);

/** What a page of @wset stands for: the history of a plain set's page is written out. */
struct rouse_wset_page rouse_wset_adopt(
	const struct rouse_wset *wset, const struct rouse_wset_page *page);

/** Pages of the VM, by the blocks. */
uint64_t rouse_wset_vm_pages(const struct rouse_wset *wset);

/** A set without pages, of a VM with the blocks of @like. -ENOMEM. */
int rouse_wset_new_like(const struct rouse_wset *like, struct rouse_wset **wset);

/** The checksum of a file: @header's own field does not count. */
uint64_t rouse_wset_checksum(
	const struct rouse_disk_wset_header *header, const void *body, size_t body_bytes);

/** The bytes of the file for @wset: *bytes is the caller's to free(3). -ENOMEM. */
int rouse_wset_encode(
	const struct rouse_wset *wset, char **bytes, size_t *size, struct rouse_error *error);

/**
 * Whether a working set may be written to @path: there is nothing, an empty file, or a working-set
 * file. -EINVAL, kind USAGE: there is something else, which would be lost; those of reading it.
 */
int rouse_wset_check_place(const char *path, struct rouse_error *error);
/**
 * Writes @wset to @path, or where a link there leads: temporary name, fsync, rename. Who is killed
 * leaves what was there, and perhaps the temporary file. Errors of the file, and of
 * rouse_wset_check_place().
 */
int rouse_wset_write(const struct rouse_wset *wset, const char *path, struct rouse_error *error);
/** The same with the name of the temporary file, which must not exist: -EEXIST. */
int rouse_wset_write_by(const struct rouse_wset *wset, const char *path, const char *temporary,
	struct rouse_error *error);

#endif
