/* SPDX-License-Identifier: MIT */
/* A file past the page cache. source.h has the drawing; most use rouse_source_open(). */
#ifndef ROUSE_SOURCE_DIRECT_SOURCE_H
#define ROUSE_SOURCE_DIRECT_SOURCE_H

#include "source/read_ahead.h"
#include "source/source.h"

/** The kernel's side; a test puts one in its place that refuses. */
struct rouse_direct_kernel {
	int (*open)(const char *path, int flags);
	rouse_queue_init_fn *queue_init;
	rouse_queue_submit_fn *queue_submit;
};

/** open(2), io_uring_queue_init(3) and io_uring_submit_and_wait(3). */
extern const struct rouse_direct_kernel rouse_direct_kernel;

/** Whether somebody else reads the file, in whatever way: another source of it is open. */
bool rouse_direct_source_is_shared(const struct rouse_source *source);

/**
 * The same file, not what its path names by now, through the page cache. Errors: those of
 * rouse_file_source_open(); without /proc -ENOENT.
 */
int rouse_direct_source_open_cached(
	const struct rouse_source *source, struct rouse_source **cached, struct rouse_error *error);

/**
 * Without io_uring it reads by pread(2). -EOPNOTSUPP: the file system or the device refuses direct
 * I/O (no message); -ENOMEM; otherwise as rouse_file_source_open().
 */
int rouse_direct_source_open(const char *path, const struct rouse_direct_kernel *kernel,
	struct rouse_source **source, struct rouse_error *error);

#endif
