/* SPDX-License-Identifier: MIT */
/*
 * Which restore policy lets a VM be responsive soonest: a prediction of each one's TTR(90 %, 100
 *ms) from what is known before anything is placed. Arithmetic without a clock or I/O.
 *
 *	S  bytes of all chunks    s  of the working set's    n, N  pages of the set, of all
 *	B  bytes a second         L  a random read           V     the VMM's own start
 *	P  placing one page       C  serving one fault without its read
 *
 *	eager   max(S / B, V + N P)
 *	lazy    V + F (L + C)                       F = S * ROUSE_POLICY_FAULTS_PER_MB: measured
 *	ws      max(s / B, V + n P)      + the scattered set's reads, where the image is not packed
 *	paced   V + max over i of (i * max(s / (n B), P) - max(0, touch_i / 2 - slack)):
 *	        paced_start.h; where a random read is known to cost little without slack, and at
 *	        most V + the first pages
 *
 * The constants are medians of this project's benchmark (docs/performance.md) and need not be right
 * for a machine, only for the order of the four, which differ by factors.
 */
#ifndef ROUSE_ENGINE_POLICY_CHOICE_H
#define ROUSE_ENGINE_POLICY_CHOICE_H

#include <rouse.h>

/** Faults until a guest without a working set is responsive, per 10^6 stored bytes: 1 to 5 seen. */
#define ROUSE_POLICY_FAULTS_PER_MB 2.5
/** Nanoseconds: QEMU's bare start; placing one page; serving a fault, reading apart. */
#define ROUSE_POLICY_START_NS 30e6
#define ROUSE_POLICY_PLACE_NS 2200.0
#define ROUSE_POLICY_FAULT_NS 250e3

/**
 * A random read costs little below this many nanoseconds, on a medium that streams faster than
 * this: of the benchmark's (docs/performance.md) 0.1 and 1 ms do, 10 and 20 ms do not, which have
 * 100 and 125 MB/s. The rate is asked for because what is known of a random read is often a single
 * one, which may have been lucky: disks that seek do not stream so fast. It may come from a read of
 * 100 KB, which shows 500 MB/s as 215 to 330. A stream of megabytes shows what it is, and may begin
 * with what a disk of 100 MB/s had read ahead: more is asked of it.
 */
#define ROUSE_POLICY_CHEAP_READ_NS 2e6
#define ROUSE_POLICY_CHEAP_BYTES_PER_S 160e6
#define ROUSE_POLICY_CHEAP_STREAM_BYTES_PER_S 300e6

struct rouse_policy_facts {
	uint64_t stored_bytes, stored_pages; /* of all chunks; pages that are not zero */
	uint64_t wset_bytes, wset_pages;     /* of the set; 0 pages: there is none */
	uint64_t scattered_reads;            /* random reads that the set takes; 0: it is packed */
	double bytes_per_s, random_read_ns;  /* of the medium; above 0 */
	double late_ns;                      /* rouse_policy_facts_touch() */
};

struct rouse_policy_prediction {
	/* By enum rouse_policy; 0: not possible, and AUTO's. Microseconds. */
	uint64_t ttr_us[ROUSE_POLICY_COUNT];
	enum rouse_policy best;
};

/**
 * Tells the time of the next touch of the set, all of them in the image's order; @k counts from 0.
 * The other facts must be there.
 */
void rouse_policy_facts_touch(struct rouse_policy_facts *facts, uint64_t k, uint32_t time_us);

/** Whether a page of the set may come late: struct rouse_paced_start. */
bool rouse_policy_late_is_cheap(const struct rouse_policy_facts *facts);

/**
 * The simpler of two that are about as good is the better one: ws before paced, unless it takes
 * 2 ms longer.
 */
void rouse_policy_predict(
	const struct rouse_policy_facts *facts, struct rouse_policy_prediction *prediction);

#endif
