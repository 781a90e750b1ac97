/* SPDX-License-Identifier: MIT */
/*
 * When a VM may start although its working set is not all there: as soon as what is missing is sure
 * to come before it is touched. Arithmetic without a clock, so that a test can play the disk.
 *
 *	arrival of page k = now + (k + 1 - placed) * (elapsed / placed)
 *	touch of page k   = start + time_us[k]
 *
 *	  k
 *	  |        touches  .'
 *	  |               .'  _.-'   arrivals at the rate seen so far: start when, moved to the left
 *	  |             .'_.-'       as far as `now`, the touches stay to the right of them
 *	  |      ___.:.-'
 *	  +------------------------ time
 *	       now
 *
 * The times are those of another run, so only a part of each is counted on (SHARE); and
 * unless a random read is known to cost little, all arrivals are taken to be later by what faults
 * may cost (SLACK).
 *
 * Where a random read costs little, a page that comes late costs the guest less than waiting for
 * all that might be late: it starts once the first pages are there, and the set comes beside it, as
 * in FaaSnap (Ao, Porter, Voelker, EuroSys 2022). At worst the guest waits for the stream, as it
 * would have before the start. The times cannot tell: those of a VM that did nothing but wait while
 * it was recorded have no pauses in them.
 */
#ifndef ROUSE_ENGINE_PACED_START_H
#define ROUSE_ENGINE_PACED_START_H

#include "engine/feeder.h"

#include <stdbool.h>

/* The part of a page's time that is relied on. */
#define ROUSE_PACED_START_SHARE 0.5
/*
 * Where a random read may be dear, arrivals may be so much later than they seem, in nanoseconds:
 * each fault on a page that is not of the set sends a disk there and back, 20 ms at 100 reads a
 * second, and while a set comes one or two are usual (docs/performance.md, "What a set lacks").
 */
#define ROUSE_PACED_SLACK_NS 40e6
/* Pages that are there before the start in any case: a window, what a guest touches at once. */
#define ROUSE_PACED_FIRST_PAGES 256u

struct rouse_paced_start {
	const struct rouse_feed_page *pages; /* in the order in which they come; the caller's */
	size_t count;
	bool late_is_cheap; /* a random read costs little */
	size_t late;        /* a page that came too late when last looked */
};

/** Whether to start. @placed: pages, of the first ones; @elapsed_ns: since reading began. */
bool rouse_paced_start_ready(struct rouse_paced_start *paced, size_t placed, uint64_t elapsed_ns);

#endif
