/* SPDX-License-Identifier: MIT */
/*
 * The agent's arming and disarming, run by a test in its own process, on its own memory: so that
 * the test sees what is asked of the kernel, and can answer in the kernel's place.
 */
#ifndef ROUSE_TESTS_AGENT_PROBE_H
#define ROUSE_TESTS_AGENT_PROBE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AGENT_PROBE_CALLS 4096u

/** An ioctl(2) on a userfaultfd. */
struct agent_probe_call {
	uint64_t request;
	bool is_move; /**< UFFDIO_MOVE, which older headers lack */
	int fd;
	uint64_t address, bytes; /**< of a move: where from */
	int64_t result;          /**< 0, or a negative errno value */
	uint64_t moved;          /**< bytes; of a move only */
};

struct agent_probe_range {
	void *address;
	uint64_t bytes;
	bool shared;
};

struct agent_probe {
	/** If not NULL it is called before each ioctl. True: call->result is the answer already. */
	bool (*before)(struct agent_probe *probe, struct agent_probe_call *call);
	void *context; /**< for that */
	struct agent_probe_call calls[AGENT_PROBE_CALLS];
	size_t call_count;
	int32_t failed_code;
	uint64_t skipped, forks;
	void *agent;
};

/* One at a time. The ranges must not be touched between arming and the end of disarming. */
void agent_probe_begin(
	struct agent_probe *probe, const struct agent_probe_range *ranges, uint32_t count);
bool agent_probe_arm(struct agent_probe *probe);
/** It ends the probe, too. What it says is there until it begins again. */
void agent_probe_disarm(struct agent_probe *probe);

/** How many calls of @request there were for anything of [@address, @address + @bytes). */
size_t agent_probe_count(
	const struct agent_probe *probe, uint64_t request, const void *address, uint64_t bytes);

#endif
