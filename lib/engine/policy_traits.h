/* SPDX-License-Identifier: MIT */
/*
 * What tells the restore policies apart, in one table: the engine asks it, not who it is for.
 *
 * The last three are how other systems restore, on this engine, to be compared with: their
 * decisions on the same image, disk and VMM. The first two never deliver what is neither of the
 * set nor asked for, and a restore would not end: here the rest comes after ROUSE_POLICY_QUIET_US,
 * as gently as in our own policies. And their files of memory have no index: ours is read as a
 * whole right after the start, so that a fault costs one read here, too.
 *
 *   reap              D. Ustiugov, P. Petrov, M. Kogias, E. Bugnion, B. Grot: Benchmarking,
 *                     Analysis, and Optimization of Serverless Function Snapshots. ASPLOS 2021:
 *                     the recorded set is read at once from a compact file and placed before
 *                     the start; faults bring single pages.
 *   faasnap           L. Ao, G. Porter, G. M. Voelker: FaaSnap: FaaS Made Fast Using
 *                     Snapshot-based VMs. EuroSys 2022: the VM starts at once; its set is loaded
 *                     meanwhile, in groups by the order of their use, zero pages apart; a fault's
 *                     neighbours come with it (there by the kernel's read-ahead).
 *   lazy-background   CRIU's lazy-pages and the usual handlers of Firecracker's page faults: no
 *                     set; a page for each fault, the rest in the order of addresses.
 */
#ifndef ROUSE_ENGINE_POLICY_TRAITS_H
#define ROUSE_ENGINE_POLICY_TRAITS_H

#include <rouse.h>

#define ROUSE_POLICY_QUIET_US UINT64_C(10000000)

enum rouse_policy_prefetch {
	ROUSE_PREFETCH_NOTHING,
	ROUSE_PREFETCH_SET,
	ROUSE_PREFETCH_EVERYTHING,
};

enum rouse_policy_start {
	ROUSE_START_COMPLETE, /* when all of it is placed */
	ROUSE_START_PACED,    /* when the rest of it will come in time: paced_start.h */
	ROUSE_START_AT_ONCE,
};

struct rouse_policy_traits {
	bool of_others; /* there to be compared with: not recorded, not learned from */
	enum rouse_policy_prefetch prefetch;
	enum rouse_policy_start start;
	bool around;       /* a fault brings its neighbours, and what its pattern says */
	bool follow;       /* the background goes on where a fault was */
	bool unpaced;      /* ROUSE_BACKGROUND_AUTO is as fast as can be */
	uint64_t quiet_us; /* after the start nothing but the set comes unasked for so long */
};

/** Of any policy; AUTO, which is none yet, has nothing set. */
const struct rouse_policy_traits *rouse_policy_traits(enum rouse_policy policy);

#endif
