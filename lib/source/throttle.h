/* SPDX-License-Identifier: MIT */
/*
 * Makes a fast medium as slow as another one, and lets urgent reads pass bulk ones.
 *
 * Two token buckets, which a read of n bytes must both have paid when it returns, and a latency:
 *
 *   bytes         fills at bytes_per_s, holds at most ROUSE_THROTTLE_BURST; a read takes n
 *   random reads  fills at random_reads_per_s, holds at most one; a read takes one if it does not
 *                 begin where the last read of this source ended
 *   latency       what a read that continues no stream takes beyond that: the way to another
 *                 machine and back. Reads overlap in it: it bounds who reads one thing after the
 *                 other, and takes no bandwidth. A read continues a stream if it begins where the
 *                 last urgent or the last bulk read ended: a client that reads ahead has asked for
 *                 it already, and goes on reading ahead beside an urgent read elsewhere
 *
 * For a read that begins where the last one ended the bytes bucket holds 20 ms' worth more: a disk
 * that reads ahead does not stand still because a reader is not scheduled at once. No bucket ever
 * gives more than its burst and its rate times the time since the first read.
 *
 * A read waits for its random token before it begins and then for its bytes: the seek and the
 * transfer of a disk with one head. The order of service:
 *
 *   - an urgent read takes its tokens when it arrives: after what was taken before, before
 *     everything that still waits;
 *   - bulk reads are served one at a time, and take their tokens only when the random token is
 *     there and no urgent read is under way. A bulk read that has taken its tokens is finished;
 *   - but one that ROUSE_THROTTLE_PATIENCE urgent reads have passed takes the next token: a disk
 *     that two readers ask serves both.
 *
 * A read is under way until its tokens are paid: nobody waits for another one's latency.
 *
 * Thread-safe.
 */
#ifndef ROUSE_SOURCE_THROTTLE_H
#define ROUSE_SOURCE_THROTTLE_H

#include "source/source.h"

/** Bytes that may have been saved up by idling. */
#define ROUSE_THROTTLE_BURST (64u << 10)

/** Random reads that may pass a bulk read. */
#define ROUSE_THROTTLE_PATIENCE 2u

struct rouse_throttler;

/** Free with rouse_throttler_free(). -ENOMEM. */
int rouse_throttler_new(const struct rouse_throttle *limits, struct rouse_throttler **throttler);
void rouse_throttler_free(struct rouse_throttler *throttler);

/** When a read's tokens are paid, and when it returns; CLOCK_MONOTONIC. */
struct rouse_throttle_turn {
	uint64_t paid_ns, due_ns;
};

/** Whether @limits holds anything back. */
bool rouse_throttle_limits(const struct rouse_throttle *limits);

/**
 * Waits for the turn of a read and takes its tokens.
 * The caller reads, then calls rouse_throttler_end(), whether reading succeeded or not.
 */
void rouse_throttler_begin(struct rouse_throttler *throttler, uint64_t offset, size_t size,
	enum rouse_read_priority priority, struct rouse_throttle_turn *turn);

/** Lets the next one begin when the tokens are paid, and returns when the read is due. */
void rouse_throttler_end(struct rouse_throttler *throttler, enum rouse_read_priority priority,
	const struct rouse_throttle_turn *turn);

#endif
