/* SPDX-License-Identifier: MIT */
/*
 * The metric: stalls of vCPUs, mutator utilization, time-to-responsiveness. docs/ttr.md defines it.
 * The log itself is struct rouse_stalls of <rouse.h>; here is what the library needs beside it.
 *
 * File of a stall log (text, one record a line):
 *
 *   rouse-stalls 1
 *   vcpus N
 *   FROM_US TO_US      (any number of lines; '#' begins a comment line)
 */
#ifndef ROUSE_TTR_TTR_H
#define ROUSE_TTR_TTR_H

#include <rouse.h>

#include <stdio.h>

/** Writes a log as text. 0 or -errno. */
int rouse_stalls_write(const struct rouse_stalls *stalls, FILE *file);

/**
 * Whether a log may be written to @path: what is there already, if it is a file, must be empty or a
 * log. Kind USAGE, -EEXIST: it is something else; or errors of reading it.
 */
int rouse_stalls_check_place(const char *path, struct rouse_error *error);

/** Parses the text of a log: untrusted bytes, no I/O. -EUCLEAN names the line; -ENOMEM. */
int rouse_stalls_parse(
	const char *text, size_t size, struct rouse_stalls **stalls, struct rouse_error *error);

/** The sum over all vCPUs of the time stalled in [from, to): at most vcpus at any moment. */
uint64_t rouse_stalls_stalled_us(
	const struct rouse_stalls *stalls, uint64_t from_us, uint64_t to_us);

/** The table of a report. */
void rouse_stalls_table(const struct rouse_stalls *stalls,
	uint64_t table_us[ROUSE_TTR_UTILIZATIONS][ROUSE_TTR_WINDOWS]);

/** p50, p90, p99 and maximum of @values, which is sorted in place. All zero if @count is 0. */
void rouse_percentiles_compute(uint32_t *values, size_t count, struct rouse_percentiles *out);

#endif
