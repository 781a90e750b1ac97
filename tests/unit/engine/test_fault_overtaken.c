/* SPDX-License-Identifier: MIT */
/* Faults whose page comes with the background while it is read for them. */
#include "api/restore_report.h"
#include "engine_fixture.h"

static const uint64_t wanted[] = {1, 500, 4000};

#define WANTED (sizeof(wanted) / sizeof(wanted[0]))

static void run_it(struct run *run, const struct fixture *fixture, bool overtakes)
{
	struct rouse_engine_config config = {.policy = ROUSE_POLICY_LAZY,
		.background = ROUSE_BACKGROUND_MAX,
		/* The guest's faults come first, and alone. */
		.record = true,
		.quiet_us = 200000};

	make_image(fixture->path, NULL, 0);
	run_open(run, fixture->path);
	config.reader = run->reader;
	config.source = run->source;
	run->fake = fake_new(PAGES, wanted, WANTED);
	run->fake->overtakes = overtakes;
	assert_int_equal(rouse_engine_new(&config, &run->engine, &run->error), 0);
	assert_int_equal(rouse_engine_run(run->engine, &run->fake->sink, &run->error), 0);
	check_memory(run, false);
}

static void a_fault_that_is_overtaken_is_logged_apart(void **state)
{
	const struct rouse_fault *overtaken;
	uint64_t faults, count;
	struct run run;

	run_it(&run, *state, true);
	(void)rouse_engine_faults(run.engine, &faults);
	overtaken = rouse_engine_overtaken(run.engine, &count);
	assert_int_equal(faults, 0);
	assert_int_equal(count, WANTED);
	for (uint64_t i = 0; i < WANTED; i++) {
		assert_int_equal(overtaken[i].page, wanted[i]);
		assert_true(overtaken[i].service_ns > 0);
	}
	run_close(&run);
}

static void what_it_waited_is_a_stall(void **state)
{
	const struct rouse_ttr_point point = {.utilization = 0.9, .window_us = 100000};
	struct restore_report_context context = {.vcpus = 1};
	struct rouse_restore_report report = {.blocktime_us = -1};
	struct rouse_stalls *stalls = NULL;
	const struct rouse_fault *overtaken;
	uint64_t count, waited_us = 0;
	struct run run;

	context.requested_ns = rouse_clock_ns();
	run_it(&run, *state, true);
	assert_int_equal(restore_report_fill(&report, run.engine, &context, &point, &stalls), 0);
	overtaken = rouse_engine_overtaken(run.engine, &count);
	for (uint64_t i = 0; i < count; i++)
		waited_us += overtaken[i].service_ns / 1000;
	assert_int_equal(report.faults, 0);
	assert_int_equal(report.overtaken_faults, count);
	assert_true(report.stalled_us >= waited_us && report.stalled_us > 0);
	rouse_stalls_free(stalls);
	run_close(&run);
}

static void a_fault_that_is_not_overtaken_is_one_of_the_others(void **state)
{
	uint64_t faults, count;
	struct run run;

	run_it(&run, *state, false);
	(void)rouse_engine_faults(run.engine, &faults);
	(void)rouse_engine_overtaken(run.engine, &count);
	assert_int_equal(faults, WANTED);
	assert_int_equal(count, 0);
	run_close(&run);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_fault_that_is_overtaken_is_logged_apart),
		TEST(what_it_waited_is_a_stall),
		TEST(a_fault_that_is_not_overtaken_is_one_of_the_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
