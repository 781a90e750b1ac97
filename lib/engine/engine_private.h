/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the engine share. All of it is for the thread of rouse_engine_run().
 *
 *   engine.c           what comes before what: prefetch, start, serve, finish
 *   engine_deliver.c   while the guest runs: places what the feeder brings, keeps the pace
 *   engine_failure.c   why a restore ended early, and what became of the guest
 */
#ifndef ROUSE_ENGINE_ENGINE_PRIVATE_H
#define ROUSE_ENGINE_ENGINE_PRIVATE_H

#include "engine/engine.h"
#include "engine/feeder.h"
#include "engine/paced_start.h"
#include "engine/pacer.h"
#include "engine/plan.h"
#include "engine/policy_traits.h"

/** How long the thread waits before it looks whether the restore failed or was cancelled. */
#define ENGINE_POLL_MS 50

struct rouse_engine {
	struct rouse_engine_config config;
	const struct rouse_policy_traits *traits; /* of its policy */
	struct rouse_sink *sink;
	struct rouse_wset_plan wset_plan;
	struct rouse_rest_plan rest_plan;
	struct rouse_paced_start paced;
	uint64_t reading_from_ns;
	struct rouse_feeder *feeder;
	struct rouse_fault_service *faults;
	struct rouse_pacer pacer;
	uint64_t faults_paced; /* that the pacer knows of */
	struct rouse_engine_stats stats;
	struct stage_clock stages;
	int trouble;            /* why the background has to be tried again */
	uint64_t stored_total;  /* pages that are not zero */
	uint64_t stored_placed; /* of these, those that nobody asked for */
	uint64_t all_there;     /* up to this page nothing is missing: see engine_serve_only() */
	uint64_t prefetch_total;
};

/**
 * Places all that the feeder still brings, while the guest runs; the feeder stays. 1: it has
 * failed, as engine->trouble says, and another one may do better.
 */
int engine_deliver(struct rouse_engine *engine, struct rouse_error *error);

/**
 * Only faults, until @end_ns or, with UINT64_MAX, until no page is missing that is not zero: placed
 * by whomever, an earlier Rouse too, or given back by the guest.
 */
int engine_serve_only(struct rouse_engine *engine, uint64_t end_ns, struct rouse_error *error);

/** Only faults, for @ns: nothing else is looked at. */
int engine_serve_for(struct rouse_engine *engine, uint64_t ns, struct rouse_error *error);

/** How long the guest's processors have waited, as the sink's guest_wait; 0 or less: unknown. */
int engine_guest_wait(struct rouse_engine *engine, uint64_t *wait_ns);

/** Whether trying again later may help: there was no memory or no thread, a medium failed. */
bool engine_may_pass(int code);

/** Tells that the background has to be tried again, and why. */
void engine_log_trouble(struct rouse_engine *engine);

/** What went wrong with the image or its reading; @then: what became of the guest. */
int engine_image_failure(struct rouse_engine *engine, int code, uint64_t chunk, const char *then,
	struct rouse_error *error);

/** Whether a fault could not be answered because of the image: the code of that, or 0. */
int engine_unanswered_fault(struct rouse_engine *engine, uint64_t *chunk);

/** What the end of the fault service means while pages are still to be delivered. */
int engine_service_failure(struct rouse_engine *engine, int code, struct rouse_error *error);

/** A damaged chunk that nobody waits for: the guest can still be stopped in good order. */
int engine_stop_for_damage(struct rouse_engine *engine, int code, struct rouse_error *error);

/** Whether the user cancelled while the guest runs; then *error says so. */
bool engine_is_cancelled(struct rouse_engine *engine, struct rouse_error *error);

#endif
