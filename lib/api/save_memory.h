/* SPDX-License-Identifier: MIT */
/*
 * How much memory a save may take: what the machine has, and what the control groups that we are in
 * leave to us. Beyond a group's limit the kernel ends us, and a VM of the same group.
 */
#ifndef ROUSE_API_SAVE_MEMORY_H
#define ROUSE_API_SAVE_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

/**
 * Bytes that may be taken without swapping, and within the limits of our control group and of all
 * above it, v1 and v2; file pages that nobody uses count as free. 0: not known. @root stands before
 * /proc and /sys: "" outside of tests.
 */
uint64_t save_memory_available(const char *root);

/** What the drain may hold, in bytes, of a VM that runs meanwhile (@keep_running) or does not. */
uint64_t save_memory_drain_limit(const char *root, bool keep_running);

#endif
