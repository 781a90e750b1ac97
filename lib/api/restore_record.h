/* SPDX-License-Identifier: MIT */
/* What a restore has seen of its guest's first touches, as a working set. */
#ifndef ROUSE_API_RESTORE_RECORD_H
#define ROUSE_API_RESTORE_RECORD_H

#include "engine/engine.h"

/**
 * The faults up to @until_us after the start, in their order: *trace is the caller's to close.
 * After rouse_engine_run(). -EFBIG: more pages than a set can hold; -ENOMEM.
 */
int restore_record_faults(const struct rouse_engine *engine, const struct rouse_reader *reader,
	uint64_t until_us, struct rouse_wset **trace);

/** The image's own working set as one of its own: *wset is the caller's to close. -ENOMEM. */
int restore_record_own(const struct rouse_reader *reader, struct rouse_wset **wset);

struct restore_record {
	const struct rouse_engine *engine;
	const struct rouse_reader *reader;
	enum rouse_policy policy;
	const struct rouse_wset *prefetched; /* under policy ws; NULL: the image's own */
	const struct rouse_bitmap *left_out; /* pages of it that were not prefetched; or NULL */
	bool complete;
	uint64_t until_us; /* after the start: later faults are left out */
};

/**
 * Writes the first-touch trace as a working set: the faults, and under policy ws the pages that
 * were prefetched, whose touches nobody can see. Errors of the file, -EFBIG, -ENOMEM.
 */
int restore_record_write(
	const struct restore_record *record, const char *path, struct rouse_error *error);

#endif
