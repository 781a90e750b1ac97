/* SPDX-License-Identifier: MIT */
/* A file that is not in memory: for restores that all begin alike. */
#ifndef ROUSE_TOOL_BENCH_COLD_H
#define ROUSE_TOOL_BENCH_COLD_H

#include <stdint.h>

/**
 * Drops a file, or a disk, from the page cache, and looks whether it is gone (mincore(2)): *left is
 * how many bytes of it are still there. All of it if this user may neither write nor owns it: Linux
 * does not tell then. -errno.
 */
int bench_make_cold(const char *path, uint64_t *left);

#endif
