/* SPDX-License-Identifier: MIT */
/* What may pass while the guest runs: no memory, no thread, a medium that fails for a while. */
#include "engine_fixture.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>

/* A source whose bulk reads fail so many times once the guest runs. */
struct failing_source {
	struct rouse_source base;
	struct rouse_source *inner;
	const struct run *run;
	int code;
	atomic_int failures;
};

static int failing_read(struct rouse_source *source, uint64_t offset, void *buffer, size_t size,
	enum rouse_read_priority priority)
{
	struct failing_source *failing = (struct failing_source *)source;

	if (priority == ROUSE_READ_BULK && fake_has_started(failing->run->fake) &&
		atomic_fetch_sub(&failing->failures, 1) > 0)
		return failing->code;
	return rouse_source_read(failing->inner, offset, buffer, size, priority);
}

static uint64_t failing_size(const struct rouse_source *source)
{
	return rouse_source_size(((const struct failing_source *)source)->inner);
}

static const struct rouse_source_ops failing_ops = {.read = failing_read, .size = failing_size};

/* Threads that cannot be made from the guest's start on. */
static struct {
	const struct run *run;
	int failures;
} no_threads;

typedef int create_fn(
	pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument);

/* The library's calls end here. */
int pthread_create(
	pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument)
{
	create_fn *create = (create_fn *)(uintptr_t)dlsym(RTLD_NEXT, "pthread_create");

	if (no_threads.failures > 0 && fake_has_started(no_threads.run->fake)) {
		no_threads.failures--;
		return EAGAIN;
	}
	return create(thread, attributes, run, argument);
}

/* What goes wrong, and how often. */
struct trouble {
	int code; /* of bulk reads */
	int reads, threads;
	unsigned int memory;
};

/* A lazy restore with it. Its code. */
static int restore(struct run *run, const struct fixture *fixture, struct trouble trouble)
{
	static const uint64_t wanted[] = {8000, 5};
	struct failing_source failing = {
		.base.ops = &failing_ops, .run = run, .code = trouble.code};
	struct rouse_engine_config config = {.policy = ROUSE_POLICY_LAZY,
		.background = ROUSE_BACKGROUND_MAX,
		.source = &failing.base};
	int code;

	make_image(fixture->path, NULL, 0);
	run_open(run, fixture->path);
	failing.inner = run->source;
	atomic_store(&failing.failures, trouble.reads);
	config.reader = run->reader;
	run->fake = fake_new(PAGES, wanted, 2);
	run->fake->without_memory = trouble.memory;
	no_threads.run = run;
	no_threads.failures = trouble.threads;
	assert_int_equal(rouse_engine_new(&config, &run->engine, &run->error), 0);
	code = rouse_engine_run(run->engine, &run->fake->sink, &run->error);
	/* While its source is there. */
	rouse_engine_free(run->engine);
	run->engine = NULL;
	return code;
}

static void a_medium_that_fails_for_a_while_ends_no_restore(void **state)
{
	static const int codes[] = {-EIO, -ENOMEM};

	for (unsigned int i = 0; i < 2; i++) {
		struct run run;

		assert_int_equal(
			restore(&run, *state, (struct trouble){.code = codes[i], .reads = 2}), 0);
		assert_false(run.fake->stopped);
		check_memory(&run, false);
		run_close(&run);
	}
}

static void a_medium_that_goes_on_failing_stops_the_guest(void **state)
{
	struct run run;

	assert_int_equal(
		restore(&run, *state, (struct trouble){.code = -EIO, .reads = 1000000}), -EIO);
	assert_true(run.fake->stopped);
	/* It has been asked for. */
	assert_int_equal(run.fake->state[8000], 2);
	run_close(&run);
}

static void without_a_thread_for_the_background_it_is_tried_again(void **state)
{
	struct run run;

	assert_int_equal(restore(&run, *state, (struct trouble){.threads = 1}), 0);
	assert_int_equal(no_threads.failures, 0);
	check_memory(&run, false);
	run_close(&run);
}

/* Everything came before the start: there is nothing to wait for but a thread that says so. */
static void a_cancel_ends_a_restore_that_gets_no_thread(void **state)
{
	static struct rouse_writer_touch all[PAGES];
	static const uint64_t wanted[] = {1};
	const struct fixture *fixture = *state;
	struct rouse_observer observer = {0};
	struct rouse_engine_config config = {.policy = ROUSE_POLICY_WS,
		.background = ROUSE_BACKGROUND_MAX,
		.observer = &observer};
	struct run run;

	for (uint32_t i = 0; i < PAGES; i++)
		all[i] = (struct rouse_writer_touch){.page = i};
	make_image(fixture->path, all, PAGES);
	run_open(&run, fixture->path);
	config.reader = run.reader;
	config.source = run.source;
	assert_int_equal(rouse_cancel_new(&observer.cancel), 0);
	run.fake = fake_new(PAGES, wanted, 1);
	no_threads.run = &run;
	no_threads.failures = INT_MAX;
	assert_int_equal(rouse_engine_new(&config, &run.engine, &run.error), 0);
	run.fake->on_end_of_wanted = observer.cancel;
	assert_int_equal(rouse_engine_run(run.engine, &run.fake->sink, &run.error), -ECANCELED);
	/* It waits between two tries. */
	assert_in_range(INT_MAX - no_threads.failures, 1, 5);
	no_threads.failures = 0;
	run_close(&run);
}

static void trouble_of_other_kinds_counts_as_no_failed_read(void **state)
{
	struct run run;

	/* Four times no thread, then a read that fails: one, not the fifth. */
	assert_int_equal(
		restore(&run, *state, (struct trouble){.code = -EIO, .reads = 1, .threads = 4}), 0);
	assert_false(run.fake->stopped);
	check_memory(&run, false);
	run_close(&run);
}

static void a_medium_that_takes_too_long_is_one_that_fails(void **state)
{
	struct run run;

	assert_int_equal(
		restore(&run, *state, (struct trouble){.code = -ETIMEDOUT, .reads = 1}), 0);
	check_memory(&run, false);
	run_close(&run);
}

/* Of the guest's: in its control group, for one. */
static void without_memory_for_a_page_it_is_placed_later(void **state)
{
	struct run run;

	assert_int_equal(restore(&run, *state, (struct trouble){.memory = 7}), 0);
	assert_int_equal(run.fake->without_memory, 0);
	check_memory(&run, false);
	run_close(&run);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_medium_that_fails_for_a_while_ends_no_restore),
		TEST(a_medium_that_goes_on_failing_stops_the_guest),
		TEST(without_a_thread_for_the_background_it_is_tried_again),
		TEST(a_cancel_ends_a_restore_that_gets_no_thread),
		TEST(trouble_of_other_kinds_counts_as_no_failed_read),
		TEST(a_medium_that_takes_too_long_is_one_that_fails),
		TEST(without_memory_for_a_page_it_is_placed_later),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
