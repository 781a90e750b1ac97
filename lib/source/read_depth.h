/* SPDX-License-Identifier: MIT */
/*
 * How many blocks of a stream to have in flight. Arithmetic without a clock: a test plays the disk.
 *
 * Looked at once an epoch. While the reader waits for the disk the depth is doubled, and stays
 * doubled if the rate grew by a sixteenth: a disk that serves one request at a time gains nothing
 * from deep queues, and urgent reads stand behind them. When urgent reads take much longer than the
 * shortest of late, it is halved.
 */
#ifndef ROUSE_SOURCE_READ_DEPTH_H
#define ROUSE_SOURCE_READ_DEPTH_H

#include <stdint.h>

#define ROUSE_READ_DEPTH_MAX 32u
#define ROUSE_READ_DEPTH_FIRST 4u

struct rouse_read_depth {
	unsigned int depth;       /**< blocks: 1 to ROUSE_READ_DEPTH_MAX */
	unsigned int before;      /**< the depth that is being compared with */
	unsigned int hold;        /**< epochs until the next try */
	uint64_t rate_before;     /**< bytes/s at that depth; 0: nothing is being compared */
	uint64_t least_urgent_ns; /**< the shortest urgent read of late; 0: none yet */
};

struct rouse_read_epoch {
	uint64_t bytes, ns; /**< what the stream gave, and in what time; both above 0 */
	uint64_t waited_ns; /**< of it the reader waited for the disk */
	uint64_t urgent_ns; /**< what an urgent read took on the average; 0: there was none */
};

void rouse_read_depth_init(struct rouse_read_depth *depth);
/** Takes note of an epoch, and sets the depth for the next one. */
void rouse_read_depth_epoch(struct rouse_read_depth *depth, const struct rouse_read_epoch *epoch);

#endif
