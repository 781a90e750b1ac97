/* SPDX-License-Identifier: MIT */
/*
 * Going on in the background: a child does the work, its parent waits until the VM runs.
 *
 *   parent  --fork-->  child, in a session of its own
 *      |<---- stderr of the child, up to the start ----------------|
 *      |<---- status pipe: "running", and the monitor's path ------|
 *   exits 0                                      serves until the last page
 */
#ifndef ROUSE_TOOL_DETACH_H
#define ROUSE_TOOL_DETACH_H

#include <stdbool.h>
#include <sys/types.h>

struct detach {
	int status; /* child: where to say that the VM runs; -1: said, or not detached */
	const char *log;
};

#define DETACH_CHILD (-1)

/**
 * Forks. In the child: DETACH_CHILD, with *detach filled in; stdin and stdout lead nowhere, stderr
 * to the file @log or, up to the start, to the parent. In the parent: waits, and returns the exit
 * code when the VM runs (*child: the process that serves it, @monitor: the socket's path) or the
 * child has ended without that.
 */
int detach_begin(
	const char *log, struct detach *detach, pid_t *child, char *monitor, size_t monitor_room);

/** Child: the VM runs. From now on messages go to the log file or to the system's log. */
void detach_running(struct detach *detach, const char *monitor);

#endif
