/* SPDX-License-Identifier: MIT */
/* The engine over real images and a fake guest (fake_sink.h): what each policy places, and when. */
#include "engine/paced_start.h"
#include "paced_fixture.h"

static void eager_places_every_page_before_the_start(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_engine_stats stats;
	struct run run;

	make_image(fixture->path, NULL, 0);
	run_open(&run, fixture->path);
	assert_int_equal(
		run_engine(
			&run, (struct rouse_engine_config){.policy = ROUSE_POLICY_EAGER}, NULL, 0),
		0);
	check_memory(&run, true);
	rouse_engine_get_stats(run.engine, &stats);
	assert_int_equal(stats.prefetched_pages, PAGES);
	for (uint64_t i = 0; i < PAGES; i++)
		assert_int_equal(run.fake->state[i], 1);
	run_close(&run);
}

static void lazy_answers_faults_and_delivers_the_rest(void **state)
{
	static const uint64_t wanted[] = {8999, 0, 14, 1, 2, 5000, 10, 15, 4095, 4096};
	const struct fixture *fixture = *state;
	const struct rouse_fault *faults;
	struct run run;
	uint64_t count;

	make_image(fixture->path, NULL, 0);
	run_open(&run, fixture->path);
	assert_int_equal(run_engine(&run,
				 (struct rouse_engine_config){.policy = ROUSE_POLICY_LAZY,
					 .background = ROUSE_BACKGROUND_MAX,
					 .record = true,
					 .quiet_us = 200000},
				 wanted, 10),
		0);
	check_memory(&run, false);
	faults = rouse_engine_faults(run.engine, &count);
	/* The background was held back for long enough: the trace is the guest's, in its order. */
	assert_int_equal(count, 10);
	for (size_t i = 0; i < 10; i++)
		assert_int_equal(faults[i].page, wanted[i]);
	run_close(&run);
}

static void without_background_only_what_is_asked_for_is_placed(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_cancel *cancel = NULL;
	const uint64_t wanted[] = {3, 4, 6};
	struct rouse_observer observer = {0};
	struct rouse_engine_stats stats;
	struct run run;

	make_image(fixture->path, NULL, 0);
	run_open(&run, fixture->path);
	assert_int_equal(rouse_cancel_new(&cancel), 0);
	observer.cancel = cancel;
	rouse_cancel_fire(cancel);
	assert_int_equal(run_engine(&run,
				 (struct rouse_engine_config){
					 .policy = ROUSE_POLICY_LAZY, .observer = &observer},
				 wanted, 3),
		-ECANCELED);
	assert_int_equal(run.error.kind, ROUSE_ERROR_CANCELLED);
	rouse_engine_get_stats(run.engine, &stats);
	assert_int_equal(stats.background_pages, 0);
	run_close(&run);
	rouse_cancel_free(cancel);
}

static void a_resume_without_background_ends_when_the_last_page_came(void **state)
{
	const struct fixture *fixture = *state;
	static uint64_t wanted[PAGES];
	unsigned char content[PAGE];
	struct rouse_engine_config config = {.policy = ROUSE_POLICY_LAZY, .resume = true};
	struct run run;
	size_t missing = 0;

	make_image(fixture->path, NULL, 0);
	run_open(&run, fixture->path);
	run.fake = fake_new(PAGES, wanted, 0);
	/* Two thirds were there before; the guest asks for the others that are not zero. */
	for (uint64_t i = 0; i < PAGES; i++) {
		if (i % 3 == 0 && seed_of(i) != 0)
			wanted[missing++] = i;
		if (i % 3 == 0)
			continue;
		fill_page(content, seed_of(i));
		memcpy(run.fake->memory + i * PAGE, content, PAGE);
		run.fake->state[i] = 3;
	}
	run.fake->wanted_count = missing;
	run.fake->started = true;
	config.reader = run.reader;
	config.source = run.source;
	assert_int_equal(rouse_engine_new(&config, &run.engine, &run.error), 0);
	assert_int_equal(rouse_engine_run(run.engine, &run.fake->sink, &run.error), 0);
	check_memory(&run, false);
	assert_true(run.fake->finished);
	run_close(&run);
}

static void ws_prefetches_the_working_set_and_no_more(void **state)
{
	/* 21 is a zero page, 25 and 30 are equal, 40 is asked for but not in the set. */
	static const struct rouse_writer_touch wset[] = {
		{.page = 8000}, {.page = 21}, {.page = 25}, {.page = 30}, {.page = 2}};
	static const uint64_t wanted[] = {8000, 21, 25, 30, 2, 41};
	const struct fixture *fixture = *state;
	struct rouse_engine_stats stats;
	struct run run;
	uint64_t count;

	make_image(fixture->path, wset, 5);
	run_open(&run, fixture->path);
	assert_int_equal(run_engine(&run,
				 (struct rouse_engine_config){.policy = ROUSE_POLICY_WS,
					 .background = ROUSE_BACKGROUND_MAX,
					 .quiet_us = 100000},
				 wanted, 6),
		0);
	check_memory(&run, false);
	rouse_engine_get_stats(run.engine, &stats);
	assert_int_equal(stats.prefetched_pages, 5);
	for (size_t i = 0; i < 5; i++)
		assert_int_equal(run.fake->state[wset[i].page], 1);
	(void)rouse_engine_faults(run.engine, &count);
	assert_int_equal(count, 1);
	assert_int_equal(run.fake->state[41], 2);
	run_close(&run);
}

/* arrived[]: how many pages of the set came in which way, as in the fake's state. */
static void run_paced_by(
	struct run *run, const struct rouse_wset *wset, bool late_is_cheap, size_t arrived[4])
{
	assert_int_equal(run_engine(run,
				 (struct rouse_engine_config){.policy = ROUSE_POLICY_PACED,
					 .wset = wset,
					 .late_is_cheap = late_is_cheap,
					 .background = ROUSE_BACKGROUND_MAX},
				 NULL, 0),
		0);
	check_memory(run, false);
	memset(arrived, 0, 4 * sizeof(arrived[0]));
	for (uint32_t i = 0; i < COUNT; i++)
		arrived[run->fake->state[FIRST + i]]++;
	assert_int_equal(arrived[0], 0);
}

static void run_paced(const char *path, uint32_t step_us, struct run *run, size_t arrived[4])
{
	make_paced_image(path, step_us);
	run_open(run, path);
	run_paced_by(run, NULL, false, arrived);
}

static void paced_starts_before_the_set_is_there_and_delivers_it(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_engine_stats stats;
	struct run run;
	size_t arrived[4];

	/* A second between two touches: no disk is so slow. */
	run_paced(fixture->path, 1000000, &run, arrived);
	assert_true(arrived[1] > 0 && arrived[3] > 0);
	rouse_engine_get_stats(run.engine, &stats);
	assert_int_equal(stats.prefetched_pages, arrived[1]);
	run_close(&run);
}

static void paced_waits_for_a_set_that_is_touched_at_once(void **state)
{
	const struct fixture *fixture = *state;
	struct run run;
	size_t arrived[4];

	run_paced(fixture->path, 0, &run, arrived);
	assert_int_equal(arrived[3], 0);
	run_close(&run);
}

/* Given, since the rate at which a packed one comes is the machine's. */
static void paced_starts_with_the_first_pages_where_a_late_one_costs_little(void **state)
{
	const struct fixture *fixture = *state;
	static struct rouse_wset_page pages[COUNT];
	const struct rouse_wset wset = {.pages = pages, .page_count = COUNT};
	struct run run;
	size_t arrived[4];

	for (uint32_t i = 0; i < COUNT; i++)
		pages[i].page = FIRST + i;
	make_image(fixture->path, NULL, 0);
	run_open(&run, fixture->path);
	run_paced_by(&run, &wset, true, arrived);
	assert_true(arrived[1] >= ROUSE_PACED_FIRST_PAGES && arrived[1] < COUNT);
	run_close(&run);
}

/* A set of COUNT pages, and a guest that asks for one page of a chunk behind it. */
static void run_peer(const char *path, enum rouse_policy policy, struct run *run,
	struct rouse_engine_stats *stats)
{
	static const uint64_t wanted[] = {100};

	make_paced_image(path, 0);
	run_open(run, path);
	assert_int_equal(run_engine(run,
				 (struct rouse_engine_config){.policy = policy,
					 .background = ROUSE_BACKGROUND_MAX,
					 .quiet_us = 100000},
				 wanted, 1),
		0);
	check_memory(run, false);
	rouse_engine_get_stats(run->engine, stats);
}

static void reap_places_the_set_and_then_single_pages(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_engine_stats stats;
	struct run run;

	run_peer(fixture->path, ROUSE_POLICY_REAP, &run, &stats);
	assert_int_equal(stats.prefetched_pages, COUNT);
	assert_int_equal(stats.around_pages + stats.ahead_pages, 0);
	assert_int_equal(run.fake->state[100], 2);
	run_close(&run);
}

static void faasnap_starts_before_anything_is_placed_and_delivers_the_set(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_engine_stats stats;
	struct run run;

	run_peer(fixture->path, ROUSE_POLICY_FAASNAP, &run, &stats);
	assert_int_equal(stats.prefetched_pages, 0);
	assert_true(stats.background_pages >= COUNT);
	assert_true(stats.around_pages > 0);
	run_close(&run);
}

static void lazy_background_places_single_pages_and_the_rest_unasked(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_engine_stats stats;
	struct run run;

	run_peer(fixture->path, ROUSE_POLICY_LAZY_BACKGROUND, &run, &stats);
	assert_int_equal(stats.prefetched_pages + stats.around_pages + stats.ahead_pages, 0);
	assert_int_equal(run.fake->state[100], 2);
	run_close(&run);
}

static void a_working_set_that_is_given_replaces_the_images_own(void **state)
{
	static const struct rouse_writer_touch own[] = {{.page = 1}};
	struct rouse_wset_page pages[] = {{.page = 8999}, {.page = 4000}};
	const struct rouse_wset given = {.pages = pages, .page_count = 2};
	const struct fixture *fixture = *state;
	struct rouse_engine_stats stats;
	struct run run;

	make_image(fixture->path, own, 1);
	run_open(&run, fixture->path);
	assert_int_equal(run_engine(&run,
				 (struct rouse_engine_config){.policy = ROUSE_POLICY_WS,
					 .wset = &given,
					 .background = ROUSE_BACKGROUND_MAX},
				 NULL, 0),
		0);
	check_memory(&run, false);
	rouse_engine_get_stats(run.engine, &stats);
	assert_int_equal(stats.prefetched_pages, 2);
	assert_int_equal(run.fake->state[8999], 1);
	assert_int_equal(run.fake->state[1], 3);
	run_close(&run);
}

/* Of the image's own set, and of one that is given. */
static void expect_left_out(const struct fixture *fixture, const struct rouse_wset *given)
{
	static const uint64_t wanted[] = {25, 2};
	struct rouse_bitmap leave_out = {0};
	struct rouse_engine_stats stats;
	struct run run;

	assert_int_equal(rouse_bitmap_init(&leave_out, PAGES), 0);
	rouse_bitmap_set(&leave_out, 25);
	rouse_bitmap_set(&leave_out, 30);
	rouse_bitmap_set(&leave_out, 4000); /* not of the set */
	run_open(&run, fixture->path);
	assert_int_equal(run_engine(&run,
				 (struct rouse_engine_config){.policy = ROUSE_POLICY_WS,
					 .wset = given,
					 .leave_out = &leave_out,
					 .background = ROUSE_BACKGROUND_MAX,
					 .record = true,
					 .quiet_us = 100000},
				 wanted, 2),
		0);
	check_memory(&run, false);
	rouse_engine_get_stats(run.engine, &stats);
	assert_int_equal(stats.prefetched_pages, 2);
	assert_int_equal(run.fake->state[2], 1);
	/* Asked for, and not asked for. */
	assert_int_equal(run.fake->state[25], 2);
	assert_int_equal(run.fake->state[30], 3);
	run_close(&run);
	rouse_bitmap_finish(&leave_out);
}

static void pages_that_are_left_out_come_when_they_are_asked_for(void **state)
{
	static const struct rouse_writer_touch own[] = {
		{.page = 8000}, {.page = 25}, {.page = 30}, {.page = 2}};
	struct rouse_wset_page pages[] = {{.page = 8000}, {.page = 25}, {.page = 30}, {.page = 2}};
	const struct rouse_wset given = {.pages = pages, .page_count = 4};
	const struct fixture *fixture = *state;

	make_image(fixture->path, own, 4);
	expect_left_out(fixture, NULL);
	expect_left_out(fixture, &given);
}

static void ws_without_a_working_set_says_how_to_get_one(void **state)
{
	const struct fixture *fixture = *state;
	struct run run;

	make_image(fixture->path, NULL, 0);
	run_open(&run, fixture->path);
	assert_int_equal(
		run_engine(&run, (struct rouse_engine_config){.policy = ROUSE_POLICY_WS}, NULL, 0),
		-ENODATA);
	assert_non_null(strstr(run.error.message, "--record"));
	assert_false(run.fake->started);
	run_close(&run);
}

/* Faults and background race for every page: all content right, each page placed by one of them. */
static void faults_and_background_together_deliver_each_page(void **state)
{
	static uint64_t wanted[PAGES];
	const struct fixture *fixture = *state;
	struct run run;

	for (uint64_t i = 0; i < PAGES; i++)
		wanted[i] = i * 4999 % PAGES;
	make_image(fixture->path, NULL, 0);
	for (unsigned int round = 0; round < 3; round++) {
		run_open(&run, fixture->path);
		assert_int_equal(run_engine(&run,
					 (struct rouse_engine_config){.policy = ROUSE_POLICY_LAZY,
						 .background = ROUSE_BACKGROUND_MAX},
					 wanted, PAGES),
			0);
		check_memory(&run, false);
		run_close(&run);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
		T(eager_places_every_page_before_the_start),
		T(lazy_answers_faults_and_delivers_the_rest),
		T(without_background_only_what_is_asked_for_is_placed),
		T(a_resume_without_background_ends_when_the_last_page_came),
		T(ws_prefetches_the_working_set_and_no_more),
		T(paced_starts_before_the_set_is_there_and_delivers_it),
		T(paced_waits_for_a_set_that_is_touched_at_once),
		T(paced_starts_with_the_first_pages_where_a_late_one_costs_little),
		T(reap_places_the_set_and_then_single_pages),
		T(faasnap_starts_before_anything_is_placed_and_delivers_the_set),
		T(lazy_background_places_single_pages_and_the_rest_unasked),
		T(a_working_set_that_is_given_replaces_the_images_own),
		T(pages_that_are_left_out_come_when_they_are_asked_for),
		T(ws_without_a_working_set_says_how_to_get_one),
		T(faults_and_background_together_deliver_each_page),
#undef T
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
