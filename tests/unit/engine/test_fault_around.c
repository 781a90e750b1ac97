/* SPDX-License-Identifier: MIT */
/* What comes with a page that is asked for, and where the background goes on after it. */
#include "engine_fixture.h"

#include "engine/feeder.h"
#include "engine/plan.h"

#include <fcntl.h>
#include <time.h>

#define CHUNK_PAGES 16u

/* A source whose urgent reads take @delay_ms longer. */
struct slow_source {
	struct rouse_source base;
	struct rouse_source *file;
	unsigned int delay_ms;
	unsigned int urgent_reads;
};

static int slow_read(struct rouse_source *source, uint64_t offset, void *buffer, size_t size,
	enum rouse_read_priority priority)
{
	struct slow_source *slow = (struct slow_source *)source;
	const struct timespec delay = {.tv_nsec = (long)slow->delay_ms * 1000000};

	if (priority == ROUSE_READ_URGENT) {
		slow->urgent_reads++;
		(void)nanosleep(&delay, NULL);
	}
	return rouse_source_read(slow->file, offset, buffer, size, priority);
}

static uint64_t slow_size(const struct rouse_source *source)
{
	return rouse_source_size(((const struct slow_source *)source)->file);
}

static const struct rouse_source_ops slow_ops = {.read = slow_read, .size = slow_size};

/* An image of @pages pages that all differ, in chunks of CHUNK_PAGES, in order. */
static void make_plain_image(const char *path, uint64_t pages)
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
static void run_lazy(struct run *run, struct slow_source *slow, bool record, const uint64_t *wanted,
	size_t count)
{
	struct rouse_cancel *cancel = NULL;
	struct rouse_observer observer = {0};
	struct rouse_engine_config config = {
		.reader = run->reader,
		.source = &slow->base,
		.observer = &observer,
		.policy = ROUSE_POLICY_LAZY,
		.background = 1,
		.record = record,
		/* Only faults are served for so long. */
		.record_us = 60000000,
	};

	assert_int_equal(rouse_cancel_new(&cancel), 0);
	observer.cancel = cancel;
	run->fake = fake_new(rouse_reader_page_count(run->reader), wanted, count);
	assert_int_equal(rouse_engine_new(&config, &run->engine, &run->error), 0);
	run->fake->on_end_of_wanted = cancel;
	assert_int_equal(rouse_engine_run(run->engine, &run->fake->sink, &run->error), -ECANCELED);
	/* What the fault thread did before it fired is visible from here on. */
	pthread_mutex_lock(&run->fake->lock);
	pthread_mutex_unlock(&run->fake->lock);
}

static void open_plain(struct run *run, struct slow_source *slow, const struct fixture *fixture,
	uint64_t pages, unsigned int delay_ms)
{
	make_plain_image(fixture->path, pages);
	run_open(run, fixture->path);
	*slow = (struct slow_source){
		.base = {.ops = &slow_ops}, .file = run->source, .delay_ms = delay_ms};
}

static size_t count_state(const struct run *run, unsigned char wanted)
{
	size_t count = 0;

	for (uint64_t i = 0; i < run->fake->page_count; i++)
		count += run->fake->state[i] == wanted;
	return count;
}

static void the_rest_of_a_chunk_comes_with_its_page(void **state)
{
	/* One: after a slow read the next one would bring more. */
	static const uint64_t wanted[] = {100};
	unsigned char expected[PAGE];
	struct rouse_engine_stats stats;
	struct slow_source slow;
	struct run run;

	open_plain(&run, &slow, *state, 1000, 0);
	run_lazy(&run, &slow, false, wanted, 1);
	for (uint64_t page = 96; page < 96 + CHUNK_PAGES; page++) {
		assert_int_equal(run.fake->state[page], 2);
		fill_page(expected, page + 1);
		assert_memory_equal(run.fake->memory + page * PAGE, expected, PAGE);
	}
	assert_int_equal(run.fake->state[95], 0);
	assert_int_equal(run.fake->state[112], 0);
	rouse_engine_get_stats(run.engine, &stats);
	assert_int_equal(stats.around_pages, CHUNK_PAGES - 1);
	run_close(&run);
}

static void a_recording_gets_what_was_asked_for_and_no_more(void **state)
{
	static const uint64_t wanted[] = {100, 500, 101};
	struct slow_source slow;
	struct run run;

	open_plain(&run, &slow, *state, 1000, 0);
	run_lazy(&run, &slow, true, wanted, 3);
	assert_int_equal(count_state(&run, 2), 3);
	run_close(&run);
}

static void where_reads_are_slow_a_fault_brings_the_chunks_around_it(void **state)
{
	/* The first read shows that reads are slow; the second brings what the others ask for. */
	static const uint64_t wanted[] = {10, 1000, 1030, 980, 1050};
	unsigned char expected[PAGE];
	const struct rouse_fault *faults;
	struct slow_source slow;
	struct run run;
	uint64_t count;

	open_plain(&run, &slow, *state, 2000, 5);
	run_lazy(&run, &slow, false, wanted, 5);
	faults = rouse_engine_faults(run.engine, &count);
	assert_int_equal(count, 2);
	assert_int_equal(faults[1].page, 1000);
	for (uint64_t page = 976; page < 1060; page++) {
		assert_int_equal(run.fake->state[page], 2);
		fill_page(expected, page + 1);
		assert_memory_equal(run.fake->memory + page * PAGE, expected, PAGE);
	}
	for (uint64_t page = 0; page < run.fake->page_count; page++)
		assert_true(run.fake->given[page] <= 1);
	run_close(&run);
}

static void around_the_first_and_the_last_page_there_is_nothing_more(void **state)
{
	static const uint64_t wanted[] = {500, 0, 999};
	struct slow_source slow;
	struct run run;

	open_plain(&run, &slow, *state, 1000, 5);
	run_lazy(&run, &slow, false, wanted, 3);
	assert_int_equal(run.fake->state[0], 2);
	assert_int_equal(run.fake->state[999], 2);
	assert_true(count_state(&run, 2) > 3 * CHUNK_PAGES);
	run_close(&run);
}

/* A page that does not shrink. */
static void fill_noise(unsigned char *page, uint64_t seed)
{
	fill_page(page, seed);
	/* The fixture's pages are half empty. */
	fill_page(page + PAGE / 2, seed + 1000000);
}

/*
 * One that does not shrink has as many bytes as a whole span, and there is room for those in front
 * of it all the same.
 */
static void a_large_chunk_leaves_its_neighbours_no_room(void **state)
{
	enum { LARGE = 64, CHUNKS = 24 };
	static const uint64_t wanted[] = {5 * LARGE, 15 * LARGE, 20 * LARGE};
	const struct rouse_layout layout = {
		.codec = ROUSE_CODEC_LZ4, .chunk_pages = LARGE, .threads = 1};
	const struct fixture *fixture = *state;
	struct rouse_writer *writer = begin_image(fixture->path, CHUNKS * LARGE, &layout, NULL, 0);
	unsigned char page[2 * PAGE];
	struct slow_source slow;
	struct run run;

	/* Of five chunks one is noise and the others shrink to little. */
	for (uint64_t i = 0; i < CHUNKS * LARGE; i++) {
		if (i / LARGE % 5 == 0) {
			fill_noise(page, i + 1);
		} else {
			memset(page, 1 + (int)(i % 7), PAGE);
			memcpy(page, &i, sizeof(i));
		}
		assert_int_equal(rouse_writer_put_page(writer, i, page), 0);
	}
	(void)end_image(writer);
	run_open(&run, fixture->path);
	slow = (struct slow_source){.base = {.ops = &slow_ops}, .file = run.source, .delay_ms = 5};
	run_lazy(&run, &slow, false, wanted, 3);
	for (size_t i = 0; i < 3; i++) {
		fill_noise(page, wanted[i] + 1);
		assert_memory_equal(run.fake->memory + wanted[i] * PAGE, page, PAGE);
	}
	run_close(&run);
}

static void a_damaged_neighbour_is_left_out(void **state)
{
	static const uint64_t wanted[] = {10, 1000};
	const struct fixture *fixture = *state;
	struct rouse_chunk chunk;
	uint64_t locator;
	struct slow_source slow;
	struct run run;
	int fd;

	open_plain(&run, &slow, fixture, 2000, 5);
	assert_int_equal(rouse_reader_locate(run.reader, 1020, ROUSE_READ_BULK, &locator), 0);
	assert_int_equal(rouse_reader_chunk(
				 run.reader, rouse_locator_chunk(locator), ROUSE_READ_BULK, &chunk),
		0);
	fd = open(fixture->path, O_WRONLY | O_CLOEXEC);
	assert_int_equal(pwrite(fd, "damage", 6, (off_t)chunk.offset + 100), 6);
	(void)close(fd);
	run_lazy(&run, &slow, false, wanted, 2);
	assert_int_equal(run.fake->state[1000], 2);
	assert_int_equal(run.fake->state[1020], 0);
	assert_int_equal(run.fake->state[1030], 2);
	run_close(&run);
}

/* For the feeder: once, somebody reads the chunk of page 5000. */
struct follower {
	struct rouse_reader *reader;
	bool told;
};

static uint64_t follow_page_5000(void *user)
{
	struct follower *follower = user;
	uint64_t locator = 0;

	if (!follower->told)
		(void)rouse_reader_locate(follower->reader, 5000, ROUSE_READ_BULK, &locator);
	follower->told = true;
	return locator;
}

static void the_background_goes_on_behind_the_fault_and_misses_nothing(void **state)
{
	const struct fixture *fixture = *state;
	static unsigned char seen[9000];
	struct rouse_rest_plan plan;
	struct rouse_feeder *feeder;
	struct rouse_window *window;
	struct run run;
	struct follower follower = {0};
	struct rouse_feeder_config config = {.plan = rouse_rest_plan_next,
		.plan_user = &plan,
		.windows = 2,
		.background = true,
		.follow = follow_page_5000,
		.follow_user = &follower};
	bool first = true;

	make_plain_image(fixture->path, 9000);
	run_open(&run, fixture->path);
	follower.reader = config.reader = run.reader;
	config.source = run.source;
	rouse_rest_plan_init(&plan, run.reader, false, NULL, NULL);
	assert_int_equal(rouse_feeder_start(&config, &feeder), 0);
	while (rouse_feeder_next(feeder, -1, &window) == 1) {
		/* 5000 is in the chunk of the pages 4992 to 5007. */
		if (first)
			assert_int_equal(window->pages[0].page, 5008);
		first = false;
		for (size_t i = 0; i < window->count; i++)
			seen[window->pages[i].page]++;
		rouse_feeder_release(feeder, window);
	}
	for (size_t i = 0; i < sizeof(seen); i++)
		assert_int_equal(seen[i], 1);
	rouse_feeder_stop(feeder);
	rouse_rest_plan_finish(&plan);
	rouse_reader_close(run.reader);
	rouse_source_destroy(run.source);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
		T(the_rest_of_a_chunk_comes_with_its_page),
		T(a_recording_gets_what_was_asked_for_and_no_more),
		T(where_reads_are_slow_a_fault_brings_the_chunks_around_it),
		T(around_the_first_and_the_last_page_there_is_nothing_more),
		T(a_large_chunk_leaves_its_neighbours_no_room),
		T(a_damaged_neighbour_is_left_out),
		T(the_background_goes_on_behind_the_fault_and_misses_nothing),
#undef T
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
