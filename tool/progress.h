/* SPDX-License-Identifier: MIT */
/*
 * How far a job is: a bar on a terminal, a plain line every few seconds elsewhere. It never waits:
 * while a guest is being served, a terminal that does not take output must not hold it up.
 */
#ifndef ROUSE_TOOL_PROGRESS_H
#define ROUSE_TOOL_PROGRESS_H

#include <rouse.h>

struct progress {
	bool shown;
	bool terminal;
	bool drawn; /* there is a bar on the terminal */
	char phase[32];
	uint64_t begin_us, last_us; /* of the phase; of the last line */
	uint64_t begin_done;
};

void progress_init(struct progress *progress, bool quiet);
void progress_update(struct progress *progress, const struct rouse_progress *now);
/** Takes the bar off the terminal, for another line or at the end. */
void progress_clear(struct progress *progress);

#endif
