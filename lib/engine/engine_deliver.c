/* SPDX-License-Identifier: MIT */
/* While the guest runs: what nobody asked for, at its pace, beside the fault service. */
#include "engine/engine_private.h"

#include "base/clock.h"
#include "base/observer.h"

#include <errno.h>

/* Not so long that a failure or a cancel is noticed late. */
#define MAX_SLEEP_NS UINT64_C(200000000)
/* Looked at between two looks at failures, some milliseconds. */
#define LOOK_PAGES 262144u

int engine_guest_wait(struct rouse_engine *e, uint64_t *wait_ns)
{
	return e->sink->ops->guest_wait != NULL ? e->sink->ops->guest_wait(e->sink, wait_ns)
						: -ENOTSUP;
}

static uint64_t delivered(const struct rouse_engine *e)
{
	return e->stored_placed + rouse_fault_service_stored_count(e->faults);
}

static void report_progress(struct rouse_engine *e)
{
	rouse_progress(e->config.observer, "delivering", delivered(e) * ROUSE_IMAGE_PAGE_BYTES,
		e->stored_total * ROUSE_IMAGE_PAGE_BYTES);
}

/*
 * Whether no page is missing that is not zero, 1 or 0. What is there stays there, so it is looked
 * at once: each call goes on where the last one found something missing, for LOOK_PAGES at most.
 */
static int is_all_there(struct rouse_engine *e)
{
	const uint64_t count = rouse_reader_page_count(e->config.reader);

	for (unsigned int i = 0; i < LOOK_PAGES && e->all_there < count; i++) {
		uint64_t locator = ROUSE_LOCATOR_ZERO;
		int code = 0;

		if (!e->sink->ops->is_placed(e->sink, e->all_there))
			code = rouse_reader_locate(
				e->config.reader, e->all_there, ROUSE_READ_BULK, &locator);
		if (code < 0)
			return code;
		if (locator != ROUSE_LOCATOR_ZERO)
			return 0;
		e->all_there++;
	}
	return e->all_there == count;
}

int engine_serve_only(struct rouse_engine *e, uint64_t end_ns, struct rouse_error *error)
{
	for (;;) {
		const uint64_t now = rouse_clock_ns();
		int code, timeout_ms = ENGINE_POLL_MS;

		code = end_ns == UINT64_MAX ? is_all_there(e) : delivered(e) >= e->stored_total;
		if (code == -ENOMEM) /* to look: it is looked again */
			code = 0;
		if (code < 0)
			return engine_image_failure(
				e, code, ROUSE_FEEDER_NO_CHUNK, "the VM waits as before", error);
		if (now >= end_ns || code > 0)
			return 0;
		if (end_ns - now < (uint64_t)ENGINE_POLL_MS * 1000000)
			timeout_ms = (int)((end_ns - now) / 1000000) + 1;
		code = rouse_fault_service_wait(e->faults, timeout_ms, NULL);
		if (code < 0)
			return engine_service_failure(e, code, error);
		if (engine_is_cancelled(e, error))
			return -ECANCELED;
		report_progress(e);
	}
}

int engine_serve_for(struct rouse_engine *e, uint64_t ns, struct rouse_error *error)
{
	const uint64_t end_ns = rouse_clock_ns() + ns;

	while (rouse_clock_ns() < end_ns) {
		const int code = rouse_fault_service_wait(e->faults, ENGINE_POLL_MS, NULL);

		if (code < 0)
			return engine_service_failure(e, code, error);
		if (engine_is_cancelled(e, error))
			return -ECANCELED;
		report_progress(e);
	}
	return 0;
}

/* Holds the background back to its pace. The code of a restore that has failed or is cancelled. */
static int keep_pace(struct rouse_engine *e, uint64_t bytes, uint64_t placing_ns)
{
	uint64_t now = rouse_clock_ns(), due_ns, wait_ns = 0;

	if (rouse_pacer_wants_sample(&e->pacer, now)) {
		int processors = engine_guest_wait(e, &wait_ns);
		uint64_t faults = rouse_fault_service_count(e->faults);

		if (faults != e->faults_paced)
			rouse_pacer_missed(&e->pacer, now);
		e->faults_paced = faults;
		rouse_pacer_sample(&e->pacer, now, wait_ns, processors);
	}
	due_ns = rouse_pacer_placed(&e->pacer, now, bytes, placing_ns);
	while (now < due_ns) {
		const uint64_t step_ns = due_ns - now < MAX_SLEEP_NS ? due_ns - now : MAX_SLEEP_NS;
		const struct timespec until = rouse_clock_timespec(now + step_ns);
		int ended;

		(void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
		now = rouse_clock_ns();
		ended = rouse_fault_service_wait(e->faults, 0, NULL);
		if (ended < 0)
			return ended;
		if (rouse_cancelled(e->config.observer))
			return -ECANCELED;
	}
	return 0;
}

/*
 * There is no memory for a page of the guest (or its control group has none): nothing is lost, and
 * nobody waits for these. The code of a restore that has failed or is cancelled.
 */
static int wait_for_memory(struct rouse_engine *e)
{
	const int ended = rouse_fault_service_wait(e->faults, ENGINE_POLL_MS, NULL);

	if (ended < 0)
		return ended;
	return rouse_cancelled(e->config.observer) ? -ECANCELED : 0;
}

/* *placed: how many of them had been missing; *placing_ns: without the waiting for memory. */
static int place_piece(struct rouse_engine *e, const struct rouse_sink_page *pages, size_t count,
	size_t *placed, uint64_t *placing_ns)
{
	int code;

	*placed = 0;
	*placing_ns = 0;
	for (;;) {
		const uint64_t begun_ns = rouse_clock_ns();
		size_t done = 0;

		code = e->sink->ops->place(e->sink, pages, count, ROUSE_SINK_BACKGROUND, &done);
		*placed += done;
		*placing_ns += rouse_clock_ns() - begun_ns;
		if (code != -ENOMEM)
			return code;
		code = wait_for_memory(e);
		if (code < 0)
			return code;
	}
}

static int place_window(struct rouse_engine *e, const struct rouse_window *window)
{
	/* Small pieces if there is a pace to keep. */
	const size_t piece = e->pacer.limited ? ROUSE_PACER_PIECE : window->count;
	int code = 0;

	for (size_t i = 0; code == 0 && i < window->count; i += piece) {
		size_t n = window->count - i < piece ? window->count - i : piece, placed = 0;
		uint64_t placing_ns;

		code = place_piece(e, window->pages + i, n, &placed, &placing_ns);
		stage_clock_add(&e->stages, ROUSE_STAGE_PLACE_BACKGROUND, placing_ns, n);
		e->stats.background_pages += placed;
		e->stored_placed += placed;
		if (code == 0)
			code = keep_pace(e, placed * ROUSE_IMAGE_PAGE_BYTES, placing_ns);
	}
	return code;
}

int engine_deliver(struct rouse_engine *e, struct rouse_error *error)
{
	for (;;) {
		struct rouse_window *window;
		int code;
		int ended = rouse_fault_service_wait(e->faults, 0, NULL);

		if (ended < 0)
			return engine_service_failure(e, ended, error);
		if (engine_is_cancelled(e, error))
			return -ECANCELED;
		code = rouse_feeder_next(e->feeder, ENGINE_POLL_MS, &window);
		if (code == -ETIMEDOUT)
			continue;
		if (code == 0)
			return 0;
		if (engine_may_pass(code)) {
			e->trouble = code;
			return 1;
		}
		if (code < 0)
			return engine_stop_for_damage(e, code, error);
		code = place_window(e, window);
		rouse_feeder_release(e->feeder, window);
		if (code < 0) {
			/* The fault service may have ended the connection. */
			ended = rouse_fault_service_wait(e->faults, 0, NULL);
			return engine_service_failure(e, ended < 0 ? ended : code, error);
		}
		report_progress(e);
	}
}
