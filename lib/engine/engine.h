/* SPDX-License-Identifier: MIT */
/*
 * The engine: decides which page goes next, and when the guest starts.
 *
 *   eager    everything, then start
 *   lazy     start, then on demand, the rest in the background
 *   ws       the working set, then start, the rest on demand and in the background
 *   paced    as ws, but the start is as soon as what is missing of the set will come in time, or
 *            where a late page costs little, as soon as its first pages are there
 *   and those of other systems, to compare with: policy_traits.h
 *
 *   image --feeder--> prefetch --> start --> background --> finish        (the caller's thread)
 *                                    '----- fault service -----'         (its own thread)
 */
#ifndef ROUSE_ENGINE_ENGINE_H
#define ROUSE_ENGINE_ENGINE_H

#include "base/bitmap.h"
#include "engine/fault_service.h"
#include "image/image_reader.h"
#include "sink/sink.h"
#include "wset/wset.h"

struct rouse_engine_config {
	struct rouse_reader *reader; /* the caller's, as all below */
	struct rouse_source *source;
	const struct rouse_observer *observer;
	enum rouse_policy policy; /* not AUTO */
	const struct rouse_wset
		*wset;       /* for those with a set: instead of the image's own; or NULL */
	bool late_is_cheap;  /* PACED: as far as opening has shown; struct rouse_paced_start */
	bool slow_reads;     /* a random read is dear, as far as opening has shown */
	bool paused;         /* the guest is not to run: ROUSE_EVENT_RUNNING says so */
	bool resume;         /* the sink has been started by another process */
	uint64_t background; /* as in struct rouse_restore_options */
	uint64_t quiet_us;   /* for so long after the start only the set comes unasked */
	bool record;         /* the faults are a trace: no fault-around */
	const struct rouse_bitmap
		*leave_out; /* for those with a set: pages not to prefetch; or NULL */
	/*
	 * What must reach the sink before anything else, when faults are answered already: the
	 * VMM may wait for a page, and then reads nothing. Returns 0 or -errno; or NULL.
	 */
	int (*first)(void *user, struct rouse_error *error);
	void *first_user;
};

struct rouse_engine_stats {
	uint64_t started_ns;                         /* CLOCK_MONOTONIC; 0: not reached */
	uint64_t complete_ns;                        /* 0: not reached */
	uint64_t prefetched_pages, prefetched_bytes; /* bytes: stored pages only, uncompressed */
	uint64_t background_pages, background_ns;    /* how many, and how long that took */
	uint64_t around_pages;                       /* placed by fault-around */
	uint64_t ahead_pages;                        /* and by read-ahead */
	bool guest_waited;                           /* guest_wait_ns is known */
	uint64_t guest_wait_ns; /* the sink's guest_wait, from the start to the last page */
	struct rouse_stage_time stages[ROUSE_STAGE_COUNT];
};

struct rouse_engine;

/**
 * Begins to read what is to be prefetched, so that reading and the VMM's start overlap.
 * -ENODATA: ws and no working set; -ERANGE, -EUCLEAN, -ENOMEM.
 */
int rouse_engine_new(const struct rouse_engine_config *config, struct rouse_engine **engine,
	struct rouse_error *error);

/**
 * Prefetches, starts the guest, and serves it to the last page. Once.
 * -EUCLEAN: a chunk is damaged; the guest was not started, or was stopped, or waits for that page.
 * -EPIPE: the guest's VMM is gone or gave up; -ECANCELED; those of source and sink.
 */
int rouse_engine_run(
	struct rouse_engine *engine, struct rouse_sink *sink, struct rouse_error *error);

void rouse_engine_get_stats(const struct rouse_engine *engine, struct rouse_engine_stats *stats);
/** The faults, in the order they came; the engine's. After rouse_engine_run(). */
const struct rouse_fault *rouse_engine_faults(const struct rouse_engine *engine, uint64_t *count);
/** Those whose page came with the background meanwhile (fault_service.h). */
const struct rouse_fault *rouse_engine_overtaken(
	const struct rouse_engine *engine, uint64_t *count);
/** NULL is fine. Before the sink is destroyed. */
void rouse_engine_free(struct rouse_engine *engine);

#endif
