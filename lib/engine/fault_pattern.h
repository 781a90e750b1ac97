/* SPDX-License-Identifier: MIT */
/*
 * Which page a guest will ask for next, from those it asked for: several streams at once, each of
 * which goes up or down page by page, or in steps of one length. Arithmetic without I/O.
 *
 *   page number
 *     |            x 3                x: a fault     1, 2: a stride is seen
 *     |        x 2 .                                 3:    and confirmed for the first time
 *     |    x 1                                       then the forecast begins, and doubles with
 *     |  x   . x     . x                             each fault on its track
 *     +-------------------- faults
 *
 * A fault that is on no stream's track halves the forecasts of all: who else waits for pages must
 * not wait long for what another one may never touch.
 *
 * A page that came with another one is never asked for. So a scan is seen as one fault for each
 * chunk, and later as one for each forecast: "on the track" is right behind what came with the last
 * fault.
 */
#ifndef ROUSE_ENGINE_FAULT_PATTERN_H
#define ROUSE_ENGINE_FAULT_PATTERN_H

#include <stdint.h>

#define FAULT_PATTERN_STREAMS 8u
/** The longest stride that is looked for, in pages: 4 MiB. Chance makes longer ones. */
#define FAULT_PATTERN_MAX_STRIDE 1024
/** Faults that must be where a stream was expected before anything is foretold. */
#define FAULT_PATTERN_CONFIRM 2u
/** Forecasts double that often: 16 to 128 pages in sequence, 1 to 8 steps of a stride. */
#define FAULT_PATTERN_LEVELS 4u
#define FAULT_PATTERN_PAGES 16u /* the first forecast in sequence: a chunk's */

struct fault_stream {
	uint64_t last;     /* page of the last fault */
	int64_t stride;    /* in pages; 1 and -1: in sequence; 0: one fault, or no stream */
	uint64_t used;     /* when, in faults; 0: no stream */
	uint32_t came;     /* in sequence: pages behind the last that need not be asked for */
	uint32_t front;    /* and those in front of it, which came with it */
	uint32_t steps;    /* that were foretold */
	unsigned int hits; /* faults on the track, up to FAULT_PATTERN_CONFIRM */
	unsigned int level;
};

/** All zero at first. */
struct fault_pattern {
	struct fault_stream streams[FAULT_PATTERN_STREAMS];
	uint64_t faults;
};

/** Pages page + k * stride for k = 1 ... steps: some of them may not exist. */
struct fault_forecast {
	int64_t stride;
	uint32_t steps; /* 0: nothing is foretold */
};

/** Pages that came with a fault, at most. */
struct fault_reach {
	uint32_t behind, front;
};

/** A fault on @page. */
struct fault_forecast fault_pattern_note(
	struct fault_pattern *pattern, uint64_t page, struct fault_reach reach);

#endif
