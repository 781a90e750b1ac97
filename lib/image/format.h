/* SPDX-License-Identifier: MIT */
/*
 * The image on disk. docs/format.md is the specification; this is the same in C.
 *
 *   image      = superblock section* chunk* table*          (little endian; holes may be anywhere)
 *   superblock = 4096 bytes at offset 0, with the place and checksum of each section
 *   section    = METADATA | BLOCKS | CONFIG | DEVICES | WSET | PAGE_DIR | CHUNK_DIR
 *   chunk      = up to chunk_pages pages, compressed together
 *   table      = page table (one per 4096 pages) | chunk table (one per 1024 chunks)
 *
 *       0        4096                                        front_bytes
 *       +--------+----------------------------------+--------+--------------+---------+
 *       | super- | BLOCKS CONFIG PAGE_DIR CHUNK_DIR | chunks | other chunks | page    |
 *       | block  | METADATA WSET DEVICES            | of the |              | tables, |
 *       |        |                                  | wset   |              | chunk   |
 *       |        |                                  |        |              | tables  |
 *       +--------+----------------------------------+--------+--------------+---------+
 *       '------- one sequential sweep before the guest runs -'
 *
 * A page is found in two steps, a chunk too:
 *
 *   page  --/4096--> PAGE_DIR entry  --> page table  --%4096--> locator = (chunk + 1) << 16 | slot
 *   chunk --/1024--> CHUNK_DIR entry --> chunk table --%1024--> chunk descriptor
 *
 * so that opening an image costs 24 bytes for each 16 MiB of the VM. A locator of 0 is a page of
 * zeros; a page table of zero pages only does not exist (offset 0). Pages with equal content have
 * the same locator. The WSET section repeats locators and chunk descriptors of its pages: nothing
 * else need be read before the guest runs.
 */
#ifndef ROUSE_IMAGE_FORMAT_H
#define ROUSE_IMAGE_FORMAT_H

#include "base/endian.h"

#include <assert.h>

#define ROUSE_IMAGE_MAGIC "ROUSEIMG"
#define ROUSE_IMAGE_VERSION 1u

/** Feature words: an unknown bit in compat is ignored, in incompat refused. None so far. */
#define ROUSE_IMAGE_COMPAT_KNOWN UINT64_C(0)
#define ROUSE_IMAGE_INCOMPAT_KNOWN UINT64_C(0)

#define ROUSE_IMAGE_SUPERBLOCK_BYTES 4096u
#define ROUSE_IMAGE_PAGE_BYTES 4096u /* of version 1: the superblock says so too */

/* Limits: what a reader accepts of untrusted numbers. */
#define ROUSE_IMAGE_MAX_PAGES (UINT64_C(1) << 32) /* 16 TiB */
#define ROUSE_IMAGE_MAX_BLOCKS 1024u
#define ROUSE_IMAGE_MAX_BLOCK_NAME 255u
#define ROUSE_IMAGE_MAX_CHUNK_PAGES 512u /* 2 MiB */
#define ROUSE_IMAGE_MAX_SECTION (UINT64_C(1) << 30)
#define ROUSE_IMAGE_MAX_METADATA (1u << 20)

#define ROUSE_PAGE_TABLE_PAGES 4096u   /* 16 MiB of the VM, 32 KiB of table */
#define ROUSE_CHUNK_TABLE_CHUNKS 1024u /* 24 KiB of table */

enum rouse_section_type {
	ROUSE_SECTION_METADATA = 0,  /* JSON: what the VM was; for people and for restoring alone */
	ROUSE_SECTION_BLOCKS = 1,    /* rouse_disk_block with its name, for each RAM block */
	ROUSE_SECTION_CONFIG = 2,    /* QEMU's configuration section, verbatim */
	ROUSE_SECTION_DEVICES = 3,   /* QEMU's device sections, verbatim, without EOF and VMDESC */
	ROUSE_SECTION_WSET = 4,      /* rouse_disk_wset; length 0: no working set */
	ROUSE_SECTION_PAGE_DIR = 5,  /* rouse_disk_table for each page table */
	ROUSE_SECTION_CHUNK_DIR = 6, /* rouse_disk_table for each chunk table */
	ROUSE_SECTION_COUNT = 7,
};
#define ROUSE_IMAGE_SECTION_SLOTS 16u /* of the superblock; those above are of later writers */

/** Where a section is. Sections are stored as they are; only chunks are compressed. */
struct rouse_disk_section {
	le64_t offset;
	le64_t length;
	le64_t checksum; /* XXH3-64 of its bytes */
};

struct rouse_disk_superblock {
	char magic[8];
	le32_t version;
	le32_t header_bytes; /* sizeof(struct rouse_disk_superblock) of the writer */
	le64_t compat;
	le64_t incompat;
	uint8_t id[16]; /* random; tells images apart */
	le64_t file_bytes;
	le64_t front_bytes;
	le64_t page_count; /* over all blocks */
	le64_t chunk_count;
	le64_t zero_pages;      /* of page_count: with locator 0 */
	le64_t duplicate_pages; /* of page_count: not zero, and stored for another page already */
	le64_t stored_bytes;    /* of all chunks */
	le32_t page_bytes;
	le32_t chunk_pages; /* the most that a chunk has */
	le32_t block_count;
	le32_t section_count; /* ROUSE_SECTION_COUNT of the writer */
	struct rouse_disk_section sections[ROUSE_IMAGE_SECTION_SLOTS];
	le64_t near_chunks; /* a hint: a restore asks for these first; 0: not told */
	uint8_t reserved[4096 - 120 - 16 * 24 - 8 - 8];
	le64_t checksum; /* XXH3-64 of the 4088 bytes before */
};
static_assert(sizeof(struct rouse_disk_superblock) == 4096, "superblock");

/** One RAM block; name_bytes of name follow, then the next one, unaligned. */
struct rouse_disk_block {
	le64_t used_bytes; /* a multiple of 4096 */
	le64_t page_bytes; /* of the memory behind it (huge pages); 4096 ordinarily */
	uint8_t name_bytes;
	uint8_t reserved[7];
};
static_assert(sizeof(struct rouse_disk_block) == 24, "block");

/** An entry of PAGE_DIR and CHUNK_DIR. */
struct rouse_disk_table {
	le64_t offset; /* 0: PAGE_DIR only: all its pages are zero */
	le32_t entries;
	le32_t reserved;
	le64_t checksum; /* XXH3-64 of the table */
};
static_assert(sizeof(struct rouse_disk_table) == 24, "table");

/** An entry of a chunk table. */
struct rouse_disk_chunk {
	le64_t offset;
	le32_t stored_bytes;
	le16_t pages;
	uint8_t codec; /* enum rouse_codec */
	uint8_t reserved;
	le64_t checksum; /* XXH3-64 of the stored bytes */
};
static_assert(sizeof(struct rouse_disk_chunk) == 24, "chunk");

/** The WSET section: this, then chunk_count rouse_disk_chunk, then page_count entries. */
struct rouse_disk_wset {
	le32_t page_count;
	le32_t chunk_count; /* its chunks are numbers 0 to chunk_count - 1 of the image */
};
static_assert(sizeof(struct rouse_disk_wset) == 8, "wset");

/** A page of the working set, in order of first touch. */
struct rouse_disk_wset_entry {
	le32_t page;
	le32_t time_us; /* first touch, since the first instruction; saturates */
	le64_t locator; /* 0, or in a chunk below chunk_count */
};
static_assert(sizeof(struct rouse_disk_wset_entry) == 16, "wset entry");

#define ROUSE_LOCATOR_ZERO UINT64_C(0)

static inline uint64_t rouse_locator_make(uint64_t chunk, uint32_t slot)
{
	return (chunk + 1) << 16 | slot;
}

/* Of a locator that is not ROUSE_LOCATOR_ZERO. */
static inline uint64_t rouse_locator_chunk(uint64_t locator)
{
	return (locator >> 16) - 1;
}

static inline uint32_t rouse_locator_slot(uint64_t locator)
{
	return (uint32_t)(locator & 0xffff);
}

#endif
