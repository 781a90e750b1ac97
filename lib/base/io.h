/* SPDX-License-Identifier: MIT */
/* Reading and writing whole buffers: short transfers and EINTR are dealt with here, once. */
#ifndef ROUSE_BASE_IO_H
#define ROUSE_BASE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/** Reads up to @size bytes until the end of the file. The number read, or -errno. */
ssize_t rouse_io_read(int fd, void *buffer, size_t size);
/** Reads @size bytes at @offset. 0, -ENODATA if the file ends before, or -errno. */
int rouse_io_pread(int fd, void *buffer, size_t size, uint64_t offset);
/** 0 or -errno. */
int rouse_io_write(int fd, const void *buffer, size_t size);
int rouse_io_pwrite(int fd, const void *buffer, size_t size, uint64_t offset);
/**
 * Writes all of @count pieces to a socket, without SIGPIPE. @pieces is used up. 0 or -errno.
 * -ECANCELED: the socket took no more, and @cancel_fd (-1: none) became readable; a part may have
 * been written then.
 */
int rouse_io_send(int fd, int cancel_fd, struct iovec *pieces, int count);
/**
 * Waits until poll(2) calls a socket writable, or broken, which the next write tells. -ECANCELED:
 * @cancel_fd (-1: none) is readable, also if the socket is writable.
 */
int rouse_io_await_room(int fd, int cancel_fd);
/**
 * Reads a small file whole into malloc'ed memory, with a NUL behind it (not in *size). Limit:
 * @max bytes, -EFBIG beyond. The caller frees *data.
 */
int rouse_io_read_file(const char *path, size_t max, char **data, size_t *size);
/** Whether both names lead to one file, or to one place where there is none yet. */
bool rouse_io_is_same_file(const char *one, const char *other);
/**
 * Whether @path stands for an open file: a link in or into /dev or /proc, as /dev/stdout is.
 * stat(2) calls it what it leads to, but a rename would take the place of the link.
 */
bool rouse_io_is_open_file(const char *path);
/**
 * The name of the file that @path stands for, links followed, whether the file is there or not;
 * @path itself if it stands for an open file, or its links lead nowhere. The caller's to free(3);
 * NULL: no memory.
 */
char *rouse_io_follow_links(const char *path);

#endif
