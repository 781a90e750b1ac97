/* SPDX-License-Identifier: MIT */
/*
 * The rules of page_idle: what the kernel's words mean, how pages are put together into few system
 * calls, and which page counts as accessed. Pure; scan_idle.h does the I/O.
 *
 * Three files of the kernel are arrays of 64-bit words in the machine's byte order (the kernel's
 * documentation, admin-guide/mm/pagemap and idle_page_tracking):
 *
 *	/proc/PID/pagemap       one word for a page of the process: where it is in memory, its PFN
 *	/proc/kpageflags        one word for a PFN: its flags
 *	.../page_idle/bitmap    one bit for a PFN, 64 in a word: not accessed since it was set
 *
 * What comes in one piece (a *folio*: a huge page, or a single page) has one idle bit, that of its
 * first page, the *head*; those of the others, the *tails*, are always clear.
 */
#ifndef ROUSE_WSET_SCAN_IDLE_RULE_H
#define ROUSE_WSET_SCAN_IDLE_RULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SCAN_IDLE_WORD 8u                  /* bytes: offsets and sizes are multiples of it */
#define SCAN_IDLE_BITS 64u                 /* of a word of the bitmap */
#define SCAN_IDLE_RUN_WORDS 512u           /* the kernel serves a page of words at once, not more */
#define SCAN_IDLE_PFNS (UINT64_C(1) << 48) /* x86-64 has 2^40 of them */
#define SCAN_IDLE_MAX_ORDER 9u             /* of a folio: 2^9 pages, 2 MiB */

/* Flags of /proc/kpageflags. */
#define SCAN_IDLE_FLAG_HEAD (UINT64_C(1) << 15) /* the first page of several */
#define SCAN_IDLE_FLAG_TAIL (UINT64_C(1) << 16) /* another one of them */
#define SCAN_IDLE_FLAG_ZERO (UINT64_C(1) << 24) /* the page of zeros that everybody has */
#define SCAN_IDLE_FLAG_IDLE (UINT64_C(1) << 25) /* the idle bit, without looking for accesses */

/* ---- A page of the process ------------------------------------------------------------------- */

enum scan_idle_where {
	SCAN_IDLE_NOWHERE, /* not in the page tables: never touched, in swap, given back */
	SCAN_IDLE_SOMEWHERE,
	SCAN_IDLE_HIDDEN, /* somewhere, but not for the eyes of who has no CAP_SYS_ADMIN */
};

struct scan_idle_entry {
	enum scan_idle_where where;
	uint64_t pfn; /* of SCAN_IDLE_SOMEWHERE */
};

/** A word of /proc/PID/pagemap. */
struct scan_idle_entry scan_idle_entry_parse(uint64_t word);

enum scan_idle_state {
	SCAN_IDLE_TO_MARK,   /* to be marked next: nothing is known of it */
	SCAN_IDLE_ABSENT,    /* it was nowhere when it was to be marked */
	SCAN_IDLE_EMPTY,     /* the page of zeros: a write puts another page in its place */
	SCAN_IDLE_WATCHED,   /* its idle bit was set, and stayed */
	SCAN_IDLE_UNWATCHED, /* its idle bit did not stay: not on an LRU list, or out of reach */
};

/** What is kept of each page from marking to reading. All zero: SCAN_IDLE_TO_MARK. */
struct scan_idle_page {
	uint64_t pfn : 48;
	uint64_t to_head : 10; /* the idle bit that counts is that of pfn - to_head */
	uint64_t state : 3;    /* enum scan_idle_state */
	uint64_t huge : 1;     /* one of several that have one bit */
};

enum scan_idle_bit {
	SCAN_IDLE_UNREAD, /* beyond the end of the bitmap */
	SCAN_IDLE_CLEAR,
	SCAN_IDLE_SET,
};

enum scan_idle_verdict { SCAN_IDLE_QUIET, SCAN_IDLE_ACCESSED, SCAN_IDLE_UNKNOWN };

/**
 * Whether a page was accessed since it was marked. @now: where it is now, looked up after the @bit
 * was read: only if the page is still where it was marked, the bit was its own.
 *
 * A page that came into the page tables counts as accessed, because an access is what brings pages
 * there. So does one that is elsewhere now: a write to a page that was shared, or swapped out
 * and in by an access; or it was only moved (compaction, a huge page put together), which cannot be
 * told from the others. A page too many costs some bandwidth, one too few a stall.
 * A page that is gone does not: an access would have brought it back.
 */
enum scan_idle_verdict scan_idle_judge(
	const struct scan_idle_page *marked, struct scan_idle_entry now, enum scan_idle_bit bit);

/** The state after reading: what of it is to be marked again. A quiet page still has its mark. */
enum scan_idle_state scan_idle_next(
	const struct scan_idle_page *marked, struct scan_idle_entry now, enum scan_idle_verdict);

/* ---- Many pages ------------------------------------------------------------------------------ */

/** A page on its way through a batch. */
struct scan_idle_item {
	uint64_t pfn;
	uint64_t flags; /* of kpageflags; 0 if there are none */
	uint64_t head;  /* SCAN_IDLE_NO_HEAD: not known */
	uint32_t page;  /* its number in the batch */
	uint8_t bit;    /* enum scan_idle_bit */
};

#define SCAN_IDLE_NO_HEAD UINT64_MAX

/** By PFN. */
void scan_idle_sort(struct scan_idle_item *items, size_t count);

/** Items whose words lie close together: for one system call. */
struct scan_idle_run {
	uint64_t first; /* word of the file */
	uint32_t words; /* at most SCAN_IDLE_RUN_WORDS */
	size_t end;     /* the item behind its last one */
};

/**
 * The run that begins with item @from of sorted items; @from < @count. @pages_per_word: 64 for the
 * bitmap, 1 for kpageflags. @gap: so many words in between are taken along.
 */
struct scan_idle_run scan_idle_run_next(const struct scan_idle_item *items, size_t count,
	size_t from, unsigned int pages_per_word, unsigned int gap);

/** A bit of the bitmap's words; the PFN must be in the run. */
void scan_idle_bit_put(uint64_t *words, const struct scan_idle_run *run, uint64_t pfn);
/** @have: so many words of the run could be read. */
enum scan_idle_bit scan_idle_bit_get(
	const uint64_t *words, const struct scan_idle_run *run, uint32_t have, uint64_t pfn);

/**
 * The head of a page by its own flags, or by those of the item before it (NULL: none), whose head
 * is known. SCAN_IDLE_NO_HEAD: they do not tell.
 */
uint64_t scan_idle_head(const struct scan_idle_item *before, const struct scan_idle_item *item);
/**
 * Where the head of a tail may be: a folio of 2^n pages begins at a multiple of 2^n. @step: 0 and
 * up. The first that is no tail is the head. SCAN_IDLE_NO_HEAD: there are no more.
 */
uint64_t scan_idle_head_candidate(uint64_t pfn, unsigned int step);

/** Where the bit of a watched tail is now that its flags were read again. */
enum scan_idle_source_of_bit {
	SCAN_IDLE_BIT_OF_HEAD,    /* as it was marked */
	SCAN_IDLE_BIT_OF_ITS_OWN, /* the huge page was split: each page has inherited the bit */
	SCAN_IDLE_BIT_LOST,       /* it is a tail of something else: counts as clear */
};

/** @now: the page with its flags and its head as they are now. */
enum scan_idle_source_of_bit scan_idle_tail_now(
	const struct scan_idle_page *marked, const struct scan_idle_item *now);

#endif
