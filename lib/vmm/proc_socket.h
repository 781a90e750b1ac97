/* SPDX-License-Identifier: MIT */
/* Whose a socket is, as /proc tells it: nobody need answer. */
#ifndef ROUSE_VMM_PROC_SOCKET_H
#define ROUSE_VMM_PROC_SOCKET_H

#include <rouse.h>

#include <sys/types.h>

/** Whether process @pid runs as @user, by its effective id. */
bool proc_runs_as(int pid, uid_t user);

/** The number that the socket @inode has in a process. -ENOENT: none; -EACCES: may not look. */
int proc_socket_find(int pid, uint64_t inode);

/**
 * A line of /proc/net/unix: the inode of the socket if it listens, and the path that it is bound to
 * (in @line, without the newline). Pure. False: it does not listen or has no path.
 */
bool proc_socket_parse_listener(char *line, uint64_t *inode, const char **path);

/**
 * The process that listens at the path of a unix socket. Connecting tells it, which adds one to the
 * connections that it has yet to accept: one that accepts none takes few (QEMU's monitor two), and
 * then the process is looked for whose socket is bound to that path, among those of the user who
 * owns the path. The number, or -errno: -ESRCH: it is not to be seen from here; -EAGAIN: it accepts
 * nothing, and is not to be seen or not to be told from another; others of connect(2).
 */
int proc_socket_listener(const char *path);

#endif
