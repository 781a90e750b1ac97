/* SPDX-License-Identifier: MIT */
/* Processes that rouse bench starts or ends, and the signals that end it meanwhile. */
#ifndef ROUSE_TOOL_BENCH_PROCESS_H
#define ROUSE_TOOL_BENCH_PROCESS_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/** SIGINT, SIGTERM and SIGHUP while the benchmark runs: they are read, and counted. */
struct bench_signals {
	int fd;
	unsigned int count; /* that have come */
	sigset_t before;
};

/** From now on signals wait to be read, except those that are ignored. -errno. */
int bench_signals_begin(struct bench_signals *signals);
void bench_signals_end(struct bench_signals *signals);
/** Whether one has come; does not wait. */
bool bench_signals_seen(struct bench_signals *signals);

/** A process that is watched. */
struct bench_process {
	pid_t pid;
	int pidfd; /* -1: there is none */
	int out, err;
};

#define BENCH_NO_PROCESS                          \
	{                                         \
		.pidfd = -1, .out = -1, .err = -1 \
	}

/**
 * Starts this program anew, in a process group of its own: Ctrl-C at the terminal is for the
 * benchmark. @argv: NULL-terminated. What it prints goes to out and err, which are memory. -errno.
 */
int bench_process_start(
	struct bench_process *process, char *const *argv, const struct bench_signals *signals);
/** Takes one that runs already. -ESRCH: it does not. */
int bench_process_take(struct bench_process *process, pid_t pid);
void bench_process_close(struct bench_process *process);

enum bench_wake { BENCH_ENDED, BENCH_TIMEOUT, BENCH_SIGNAL };

/** Waits for the end of a process, for a signal, or for so long; -1: for ever. */
enum bench_wake bench_process_wait(
	const struct bench_process *process, struct bench_signals *signals, int timeout_ms);

/** Sends a signal, or 0 for none, and waits for so long. */
struct bench_step {
	int signal, timeout_ms;
};

/**
 * Goes through the steps until the process has ended. A second signal to the benchmark goes on to
 * the last of them at once. Whether it has ended.
 */
bool bench_process_end(const struct bench_process *process, struct bench_signals *signals,
	const struct bench_step *steps, size_t count);

#endif
