/* SPDX-License-Identifier: MIT */
#include "engine/paced_start.h"

/* All in nanoseconds. Doubles: an estimate need not be exact, and must not overflow. */
static bool comes_in_time(
	const struct rouse_paced_start *paced, size_t k, size_t placed, double page_ns)
{
	const double arrival = (double)(k + 1 - placed) * page_ns;
	const double touch = paced->pages[k].time_us * 1000.0;
	const double slack = paced->late_is_cheap ? 0 : ROUSE_PACED_SLACK_NS;

	return arrival + slack <= touch * ROUSE_PACED_START_SHARE;
}

bool rouse_paced_start_ready(struct rouse_paced_start *paced, size_t placed, uint64_t elapsed_ns)
{
	double page_ns;

	if (placed >= paced->count)
		return true;
	if (paced->late_is_cheap && placed >= ROUSE_PACED_FIRST_PAGES)
		return true;
	if (placed == 0) /* nothing is known of the disk */
		return false;
	page_ns = (double)elapsed_ns / (double)placed;
	/* Mostly it is the same page that is late: no need to look at all of them each time. */
	if (paced->late >= placed && !comes_in_time(paced, paced->late, placed, page_ns))
		return false;
	for (size_t k = placed; k < paced->count; k++) {
		if (!comes_in_time(paced, k, placed, page_ns)) {
			paced->late = k;
			return false;
		}
	}
	return true;
}
