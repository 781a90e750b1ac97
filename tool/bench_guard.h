/* SPDX-License-Identifier: MIT */
/*
 * Ends what a benchmark has started if it is killed. A restore and its QEMU outlive who started
 * them, as they should: the VM of a benchmark would run on for good, with nobody who knows of it.
 *
 * The guard is a process of its own that waits for the end of the benchmark. What is started
 * carries a mark in its environment, and so does all that it starts: scripts, QEMU, helpers.
 */
#ifndef ROUSE_TOOL_BENCH_GUARD_H
#define ROUSE_TOOL_BENCH_GUARD_H

#include <sys/types.h>

struct bench_guard {
	pid_t pid;    /* 0: none */
	int lifeline; /* the guard sees it close when the benchmark is gone */
};

/**
 * Puts the mark into this process's environment, and starts the guard. @folder: of the benchmark
 * alone, its mark; it is removed, with @monitor in it, if the guard has to act. -errno.
 */
int bench_guard_begin(struct bench_guard *guard, const char *folder, const char *monitor);
/** The benchmark has tidied up itself. Safe without a begin. */
void bench_guard_end(struct bench_guard *guard);

#endif
