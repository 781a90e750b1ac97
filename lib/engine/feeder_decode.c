/* SPDX-License-Identifier: MIT */
/* The workers of the feeder: they verify and decompress what has been read. */
#include "engine/feeder_private.h"

#include <sched.h>

static void put_decoded(struct rouse_feeder *f, struct feed_window *window)
{
	pthread_mutex_lock(&f->lock);
	window->decoded = true;
	pthread_cond_signal(&f->is_decoded);
	pthread_mutex_unlock(&f->lock);
}

/* Waits for a window to decode; it stays in the line. NULL: there will be none. */
static struct feed_window *take_undecoded(struct rouse_feeder *f)
{
	struct feed_window *window = NULL;

	pthread_mutex_lock(&f->lock);
	while (!f->stopping && f->code == 0) {
		window = window_line_next_to_decode(&f->line);
		if (window != NULL || f->read_done)
			break;
		pthread_cond_wait(&f->is_read, &f->lock);
	}
	pthread_mutex_unlock(&f->lock);
	return window;
}

static void *worker_main(void *argument)
{
	struct worker *worker = argument;
	struct rouse_feeder *f = worker->feeder;
	struct feed_window *window;

	feeder_set_priority(f);
	while ((window = take_undecoded(f)) != NULL) {
		uint64_t chunk = 0;
		int code = window_decoder_decode(&worker->decoder, window, &chunk);

		stage_clock_add(f->config.stages, ROUSE_STAGE_VERIFY,
			worker->decoder.time.verify_ns, worker->decoder.pages);
		stage_clock_add(f->config.stages, ROUSE_STAGE_DECOMPRESS,
			worker->decoder.time.decompress_ns, worker->decoder.pages);
		/* A window that is damaged stays where it is: nothing passes it. */
		if (code < 0)
			feeder_fail(f, code, chunk);
		else
			put_decoded(f, window);
	}
	return NULL;
}

/* One processor is left to who reads and places; the guest's come before the background anyway. */
static unsigned int choose_workers(unsigned int wanted)
{
	cpu_set_t usable;
	int processors = 1;

	if (wanted == 0) {
		if (sched_getaffinity(0, sizeof(usable), &usable) == 0)
			processors = CPU_COUNT(&usable);
		wanted = processors > 1 ? (unsigned int)processors - 1 : 1;
	}
	return wanted < ROUSE_FEEDER_MAX_WORKERS ? wanted : ROUSE_FEEDER_MAX_WORKERS;
}

static int start_worker(struct rouse_feeder *f, struct worker *worker)
{
	int code = window_decoder_init(&worker->decoder, f->window_reader.chunk_pages);

	worker->feeder = f;
	if (code == 0)
		code = -pthread_create(&worker->thread, NULL, worker_main, worker);
	if (code < 0)
		window_decoder_finish(&worker->decoder);
	else
		f->worker_count++;
	return code;
}

/* Fewer than wanted will do. */
int feeder_start_workers(struct rouse_feeder *f)
{
	const unsigned int wanted = choose_workers(f->config.workers);
	int code = 0;

	while (code == 0 && f->worker_count < wanted)
		code = start_worker(f, &f->workers[f->worker_count]);
	return f->worker_count > 0 ? 0 : code;
}
