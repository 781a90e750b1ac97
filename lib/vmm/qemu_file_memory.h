/* SPDX-License-Identifier: MIT */
/*
 * VMs whose memory is a file (memory-backend-file, -mem-path), and what a restore would do to it.
 *
 * A postcopy restore begins with QEMU giving all of its RAM back, and QEMU does that by punching
 * holes into the file, whether its mapping is shared or private (ram_block_discard_range() of 7.2;
 * newer ones refuse private files). Whoever else maps the file then reads zeros: other clones of a
 * flat file, above all, since the command line of such a clone names it. So a private file is no
 * memory for a restore that brings the memory itself:
 *
 *   -object memory-backend-file,share=off,mem-path=FILE  ->  -object memory-backend-ram
 *   -mem-path FILE                                       ->  left out
 *
 * and a shared one must be nobody else's. A directory is another matter: QEMU makes a file of its
 * own in it, for huge pages or in memory.
 */
#ifndef ROUSE_VMM_QEMU_FILE_MEMORY_H
#define ROUSE_VMM_QEMU_FILE_MEMORY_H

#include "vmm/qmp.h"

/** A command line; argv's strings are borrowed from the one that it was made of, or in texts. */
struct qemu_file_memory_command {
	const char **argv; /* NULL-terminated */
	char **texts;
	size_t text_count;
	const char *left_out; /* a private file that was memory, out of argv's strings; or NULL */
};

/**
 * Rewrites QEMU's command line so that no private file is memory. @directory: what relative paths
 * are relative to, or NULL. @kept: an object of @argv, by its address, that stays as it is; or
 * NULL. Free with qemu_file_memory_finish(), whatever it returns. -EBUSY, kind REFUSED: a shared
 * file that another process has open (fcntl(2), F_SETLEASE; where leases are not to be had it is
 * not seen); -ENOMEM.
 */
int qemu_file_memory_command(const char *const *argv, const char *directory, const char *kept,
	struct qemu_file_memory_command *command, struct rouse_error *error);
void qemu_file_memory_finish(struct qemu_file_memory_command *command);

/**
 * Whether a QEMU that waits has a private file as memory: its content would be lost. -ENOTSUP, kind
 * UNSUPPORTED: it has, and the file is named; and errors of qmp_execute().
 */
int qemu_file_memory_check(struct qmp *qmp, struct rouse_error *error);

#endif
