/* SPDX-License-Identifier: MIT */
/*
 * A restore that improves a working-set file: which set it prefetches, what it leaves out of it to
 * see whether it is used, and what the file learns from that.
 *
 *   begin (file) -> choose (set, sample) -> the restore -> end (lock, read again, merge, write)
 */
#ifndef ROUSE_API_RESTORE_LEARN_H
#define ROUSE_API_RESTORE_LEARN_H

#include "engine/engine.h"
#include "wset/wset_sample.h"

struct restore_learn {
	const struct rouse_restore_options *options; /* the caller's, as the next two */
	const struct rouse_reader *reader;
	const struct rouse_observer *observer;
	struct rouse_wset_rules rules;
	struct rouse_wset *stored;     /* what the file had at the start; NULL: there was none */
	struct rouse_wset *own;        /* the image's own, if it is the one to begin with */
	const struct rouse_wset *used; /* the one that is prefetched, or would be; NULL: none */
	bool prefetched;
	struct rouse_wset_sample sample;
};

/** Reads the file, if it is there. Errors as rouse_wset_open(); -EINVAL: of another VM. */
int restore_learn_begin(struct restore_learn *learn, const struct rouse_restore_options *options,
	const struct rouse_reader *reader, const struct rouse_observer *observer,
	struct rouse_error *error);

/** The set that the file has, if it has pages; otherwise NULL. */
const struct rouse_wset *restore_learn_set(const struct restore_learn *learn);

/**
 * The policy is known now: draws the sample. @given: a set to prefetch instead of the file's, or
 * NULL. *leave_out: for the engine. -ENOMEM.
 */
int restore_learn_choose(struct restore_learn *learn, enum rouse_policy policy,
	const struct rouse_wset *given, const struct rouse_bitmap **leave_out,
	struct rouse_error *error);

/**
 * Improves the file by what the restore has seen, and fills in @report. @transport_ns: as in struct
 * restore_record_clock. If the VM did not run for
 * long enough nothing is learned, which is no error. Errors of the file.
 */
int restore_learn_end(struct restore_learn *learn, const struct rouse_engine *engine,
	uint64_t transport_ns, struct rouse_learn_report *report, struct rouse_error *error);

/** Safe on a zeroed structure. */
void restore_learn_finish(struct restore_learn *learn);

#endif
