/* SPDX-License-Identifier: MIT */
#include "engine/policy_traits.h"

static const struct rouse_policy_traits traits[ROUSE_POLICY_COUNT] = {
	[ROUSE_POLICY_EAGER] = {.prefetch = ROUSE_PREFETCH_EVERYTHING},
	/*
	 * Without a working set the guest waits for far more pages than processors, and what comes
	 * unasked is what ends that: docs/performance.md.
	 */
	[ROUSE_POLICY_LAZY] = {.around = true, .follow = true, .unpaced = true},
	[ROUSE_POLICY_WS] = {.prefetch = ROUSE_PREFETCH_SET, .around = true, .follow = true},
	[ROUSE_POLICY_PACED] = {.prefetch = ROUSE_PREFETCH_SET,
		.start = ROUSE_START_PACED,
		.around = true,
		.follow = true},
	[ROUSE_POLICY_REAP] = {.of_others = true,
		.prefetch = ROUSE_PREFETCH_SET,
		.quiet_us = ROUSE_POLICY_QUIET_US},
	[ROUSE_POLICY_FAASNAP] = {.of_others = true,
		.prefetch = ROUSE_PREFETCH_SET,
		.start = ROUSE_START_AT_ONCE,
		.around = true,
		.quiet_us = ROUSE_POLICY_QUIET_US},
	[ROUSE_POLICY_LAZY_BACKGROUND] = {.of_others = true, .unpaced = true},
};

const struct rouse_policy_traits *rouse_policy_traits(enum rouse_policy policy)
{
	return &traits[policy];
}
