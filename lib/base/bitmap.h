/* SPDX-License-Identifier: MIT */
/*
 * A bit for each page. Memory is reserved for all of it and used where bits are set: a bitmap of a
 * large VM costs in proportion to the pages that were marked (invariant 7). Not thread-safe.
 */
#ifndef ROUSE_BASE_BITMAP_H
#define ROUSE_BASE_BITMAP_H

#include <stdbool.h>
#include <stdint.h>

struct rouse_bitmap {
	uint64_t *words;
	uint64_t bits;
};

/** All bits clear. -ENOMEM. Free with rouse_bitmap_finish(). */
int rouse_bitmap_init(struct rouse_bitmap *bitmap, uint64_t bits);
/** Safe on a zeroed structure, and twice. */
void rouse_bitmap_finish(struct rouse_bitmap *bitmap);
uint64_t rouse_bitmap_count(const struct rouse_bitmap *bitmap);

/* The bit must be below bitmap->bits. */
static inline bool rouse_bitmap_test(const struct rouse_bitmap *bitmap, uint64_t bit)
{
	return bitmap->words[bit / 64] >> (bit % 64) & 1;
}

static inline void rouse_bitmap_set(struct rouse_bitmap *bitmap, uint64_t bit)
{
	bitmap->words[bit / 64] |= UINT64_C(1) << (bit % 64);
}

/** Sets the bit; true if it was set before. */
static inline bool rouse_bitmap_test_and_set(struct rouse_bitmap *bitmap, uint64_t bit)
{
	uint64_t mask = UINT64_C(1) << (bit % 64);
	bool was = (bitmap->words[bit / 64] & mask) != 0;

	bitmap->words[bit / 64] |= mask;
	return was;
}

#endif
