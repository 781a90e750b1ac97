/* SPDX-License-Identifier: MIT */
/* The feeder alone: which windows it makes, and that they hold what was asked for. */
#include "engine/feeder.h"

#include "../image/image_fixture.h"
#include "engine/plan.h"

#include <fcntl.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <time.h>

#define PAGES 9000u /* some 36 windows */
#define WINDOWS 64u

struct run {
	struct rouse_source *source;
	struct rouse_reader *reader;
	struct rouse_rest_plan plan;
	struct rouse_feeder *feeder;
	unsigned int calls;      /* of the plan */
	sem_t may_plan, planned; /* before the first region is given, and once all were read */
	struct rouse_error error;
};

/* The rest plan, between the semaphores. */
static int plan_next(void *user, const struct rouse_feed_page **pages, size_t *count)
{
	struct run *run = user;

	if (run->calls++ == 0)
		(void)sem_wait(&run->may_plan);
	else
		(void)sem_post(&run->planned);
	return rouse_rest_plan_next(&run->plan, pages, count);
}

static void make_image(const char *path)
{
	struct rouse_writer *writer = begin_image(path, PAGES, NULL, NULL, 0);

	for (uint64_t i = 0; i < PAGES; i++)
		put_seed(writer, i, i + 1);
	(void)end_image(writer);
}

static void run_open(struct run *run, const char *path, unsigned int workers)
{
	struct rouse_feeder_config config = {
		.plan = plan_next, .plan_user = run, .windows = WINDOWS, .workers = workers};

	*run = (struct run){0};
	assert_int_equal(sem_init(&run->may_plan, 0, 0), 0);
	assert_int_equal(sem_init(&run->planned, 0, 0), 0);
	assert_int_equal(rouse_file_source_open(path, NULL, &run->source, &run->error), 0);
	if (rouse_reader_open(run->source, &run->reader, &run->error) != 0)
		fail_msg("%s", run->error.message);
	rouse_rest_plan_init(&run->plan, run->reader, true, NULL, NULL);
	config.reader = run->reader;
	config.source = run->source;
	assert_int_equal(rouse_feeder_start(&config, &run->feeder), 0);
}

static void run_close(struct run *run)
{
	rouse_feeder_stop(run->feeder);
	rouse_rest_plan_finish(&run->plan);
	rouse_reader_close(run->reader);
	rouse_source_destroy(run->source);
	(void)sem_destroy(&run->may_plan);
	(void)sem_destroy(&run->planned);
}

static void check_window(const struct rouse_window *window, bool *seen)
{
	unsigned char expected[PAGE];

	for (size_t i = 0; i < window->count; i++) {
		const struct rouse_sink_page *page = &window->pages[i];

		assert_in_range(page->page, 0, PAGES - 1);
		assert_false(seen[page->page]);
		seen[page->page] = true;
		fill_page(expected, page->page + 1);
		assert_memory_equal(page->data, expected, PAGE);
	}
}

/* Takes and checks all windows, one after the other; how many different ones there were. */
static size_t take_all(struct run *run)
{
	static bool seen[PAGES];
	const struct rouse_window *windows[WINDOWS];
	struct rouse_window *window;
	size_t count = 0, pages = 0;
	int code;

	memset(seen, 0, sizeof(seen));
	while ((code = rouse_feeder_next(run->feeder, -1, &window)) == 1) {
		size_t i = 0;

		while (i < count && windows[i] != window)
			i++;
		if (i == count) {
			assert_in_range(count, 0, WINDOWS - 1);
			windows[count++] = window;
		}
		check_window(window, seen);
		pages += window->count;
		rouse_feeder_release(run->feeder, window);
	}
	assert_int_equal(code, 0);
	assert_int_equal(pages, PAGES);
	return count;
}

static void reads_far_ahead_while_nobody_takes(void **state)
{
	const struct fixture *fixture = *state;
	struct run run;

	make_image(fixture->path);
	run_open(&run, fixture->path, 0);
	(void)sem_post(&run.may_plan);
	/* The plan is asked again when its first region, which is everything, has been read. */
	(void)sem_wait(&run.planned);
	assert_in_range(take_all(&run), PAGES / 300, WINDOWS);
	run_close(&run);
}

static void a_few_windows_go_round_while_they_are_taken(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_window *window;
	struct run run;

	make_image(fixture->path);
	run_open(&run, fixture->path, 0);
	assert_int_equal(rouse_feeder_next(run.feeder, 0, &window), -ETIMEDOUT);
	(void)sem_post(&run.may_plan);
	assert_in_range(take_all(&run), 1, ROUSE_FEEDER_WARM_WINDOWS);
	run_close(&run);
}

static void stops_while_everybody_waits(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_window *window;
	struct run run;

	make_image(fixture->path);
	run_open(&run, fixture->path, 0);
	assert_int_equal(rouse_feeder_next(run.feeder, 0, &window), -ETIMEDOUT);
	(void)sem_post(&run.may_plan);
	/* Its reader soon waits for a window, its workers for bytes. */
	assert_int_equal(rouse_feeder_next(run.feeder, -1, &window), 1);
	rouse_feeder_release(run.feeder, window);
	run_close(&run);
}

/* Pages of the image are stored in order, so the order of the windows is that of their pages. */
static void many_workers_keep_the_order_of_the_windows(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_window *window;
	uint64_t next = 0;
	struct run run;

	make_image(fixture->path);
	run_open(&run, fixture->path, ROUSE_FEEDER_MAX_WORKERS);
	(void)sem_post(&run.may_plan);
	while (rouse_feeder_next(run.feeder, -1, &window) == 1) {
		for (size_t i = 0; i < window->count; i++)
			assert_int_equal(window->pages[i].page, next++);
		rouse_feeder_release(run.feeder, window);
	}
	assert_int_equal(next, PAGES);
	run_close(&run);
}

static void many_workers_decode_every_page(void **state)
{
	const struct fixture *fixture = *state;
	struct run run;

	make_image(fixture->path);
	run_open(&run, fixture->path, ROUSE_FEEDER_MAX_WORKERS);
	(void)sem_post(&run.may_plan);
	(void)take_all(&run);
	run_close(&run);
}

static uint64_t damage_chunk_of(const char *path, uint64_t page)
{
	struct open_image image = open_image(path);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	struct rouse_chunk chunk;
	uint64_t locator, number;

	assert_int_equal(rouse_reader_locate(image.reader, page, ROUSE_READ_BULK, &locator), 0);
	number = rouse_locator_chunk(locator);
	assert_int_equal(rouse_reader_chunk(image.reader, number, ROUSE_READ_BULK, &chunk), 0);
	assert_int_equal(pwrite(fd, "damage", 6, (off_t)chunk.offset + 100), 6);
	(void)close(fd);
	close_image(&image);
	return number;
}

static void nothing_behind_a_damaged_chunk_is_delivered(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_window *window;
	uint64_t damaged, next = 0;
	struct run run;
	int code;

	make_image(fixture->path);
	damaged = damage_chunk_of(fixture->path, 5000);
	run_open(&run, fixture->path, ROUSE_FEEDER_MAX_WORKERS);
	(void)sem_post(&run.may_plan);
	while ((code = rouse_feeder_next(run.feeder, -1, &window)) == 1) {
		for (size_t i = 0; i < window->count; i++)
			assert_int_equal(window->pages[i].page, next++);
		rouse_feeder_release(run.feeder, window);
	}
	assert_int_equal(code, -EUCLEAN);
	assert_int_equal(rouse_feeder_damaged(run.feeder), damaged);
	assert_in_range(next, 0, 5000);
	/* It stays so. */
	assert_int_equal(rouse_feeder_next(run.feeder, 0, &window), -EUCLEAN);
	run_close(&run);
}

static void stops_after_any_number_of_windows(void **state)
{
	const struct fixture *fixture = *state;

	make_image(fixture->path);
	for (unsigned int taken = 0; taken < 36; taken++) {
		struct rouse_window *window;
		struct run run;

		run_open(&run, fixture->path, 1 + taken % ROUSE_FEEDER_MAX_WORKERS);
		(void)sem_post(&run.may_plan);
		for (unsigned int i = 0; i < taken; i++) {
			assert_int_equal(rouse_feeder_next(run.feeder, -1, &window), 1);
			rouse_feeder_release(run.feeder, window);
		}
		run_close(&run);
	}
}

/* One page in each fifth chunk: one window, and a read for each of them. */
static int plan_scattered(void *user, const struct rouse_feed_page **pages, size_t *count)
{
	static struct rouse_feed_page scattered[PAGES / 80];
	struct run *run = user;

	*pages = scattered;
	*count = 0;
	if (run->calls++ > 0)
		return 0;
	for (; *count < PAGES / 80; ++*count) {
		const uint64_t page = *count * 80;
		int code = rouse_reader_locate(
			run->reader, page, ROUSE_READ_BULK, &scattered[*count].locator);

		if (code < 0)
			return code;
		scattered[*count].page = (uint32_t)page;
	}
	return 0;
}

/* A source whose reads take 20 ms each. */
struct slow_source {
	struct rouse_source base;
	struct rouse_source *inner;
	atomic_uint reads;
	sem_t third;
};

static int slow_read(struct rouse_source *source, uint64_t offset, void *buffer, size_t size,
	enum rouse_read_priority priority)
{
	struct slow_source *slow = (struct slow_source *)source;

	if (atomic_fetch_add(&slow->reads, 1) == 3)
		(void)sem_post(&slow->third);
	(void)nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
	return rouse_source_read(slow->inner, offset, buffer, size, priority);
}

static uint64_t slow_size(const struct rouse_source *source)
{
	return rouse_source_size(((const struct slow_source *)source)->inner);
}

static void a_stop_does_not_wait_for_the_rest_of_a_window(void **state)
{
	static const struct rouse_source_ops ops = {.read = slow_read, .size = slow_size};
	const struct fixture *fixture = *state;
	struct slow_source slow = {.base.ops = &ops};
	struct run run = {0};
	struct rouse_feeder_config config = {.plan = plan_scattered,
		.plan_user = &run,
		.windows = WINDOWS,
		.source = &slow.base};

	make_image(fixture->path);
	assert_int_equal(sem_init(&slow.third, 0, 0), 0);
	assert_int_equal(rouse_file_source_open(fixture->path, NULL, &slow.inner, NULL), 0);
	assert_int_equal(rouse_reader_open(slow.inner, &run.reader, NULL), 0);
	config.reader = run.reader;
	assert_int_equal(rouse_feeder_start(&config, &run.feeder), 0);
	(void)sem_wait(&slow.third);
	rouse_feeder_stop(run.feeder);
	assert_in_range(atomic_load(&slow.reads), 4, PAGES / 80 / 2);
	rouse_reader_close(run.reader);
	rouse_source_destroy(slow.inner);
	(void)sem_destroy(&slow.third);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
		T(reads_far_ahead_while_nobody_takes),
		T(a_few_windows_go_round_while_they_are_taken),
		T(stops_while_everybody_waits),
		T(many_workers_keep_the_order_of_the_windows),
		T(many_workers_decode_every_page),
		T(nothing_behind_a_damaged_chunk_is_delivered),
		T(stops_after_any_number_of_windows),
		T(a_stop_does_not_wait_for_the_rest_of_a_window),
#undef T
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
