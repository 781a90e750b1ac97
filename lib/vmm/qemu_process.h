/* SPDX-License-Identifier: MIT */
/*
 * Starting a QEMU that waits for a VM. It gets two connected sockets: the migration, and a monitor
 * of our own. If we die before the guest runs, the migration ends and QEMU exits by itself.
 */
#ifndef ROUSE_VMM_QEMU_PROCESS_H
#define ROUSE_VMM_QEMU_PROCESS_H

#include <rouse.h>

#include <sys/types.h>

struct qemu_process_config {
	const char *const *argv; /* QEMU's command, NULL-terminated */
	const char *executable;  /* what to run if argv[0] is not to be searched in PATH, or NULL */
	const char *directory;   /* to start it in, or NULL */
	const char *monitor;     /* path of the QMP socket for others */
	bool postcopy;
};

struct qemu_process {
	pid_t pid;
	int control;   /* our end of its QMP connection */
	int migration; /* our end of the migration */
	int log;       /* what it prints: a memory file */
};

/** All fields -1 or 0, for cleanup. */
#define QEMU_PROCESS_INIT ((struct qemu_process){.control = -1, .migration = -1, .log = -1})

/**
 * The command line to run: @argv without what belonged to an earlier restore (-incoming, the
 * monitors that Rouse added, -daemonize) and without -S (qemu_incoming_hold() keeps a VM paused),
 * with what this one needs. Strings are borrowed from @argv or allocated with the array, in one
 * piece: free() it. NULL: no memory.
 */
char **qemu_process_argv(const struct qemu_process_config *config, int migration, int control);

/** Whether @argument is QEMU's option @name: with one dash or two. */
bool qemu_process_is_option(const char *argument, const char *name);

/** Starts it. -ENOENT: no such program; -ENOMEM and others of fork(2). */
int qemu_process_start(const struct qemu_process_config *config, struct qemu_process *process,
	struct rouse_error *error);

/** The last lines that it printed, in one line, into @text; "" if it printed nothing. */
void qemu_process_last_words(const struct qemu_process *process, char *text, size_t size);

/** Ends it with SIGKILL and reaps it. For a QEMU whose guest has not run. */
void qemu_process_kill(struct qemu_process *process);

/** Closes our descriptors; the process lives on. */
void qemu_process_finish(struct qemu_process *process);

#endif
