/* SPDX-License-Identifier: MIT */
/* Where the QMP socket of a QEMU that Rouse starts is. */
#ifndef ROUSE_API_MONITOR_PATH_H
#define ROUSE_API_MONITOR_PATH_H

#include <rouse.h>

/** Of a socket's path, its NUL included. */
#define ROUSE_MONITOR_BYTES 108u

/**
 * Puts the path into @path: @wanted, or a new one in $XDG_RUNTIME_DIR/rouse, /run/rouse (root) or
 * /tmp/rouse-UID. There, sockets that QEMUs left behind when they were killed are removed.
 * -ENAMETOOLONG, -EPERM (the directory is another user's), -EEXIST (@wanted is no socket),
 * -EADDRINUSE (somebody listens there), and those of mkdir(2).
 */
int rouse_monitor_path(
	const char *wanted, char path[ROUSE_MONITOR_BYTES], struct rouse_error *error);

#endif
