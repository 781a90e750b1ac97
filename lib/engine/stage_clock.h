/* SPDX-License-Identifier: MIT */
/*
 * Counts what each stage of a restore took (enum rouse_stage), for all its threads. Cheap enough
 * for the fault path: two additions that wait for nobody.
 */
#ifndef ROUSE_ENGINE_STAGE_CLOCK_H
#define ROUSE_ENGINE_STAGE_CLOCK_H

#include <rouse.h>

#include <stdatomic.h>

/** All zero at first. */
struct stage_clock {
	_Atomic uint64_t ns[ROUSE_STAGE_COUNT], pages[ROUSE_STAGE_COUNT];
};

/** @clock NULL: nobody counts. Any thread. */
static inline void stage_clock_add(
	struct stage_clock *clock, enum rouse_stage stage, uint64_t ns, uint64_t pages)
{
	if (clock == NULL)
		return;
	atomic_fetch_add_explicit(&clock->ns[stage], ns, memory_order_relaxed);
	atomic_fetch_add_explicit(&clock->pages[stage], pages, memory_order_relaxed);
}

/** So far. */
static inline void stage_clock_get(
	const struct stage_clock *clock, struct rouse_stage_time times[ROUSE_STAGE_COUNT])
{
	for (int i = 0; i < ROUSE_STAGE_COUNT; i++)
		times[i] = (struct rouse_stage_time){
			.ns = atomic_load_explicit(&clock->ns[i], memory_order_relaxed),
			.pages = atomic_load_explicit(&clock->pages[i], memory_order_relaxed),
		};
}

#endif
