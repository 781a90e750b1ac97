/* SPDX-License-Identifier: MIT */
/* What comes before what: prefetch, start, serve, finish. */
#include "engine/engine_private.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/observer.h"
#include "engine/policy_choice.h"

#include <stdlib.h>

/* Windows of about a mebibyte that may wait to be placed. */
#define PREFETCH_WINDOWS 256u /* while QEMU starts, a fast disk reads this much ahead */
#define BACKGROUND_WINDOWS 8u
/* After what may pass: see deliver_rest(). */
#define TRY_AGAIN_NS UINT64_C(1000000000)
#define READ_FAILURES 5u /* see struct rouse_engine_trouble */
/* So much, and what the socket holds besides does not flatter the machine by more than a third. */
#define SPEED_TOLD_BYTES (UINT64_C(4) << 20)

static bool is_placed(void *user, uint64_t page)
{
	struct rouse_engine *e = user;

	return e->sink->ops->is_placed(e->sink, page);
}

static uint64_t take_read(void *user)
{
	struct rouse_engine *e = user;

	return rouse_fault_service_take_read(e->faults);
}

static int start_feeder(struct rouse_engine *e, rouse_feed_fn *plan, void *plan_user,
	bool background, struct rouse_error *error)
{
	const struct rouse_image_wset *wset = rouse_reader_wset(e->config.reader);
	const struct rouse_feeder_config config = {
		.reader = e->config.reader,
		.source = e->config.source,
		.front_chunks = wset->chunks,
		.front_chunk_count = wset->chunk_count,
		.plan = plan,
		.plan_user = plan_user,
		.windows = background ? BACKGROUND_WINDOWS : PREFETCH_WINDOWS,
		.background = background,
		.skip = background ? is_placed : NULL,
		.skip_user = e,
		.follow = background && e->traits->follow ? take_read : NULL,
		.follow_user = e,
		.stages = &e->stages,
	};
	int code = rouse_feeder_start(&config, &e->feeder);

	return code == 0 ? 0 : rouse_error_errno(error, code, "cannot start reading the image");
}

/* The plan of the policy, for what comes before the start. */
static int plan_prefetch(struct rouse_engine *e, struct rouse_error *error)
{
	int code;

	if (e->traits->prefetch == ROUSE_PREFETCH_EVERYTHING) {
		e->prefetch_total = rouse_reader_page_count(e->config.reader);
		rouse_rest_plan_init(&e->rest_plan, e->config.reader, true, NULL, NULL);
		return start_feeder(e, rouse_rest_plan_next, &e->rest_plan, false, error);
	}
	if (e->traits->prefetch == ROUSE_PREFETCH_NOTHING)
		return 0;
	if (e->config.wset != NULL) {
		code = rouse_wset_plan_init_from(&e->wset_plan, e->config.reader, e->config.wset);
	} else if (rouse_reader_wset(e->config.reader)->page_count == 0) {
		return rouse_error_set(error, ROUSE_ERROR_USAGE, -ENODATA,
			"the image has no working set. Record one with `rouse restore --policy "
			"lazy --record FILE`, then give it with -w, or put it into the image with "
			"`rouse pack IMAGE -w FILE OUT`");
	} else {
		code = rouse_wset_plan_init(&e->wset_plan, e->config.reader);
	}
	if (code < 0)
		return rouse_error_errno(error, code, "cannot look up the working set");
	if (e->config.leave_out != NULL)
		rouse_wset_plan_leave_out(&e->wset_plan, e->config.leave_out);
	e->prefetch_total = e->wset_plan.count;
	e->paced = (struct rouse_paced_start){
		.pages = e->wset_plan.pages, .count = e->wset_plan.count};
	e->reading_from_ns = rouse_clock_ns();
	return start_feeder(e, rouse_wset_plan_next, &e->wset_plan, false, error);
}

int rouse_engine_new(const struct rouse_engine_config *config, struct rouse_engine **engine,
	struct rouse_error *error)
{
	const struct rouse_disk_superblock *superblock = rouse_reader_superblock(config->reader);
	struct rouse_engine *e = calloc(1, sizeof(*e));
	int code;

	if (e == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot start the restore");
	e->config = *config;
	e->traits = rouse_policy_traits(config->policy);
	e->stored_total = le64_get(superblock->page_count) - le64_get(superblock->zero_pages);
	code = config->resume ? 0 : plan_prefetch(e, error);
	if (code < 0) {
		rouse_engine_free(e);
		return code;
	}
	*engine = e;
	return 0;
}

static void end_feeder(struct rouse_engine *e)
{
	rouse_feeder_stop(e->feeder);
	e->feeder = NULL;
}

static uint64_t count_stored(const struct rouse_window *window)
{
	uint64_t stored = 0;

	for (size_t i = 0; i < window->count; i++)
		stored += window->pages[i].data != NULL;
	return stored;
}

/*
 * Whether the packed set comes as fast as from a medium where random reads cost little. What
 * opening has shown may have been a burst; by now some 40 ms have passed.
 */
static bool stream_is_fast(const struct rouse_engine *e)
{
	const struct rouse_image_wset *wset = rouse_reader_wset(e->config.reader);
	struct rouse_stage_time times[ROUSE_STAGE_COUNT];
	const struct rouse_stage_time *read = &times[ROUSE_STAGE_READ_BULK];
	uint64_t pages = 0, bytes = 0;

	if (e->config.wset != NULL) /* not packed: its medium was probed */
		return true;
	stage_clock_get(&e->stages, times);
	for (uint32_t i = 0; i < wset->chunk_count && pages < read->pages; i++) {
		pages += wset->chunks[i].pages;
		bytes += wset->chunks[i].stored_bytes;
	}
	return (double)bytes * 1e9 > ROUSE_POLICY_CHEAP_STREAM_BYTES_PER_S * (double)read->ns;
}

/* Whether a page that the guest misses is dear, as far as the set's coming has shown. */
static bool stream_is_slow(const struct rouse_engine *e)
{
	struct rouse_stage_time times[ROUSE_STAGE_COUNT];

	if (e->traits->prefetch != ROUSE_PREFETCH_SET || stream_is_fast(e))
		return false;
	/* A short read says nothing of the rate. */
	stage_clock_get(&e->stages, times);
	return (double)times[ROUSE_STAGE_READ_BULK].ns >= ROUSE_POLICY_CHEAP_READ_NS;
}

/* Whether the guest may start before the set is all there. */
static bool may_start(struct rouse_engine *e)
{
	switch (e->traits->start) {
	case ROUSE_START_AT_ONCE:
		return true;
	case ROUSE_START_PACED:
		e->paced.late_is_cheap = e->config.late_is_cheap && stream_is_fast(e);
		return rouse_paced_start_ready(&e->paced, e->stats.prefetched_pages,
			rouse_clock_ns() - e->reading_from_ns);
	case ROUSE_START_COMPLETE:
		break;
	}
	return false;
}

static int cancelled_before_the_start(struct rouse_error *error)
{
	return rouse_error_set(error, ROUSE_ERROR_CANCELLED, -ECANCELED,
		"cancelled before the VM ran: the image is as it was");
}

/* Places what the plan brings, before the start: all of it, unless the guest may start before. */
static int prefetch(struct rouse_engine *e, struct rouse_error *error)
{
	struct rouse_window *window;
	int code;

	if (e->feeder == NULL)
		return 0;
	while (!may_start(e) &&
		(code = rouse_feeder_next(e->feeder, ENGINE_POLL_MS, &window)) != 0) {
		uint64_t before;

		if (rouse_cancelled(e->config.observer)) {
			if (code == 1)
				rouse_feeder_release(e->feeder, window);
			return cancelled_before_the_start(error);
		}
		if (code == -ETIMEDOUT)
			continue;
		if (code < 0)
			return engine_image_failure(e, code, rouse_feeder_damaged(e->feeder),
				"the VM was not started", error);
		before = rouse_clock_ns();
		code = e->sink->ops->prefetch(e->sink, window->pages, window->count);
		stage_clock_add(&e->stages, ROUSE_STAGE_PLACE_PREFETCH, rouse_clock_ns() - before,
			window->count);
		e->stats.prefetched_pages += window->count;
		e->stored_placed += count_stored(window);
		rouse_feeder_release(e->feeder, window);
		/* The VMM may have taken nothing: then the wait for that was what was cancelled. */
		if (code == -ECANCELED && rouse_cancelled(e->config.observer))
			return cancelled_before_the_start(error);
		if (code < 0)
			return rouse_error_set(error, ROUSE_ERROR_VMM, code,
				"the VMM ended before the VM was started");
		rouse_progress(e->config.observer, "prefetching",
			e->stats.prefetched_pages * ROUSE_IMAGE_PAGE_BYTES,
			e->prefetch_total * ROUSE_IMAGE_PAGE_BYTES);
	}
	e->stats.prefetched_bytes = e->stored_placed * ROUSE_IMAGE_PAGE_BYTES;
	if (e->stats.prefetched_pages >= e->prefetch_total)
		end_feeder(e);
	return 0;
}

/* What the start has left of the working set: the guest is about to touch it. */
static int deliver_wset(struct rouse_engine *e, struct rouse_error *error)
{
	const uint64_t begun_ns = rouse_clock_ns();
	int code;

	if (e->feeder == NULL)
		return 0;
	rouse_pacer_init(&e->pacer, ROUSE_BACKGROUND_MAX, 0, begun_ns);
	code = engine_deliver(e, error);
	/* What is left of the set is of the rest then, and the guest can ask for it. */
	if (code > 0)
		engine_log_trouble(e);
	if (code >= 0)
		end_feeder(e);
	e->stats.background_ns += rouse_clock_ns() - begun_ns;
	return code < 0 ? code : 0;
}

/* How fast this machine placed the working set, while no guest ran; 0: too little to tell. */
static double prefetch_speed(const struct rouse_engine *e)
{
	struct rouse_stage_time times[ROUSE_STAGE_COUNT];
	const struct rouse_stage_time *placed = &times[ROUSE_STAGE_PLACE_PREFETCH];

	stage_clock_get(&e->stages, times);
	if (placed->ns == 0 || e->stats.prefetched_bytes < SPEED_TOLD_BYTES)
		return 0;
	return (double)e->stats.prefetched_bytes * 1e9 / (double)placed->ns;
}

/* One pass over what is missing. 1: as engine_deliver(). */
static int deliver_missing(struct rouse_engine *e, struct rouse_error *error)
{
	int code;

	rouse_rest_plan_finish(&e->rest_plan);
	rouse_rest_plan_init(&e->rest_plan, e->config.reader, false, is_placed, e);
	code = start_feeder(e, rouse_rest_plan_next, &e->rest_plan, true, error);
	if (code == 0)
		return engine_deliver(e, error);
	e->trouble = code;
	return engine_may_pass(code) ? 1 : code;
}

/* What has gone wrong lately. */
struct rouse_engine_trouble {
	int code;
	unsigned int reads; /* that failed one behind the other, without a page between them */
	uint64_t placed;
};

/* Tells of what is new. How many reads have failed, if it is that. */
static unsigned int note_trouble(struct rouse_engine *e, struct rouse_engine_trouble *trouble)
{
	const bool again = e->trouble == trouble->code && e->stored_placed == trouble->placed;

	if (!again)
		engine_log_trouble(e);
	trouble->reads = e->trouble != -EIO ? 0 : again ? trouble->reads + 1 : 1;
	trouble->code = e->trouble;
	trouble->placed = e->stored_placed;
	return trouble->reads;
}

/*
 * The guest runs, and its faults are answered: that there is no memory or no thread for a while, or
 * that a medium fails, must not end that. What was placed is not read again.
 */
static int deliver_rest(struct rouse_engine *e, struct rouse_error *error)
{
	const uint64_t begun_ns = rouse_clock_ns();
	struct rouse_engine_trouble trouble = {0};
	int code;

	rouse_pacer_init(&e->pacer, e->config.background, prefetch_speed(e), begun_ns);
	while ((code = deliver_missing(e, error)) > 0) {
		if (note_trouble(e, &trouble) == READ_FAILURES)
			return engine_stop_for_damage(e, e->trouble, error);
		end_feeder(e);
		code = engine_serve_for(e, TRY_AGAIN_NS, error);
		if (code < 0)
			return code;
	}
	if (code == 0)
		end_feeder(e);
	e->stats.background_ns += rouse_clock_ns() - begun_ns;
	return code;
}

/* Everything has. A VM that is taken over has no start: what has come is what its sink says. */
static bool came_before_the_start(const struct rouse_engine *e)
{
	return e->traits->prefetch == ROUSE_PREFETCH_EVERYTHING && !e->config.resume;
}

/*
 * What is missing when the sink is told that nothing more comes is zero in the VM: a page of the
 * image that has not been placed is lost memory. By then there is none; whatever was wrong above
 * ends here.
 */
static int check_nothing_is_missing(struct rouse_engine *e, struct rouse_error *error)
{
	const struct rouse_feed_page *pages;
	struct rouse_rest_plan plan;
	size_t count = 0;
	int code;

	rouse_rest_plan_init(&plan, e->config.reader, false, is_placed, e);
	plan.near_chunks = 0; /* one pass is enough */
	code = rouse_rest_plan_next(&plan, &pages, &count);
	if (code < 0)
		(void)rouse_error_errno(error, code, "cannot see that the VM is complete");
	else if (count > 0)
		code = rouse_error_set(error, ROUSE_ERROR_SYSTEM, -EIO,
			"page %llu of the VM has not been delivered: this is a bug of Rouse. The "
			"VM waits; take over with `rouse restore --resume`",
			(unsigned long long)pages[0].page);
	rouse_rest_plan_finish(&plan);
	return code;
}

/* Those that others' files of memory do not have: see policy_traits.h. */
static int load_index(struct rouse_engine *e, struct rouse_error *error)
{
	const int code = rouse_reader_load_tables(e->config.reader, ROUSE_READ_BULK, error);

	/* Who needs what could not be read says so. */
	return code == -EUCLEAN || engine_may_pass(code) ? 0 : code;
}

static int serve(struct rouse_engine *e, struct rouse_error *error)
{
	int code;

	if (came_before_the_start(e))
		return 0;
	code = deliver_wset(e, error);
	if (code < 0)
		return code;
	if (e->traits->quiet_us > 0)
		code = load_index(e, error);
	if (code == 0 && e->config.quiet_us > 0 && e->config.background > 0)
		code = engine_serve_only(e, e->stats.started_ns + e->config.quiet_us * 1000, error);
	if (code < 0)
		return code;
	if (e->config.background > 0)
		return deliver_rest(e, error);
	return engine_serve_only(e, UINT64_MAX, error);
}

static int start_guest(struct rouse_engine *e, struct rouse_error *error)
{
	uint64_t chunk = 0;
	int unanswered, code;

	if (e->config.resume) {
		e->stats.started_ns = rouse_clock_ns();
		return 0;
	}
	code = e->config.first != NULL ? e->config.first(e->config.first_user, error) : 0;
	if (code == 0)
		code = prefetch(e, error);
	if (code < 0)
		return code;
	if (stream_is_slow(e))
		rouse_fault_service_expect_slow_reads(e->faults);
	code = e->sink->ops->start(e->sink, &e->stats.started_ns, error);
	/* A device may have waited for a page that cannot be had. */
	unanswered = code < 0 ? engine_unanswered_fault(e, &chunk) : 0;
	return unanswered < 0
		       ? engine_image_failure(e, unanswered, chunk, "the VM was not started", error)
		       : code;
}

static int run(struct rouse_engine *e, struct rouse_error *error)
{
	struct rouse_sink *sink = e->sink;
	uint64_t wait_from_ns = 0, wait_to_ns = 0;
	bool waits;
	int code = start_guest(e, error);

	if (code < 0)
		return code;
	rouse_event(e->config.observer, ROUSE_EVENT_RUNNING, e->config.paused ? "paused" : NULL);
	waits = engine_guest_wait(e, &wait_from_ns) > 0;
	code = serve(e, error);
	e->stats.guest_waited = waits && engine_guest_wait(e, &wait_to_ns) > 0;
	if (e->stats.guest_waited)
		e->stats.guest_wait_ns = wait_to_ns - wait_from_ns;
	if (code == 0)
		code = check_nothing_is_missing(e, error);
	if (code == 0)
		code = sink->ops->finish(sink, error);
	if (code == 0) {
		e->stats.complete_ns = rouse_clock_ns();
		rouse_event(e->config.observer, ROUSE_EVENT_COMPLETE, NULL);
	}
	return code;
}

int rouse_engine_run(struct rouse_engine *e, struct rouse_sink *sink, struct rouse_error *error)
{
	const bool around = e->traits->around && !e->config.record && e->config.background > 0;
	int code;

	e->sink = sink;
	code = rouse_fault_service_start(
		e->config.reader, e->config.source, sink, around, &e->stages, &e->faults);
	if (code < 0)
		return rouse_error_errno(error, code, "cannot start answering faults");
	if (e->config.slow_reads)
		rouse_fault_service_expect_slow_reads(e->faults);
	code = run(e, error);
	/* What was logged is read now, and must not grow meanwhile. */
	rouse_fault_service_end(e->faults);
	return code;
}

void rouse_engine_get_stats(const struct rouse_engine *engine, struct rouse_engine_stats *stats)
{
	*stats = engine->stats;
	stage_clock_get(&engine->stages, stats->stages);
	if (engine->faults == NULL)
		return;
	stats->around_pages = rouse_fault_service_around_count(engine->faults);
	stats->ahead_pages = rouse_fault_service_ahead_count(engine->faults);
}

const struct rouse_fault *rouse_engine_faults(const struct rouse_engine *engine, uint64_t *count)
{
	*count = engine->faults != NULL ? rouse_fault_service_count(engine->faults) : 0;
	return *count > 0 ? rouse_fault_service_log(engine->faults) : NULL;
}

const struct rouse_fault *rouse_engine_overtaken(const struct rouse_engine *engine, uint64_t *count)
{
	const struct rouse_fault *log = NULL;

	*count = engine->faults != NULL ? rouse_fault_service_overtaken(engine->faults, &log) : 0;
	return log;
}

void rouse_engine_free(struct rouse_engine *e)
{
	if (e == NULL)
		return;
	rouse_feeder_stop(e->feeder);
	rouse_fault_service_stop(e->faults);
	rouse_wset_plan_finish(&e->wset_plan);
	rouse_rest_plan_finish(&e->rest_plan);
	free(e);
}
