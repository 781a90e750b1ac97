/* SPDX-License-Identifier: MIT */
#include "engine/feeder_private.h"

#include "base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#define BACKGROUND_NICE 10

static void condition_init(pthread_cond_t *condition)
{
	pthread_condattr_t monotonic;

	(void)pthread_condattr_init(&monotonic);
	(void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	(void)pthread_cond_init(condition, &monotonic);
	(void)pthread_condattr_destroy(&monotonic);
}

void feeder_set_priority(const struct rouse_feeder *f)
{
	/* For this thread alone: Linux keeps the nice value per thread. */
	if (f->config.background)
		(void)setpriority(PRIO_PROCESS, (id_t)gettid(), BACKGROUND_NICE);
}

void feeder_put_idle(struct rouse_feeder *f, struct feed_window *window)
{
	pthread_mutex_lock(&f->lock);
	window->next = f->idle;
	f->idle = window;
	pthread_cond_signal(&f->is_idle);
	pthread_mutex_unlock(&f->lock);
}

struct feed_window *feeder_pop_idle(struct rouse_feeder *f)
{
	struct feed_window *window = f->idle;

	if (window != NULL)
		f->idle = window->next;
	return window;
}

void feeder_wake_all(struct rouse_feeder *f)
{
	pthread_cond_broadcast(&f->is_idle);
	pthread_cond_broadcast(&f->is_read);
	pthread_cond_broadcast(&f->is_decoded);
}

void feeder_fail(struct rouse_feeder *f, int code, uint64_t chunk)
{
	/* Of a medium: who takes windows knows it as "not yet". */
	if (code == -ETIMEDOUT)
		code = -EIO;
	pthread_mutex_lock(&f->lock);
	if (f->code == 0) {
		f->code = code;
		f->damaged = chunk;
	}
	feeder_wake_all(f);
	pthread_mutex_unlock(&f->lock);
}

/* Whoever waits gives up. */
static void stop_workers(struct rouse_feeder *f)
{
	pthread_mutex_lock(&f->lock);
	f->stopping = true;
	feeder_wake_all(f);
	pthread_mutex_unlock(&f->lock);
	for (unsigned int i = 0; i < f->worker_count; i++)
		(void)pthread_join(f->workers[i].thread, NULL);
}

/* When no thread runs any more. */
static void feeder_free(struct rouse_feeder *f)
{
	struct feed_window *window;

	while ((window = feeder_pop_idle(f)) != NULL)
		feed_window_free(window);
	while ((window = window_line_drop(&f->line)) != NULL)
		feed_window_free(window);
	for (unsigned int i = 0; i < f->worker_count; i++)
		window_decoder_finish(&f->workers[i].decoder);
	window_reader_finish(&f->window_reader);
	(void)pthread_cond_destroy(&f->is_idle);
	(void)pthread_cond_destroy(&f->is_read);
	(void)pthread_cond_destroy(&f->is_decoded);
	(void)pthread_mutex_destroy(&f->lock);
	free(f);
}

int rouse_feeder_start(const struct rouse_feeder_config *config, struct rouse_feeder **feeder)
{
	struct rouse_feeder *f = calloc(1, sizeof(*f));
	int code;

	if (f == NULL)
		return -ENOMEM;
	f->config = *config;
	window_line_init(&f->line);
	condition_init(&f->is_idle);
	condition_init(&f->is_read);
	condition_init(&f->is_decoded);
	(void)pthread_mutex_init(&f->lock, NULL);
	code = window_reader_init(&f->window_reader, config);
	if (code == 0)
		code = feeder_start_workers(f);
	if (code == 0)
		code = -pthread_create(&f->reader_thread, NULL, feeder_read_main, f);
	if (code < 0) {
		stop_workers(f);
		feeder_free(f);
		return code;
	}
	*feeder = f;
	return 0;
}

/* Whether every window has been taken. Under the lock. */
static bool at_end(const struct rouse_feeder *f)
{
	return f->read_done && window_line_is_empty(&f->line);
}

/* Under the lock. Non-zero: the time is over. */
static int wait_decoded(struct rouse_feeder *f, const struct timespec *deadline)
{
	const uint64_t begun_ns = rouse_clock_ns();
	int code = deadline != NULL ? pthread_cond_timedwait(&f->is_decoded, &f->lock, deadline)
				    : pthread_cond_wait(&f->is_decoded, &f->lock);

	stage_clock_add(f->config.stages, ROUSE_STAGE_WAIT_PAGES, rouse_clock_ns() - begun_ns, 0);
	return code;
}

int rouse_feeder_next(struct rouse_feeder *f, int timeout_ms, struct rouse_window **window)
{
	struct feed_window *ready = NULL;
	const struct timespec deadline = rouse_clock_in_ms(timeout_ms > 0 ? timeout_ms : 0);
	int code = 0, waited = 0;

	pthread_mutex_lock(&f->lock);
	f->taken = true;
	for (;;) {
		code = f->code;
		ready = code == 0 ? window_line_take(&f->line) : NULL;
		if (ready != NULL || code != 0 || at_end(f) || waited != 0)
			break;
		waited = wait_decoded(f, timeout_ms < 0 ? NULL : &deadline);
	}
	if (ready == NULL && code == 0 && !at_end(f))
		code = -ETIMEDOUT;
	pthread_mutex_unlock(&f->lock);
	if (ready == NULL)
		return code;
	stage_clock_add(f->config.stages, ROUSE_STAGE_WAIT_PAGES, 0, ready->out.count);
	*window = &ready->out;
	return 1;
}

void rouse_feeder_release(struct rouse_feeder *f, struct rouse_window *window)
{
	feeder_put_idle(f, feed_window_of(window));
}

uint64_t rouse_feeder_damaged(const struct rouse_feeder *f)
{
	return f->damaged;
}

void rouse_feeder_stop(struct rouse_feeder *f)
{
	if (f == NULL)
		return;
	window_reader_stop(&f->window_reader);
	stop_workers(f);
	(void)pthread_join(f->reader_thread, NULL);
	feeder_free(f);
}
