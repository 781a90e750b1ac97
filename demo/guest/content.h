/* SPDX-License-Identifier: MIT */
/*
 * What stamped memory holds. The bytes depend only on (id, generation), so that they can be
 * recomputed and compared at any time; they look like real memory to a compressor (some of it
 * random, some of it records, some of it sparse: about 2:1 under LZ4).
 */
#ifndef GUEST_CONTENT_H
#define GUEST_CONTENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONTENT_MAX 16384 /* the longest piece: content_check() has a buffer of this size */

/** Fills @len bytes (a multiple of 64, at most CONTENT_MAX). @buf is 8-byte aligned. */
void content_fill(void *buf, size_t len, uint64_t id, uint32_t generation);
/** Whether @buf holds exactly what content_fill() would put there. */
bool content_check(const void *buf, size_t len, uint64_t id, uint32_t generation);

/** A good mixing of 64 bits. */
static inline uint64_t content_mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ULL;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

/** A fast generator of pseudo-random words; the state must not be 0. */
static inline uint64_t content_next(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	*state = x;
	return x;
}

#endif
