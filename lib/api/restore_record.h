/* SPDX-License-Identifier: MIT */
/* What a restore has seen of its guest's first touches, as a working set. */
#ifndef ROUSE_API_RESTORE_RECORD_H
#define ROUSE_API_RESTORE_RECORD_H

#include "engine/engine.h"

/** Of the guest's time, without what it has waited for pages. Zero-initialise it. */
struct restore_record_clock {
	uint64_t transport_ns; /* what a fault takes beyond its service; 0: not known */
	uint64_t waited_ns, last_us;
};

/**
 * When the next fault, @after_ns after the start and served in @service_ns, would have been a touch
 * in a VM that never waits: microseconds, never before the last one. Pure.
 */
uint64_t restore_record_touch_us(
	struct restore_record_clock *clock, uint64_t after_ns, uint64_t service_ns);

/**
 * The faults up to @until_us after the start, in their order: *trace is the caller's to close.
 * @transport_ns: as in struct restore_record_clock. After rouse_engine_run(). -EFBIG: more pages
 * than a set can hold; -ENOMEM.
 */
int restore_record_faults(const struct rouse_engine *engine, const struct rouse_reader *reader,
	uint64_t until_us, uint64_t transport_ns, struct rouse_wset **trace);

/** The image's own working set as one of its own: *wset is the caller's to close. -ENOMEM. */
int restore_record_own(const struct rouse_reader *reader, struct rouse_wset **wset);

struct restore_record {
	const struct rouse_engine *engine;
	const struct rouse_reader *reader;
	enum rouse_policy policy;
	const struct rouse_wset *prefetched; /* under policy ws; NULL: the image's own */
	const struct rouse_bitmap *left_out; /* pages of it that were not prefetched; or NULL */
	bool complete;
	uint64_t until_us;     /* after the start: later faults are left out */
	uint64_t transport_ns; /* as in struct restore_record_clock */
};

/**
 * Writes the first-touch trace as a working set: the faults, and under policy ws the pages that
 * were prefetched, whose touches nobody can see. *waited_ns: what the guest has waited for pages
 * since it started, the sum over its vCPUs. Errors of the file, -EFBIG, -ENOMEM.
 */
int restore_record_write(const struct restore_record *record, const char *path, uint64_t *waited_ns,
	struct rouse_error *error);

#endif
