/* SPDX-License-Identifier: MIT */
/*
 * A thread of ours in another process: code that runs at any address, and memory that both see. It
 * lives as long as the process does, whatever becomes of us.
 *
 *	memfd:  code (rounded up to pages) | data
 *
 * The memfd is made in the process, sealed against changes of its size, and mapped in it twice: the
 * code to be executed, the data to be written. No descriptor of it stays there. Its name in
 * /proc/PID/maps is where anybody can find it.
 */
#ifndef ROUSE_TARGET_AGENT_H
#define ROUSE_TARGET_AGENT_H

#include "target/target.h"

struct target_agent {
	int fd;         /**< the memfd here; there it is mapped only */
	uint64_t inode; /**< its number: what /proc/PID/maps shows */
	char *data;     /**< the data here */
	size_t data_bytes;
	size_t code_bytes; /**< rounded up to pages: where the data begins in the memfd */
	uint64_t code_address, data_address; /**< there */
};

/* The code is entered at its beginning, with all signals blocked. It has a word of its own on its
 * stack, no thread-local storage and no C library. */

/**
 * Puts code and zeroed data into the process, whose thread must be stopped. On failure nothing
 * stays, unless the process died or we cannot reach it any more. -ENOMEM, -EPERM (it may not
 * execute new code), and those of target_call(). Free with target_agent_finish().
 */
int target_agent_load(struct target *target, const char *name, const void *code, size_t code_bytes,
	size_t data_bytes, struct target_agent *agent, struct rouse_error *error);

/**
 * Starts the thread. Its stack ends at @stack_end (offset into the data, a multiple of 16), the
 * word on it is the data's address there. At @tid_offset is a uint32_t: its thread id, which the
 * kernel clears, waking a futex(2), when the thread has ended. -EAGAIN: too many threads.
 */
int target_agent_start(struct target *target, const struct target_agent *agent, size_t stack_end,
	size_t tid_offset, struct rouse_error *error);

/**
 * Takes out of the process what target_agent_load() put into it. The agent must have ended. What is
 * mapped there now is looked at before: after execve(2) nothing of it is there.
 */
int target_agent_unload(
	struct target *target, const struct target_agent *agent, struct rouse_error *error);

/** Lets go of what is here. Safe on a structure with fd = -1 and data = NULL. */
void target_agent_finish(struct target_agent *agent);

#endif
