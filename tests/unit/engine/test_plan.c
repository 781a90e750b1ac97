/* SPDX-License-Identifier: MIT */
/* The order in which the background brings what is left. */
#include "engine/plan.h"

#include "../image/image_fixture.h"

#define REGION_PAGES (UINT64_C(64) * ROUSE_PAGE_TABLE_PAGES) /* a GiB of the VM */
#define PAGES (2 * REGION_PAGES)
#define NEAR_PAGES 32u /* two chunks: one page in sixteen of the VM's first and last pages */

struct run {
	struct rouse_source *source;
	struct rouse_reader *reader;
	struct rouse_rest_plan plan;
	struct rouse_error error;
};

/* Pages 16, 32, ... of each region, those near the set; and all from 1000 on to 1099. */
static void put_region(struct rouse_writer *writer, uint64_t first, bool near)
{
	for (uint64_t i = 1; near && i <= NEAR_PAGES / 2; i++)
		put_seed(writer, first + i * 16, first + i * 16);
	for (uint64_t i = 1000; !near && i < 1100; i++)
		put_seed(writer, first + i, first + i);
}

static void make_image(const char *path, bool tells_near)
{
	struct rouse_writer *writer = begin_image(path, PAGES, NULL, NULL, 0);

	put_region(writer, 0, true);
	put_region(writer, REGION_PAGES, true);
	if (tells_near)
		rouse_writer_end_near(writer);
	put_region(writer, 0, false);
	put_region(writer, REGION_PAGES, false);
	(void)end_image(writer);
}

static void run_open(struct run *run, const char *path, bool zeros)
{
	*run = (struct run){0};
	assert_int_equal(rouse_file_source_open(path, NULL, &run->source, &run->error), 0);
	if (rouse_reader_open(run->source, &run->reader, &run->error) != 0)
		fail_msg("%s", run->error.message);
	rouse_rest_plan_init(&run->plan, run->reader, zeros, NULL, NULL);
}

static void run_close(struct run *run)
{
	rouse_rest_plan_finish(&run->plan);
	rouse_reader_close(run->reader);
	rouse_source_destroy(run->source);
}

static void expect_region(struct run *run, uint64_t first, uint64_t last, size_t expected)
{
	const struct rouse_feed_page *pages;
	size_t count;

	assert_int_equal(rouse_rest_plan_next(&run->plan, &pages, &count), 0);
	assert_int_equal(count, expected);
	for (size_t i = 0; i < count; i++)
		assert_in_range(pages[i].page, first, last);
}

static void what_is_near_comes_first_in_all_regions(void **state)
{
	const struct fixture *fixture = *state;
	struct run run;

	make_image(fixture->path, true);
	run_open(&run, fixture->path, false);
	expect_region(&run, 16, 999, NEAR_PAGES / 2);
	expect_region(&run, REGION_PAGES + 16, REGION_PAGES + 999, NEAR_PAGES / 2);
	expect_region(&run, 1000, 1099, 100);
	expect_region(&run, REGION_PAGES + 1000, REGION_PAGES + 1099, 100);
	expect_region(&run, 0, 0, 0);
	run_close(&run);
}

static void an_image_that_tells_nothing_comes_region_by_region(void **state)
{
	const struct fixture *fixture = *state;
	struct run run;

	make_image(fixture->path, false);
	run_open(&run, fixture->path, false);
	expect_region(&run, 16, 1099, NEAR_PAGES / 2 + 100);
	expect_region(&run, REGION_PAGES + 16, REGION_PAGES + 1099, NEAR_PAGES / 2 + 100);
	expect_region(&run, 0, 0, 0);
	run_close(&run);
}

static void everything_comes_in_one_pass(void **state)
{
	const struct fixture *fixture = *state;
	struct run run;

	make_image(fixture->path, true);
	run_open(&run, fixture->path, true);
	expect_region(&run, 0, REGION_PAGES - 1, REGION_PAGES);
	expect_region(&run, REGION_PAGES, PAGES - 1, REGION_PAGES);
	expect_region(&run, 0, 0, 0);
	run_close(&run);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			what_is_near_comes_first_in_all_regions, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(an_image_that_tells_nothing_comes_region_by_region,
			fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(
			everything_comes_in_one_pass, fixture_setup, fixture_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
