/* SPDX-License-Identifier: MIT */
/*
 * Reads and places what a guest is expected to ask for next (fault_pattern.h), once its fault has
 * been answered: as if those faults had come, but with chunks that lie together in one read.
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

/**
 * For a fault on @page, in @span, whose content is replaced; *placed: how many pages. What cannot
 * be read or is damaged is left out: whoever needs it will say so. 0 or the sink's errors.
 */
int fault_ahead_place(struct fault_span *span, struct rouse_source *source, struct rouse_sink *sink,
	uint64_t page, struct fault_forecast forecast, size_t *placed);

#endif
