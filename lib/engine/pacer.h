/* SPDX-License-Identifier: MIT */
/*
 * The pace of the background: how fast pages go that nobody asked for. A fixed rate, none at all,
 * or one that follows how long the guest's processors wait for the host's: pure arithmetic, which
 * reads no clock.
 *
 *   for each piece:  place it;  rouse_pacer_placed() -> wait until then
 *   now and then:    rouse_pacer_sample()            -> a new rate
 *   after a fault:   rouse_pacer_missed()
 *
 * The control is that of TCP's congestion window (Chiu and Jain 1989, and RFC 7661 for "only if the
 * rate was used"): up by a tenth while the guest has its processors, down to the half at most when
 * it waits for them longer than its budget. The numbers in pacer.c are from
 * bench/bench_background.py.
 */
#ifndef ROUSE_ENGINE_PACER_H
#define ROUSE_ENGINE_PACER_H

#include <stdbool.h>
#include <stdint.h>

/** Pages that are placed between two looks at the clock, where there is a pace to keep. */
#define ROUSE_PACER_PIECE 16u

struct rouse_pacer {
	bool limited;  /* there is a rate */
	bool adaptive; /* it follows the samples */
	double rate;   /* bytes/s */
	uint64_t due_ns;
	bool sampled; /* once at least */
	uint64_t sampled_ns, wait_ns;
	uint64_t bytes;      /* placed since the last sample */
	uint64_t placing_ns; /* what placing them took */
	double speed;        /* bytes/s that this machine can place; 0: not known */
	bool has_missed;     /* the guest has waited for a page */
	uint64_t missed_ns;  /* when it did last */
};

/**
 * @background: bytes/s, ROUSE_BACKGROUND_MAX or ROUSE_BACKGROUND_AUTO. @speed: bytes/s that this
 * machine has placed before, held back by nobody; 0: not known. @now_ns: any clock's.
 */
void rouse_pacer_init(
	struct rouse_pacer *pacer, uint64_t background, double speed, uint64_t now_ns);

/** Whether it is time for a sample. */
bool rouse_pacer_wants_sample(const struct rouse_pacer *pacer, uint64_t now_ns);

/**
 * For how long the guest's processors have waited up to now, the sum over them, and how many they
 * are. @processors 0 or less: nobody knows; the rate is the least one.
 */
void rouse_pacer_sample(
	struct rouse_pacer *pacer, uint64_t now_ns, uint64_t wait_ns, int processors);

/** The guest has waited for a page of late: what it misses matters more than its processors. */
void rouse_pacer_missed(struct rouse_pacer *pacer, uint64_t now_ns);

/**
 * Takes note of @bytes that were placed, which took @placing_ns without what they were waited for.
 * Returns when the next may go; 0: at once.
 */
uint64_t rouse_pacer_placed(
	struct rouse_pacer *pacer, uint64_t now_ns, uint64_t bytes, uint64_t placing_ns);

#endif
