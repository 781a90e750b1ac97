/* SPDX-License-Identifier: MIT */
/* Guests whose faults follow a pattern, and guests whose faults do not. */
#include "engine/fault_span.h"
#include "lazy_fixture.h"

#include <fcntl.h>

#define SCAN_PAGES 9000u /* three page tables */

static void check_all(const struct run *run)
{
	unsigned char expected[PAGE];

	for (uint64_t page = 0; page < run->fake->page_count; page++) {
		assert_in_range(run->fake->given[page], 0, 1);
		if (run->fake->state[page] == 0)
			continue;
		fill_page(expected, page + 1);
		assert_memory_equal(run->fake->memory + page * PAGE, expected, PAGE);
	}
}

static uint64_t count_faults(const struct run *run)
{
	uint64_t count;

	(void)rouse_engine_faults(run->engine, &count);
	return count;
}

static void a_scan_upwards_takes_far_fewer_faults_than_there_are_chunks(void **state)
{
	static uint64_t wanted[SCAN_PAGES];
	struct rouse_engine_stats stats;
	struct slow_source slow;
	struct run run;

	for (uint64_t i = 0; i < SCAN_PAGES; i++)
		wanted[i] = i;
	open_plain(&run, &slow, *state, SCAN_PAGES, 0);
	run_lazy(&run, &slow, false, wanted, SCAN_PAGES);
	check_all(&run);
	assert_int_equal(count_state(&run, 2), SCAN_PAGES);
	/* Of 563 chunks. A machine that is busy may take the time that a read-ahead has. */
	assert_in_range(count_faults(&run), 40, 563 / 3);
	rouse_engine_get_stats(run.engine, &stats);
	assert_int_equal(count_faults(&run) + stats.around_pages + stats.ahead_pages, SCAN_PAGES);
	run_close(&run);
}

static void steps_of_one_length_take_fewer_faults_than_steps(void **state)
{
	enum { STRIDE = 100, STEPS = SCAN_PAGES / STRIDE };
	static uint64_t wanted[STEPS];
	struct slow_source slow;
	struct run run;

	for (uint64_t i = 0; i < STEPS; i++)
		wanted[i] = SCAN_PAGES - 1 - i * STRIDE;
	open_plain(&run, &slow, *state, SCAN_PAGES, 0);
	run_lazy(&run, &slow, false, wanted, STEPS);
	check_all(&run);
	assert_in_range(count_faults(&run), 4, STEPS * 2 / 3);
	run_close(&run);
}

static void without_a_pattern_nothing_more_is_placed(void **state)
{
	enum { COUNT = 200 };
	static uint64_t wanted[COUNT];
	uint64_t random = 20;
	struct rouse_engine_stats stats;
	struct slow_source slow;
	struct run run;

	for (size_t i = 0; i < COUNT; i++) {
		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		wanted[i] = random % SCAN_PAGES;
	}
	open_plain(&run, &slow, *state, SCAN_PAGES, 0);
	run_lazy(&run, &slow, false, wanted, COUNT);
	check_all(&run);
	rouse_engine_get_stats(run.engine, &stats);
	assert_int_equal(stats.ahead_pages, 0);
	run_close(&run);
}

static void a_recording_of_a_scan_has_every_page(void **state)
{
	enum { COUNT = 300 };
	static uint64_t wanted[COUNT];
	struct slow_source slow;
	struct run run;

	for (uint64_t i = 0; i < COUNT; i++)
		wanted[i] = i;
	open_plain(&run, &slow, *state, SCAN_PAGES, 0);
	run_lazy(&run, &slow, true, wanted, COUNT);
	assert_int_equal(count_faults(&run), COUNT);
	assert_int_equal(count_state(&run, 2), COUNT);
	run_close(&run);
}

/* Nobody asked for it: the guest goes on, and gets none of it. */
static void damage_ahead_of_a_scan_is_left_out(void **state)
{
	enum { COUNT = 2000, DAMAGED = 2008 };
	static uint64_t wanted[COUNT];
	const struct fixture *fixture = *state;
	struct rouse_chunk chunk;
	struct slow_source slow;
	uint64_t locator;
	struct run run;
	int fd;

	for (uint64_t i = 0; i < COUNT; i++)
		wanted[i] = i;
	open_plain(&run, &slow, fixture, SCAN_PAGES, 0);
	assert_int_equal(rouse_reader_locate(run.reader, DAMAGED, ROUSE_READ_BULK, &locator), 0);
	assert_int_equal(rouse_reader_chunk(
				 run.reader, rouse_locator_chunk(locator), ROUSE_READ_BULK, &chunk),
		0);
	fd = open(fixture->path, O_WRONLY | O_CLOEXEC);
	assert_int_equal(pwrite(fd, "damage", 6, (off_t)chunk.offset + 100), 6);
	(void)close(fd);
	run_lazy(&run, &slow, false, wanted, COUNT);
	check_all(&run);
	assert_int_equal(run.fake->state[COUNT - 1], 2);
	assert_int_equal(run.fake->state[DAMAGED], 0);
	run_close(&run);
}

enum { ZEROS_FROM = 1000, ZEROS_TO = 1600 };

static void open_with_zeros(
	struct run *run, struct slow_source *slow, const struct fixture *fixture)
{
	const struct rouse_layout layout = {.codec = ROUSE_CODEC_LZ4, .threads = 1};
	struct rouse_writer *writer = begin_image(fixture->path, SCAN_PAGES, &layout, NULL, 0);

	for (uint64_t i = 0; i < SCAN_PAGES; i++) {
		if (i >= ZEROS_FROM && i < ZEROS_TO)
			assert_int_equal(rouse_writer_put_zero(writer, i), 0);
		else
			put_seed(writer, i, i + 1);
	}
	(void)end_image(writer);
	run_open(run, fixture->path);
	*slow = (struct slow_source){.base.ops = &slow_ops, .file = run->source};
}

/* A guest that makes a huge page of free memory: 512 pages, all of them zero. */
static void a_run_of_zero_pages_takes_a_few_faults(void **state)
{
	static const unsigned char zero[PAGE];
	static uint64_t wanted[512];
	struct slow_source slow;
	struct run run;

	for (uint64_t i = 0; i < 512; i++)
		wanted[i] = ZEROS_FROM + i;
	open_with_zeros(&run, &slow, *state);
	run_lazy(&run, &slow, false, wanted, 512);
	assert_in_range(count_faults(&run), 1, 12);
	assert_int_equal(slow.urgent_reads, 0);
	for (uint64_t i = 0; i < 512; i++) {
		assert_int_equal(run.fake->state[ZEROS_FROM + i], 2);
		assert_int_equal(run.fake->given[ZEROS_FROM + i], 1);
		assert_memory_equal(run.fake->memory + (ZEROS_FROM + i) * PAGE, zero, PAGE);
	}
	run_close(&run);
}

static void with_a_zero_page_come_its_zero_neighbours_and_no_others(void **state)
{
	static const uint64_t wanted[] = {ZEROS_FROM + 2};
	struct rouse_engine_stats stats;
	struct slow_source slow;
	struct run run;

	open_with_zeros(&run, &slow, *state);
	run_lazy(&run, &slow, false, wanted, 1);
	rouse_engine_get_stats(run.engine, &stats);
	assert_int_equal(stats.around_pages, 2 + FAULT_AROUND_PAGES);
	assert_int_equal(run.fake->state[ZEROS_FROM - 1], 0);
	assert_int_equal(run.fake->state[ZEROS_FROM], 2);
	assert_int_equal(run.fake->state[ZEROS_FROM + 2 + FAULT_AROUND_PAGES], 2);
	assert_int_equal(run.fake->state[ZEROS_FROM + 3 + FAULT_AROUND_PAGES], 0);
	run_close(&run);
}

/* A scan, faults elsewhere, and the background at full speed: each page once, and right. */
static void read_ahead_and_background_together_deliver_each_page(void **state)
{
	static uint64_t wanted[SCAN_PAGES];
	struct rouse_engine_config config = {
		.policy = ROUSE_POLICY_LAZY, .background = ROUSE_BACKGROUND_MAX};
	struct slow_source slow;
	struct run run;

	for (uint64_t i = 0; i < SCAN_PAGES; i++)
		wanted[i] = i % 8 == 7 ? i * 4999 % SCAN_PAGES : SCAN_PAGES - 1 - i;
	for (unsigned int round = 0; round < 3; round++) {
		unsigned char expected[PAGE];

		open_plain(&run, &slow, *state, SCAN_PAGES, 0);
		config.reader = run.reader;
		config.source = &slow.base;
		run.fake = fake_new(SCAN_PAGES, wanted, SCAN_PAGES);
		assert_int_equal(rouse_engine_new(&config, &run.engine, &run.error), 0);
		assert_int_equal(rouse_engine_run(run.engine, &run.fake->sink, &run.error), 0);
		for (uint64_t page = 0; page < SCAN_PAGES; page++) {
			fill_page(expected, page + 1);
			assert_int_not_equal(run.fake->state[page], 0);
			assert_memory_equal(run.fake->memory + page * PAGE, expected, PAGE);
		}
		run_close(&run);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
		T(a_scan_upwards_takes_far_fewer_faults_than_there_are_chunks),
		T(steps_of_one_length_take_fewer_faults_than_steps),
		T(without_a_pattern_nothing_more_is_placed),
		T(a_recording_of_a_scan_has_every_page),
		T(damage_ahead_of_a_scan_is_left_out),
		T(a_run_of_zero_pages_takes_a_few_faults),
		T(with_a_zero_page_come_its_zero_neighbours_and_no_others),
		T(read_ahead_and_background_together_deliver_each_page),
#undef T
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
