/* SPDX-License-Identifier: MIT */
/*
 * A fake of the kernel's idle page tracking, in memory: what mm/page_idle.c and fs/proc/page.c of
 * Linux do with frames, idle bits and accessed bits, as far as a scan can tell. It is no kernel:
 * that the real one does the same is not shown by tests that use it.
 */
#ifndef ROUSE_TESTS_FAKE_IDLE_H
#define ROUSE_TESTS_FAKE_IDLE_H

#include "wset/scan_idle.h"

#define FAKE_FRAMES 65536u
#define FAKE_PAGES 40000u      /* of the process, which begin at FAKE_ADDRESS */
#define FAKE_ADDRESS 0x7000000 /* not at a multiple of 2 MiB */
#define FAKE_ZERO_FRAME 1u

struct fake_frame {
	uint32_t head;
	uint32_t count; /* of a head: how many frames in one piece */
	bool idle;      /* of a head */
	bool accessed;  /* the page-table entry's bit */
	bool listed;    /* on an LRU list */
	bool locked;    /* nobody looks for accesses now */
};

struct fake_idle {
	struct fake_frame frames[FAKE_FRAMES];
	uint32_t map[FAKE_PAGES]; /* the frame; 0: none */
	bool swapped[FAKE_PAGES];
	uint64_t address; /* of the process's first page */
	uint32_t next_frame;
	uint64_t end; /* frames that the machine has */
	size_t serve; /* bytes in one call at most */
	bool hides;   /* the frame numbers: no CAP_SYS_ADMIN */
	bool is_over; /* the process has ended */
	int fails;    /* what the next call returns; 0: it works */
	enum scan_idle_file fails_of;
	uint64_t reads[SCAN_IDLE_FILES], writes, unaligned;
	/* Called before each reading: something happens in the middle of a scan. */
	void (*meanwhile)(struct fake_idle *fake, enum scan_idle_file file);
};

void fake_idle_init(struct fake_idle *fake);
struct scan_idle_kernel fake_idle_kernel(struct fake_idle *fake);
/** Puts a single page of memory behind a page of the process, as accessing it would. */
void fake_idle_fill(struct fake_idle *fake, uint32_t page);
/** The same with a huge page of 512: @page is the number of its first page. */
void fake_idle_fill_huge(struct fake_idle *fake, uint32_t page);
/** The process reads or writes a page. */
void fake_idle_touch(struct fake_idle *fake, uint32_t page);
/** A system call or a device does (mark_page_accessed()): no bit in a page table. */
void fake_idle_touch_by_kernel(struct fake_idle *fake, uint32_t page);
/** Compaction puts a page elsewhere, with its bits. */
void fake_idle_move(struct fake_idle *fake, uint32_t page);
void fake_idle_swap_out(struct fake_idle *fake, uint32_t page);
/** A huge page becomes 512 / @count pieces, with its bits. */
void fake_idle_split(struct fake_idle *fake, uint32_t page, uint32_t count);

#endif
