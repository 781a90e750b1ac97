/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the feeder share.
 *
 *   idle --reader--> line: read --worker--> line: decoded --next()--> the caller --release()-->
 * idle
 *
 *   feeder.c          the caller's side: starting, taking windows, the end
 *   feeder_read.c     the reader thread
 *   feeder_decode.c   the workers
 */
#ifndef ROUSE_ENGINE_FEEDER_PRIVATE_H
#define ROUSE_ENGINE_FEEDER_PRIVATE_H

#include "engine/window_line.h"

#include <pthread.h>

struct worker {
	struct rouse_feeder *feeder;
	struct window_decoder decoder;
	pthread_t thread;
};

struct rouse_feeder {
	struct rouse_feeder_config config;
	struct window_reader window_reader; /* of the reader thread */
	pthread_t reader_thread;
	struct worker workers[ROUSE_FEEDER_MAX_WORKERS];
	unsigned int worker_count; /* those that run */

	pthread_mutex_t lock;     /* all below */
	struct feed_window *idle; /* a stack: the last one is still in the processor's cache */
	struct window_line line;
	/* For the reader: a window is idle; for workers: one is read; for next(): one is decoded.
	 */
	pthread_cond_t is_idle, is_read, is_decoded;
	unsigned int allocated;
	bool taken; /* rouse_feeder_next() has been called */
	bool stopping, read_done;
	int code;         /* the first failure */
	uint64_t damaged; /* chunk, for -EUCLEAN */
};

/** The reader's thread; its argument is the feeder. */
void *feeder_read_main(void *feeder);

/** Fewer than wanted will do; not even one: -ENOMEM, -EAGAIN. */
int feeder_start_workers(struct rouse_feeder *feeder);

/** For the calling thread: low, in the background. */
void feeder_set_priority(const struct rouse_feeder *feeder);

void feeder_put_idle(struct rouse_feeder *feeder, struct feed_window *window);
/** NULL: none. Under the lock. */
struct feed_window *feeder_pop_idle(struct rouse_feeder *feeder);

/** There is something that everybody must know. Under the lock. */
void feeder_wake_all(struct rouse_feeder *feeder);

/** Ends it: what rouse_feeder_next() returns from now on. The first failure counts. */
void feeder_fail(struct rouse_feeder *feeder, int code, uint64_t chunk);

#endif
