/* SPDX-License-Identifier: MIT */
/* How fast the background is: at a given rate, or as the guest fares. */
#include "engine_fixture.h"

static void a_background_rate_is_kept(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_engine_stats stats;
	struct run run;
	double rate;

	make_image(fixture->path, NULL, 0);
	run_open(&run, fixture->path);
	assert_int_equal(run_engine(&run,
				 (struct rouse_engine_config){.policy = ROUSE_POLICY_LAZY,
					 .background = UINT64_C(100000000)},
				 NULL, 0),
		0);
	check_memory(&run, false);
	rouse_engine_get_stats(run.engine, &stats);
	rate = (double)stats.background_pages * PAGE * 1e9 /
	       (double)(stats.complete_ns - stats.started_ns);
	/* A busy machine makes it slower, nothing may make it faster. */
	assert_true(rate < 101e6);
	run_close(&run);
}

/* A lazy restore with ROUSE_BACKGROUND_AUTO of a guest whose waiting is told by @fake's members. */
static void run_auto(struct run *run, const char *path, int processors, uint64_t wait_step_ns,
	struct rouse_engine_stats *stats)
{
	struct rouse_engine_config config = {
		.policy = ROUSE_POLICY_LAZY, .background = ROUSE_BACKGROUND_AUTO};

	make_image(path, NULL, 0);
	run_open(run, path);
	config.reader = run->reader;
	config.source = run->source;
	run->fake = fake_new(PAGES, NULL, 0);
	run->fake->processors = processors;
	run->fake->wait_step_ns = wait_step_ns;
	assert_int_equal(rouse_engine_new(&config, &run->engine, &run->error), 0);
	assert_int_equal(rouse_engine_run(run->engine, &run->fake->sink, &run->error), 0);
	check_memory(run, false);
	rouse_engine_get_stats(run->engine, stats);
	assert_true(stats->background_pages > 0);
	assert_true(stats->background_ns > 0);
}

static void auto_tells_how_long_the_guest_waited_for_processors(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_engine_stats stats;
	struct run run;

	run_auto(&run, fixture->path, 2, 1000000, &stats);
	assert_true(stats.guest_waited);
	/* The first look is what the wait is counted from. */
	assert_int_equal(stats.guest_wait_ns, run.fake->wait_ns - 1000000);
	assert_true(stats.guest_wait_ns > 0);
	run_close(&run);
}

static void auto_delivers_all_to_a_guest_that_only_waits(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_engine_stats stats;
	struct run run;

	run_auto(&run, fixture->path, 1, UINT64_C(3600000000000), &stats);
	assert_true(stats.guest_waited);
	run_close(&run);
}

static void auto_delivers_all_where_nobody_knows_how_the_guest_fares(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_engine_stats stats;
	struct run run;

	run_auto(&run, fixture->path, 0, 0, &stats);
	assert_false(stats.guest_waited);
	run_close(&run);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
		T(a_background_rate_is_kept),
		T(auto_tells_how_long_the_guest_waited_for_processors),
		T(auto_delivers_all_to_a_guest_that_only_waits),
		T(auto_delivers_all_where_nobody_knows_how_the_guest_fares),
#undef T
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
