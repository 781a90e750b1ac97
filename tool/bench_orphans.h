/* SPDX-License-Identifier: MIT */
/*
 * What a restore leaves behind beside QEMU: a script around it, helpers that such a script has
 * started. They are left to this process as the reaper of orphans.
 */
#ifndef ROUSE_TOOL_BENCH_ORPHANS_H
#define ROUSE_TOOL_BENCH_ORPHANS_H

#include "bench_process.h"

#define BENCH_MAX_CHILDREN 64u

struct bench_orphans {
	pid_t before[BENCH_MAX_CHILDREN]; /* children that are none of ours: the shell's */
	unsigned int count;
};

/** Becomes the reaper of orphans, and notes whose children are there already. -errno. */
int bench_orphans_begin(struct bench_orphans *orphans);

/**
 * Ends orphans: children that were not there, in a session of their own as all that QEMU is
 * started with. @kindly: not before they have had time to follow QEMU. Whether none is left. Where
 * the kernel does not list children (CONFIG_PROC_CHILDREN) none is found.
 */
bool bench_orphans_end(
	const struct bench_orphans *orphans, struct bench_signals *signals, bool kindly);

#endif
