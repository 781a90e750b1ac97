/* SPDX-License-Identifier: MIT */
/*
 * A fake: a "guest" that is an array of pages. It asks for the pages of a list one after the other,
 * each as soon as the one before is in place, and keeps account of what was placed, how often and
 * when. It stands for QEMU where a test wants to see every page; real QEMU is in tests/e2e.
 */
#ifndef ROUSE_TESTS_FAKE_SINK_H
#define ROUSE_TESTS_FAKE_SINK_H

#include "base/clock.h"
#include "base/error.h"
#include "image/format.h"
#include "sink/sink.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

struct fake_sink {
	struct rouse_sink sink;
	uint64_t page_count;
	unsigned char *memory;  /* page_count pages */
	unsigned char *state;   /* for each: 0 missing, 1 prefetched, 2 on demand, 3 background */
	unsigned int *given;    /* for each: how often the engine handed it over */
	const uint64_t *wanted; /* pages that the guest touches, in order */
	size_t wanted_count, next;
	bool started, finished, ended, stopped, interrupted, outstanding;
	bool loads; /* loading a device touches the first wanted page */
	/* Fired once all wanted pages are in place; the fake frees it. May be NULL. */
	struct rouse_cancel *on_end_of_wanted;
	struct rouse_cancel *on_place;  /* fired when pages come; of the test, may be NULL */
	unsigned int without_memory;    /* so often place() finds no memory for its last page */
	bool overtakes;                 /* what is asked for comes from elsewhere meanwhile */
	int fail_place;                 /* a code for place() to fail with */
	int fail_prefetch;              /* the same for prefetch() */
	int processors;                 /* of the guest, whose waiting is known; 0: it is not */
	uint64_t wait_ns, wait_step_ns; /* how long they waited; grows with each look */
	int scheduling, nice;           /* of the thread that answers */
	pthread_mutex_t lock;
	pthread_cond_t changed;
};

static void fake_put(struct fake_sink *s, const struct rouse_sink_page *page, unsigned char how)
{
	unsigned char *at = s->memory + page->page * ROUSE_IMAGE_PAGE_BYTES;

	s->given[page->page]++;
	if (s->state[page->page] != 0)
		return;
	s->state[page->page] = how;
	if (page->data != NULL)
		memcpy(at, page->data, ROUSE_IMAGE_PAGE_BYTES);
	else
		memset(at, 0, ROUSE_IMAGE_PAGE_BYTES);
}

static int fake_prefetch(struct rouse_sink *sink, const struct rouse_sink_page *pages, size_t count)
{
	struct fake_sink *s = (struct fake_sink *)sink;

	if (s->on_place != NULL)
		rouse_cancel_fire(s->on_place);
	if (s->fail_prefetch != 0)
		return s->fail_prefetch;
	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < count; i++)
		fake_put(s, &pages[i], 1);
	pthread_mutex_unlock(&s->lock);
	return 0;
}

/* For threads other than the engine's own. */
static inline bool fake_has_started(struct fake_sink *s)
{
	bool started;

	pthread_mutex_lock(&s->lock);
	started = s->started;
	pthread_mutex_unlock(&s->lock);
	return started;
}

static int fake_start(struct rouse_sink *sink, uint64_t *started_ns, struct rouse_error *error)
{
	struct fake_sink *s = (struct fake_sink *)sink;
	bool ended;

	(void)error;
	*started_ns = rouse_clock_ns();
	pthread_mutex_lock(&s->lock);
	s->started = true;
	pthread_cond_broadcast(&s->changed);
	while (s->loads && !s->ended && s->state[s->wanted[0]] == 0)
		(void)pthread_cond_wait(&s->changed, &s->lock);
	ended = s->ended;
	pthread_mutex_unlock(&s->lock);
	return ended ? -EPIPE : 0;
}

static int fake_wait_fault(struct rouse_sink *sink, uint64_t *page)
{
	struct fake_sink *s = (struct fake_sink *)sink;
	int code = -EAGAIN;

	pthread_mutex_lock(&s->lock);
	s->scheduling = sched_getscheduler(0);
	s->nice = getpriority(PRIO_PROCESS, (id_t)gettid());
	while (code == -EAGAIN) {
		while (s->started && s->next < s->wanted_count &&
			s->state[s->wanted[s->next]] != 0) {
			s->next++;
			s->outstanding = false;
		}
		if (s->started && s->next == s->wanted_count && s->on_end_of_wanted != NULL)
			rouse_cancel_fire(s->on_end_of_wanted);
		if (s->interrupted) {
			code = -ECANCELED;
			s->ended = true;
			pthread_cond_broadcast(&s->changed);
		} else if (s->finished) {
			code = -ESHUTDOWN;
			s->ended = true;
			pthread_cond_broadcast(&s->changed);
		} else if (s->started && s->next < s->wanted_count && !s->outstanding) {
			*page = s->wanted[s->next];
			s->outstanding = true;
			code = 0;
		} else {
			(void)pthread_cond_wait(&s->changed, &s->lock);
		}
	}
	pthread_mutex_unlock(&s->lock);
	return code;
}

static int fake_place(struct rouse_sink *sink, const struct rouse_sink_page *pages, size_t count,
	enum rouse_sink_priority priority, size_t *placed)
{
	struct fake_sink *s = (struct fake_sink *)sink;
	size_t done = 0;
	int code;

	if (s->on_place != NULL)
		rouse_cancel_fire(s->on_place);
	pthread_mutex_lock(&s->lock);
	code = s->fail_place;
	if (s->without_memory > 0) {
		s->without_memory--;
		count--;
		code = -ENOMEM;
	}
	for (size_t i = 0; (code == 0 || code == -ENOMEM) && !s->finished && i < count; i++) {
		if (s->overtakes && priority == ROUSE_SINK_URGENT)
			fake_put(s, &pages[i], 3);
		done += s->state[pages[i].page] == 0;
		fake_put(s, &pages[i], priority == ROUSE_SINK_URGENT ? 2 : 3);
	}
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	if (placed != NULL)
		*placed = done;
	return code;
}

static bool fake_is_placed(struct rouse_sink *sink, uint64_t page)
{
	struct fake_sink *s = (struct fake_sink *)sink;
	bool placed;

	pthread_mutex_lock(&s->lock);
	placed = s->state[page] != 0;
	pthread_mutex_unlock(&s->lock);
	return placed;
}

/* What is missing now is zero, as in QEMU, which says SHUT to the fault thread then. */
static int fake_finish(struct rouse_sink *sink, struct rouse_error *error)
{
	struct fake_sink *s = (struct fake_sink *)sink;

	(void)error;
	pthread_mutex_lock(&s->lock);
	s->finished = true;
	pthread_cond_broadcast(&s->changed);
	while (!s->ended)
		pthread_cond_wait(&s->changed, &s->lock);
	pthread_mutex_unlock(&s->lock);
	return 0;
}

static int fake_stop_guest(struct rouse_sink *sink, struct rouse_error *error)
{
	struct fake_sink *s = (struct fake_sink *)sink;

	(void)error;
	s->stopped = true;
	return 0;
}

static int fake_guest_wait(struct rouse_sink *sink, uint64_t *wait_ns)
{
	struct fake_sink *s = (struct fake_sink *)sink;

	s->wait_ns += s->wait_step_ns;
	*wait_ns = s->wait_ns;
	return s->processors > 0 ? s->processors : -ENOTSUP;
}

static void fake_interrupt(struct rouse_sink *sink)
{
	struct fake_sink *s = (struct fake_sink *)sink;

	pthread_mutex_lock(&s->lock);
	s->interrupted = true;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

static void fake_destroy(struct rouse_sink *sink)
{
	struct fake_sink *s = (struct fake_sink *)sink;

	rouse_cancel_free(s->on_end_of_wanted);
	free(s->memory);
	free(s->state);
	free(s->given);
	(void)pthread_cond_destroy(&s->changed);
	(void)pthread_mutex_destroy(&s->lock);
	free(s);
}

static const struct rouse_sink_ops fake_ops = {
	.prefetch = fake_prefetch,
	.start = fake_start,
	.wait_fault = fake_wait_fault,
	.place = fake_place,
	.is_placed = fake_is_placed,
	.finish = fake_finish,
	.stop_guest = fake_stop_guest,
	.guest_wait = fake_guest_wait,
	.interrupt = fake_interrupt,
	.destroy = fake_destroy,
};

/*
 * On the heap: an assertion that fails leaves its test without ending the fault thread, which goes
 * on waiting here. On the stack the next test's fake would lie in the same place, and that thread
 * would take its wake-ups: one failure would hang the whole program.
 */
static struct fake_sink *fake_new(uint64_t page_count, const uint64_t *wanted, size_t wanted_count)
{
	struct fake_sink *s = calloc(1, sizeof(*s));

	*s = (struct fake_sink){.sink = {.ops = &fake_ops},
		.page_count = page_count,
		.wanted = wanted,
		.wanted_count = wanted_count};
	s->memory = calloc(page_count, ROUSE_IMAGE_PAGE_BYTES);
	s->state = calloc(page_count, 1);
	s->given = calloc(page_count, sizeof(*s->given));
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_cond_init(&s->changed, NULL);
	return s;
}

#endif
