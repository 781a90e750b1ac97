/* SPDX-License-Identifier: MIT */
/* Ending the QEMU that a restore of rouse bench has started. */
#ifndef ROUSE_TOOL_BENCH_QEMU_H
#define ROUSE_TOOL_BENCH_QEMU_H

#include "bench_process.h"

/** What a QEMU has told of itself; empty: nothing. */
struct bench_qemu_facts {
	char version[32];
	char accel[8]; /* "kvm", "tcg" */
};

/**
 * Ends the QEMU that listens at a monitor's socket, if there is one, and removes the socket: who
 * listens is known also if the restore has failed, or died. @kindly: first by "quit", so that QEMU
 * brings its files to an end; a VM that lacks pages would never do it. @facts: filled with what it
 * says of itself then. Whether none is left.
 */
bool bench_qemu_end(struct bench_signals *signals, const char *monitor, bool kindly,
	struct bench_qemu_facts *facts);

/** Reads @facts out of what a QEMU has said on its monitor. Pure. */
void bench_qemu_read_facts(const char *said, struct bench_qemu_facts *facts);

#endif
