/* SPDX-License-Identifier: MIT */
#include "engine/feeder.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "engine/pending.h"
#include "engine/window.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/resource.h>

#define BACKGROUND_NICE 10

/* Windows in the order they were filled, and the one thread that waits for them. */
struct window_queue {
	struct feed_window *first, **last;
	pthread_cond_t changed;
};

struct rouse_feeder {
	struct rouse_feeder_config config;
	struct window_reader window_reader; /* of the reader thread */
	struct window_decoder decoder;      /* of the decoder thread */
	pthread_t reader_thread, decoder_thread;

	pthread_mutex_t lock; /* all below */
	struct window_queue idle, read, ready;
	unsigned int allocated;
	bool taken; /* rouse_feeder_next() has been called */
	bool stopping, read_done, decode_done;
	int code;         /* the first failure */
	uint64_t damaged; /* chunk, for -EUCLEAN */
};

static void queue_init(struct window_queue *queue)
{
	pthread_condattr_t monotonic;

	queue->first = NULL;
	queue->last = &queue->first;
	(void)pthread_condattr_init(&monotonic);
	(void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&queue->changed, &monotonic);
	(void)pthread_condattr_destroy(&monotonic);
}

static void queue_put(struct window_queue *queue, struct feed_window *window)
{
	window->next = NULL;
	*queue->last = window;
	queue->last = &window->next;
}

/* In front of the others: it is taken next, while the processor's cache still has its memory. */
static void queue_put_first(struct window_queue *queue, struct feed_window *window)
{
	window->next = queue->first;
	if (queue->first == NULL)
		queue->last = &window->next;
	queue->first = window;
}

static struct feed_window *queue_take(struct window_queue *queue)
{
	struct feed_window *window = queue->first;

	if (window == NULL)
		return NULL;
	queue->first = window->next;
	if (queue->first == NULL)
		queue->last = &queue->first;
	return window;
}

static void feeder_put(
	struct rouse_feeder *f, struct window_queue *queue, struct feed_window *window)
{
	pthread_mutex_lock(&f->lock);
	queue_put(queue, window);
	pthread_cond_signal(&queue->changed);
	pthread_mutex_unlock(&f->lock);
}

/* Something that everybody must know. Under the lock. */
static void wake_all(struct rouse_feeder *f)
{
	pthread_cond_broadcast(&f->idle.changed);
	pthread_cond_broadcast(&f->read.changed);
	pthread_cond_broadcast(&f->ready.changed);
}

static void feeder_fail(struct rouse_feeder *f, int code, uint64_t chunk)
{
	pthread_mutex_lock(&f->lock);
	if (f->code == 0) {
		f->code = code;
		f->damaged = chunk;
	}
	wake_all(f);
	pthread_mutex_unlock(&f->lock);
}

/* Far ahead only while nobody takes anything. */
static bool may_allocate(const struct rouse_feeder *f)
{
	return f->allocated < f->config.windows &&
	       (!f->taken || f->allocated < ROUSE_FEEDER_WARM_WINDOWS);
}

/* A window to fill: an idle one, or a new one while there are not too many. NULL: stop. */
static struct feed_window *take_idle(struct rouse_feeder *f)
{
	struct feed_window *window = NULL;

	pthread_mutex_lock(&f->lock);
	while (!f->stopping && f->code == 0) {
		window = queue_take(&f->idle);
		if (window != NULL)
			break;
		if (may_allocate(f)) {
			f->allocated++;
			pthread_mutex_unlock(&f->lock);
			window = feed_window_new(f->window_reader.chunk_pages);
			if (window == NULL)
				feeder_fail(f, -ENOMEM, 0);
			return window;
		}
		pthread_cond_wait(&f->idle.changed, &f->lock);
	}
	pthread_mutex_unlock(&f->lock);
	return window;
}

/* The first of @pages that is stored behind the chunk of @locator. */
static size_t find_behind(const struct rouse_feed_page *pages, size_t count, uint64_t locator)
{
	const uint64_t chunk = locator >> 16;
	size_t low = 0, high = count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (pages[middle].locator >> 16 <= chunk)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Goes on where a fault was served, if one was. */
static void follow(struct rouse_feeder *f, struct rouse_pending *pending,
	const struct rouse_feed_page *pages, size_t count)
{
	uint64_t locator;

	if (f->config.follow == NULL)
		return;
	locator = f->config.follow(f->config.follow_user);
	/* A place in front of this region or behind it would only take the reading to its end. */
	if (locator >= pages[0].locator && locator <= pages[count - 1].locator)
		rouse_pending_jump(pending, find_behind(pages, count, locator));
}

/* Fills one window from what is pending. */
static int read_window(struct rouse_feeder *f, struct rouse_pending *pending,
	const struct rouse_feed_page *pages, size_t count)
{
	struct feed_window *window = take_idle(f);
	struct rouse_pending_range next;
	uint64_t chunk = 0;
	int code;

	if (window == NULL)
		return -ECANCELED;
	follow(f, pending, pages, count);
	next = rouse_pending_next(pending);
	rouse_pending_take(pending,
		feed_window_cut(window, pages + next.from, next.to - next.from, &f->config));
	code = window_reader_fill(&f->window_reader, window, &chunk);
	if (code < 0) {
		feeder_fail(f, code, chunk);
		feed_window_free(window);
		return code;
	}
	feeder_put(f, window->count > 0 ? &f->read : &f->idle, window);
	return 0;
}

/* The pages of a region that are still wanted, window by window. */
static int read_region(struct rouse_feeder *f, const struct rouse_feed_page *pages, size_t count)
{
	cleanup_with(rouse_pending_finish) struct rouse_pending pending = {0};
	int code = rouse_pending_init(&pending, count);

	if (code < 0)
		feeder_fail(f, code, 0);
	while (code == 0 && pending.count > 0)
		code = read_window(f, &pending, pages, count);
	return code;
}

static void set_priority(const struct rouse_feeder *f)
{
	/* For this thread alone: Linux keeps the nice value per thread. */
	if (f->config.background)
		(void)setpriority(PRIO_PROCESS, (id_t)gettid(), BACKGROUND_NICE);
}

static void *reader_main(void *argument)
{
	struct rouse_feeder *f = argument;
	int code;

	set_priority(f);
	do {
		const struct rouse_feed_page *pages = NULL;
		size_t count = 0;

		code = f->config.plan(f->config.plan_user, &pages, &count);
		if (code < 0)
			feeder_fail(f, code, ROUSE_FEEDER_NO_CHUNK);
		if (code < 0 || count == 0)
			break;
		code = read_region(f, pages, count);
	} while (code == 0);
	pthread_mutex_lock(&f->lock);
	f->read_done = true;
	wake_all(f);
	pthread_mutex_unlock(&f->lock);
	return NULL;
}

static void *decoder_main(void *argument)
{
	struct rouse_feeder *f = argument;

	set_priority(f);
	for (;;) {
		struct feed_window *window = NULL;
		uint64_t chunk = 0;
		int code;

		pthread_mutex_lock(&f->lock);
		while (!f->stopping && f->code == 0) {
			window = queue_take(&f->read);
			if (window != NULL || f->read_done)
				break;
			pthread_cond_wait(&f->read.changed, &f->lock);
		}
		f->decode_done = window == NULL;
		if (f->decode_done)
			wake_all(f);
		pthread_mutex_unlock(&f->lock);
		if (window == NULL)
			break;
		code = window_decoder_decode(&f->decoder, window, &chunk);
		if (code < 0) {
			feeder_fail(f, code, chunk);
			feed_window_free(window);
			continue;
		}
		feeder_put(f, &f->ready, window);
	}
	return NULL;
}

static void feeder_free(struct rouse_feeder *f)
{
	struct window_queue *queues[] = {&f->idle, &f->read, &f->ready};

	for (size_t i = 0; i < 3; i++) {
		struct feed_window *window;

		while ((window = queue_take(queues[i])) != NULL)
			feed_window_free(window);
		(void)pthread_cond_destroy(&queues[i]->changed);
	}
	window_reader_finish(&f->window_reader);
	window_decoder_finish(&f->decoder);
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
	queue_init(&f->idle);
	queue_init(&f->read);
	queue_init(&f->ready);
	(void)pthread_mutex_init(&f->lock, NULL);
	code = window_reader_init(&f->window_reader, config);
	if (code == 0)
		code = window_decoder_init(&f->decoder, f->window_reader.chunk_pages);
	if (code == 0)
		code = -pthread_create(&f->reader_thread, NULL, reader_main, f);
	if (code < 0) {
		feeder_free(f);
		return code;
	}
	code = -pthread_create(&f->decoder_thread, NULL, decoder_main, f);
	if (code < 0) {
		feeder_fail(f, -ECANCELED, 0);
		(void)pthread_join(f->reader_thread, NULL);
		feeder_free(f);
		return code;
	}
	*feeder = f;
	return 0;
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
		ready = code == 0 ? queue_take(&f->ready) : NULL;
		if (ready != NULL || code != 0 || f->decode_done || waited != 0)
			break;
		if (timeout_ms < 0)
			(void)pthread_cond_wait(&f->ready.changed, &f->lock);
		else
			waited = pthread_cond_timedwait(&f->ready.changed, &f->lock, &deadline);
	}
	if (ready == NULL && code == 0 && !f->decode_done)
		code = -ETIMEDOUT;
	pthread_mutex_unlock(&f->lock);
	if (ready == NULL)
		return code;
	*window = &ready->out;
	return 1;
}

void rouse_feeder_release(struct rouse_feeder *f, struct rouse_window *window)
{
	pthread_mutex_lock(&f->lock);
	queue_put_first(&f->idle, feed_window_of(window));
	pthread_cond_signal(&f->idle.changed);
	pthread_mutex_unlock(&f->lock);
}

uint64_t rouse_feeder_damaged(const struct rouse_feeder *f)
{
	return f->damaged;
}

void rouse_feeder_stop(struct rouse_feeder *f)
{
	if (f == NULL)
		return;
	pthread_mutex_lock(&f->lock);
	f->stopping = true;
	wake_all(f);
	pthread_mutex_unlock(&f->lock);
	(void)pthread_join(f->reader_thread, NULL);
	(void)pthread_join(f->decoder_thread, NULL);
	feeder_free(f);
}
