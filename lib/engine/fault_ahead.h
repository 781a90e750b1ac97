/* SPDX-License-Identifier: MIT */
/*
 * Reads and places what a guest is expected to ask for next (fault_pattern.h), once its fault has
 * been answered: as if those faults had come, but with chunks that lie together in one read. And
 * zero pages, which are in no chunk: fault-around for them is here, too.
 */
#ifndef ROUSE_ENGINE_FAULT_AHEAD_H
#define ROUSE_ENGINE_FAULT_AHEAD_H

#include "engine/fault_pattern.h"
#include "engine/fault_span.h"

/**
 * After this time no further read begins: another vCPU may wait for the answer to its fault. Eight
 * chunks from the page cache, decompressed and placed, take about as long.
 */
#define FAULT_AHEAD_NS UINT64_C(1000000)

/** Pages that came with a fault. A zero page is not stored: the background has none to deliver. */
struct fault_extra {
	size_t stored, zeros;
};

/**
 * For a fault on @page, in @span, whose content is replaced; *extra: how many pages. What cannot
 * be read or is damaged is left out: whoever needs it will say so. 0 or the sink's errors.
 */
int fault_ahead_place(struct fault_span *span, struct rouse_source *source, struct rouse_sink *sink,
	uint64_t page, struct fault_forecast forecast, struct fault_extra *extra);

/**
 * For a fault on @page, which is zero: its zero neighbours. They need not be read, and cost no
 * memory; a guest that makes a huge page of free memory asks for 512 of them, one behind the other.
 * *placed: how many. 0 or the sink's errors.
 */
int fault_ahead_place_zeros(
	struct fault_span *span, struct rouse_sink *sink, uint64_t page, size_t *placed);

#endif
