/* SPDX-License-Identifier: MIT */
/*
 * Which vCPUs a fault has stalled.
 *
 *	its thread is that of a vCPU       that one, or all that share the thread
 *	another one of the VMM's threads   none: a device, the main loop, a save that reads all
 *	not known, or of no such thread    one of them (KVM lets a thread of the kernel wait for a
 *	                                   vCPU)
 */
#ifndef ROUSE_API_FAULT_STALLS_H
#define ROUSE_API_FAULT_STALLS_H

#include "engine/fault_service.h"

#include <rouse.h>

struct fault_stalls_config {
	const struct rouse_fault *faults; /* in the order in which they were served */
	uint64_t count;
	uint64_t requested_ns;   /* time 0 */
	uint64_t transport_ns;   /* that each takes longer than its service */
	const uint32_t *threads; /* one for each vCPU, as vcpu_threads_list(); or NULL: not known */
	size_t thread_count;
};

/**
 * Adds the stalls of all faults to @stalls. *of_none: how many faults have stalled no vCPU;
 * *by_thread: each fault's thread was known. -ENOMEM; -EINVAL: a time makes no sense.
 */
int fault_stalls_add(struct rouse_stalls *stalls, const struct fault_stalls_config *config,
	uint64_t *of_none, bool *by_thread);

#endif
