/* SPDX-License-Identifier: MIT */
/* A lazy restore of a plain image for a guest that asks for given pages: what comes with them? */
#ifndef ROUSE_TESTS_LAZY_FIXTURE_H
#define ROUSE_TESTS_LAZY_FIXTURE_H

#include "engine_fixture.h"

#include <time.h>

#define CHUNK_PAGES 16u

/* A source whose urgent reads take @delay_ms longer, and whose others take @bulk_delay_ms. */
struct slow_source {
	struct rouse_source base;
	struct rouse_source *file;
	unsigned int delay_ms, bulk_delay_ms;
	bool expected; /* that they are slow: before the first one */
	unsigned int urgent_reads;
	unsigned int fails; /* the so many-th of them, counted from 1; 0: none */
	/* When the last one began, and the one before it: pages placed, if the sink is known. */
	const struct fake_sink *fake;
	size_t placed_before[2];
};

static inline size_t count_placed(const struct fake_sink *fake)
{
	size_t count = 0;

	for (uint64_t i = 0; i < fake->page_count; i++)
		count += fake->state[i] != 0;
	return count;
}

static inline int slow_read(struct rouse_source *source, uint64_t offset, void *buffer, size_t size,
	enum rouse_read_priority priority)
{
	struct slow_source *slow = (struct slow_source *)source;
	const bool urgent = priority == ROUSE_READ_URGENT;
	const struct timespec delay = {
		.tv_nsec = (long)(urgent ? slow->delay_ms : slow->bulk_delay_ms) * 1000000};

	(void)nanosleep(&delay, NULL);
	if (urgent) {
		slow->urgent_reads++;
		slow->placed_before[0] = slow->placed_before[1];
		slow->placed_before[1] = slow->fake != NULL ? count_placed(slow->fake) : 0;
		if (slow->urgent_reads == slow->fails)
			return -EIO;
	}
	return rouse_source_read(slow->file, offset, buffer, size, priority);
}

static inline uint64_t slow_size(const struct rouse_source *source)
{
	return rouse_source_size(((const struct slow_source *)source)->file);
}

static const struct rouse_source_ops slow_ops = {.read = slow_read, .size = slow_size};

/* An image of @pages pages that all differ, in chunks of CHUNK_PAGES, in order. */
static inline void make_plain_image(const char *path, uint64_t pages)
{
	const struct rouse_layout layout = {.codec = ROUSE_CODEC_LZ4, .threads = 1};
	struct rouse_writer *writer = begin_image(path, pages, &layout, NULL, 0);

	for (uint64_t i = 0; i < pages; i++)
		put_seed(writer, i, i + 1);
	(void)end_image(writer);
}

/*
 * Asks for pages of a plain image until all were placed, and is cancelled then: the background is
 * so slow that it places next to nothing.
 */
static inline void run_asking(struct run *run, struct slow_source *slow, enum rouse_policy policy,
	bool record, const uint64_t *wanted, size_t count)
{
	struct rouse_cancel *cancel = NULL;
	struct rouse_observer observer = {0};
	struct rouse_engine_config config = {
		.reader = run->reader,
		.source = &slow->base,
		.observer = &observer,
		.policy = policy,
		.background = 1,
		.record = record,
		.slow_reads = slow->expected,
		/* Only faults are served for so long. */
		.quiet_us = 60000000,
	};

	assert_int_equal(rouse_cancel_new(&cancel), 0);
	observer.cancel = cancel;
	run->fake = fake_new(rouse_reader_page_count(run->reader), wanted, count);
	slow->fake = run->fake;
	assert_int_equal(rouse_engine_new(&config, &run->engine, &run->error), 0);
	run->fake->on_end_of_wanted = cancel;
	assert_int_equal(rouse_engine_run(run->engine, &run->fake->sink, &run->error), -ECANCELED);
	/* What the fault thread did before it fired is visible from here on. */
	pthread_mutex_lock(&run->fake->lock);
	pthread_mutex_unlock(&run->fake->lock);
}

static inline void run_lazy(struct run *run, struct slow_source *slow, bool record,
	const uint64_t *wanted, size_t count)
{
	run_asking(run, slow, ROUSE_POLICY_LAZY, record, wanted, count);
}

static inline void open_plain(struct run *run, struct slow_source *slow,
	const struct fixture *fixture, uint64_t pages, unsigned int delay_ms)
{
	make_plain_image(fixture->path, pages);
	run_open(run, fixture->path);
	*slow = (struct slow_source){
		.base = {.ops = &slow_ops}, .file = run->source, .delay_ms = delay_ms};
}

static inline size_t count_state(const struct run *run, unsigned char wanted)
{
	size_t count = 0;

	for (uint64_t i = 0; i < run->fake->page_count; i++)
		count += run->fake->state[i] == wanted;
	return count;
}

#endif
