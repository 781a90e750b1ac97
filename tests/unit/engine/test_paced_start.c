/* SPDX-License-Identifier: MIT */
/* When a paced start is, with a disk and a working set that are numbers. */
#include "engine/paced_start.h"

#include "../unit.h"

#include <string.h>

#define MS UINT64_C(1000000)
#define COUNT 1000u

struct world {
	struct rouse_feed_page pages[COUNT];
	struct rouse_paced_start paced;
};

/* Page k is touched @step_us after page k - 1. */
static void world_init(struct world *w, uint32_t step_us)
{
	memset(w, 0, sizeof(*w));
	for (uint32_t k = 0; k < COUNT; k++)
		w->pages[k].time_us = k * step_us;
	w->paced = (struct rouse_paced_start){.pages = w->pages, .count = COUNT};
}

/* After how many pages the VM starts, if each takes @page_ns to come. */
static size_t start_after(struct world *w, uint64_t page_ns)
{
	size_t placed = 0;

	while (!rouse_paced_start_ready(&w->paced, placed, placed * page_ns))
		placed++;
	return placed;
}

static void nothing_is_known_before_the_first_page(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 1000000);
	assert_false(rouse_paced_start_ready(&w.paced, 0, 5 * MS));
}

static void a_disk_that_is_faster_than_the_touches_starts_early(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 2000);
	/* Four times as fast, and half of each time counts; the rest is the room for faults. */
	assert_in_range(start_after(&w, 500000), 40, 42);
}

/* 40 ms beyond what half of the times allow: 80 ms of touches must be there in any case. */
static void where_a_late_page_is_dear_the_start_leaves_room_for_faults(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 1000);
	assert_in_range(start_after(&w, 1), 80, 81);
	world_init(&w, 1000);
	w.paced.late_is_cheap = true;
	assert_int_equal(start_after(&w, 1), 1);
}

static void a_disk_that_is_slower_than_the_touches_waits_for_the_difference(void **state)
{
	struct world w;
	size_t placed;

	(void)state;
	world_init(&w, 10000);
	/* Twice as slow as the times, four times as what counts of them: three quarters first. */
	placed = start_after(&w, 20000000);
	assert_in_range(placed, COUNT * 74 / 100, COUNT * 76 / 100);
}

static void pages_that_are_touched_at_once_must_all_be_there(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 0);
	assert_int_equal(start_after(&w, 1), COUNT);
}

static void where_a_late_page_costs_little_the_first_ones_are_enough(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 0);
	w.paced.late_is_cheap = true;
	assert_int_equal(start_after(&w, 100000), ROUSE_PACED_FIRST_PAGES);
	/* The times may allow an earlier start. */
	world_init(&w, 1000000);
	w.paced.late_is_cheap = true;
	assert_int_equal(start_after(&w, 1), 1);
}

static void one_early_page_at_the_end_holds_the_start(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 1000);
	w.pages[COUNT - 1].time_us = 10;
	assert_int_equal(start_after(&w, 10000), COUNT);
	/* The rate changes what is late: the one that was is looked at first, not only. */
	world_init(&w, 1000);
	w.paced.late = COUNT - 1;
	w.pages[COUNT / 2].time_us = 0;
	assert_int_equal(start_after(&w, 10000), COUNT / 2 + 1);
}

static void a_whole_set_starts_whatever_the_times(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 0);
	assert_true(rouse_paced_start_ready(&w.paced, COUNT, UINT64_MAX));
	w.paced.count = 0;
	assert_true(rouse_paced_start_ready(&w.paced, 0, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_known_before_the_first_page),
		cmocka_unit_test(a_disk_that_is_faster_than_the_touches_starts_early),
		cmocka_unit_test(where_a_late_page_is_dear_the_start_leaves_room_for_faults),
		cmocka_unit_test(a_disk_that_is_slower_than_the_touches_waits_for_the_difference),
		cmocka_unit_test(pages_that_are_touched_at_once_must_all_be_there),
		cmocka_unit_test(where_a_late_page_costs_little_the_first_ones_are_enough),
		cmocka_unit_test(one_early_page_at_the_end_holds_the_start),
		cmocka_unit_test(a_whole_set_starts_whatever_the_times),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
