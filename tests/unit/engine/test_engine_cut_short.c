/* SPDX-License-Identifier: MIT */
/* Restores that are cut short: cancelled, or left by their guest. */
#include "engine/pacer.h"
#include "engine_fixture.h"

static void a_guest_that_is_gone_ends_the_restore(void **state)
{
	const uint64_t wanted[] = {3};
	const struct fixture *fixture = *state;
	struct rouse_engine_config config = {.policy = ROUSE_POLICY_LAZY};
	struct run run;

	make_image(fixture->path, NULL, 0);
	run_open(&run, fixture->path);
	config.reader = run.reader;
	config.source = run.source;
	run.fake = fake_new(PAGES, wanted, 1);
	run.fake->fail_place = -EPIPE;
	assert_int_equal(rouse_engine_new(&config, &run.engine, &run.error), 0);
	assert_int_equal(rouse_engine_run(run.engine, &run.fake->sink, &run.error), -EPIPE);
	assert_int_equal(run.error.kind, ROUSE_ERROR_VMM);
	run_close(&run);
}

/* Cancelled while the sink takes the first pages, and what the sink says to them. */
static void run_cancelled(struct run *run, const char *path, struct rouse_engine_config config,
	int sink_says, size_t wanted_count)
{
	static const uint64_t wanted[] = {3};
	struct rouse_cancel *cancel = NULL;
	struct rouse_observer observer = {0};

	make_image(path, NULL, 0);
	run_open(run, path);
	assert_int_equal(rouse_cancel_new(&cancel), 0);
	observer.cancel = cancel;
	config.reader = run->reader;
	config.source = run->source;
	config.observer = &observer;
	run->fake = fake_new(PAGES, wanted, wanted_count);
	run->fake->on_place = cancel;
	run->fake->fail_place = sink_says;
	run->fake->fail_prefetch = sink_says;
	assert_int_equal(rouse_engine_new(&config, &run->engine, &run->error), 0);
	assert_int_equal(rouse_engine_run(run->engine, &run->fake->sink, &run->error), -ECANCELED);
	assert_int_equal(run->error.kind, ROUSE_ERROR_CANCELLED);
	run->fake->on_place = NULL;
	rouse_cancel_free(cancel);
}

static void a_wait_of_the_sink_that_is_cancelled_before_the_start_is_a_cancel(void **state)
{
	const struct fixture *fixture = *state;
	struct run run;

	run_cancelled(&run, fixture->path,
		(struct rouse_engine_config){.policy = ROUSE_POLICY_EAGER}, -ECANCELED, 0);
	assert_false(run.fake->started);
	run_close(&run);
}

static void a_wait_of_the_sink_that_is_cancelled_in_the_background_is_a_cancel(void **state)
{
	const struct fixture *fixture = *state;
	struct run run;

	run_cancelled(&run, fixture->path,
		(struct rouse_engine_config){
			.policy = ROUSE_POLICY_LAZY, .background = ROUSE_BACKGROUND_MAX},
		-ECANCELED, 0);
	assert_non_null(strstr(run.error.message, "--resume"));
	run_close(&run);
}

static void a_wait_of_the_sink_that_is_cancelled_for_a_fault_is_a_cancel(void **state)
{
	const struct fixture *fixture = *state;
	struct run run;

	run_cancelled(&run, fixture->path,
		(struct rouse_engine_config){.policy = ROUSE_POLICY_LAZY}, -ECANCELED, 1);
	assert_non_null(strstr(run.error.message, "--resume"));
	run_close(&run);
}

static void a_cancel_does_not_wait_for_the_rest_of_a_window(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_engine_stats stats;
	struct run run;

	/* A piece in a few hours: who goes on with the next one is seen to. */
	run_cancelled(&run, fixture->path,
		(struct rouse_engine_config){.policy = ROUSE_POLICY_LAZY, .background = 1}, 0, 0);
	rouse_engine_get_stats(run.engine, &stats);
	assert_true(stats.background_pages <= ROUSE_PACER_PIECE);
	run_close(&run);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
		T(a_guest_that_is_gone_ends_the_restore),
		T(a_wait_of_the_sink_that_is_cancelled_before_the_start_is_a_cancel),
		T(a_wait_of_the_sink_that_is_cancelled_in_the_background_is_a_cancel),
		T(a_wait_of_the_sink_that_is_cancelled_for_a_fault_is_a_cancel),
		T(a_cancel_does_not_wait_for_the_rest_of_a_window),
#undef T
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
