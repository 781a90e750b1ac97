/* SPDX-License-Identifier: MIT */
/*
 * What the files of this room share: the log, and what is computed from it.
 *
 *   log      = stalls in the order they were added; they overlap as they like
 *   profile  = the same as a step function of time, sorted, with its integral
 *
 *   stalled vCPUs          +----+
 *   (at most n)      +-----+    +--+          +---+
 *            --------+             +----------+   +-------
 *   points   0       1     2    3  4          5   6
 */
#ifndef ROUSE_TTR_STALLS_H
#define ROUSE_TTR_STALLS_H

#include "ttr/ttr.h"

/*
 * Limits that make the exact arithmetic of ttr.c fit into 128 bits: with n below 2^13, times below
 * 2^45 and millionths, g is below 2^79 and a crossing's numerator below 2^125.
 */
#define ROUSE_STALLS_MAX_VCPUS 4096u
#define ROUSE_STALLS_MAX_US (INT64_C(1) << 44) /* 203 days */

struct rouse_stall {
	int64_t from, to;
};

/** From @time to the next point @level vCPUs are stalled; @stalled: the integral up to @time. */
struct rouse_stalls_point {
	int64_t time;
	int64_t stalled;
	int64_t level;
};

/** Sorted, the first at time 0, the last with level 0. @valid: it has all that was added. */
struct rouse_stalls_profile {
	struct rouse_stalls_point *points;
	size_t count;
	bool valid;
};

struct rouse_stalls {
	unsigned int vcpus;
	struct rouse_stall *stalls;
	size_t count, room;
	/* A cache, with room for all that was added: computing allocates nothing and cannot fail.
	 * Apart, so that it can be filled in through a log that is const to the caller. */
	struct rouse_stalls_profile *profile;
};

/** The log's profile, brought up to date. Never without a point. */
const struct rouse_stalls_profile *rouse_stalls_get_profile(const struct rouse_stalls *stalls);

/**
 * Stalled vCPU time in [0, @time]. *@cursor: index of a point at or behind the one that holds
 * @time; it moves down to it, so that a walk with falling times costs one pass.
 */
static inline int64_t rouse_stalls_integral(
	const struct rouse_stalls_profile *profile, size_t *cursor, int64_t time)
{
	const struct rouse_stalls_point *point;

	while (*cursor > 0 && profile->points[*cursor].time > time)
		(*cursor)--;
	point = &profile->points[*cursor];
	return point->stalled + point->level * (time - point->time);
}

#endif
