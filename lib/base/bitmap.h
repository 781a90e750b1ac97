/* SPDX-License-Identifier: MIT */
/*
 * A bit for each page. Memory is reserved for all of it and used where bits are set: a bitmap of a
 * large VM costs in proportion to the pages that were marked (invariant 7). Testing and setting
 * bits is thread-safe and orders nothing: what a bit means for other memory needs a lock of its
 * own.
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
	return __atomic_load_n(&bitmap->words[bit / 64], __ATOMIC_RELAXED) >> (bit % 64) & 1;
}

/** Sets the bit; true if it was set before. */
static inline bool rouse_bitmap_test_and_set(struct rouse_bitmap *bitmap, uint64_t bit)
{
	uint64_t mask = UINT64_C(1) << (bit % 64);

	return (__atomic_fetch_or(&bitmap->words[bit / 64], mask, __ATOMIC_RELAXED) & mask) != 0;
}

static inline void rouse_bitmap_set(struct rouse_bitmap *bitmap, uint64_t bit)
{
	(void)rouse_bitmap_test_and_set(bitmap, bit);
}

#endif
