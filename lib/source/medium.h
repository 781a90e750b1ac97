/* SPDX-License-Identifier: MIT */
/* What the sources that read a file have in common. */
#ifndef ROUSE_SOURCE_MEDIUM_H
#define ROUSE_SOURCE_MEDIUM_H

#include <errno.h>
#include <rouse.h>
#include <stdbool.h>
#include <stddef.h>

/** The size of a regular file or block device; -EINVAL for everything else, or lseek(2)'s. */
int rouse_medium_size(int fd, uint64_t *size);

/** The sentence for what opening @path or rouse_medium_size() said. Returns @code. */
int rouse_medium_refuse(const char *path, int code, struct rouse_error *error);

/**
 * Lets others see that somebody reads the file: a shared OFD lock on its last possible byte, where
 * nobody else locks, until @fd's open file is closed. Without locks (some network file systems)
 * nobody is seen.
 */
void rouse_medium_join(int fd);

/** Whether somebody else has joined the readers of the file: not by @fd's open file. */
bool rouse_medium_is_shared(int fd);

/** Checked once for each read: the medium is never asked for what lies beyond its end. */
static inline int rouse_medium_check(uint64_t bytes, uint64_t offset, size_t size)
{
	return offset > bytes || size > bytes - offset ? -ENODATA : 0;
}

/**
 * A medium can fail in ways that mean something else above, as ETIMEDOUT and ESTALE of a network
 * file system: all of them are -EIO there.
 */
static inline int rouse_medium_code(int code)
{
	return code == 0 || code == -ENODATA || code == -ENOMEM ? code : -EIO;
}

#endif
