/* SPDX-License-Identifier: MIT */
/* What the stages are said to have taken, over a source and a guest that take their time. */
#include "engine_fixture.h"

#include "engine/feeder.h"
#include "engine/plan.h"

#include <stdatomic.h>
#include <time.h>

#define DELAY_NS UINT64_C(1000000)

static void take_time(void)
{
	const struct timespec delay = {.tv_nsec = (long)DELAY_NS};

	(void)nanosleep(&delay, NULL);
}

/* A source each of whose reads of one priority takes DELAY_NS at least. */
struct slow_source {
	struct rouse_source base;
	struct rouse_source *file;
	enum rouse_read_priority slow;
};

static int slow_read(struct rouse_source *source, uint64_t offset, void *buffer, size_t size,
	enum rouse_read_priority priority)
{
	struct slow_source *slow = (struct slow_source *)source;

	if (priority == slow->slow)
		take_time();
	return rouse_source_read(slow->file, offset, buffer, size, priority);
}

static const struct rouse_source_ops slow_ops = {.read = slow_read};

/* The engine's own reads go through @slow; those of tables do not. */
static void run_slow(struct run *run, const struct fixture *fixture,
	enum rouse_read_priority priority, struct rouse_engine_config config,
	const uint64_t *wanted, size_t count, struct rouse_engine_stats *stats)
{
	struct slow_source slow = {.base = {.ops = &slow_ops}, .slow = priority};

	make_image(fixture->path, NULL, 0);
	run_open(run, fixture->path);
	slow.file = run->source;
	config.reader = run->reader;
	config.source = &slow.base;
	run->fake = fake_new(PAGES, wanted, count);
	assert_int_equal(rouse_engine_new(&config, &run->engine, &run->error), 0);
	assert_int_equal(rouse_engine_run(run->engine, &run->fake->sink, &run->error), 0);
	check_memory(run, config.policy == ROUSE_POLICY_EAGER);
	rouse_engine_get_stats(run->engine, stats);
}

static void time_in_reads_is_reading(void **state)
{
	struct rouse_engine_stats stats;
	const struct rouse_stage_time *t = stats.stages;
	struct run run;

	run_slow(&run, *state, ROUSE_READ_BULK,
		(struct rouse_engine_config){.policy = ROUSE_POLICY_EAGER}, NULL, 0, &stats);
	/* Some 30 windows, each of them a read at least. */
	assert_true(t[ROUSE_STAGE_READ_BULK].ns >= 20 * DELAY_NS);
	assert_true(t[ROUSE_STAGE_READ_BULK].pages > PAGES / 2);
	assert_true(t[ROUSE_STAGE_WAIT_PAGES].ns > 0);
	assert_int_equal(t[ROUSE_STAGE_WAIT_PAGES].pages, PAGES);
	assert_true(t[ROUSE_STAGE_VERIFY].ns > 0);
	assert_true(t[ROUSE_STAGE_DECOMPRESS].ns > 0);
	assert_true(t[ROUSE_STAGE_DECOMPRESS].pages >= PAGES / 2);
	assert_int_equal(t[ROUSE_STAGE_VERIFY].pages, t[ROUSE_STAGE_DECOMPRESS].pages);
	assert_true(t[ROUSE_STAGE_PLACE_PREFETCH].ns > 0);
	assert_int_equal(t[ROUSE_STAGE_PLACE_PREFETCH].pages, PAGES);
	assert_int_equal(t[ROUSE_STAGE_READ_URGENT].ns, 0);
	assert_int_equal(t[ROUSE_STAGE_PLACE_DEMAND].pages, 0);
	run_close(&run);
}

static void reads_for_faults_are_counted_apart(void **state)
{
	static const uint64_t wanted[] = {8999, 1003, 5003, 3001};
	struct rouse_engine_stats stats;
	const struct rouse_stage_time *t = stats.stages;
	struct run run;

	run_slow(&run, *state, ROUSE_READ_URGENT,
		(struct rouse_engine_config){.policy = ROUSE_POLICY_LAZY,
			.background = ROUSE_BACKGROUND_MAX,
			.record = true,
			.quiet_us = 200000},
		wanted, 4, &stats);
	assert_int_equal(t[ROUSE_STAGE_WAIT_FAULT].pages, 4);
	assert_true(t[ROUSE_STAGE_WAIT_FAULT].ns > 0);
	assert_true(t[ROUSE_STAGE_READ_URGENT].ns >= 4 * DELAY_NS);
	assert_in_range(t[ROUSE_STAGE_READ_URGENT].pages, 4, 4 * 16);
	assert_int_equal(t[ROUSE_STAGE_PLACE_DEMAND].pages, 4);
	assert_int_equal(t[ROUSE_STAGE_PLACE_PREFETCH].pages, 0);
	assert_true(t[ROUSE_STAGE_PLACE_BACKGROUND].ns > 0);
	assert_true(t[ROUSE_STAGE_PLACE_BACKGROUND].pages > PAGES / 2);
	run_close(&run);
}

static void a_reader_whose_windows_are_all_taken_waits_for_room(void **state)
{
	const struct fixture *fixture = *state;
	struct stage_clock stages = {0};
	struct rouse_stage_time times[ROUSE_STAGE_COUNT];
	struct rouse_feeder_config config = {
		.plan = rouse_rest_plan_next, .windows = 2, .stages = &stages};
	struct rouse_window *windows[2];
	struct rouse_rest_plan plan;
	struct rouse_feeder *feeder;
	struct run run;
	int got;

	make_image(fixture->path, NULL, 0);
	run_open(&run, fixture->path);
	rouse_rest_plan_init(&plan, run.reader, true, NULL, NULL);
	config.reader = run.reader;
	config.source = run.source;
	config.plan_user = &plan;
	assert_int_equal(rouse_feeder_start(&config, &feeder), 0);
	do {
		got = 0;
		while (got < 2 && rouse_feeder_next(feeder, -1, &windows[got]) == 1)
			got++;
		take_time();
		for (int i = 0; i < got; i++)
			rouse_feeder_release(feeder, windows[i]);
	} while (got == 2);
	rouse_feeder_stop(feeder);
	stage_clock_get(&stages, times);
	assert_true(times[ROUSE_STAGE_WAIT_ROOM].ns > 0);
	assert_int_equal(times[ROUSE_STAGE_WAIT_ROOM].pages, PAGES);
	rouse_rest_plan_finish(&plan);
	rouse_reader_close(run.reader);
	rouse_source_destroy(run.source);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
		T(time_in_reads_is_reading),
		T(reads_for_faults_are_counted_apart),
		T(a_reader_whose_windows_are_all_taken_waits_for_room),
#undef T
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
