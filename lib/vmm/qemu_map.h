/* SPDX-License-Identifier: MIT */
/*
 * QEMU with a file as its memory: the command line for it, and what QEMU has changed of the file's
 * pages before it got its devices. Both are pure but for reading /proc.
 *
 *   -m 1G                                        ->  the same, and
 *                                                    -object memory-backend-file,id=pc.ram,...
 *                                                    -machine memory-backend=pc.ram
 *   -object memory-backend-{ram,memfd,file},id=X ->  -object memory-backend-file,id=X,...
 *
 * The mapping is private (share=off): QEMU sees the file's pages until it writes to them, and the
 * file stays as it is.
 */
#ifndef ROUSE_VMM_QEMU_MAP_H
#define ROUSE_VMM_QEMU_MAP_H

#include <rouse.h>

#include <sys/types.h>

struct qemu_map_file {
	const char *path;    /* absolute */
	const char *machine; /* full name of the image's machine: "pc-q35-7.2" */
	const char *block;   /* the RAM block's name: "pc.ram", "/objects/mem0" */
	uint64_t bytes;      /* of that block */
	uint64_t inode;      /* of the file */
};

/** A command line; argv's strings are borrowed from the one that it was made of, but for two. */
struct qemu_map_command {
	const char **argv; /* NULL-terminated */
	char *object, *machine;
};

/**
 * Rewrites QEMU's command line so that the block is mapped from the file. Free with
 * qemu_map_command_finish(), whatever it returns. -ENOTSUP, kind UNSUPPORTED: another machine than
 * pc, q35, microvm, or an option that does not go with it (it is named); -ENOMEM.
 */
int qemu_map_command(const char *const *argv, const struct qemu_map_file *file,
	struct qemu_map_command *command, struct rouse_error *error);
void qemu_map_command_finish(struct qemu_map_command *command);

/**
 * Whether a device of this state can give memory back (a balloon, virtio-mem): QEMU would punch a
 * hole into the file, for all VMs that map it. -ENOTSUP, kind UNSUPPORTED: it is named.
 */
int qemu_map_check_devices(const void *devices, size_t size, struct rouse_error *error);

/** Called with a page of the file, counted from its beginning. Not 0: that ends the walk. */
typedef int qemu_map_page_fn(void *user, uint64_t index);

/**
 * Calls @page for each page that process @pid has a copy of its own of. -EREMOTEIO, kind VMM: the
 * process does not map all of the block privately; -EACCES, -ESRCH: it may not be looked into or
 * is gone; -ENOMEM; and what @page returned.
 */
int qemu_map_private_pages(pid_t pid, const struct qemu_map_file *file, qemu_map_page_fn *page,
	void *user, struct rouse_error *error);

/** What a word of /proc/PID/pagemap says: whether the process has a copy of its own of the page. */
bool qemu_map_is_private(uint64_t pagemap_word);

#endif
