/* SPDX-License-Identifier: MIT */
#include "source/read_depth.h"

#include <stdbool.h>

/* Epochs without another try: after one that gained nothing, and after urgent reads suffered. */
#define HOLD_NO_GAIN 32u
#define HOLD_URGENT 16u
/* An urgent read may take twice the shortest, and this: what a wake-up on a busy machine takes. */
#define URGENT_SLACK_NS UINT64_C(200000)

void rouse_read_depth_init(struct rouse_read_depth *depth)
{
	*depth = (struct rouse_read_depth){.depth = ROUSE_READ_DEPTH_FIRST};
}

/* The shortest of late: one that was short long ago is forgotten, a 64th an epoch. */
static bool urgent_suffers(struct rouse_read_depth *depth, uint64_t urgent_ns)
{
	uint64_t least = depth->least_urgent_ns + depth->least_urgent_ns / 64;

	if (urgent_ns == 0)
		return false;
	if (least == 0 || urgent_ns < least)
		least = urgent_ns;
	depth->least_urgent_ns = least;
	return urgent_ns > 2 * least + URGENT_SLACK_NS;
}

static void grow(struct rouse_read_depth *depth, uint64_t rate)
{
	depth->rate_before = 0;
	if (depth->depth >= ROUSE_READ_DEPTH_MAX)
		return;
	depth->rate_before = rate;
	depth->before = depth->depth;
	depth->depth *= 2;
}

static uint64_t rate_of(const struct rouse_read_epoch *epoch)
{
	double rate = (double)epoch->bytes * 1e9 / (double)epoch->ns;

	return rate >= 1 ? (uint64_t)rate : 1;
}

void rouse_read_depth_epoch(struct rouse_read_depth *depth, const struct rouse_read_epoch *epoch)
{
	const uint64_t rate = rate_of(epoch);

	if (urgent_suffers(depth, epoch->urgent_ns)) {
		depth->depth = depth->depth > 1 ? depth->depth / 2 : 1;
		depth->rate_before = 0;
		depth->hold = HOLD_URGENT;
	} else if (epoch->waited_ns < epoch->ns / 8) {
		depth->rate_before = 0; /* the disk is not what limits: nothing to be learned */
	} else if (depth->hold > 0) {
		depth->hold--;
	} else if (depth->rate_before == 0 || rate > depth->rate_before + depth->rate_before / 16) {
		grow(depth, rate);
	} else {
		depth->depth = depth->before;
		depth->rate_before = 0;
		depth->hold = HOLD_NO_GAIN;
	}
}
