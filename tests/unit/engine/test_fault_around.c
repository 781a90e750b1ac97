/* SPDX-License-Identifier: MIT */
/* What comes with a page that is asked for, and where the background goes on after it. */
#include "lazy_fixture.h"
#include "paced_fixture.h"

#include "engine/feeder.h"
#include "engine/plan.h"

#include <fcntl.h>

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

static void where_reads_are_expected_to_be_slow_the_first_fault_brings_them_too(void **state)
{
	static const uint64_t wanted[] = {1000, 1030, 900, 1100};
	struct slow_source slow;
	struct run run;
	uint64_t count;

	open_plain(&run, &slow, *state, 2000, 5);
	slow.expected = true;
	run_lazy(&run, &slow, false, wanted, 4);
	(void)rouse_engine_faults(run.engine, &count);
	assert_int_equal(count, 1);
	run_close(&run);
}

static void a_set_that_came_slowly_says_that_reads_are_slow(void **state)
{
	static const uint64_t wanted[] = {101};
	const struct fixture *fixture = *state;
	struct slow_source slow;
	struct run run;

	make_paced_image(fixture->path, 1000);
	run_open(&run, fixture->path);
	slow = (struct slow_source){
		.base = {.ops = &slow_ops}, .file = run.source, .bulk_delay_ms = 20};
	run_asking(&run, &slow, ROUSE_POLICY_WS, false, wanted, 1);
	assert_true(count_state(&run, 2) > 4 * CHUNK_PAGES);
	run_close(&run);
}

/* Nor do the pages in front of it, which guests ask for more often. */
static void a_fault_does_not_wait_for_what_is_read_behind_it(void **state)
{
	static const uint64_t wanted[] = {1000, 1100};
	struct slow_source slow;
	struct run run;
	uint64_t count;

	open_plain(&run, &slow, *state, 2000, 5);
	slow.expected = true;
	run_lazy(&run, &slow, false, wanted, 2);
	(void)rouse_engine_faults(run.engine, &count);
	assert_int_equal(count, 1);
	assert_int_equal(slow.urgent_reads, 2);
	assert_int_equal(slow.placed_before[0], 0);
	assert_true(slow.placed_before[1] > 2 * CHUNK_PAGES);
	run_close(&run);
}

/* Nobody waits for it. */
static void what_is_behind_a_fault_and_cannot_be_read_is_left_out(void **state)
{
	static const uint64_t wanted[] = {1000, 500};
	struct slow_source slow;
	struct run run;
	uint64_t count;

	open_plain(&run, &slow, *state, 2000, 5);
	slow.expected = true;
	slow.fails = 2;
	run_lazy(&run, &slow, false, wanted, 2);
	(void)rouse_engine_faults(run.engine, &count);
	assert_int_equal(count, 2);
	assert_int_equal(run.fake->state[900], 2);
	assert_int_equal(run.fake->state[1000], 2);
	assert_int_equal(run.fake->state[1100], 0);
	run_close(&run);
}

/* Some time: a busy machine may make one of them slow. */
static void where_reads_turn_out_to_be_quick_a_fault_brings_its_chunk_only(void **state)
{
	enum { FAULTS = 24, APART = 400 };
	uint64_t wanted[FAULTS];
	struct slow_source slow;
	struct run run;
	unsigned int alone = 0;

	for (uint64_t i = 0; i < FAULTS; i++)
		wanted[i] = APART * (i + 1) + CHUNK_PAGES * (i * 7 % 5); /* at no stride */
	open_plain(&run, &slow, *state, (uint64_t)APART * (FAULTS + 2), 0);
	slow.expected = true;
	run_lazy(&run, &slow, false, wanted, FAULTS);
	assert_int_equal(run.fake->state[wanted[0] + 100], 2);
	for (size_t i = 0; i < FAULTS; i++) {
		assert_int_equal(run.fake->state[wanted[i]], 2);
		alone += run.fake->state[wanted[i] + 100] == 0;
	}
	assert_true(alone > 0);
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

/* One that does not shrink has as many bytes as one side of a span. */
static void around_a_large_chunk_there_is_room_for_its_neighbours(void **state)
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
	assert_int_equal(run.fake->state[wanted[1] - 1], 2);
	assert_int_equal(run.fake->state[wanted[1] + LARGE], 2);
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
		T(where_reads_are_expected_to_be_slow_the_first_fault_brings_them_too),
		T(a_set_that_came_slowly_says_that_reads_are_slow),
		T(a_fault_does_not_wait_for_what_is_read_behind_it),
		T(what_is_behind_a_fault_and_cannot_be_read_is_left_out),
		T(where_reads_turn_out_to_be_quick_a_fault_brings_its_chunk_only),
		T(around_the_first_and_the_last_page_there_is_nothing_more),
		T(around_a_large_chunk_there_is_room_for_its_neighbours),
		T(a_damaged_neighbour_is_left_out),
		T(the_background_goes_on_behind_the_fault_and_misses_nothing),
#undef T
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
