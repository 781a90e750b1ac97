/* SPDX-License-Identifier: MIT */
#include "engine/pending.h"

#include "../unit.h"

#include <stdlib.h>
#include <time.h>

static void without_jumps_it_goes_from_the_beginning_to_the_end(void **state)
{
	struct rouse_pending pending;
	struct rouse_pending_range next;

	(void)state;
	assert_int_equal(rouse_pending_init(&pending, 100), 0);
	for (size_t at = 0; at < 100; at += 10) {
		next = rouse_pending_next(&pending);
		assert_int_equal(next.from, at);
		assert_int_equal(next.to, 100);
		rouse_pending_take(&pending, 10);
	}
	next = rouse_pending_next(&pending);
	assert_int_equal(next.from, next.to);
	rouse_pending_finish(&pending);
}

static void after_a_jump_what_was_left_behind_comes_last(void **state)
{
	struct rouse_pending pending;
	struct rouse_pending_range next;

	(void)state;
	assert_int_equal(rouse_pending_init(&pending, 100), 0);
	rouse_pending_take(&pending, 10);
	rouse_pending_jump(&pending, 60);
	next = rouse_pending_next(&pending);
	assert_int_equal(next.from, 60);
	assert_int_equal(next.to, 100);
	rouse_pending_take(&pending, 40);
	next = rouse_pending_next(&pending);
	assert_int_equal(next.from, 10);
	assert_int_equal(next.to, 60);
	rouse_pending_finish(&pending);
}

static void a_jump_to_what_was_taken_goes_on_behind_it(void **state)
{
	struct rouse_pending pending;

	(void)state;
	assert_int_equal(rouse_pending_init(&pending, 100), 0);
	rouse_pending_jump(&pending, 50);
	rouse_pending_take(&pending, 20);
	rouse_pending_jump(&pending, 5);
	rouse_pending_take(&pending, 5);
	rouse_pending_jump(&pending, 55);
	assert_int_equal(rouse_pending_next(&pending).from, 70);
	rouse_pending_finish(&pending);
}

static void a_jump_behind_everything_changes_nothing(void **state)
{
	struct rouse_pending pending;

	(void)state;
	assert_int_equal(rouse_pending_init(&pending, 100), 0);
	rouse_pending_take(&pending, 30);
	rouse_pending_jump(&pending, 100);
	assert_int_equal(rouse_pending_next(&pending).from, 30);
	rouse_pending_finish(&pending);
}

static void an_empty_region_has_nothing_pending(void **state)
{
	struct rouse_pending pending;

	(void)state;
	assert_int_equal(rouse_pending_init(&pending, 0), 0);
	rouse_pending_jump(&pending, 0);
	assert_int_equal(rouse_pending_next(&pending).to, 0);
	rouse_pending_finish(&pending);
}

static void whatever_the_jumps_each_page_is_taken_once(void **state)
{
	enum { PAGES = 5000 };
	static unsigned char taken[PAGES];
	unsigned int seed = (unsigned int)time(NULL);
	struct rouse_pending pending;

	(void)state;
	print_message("seed %u\n", seed);
	assert_int_equal(rouse_pending_init(&pending, PAGES), 0);
	for (;;) {
		struct rouse_pending_range next;
		size_t count;

		if (rand_r(&seed) % 3 == 0)
			rouse_pending_jump(&pending, (size_t)rand_r(&seed) % (PAGES + 10));
		next = rouse_pending_next(&pending);
		if (next.from == next.to)
			break;
		count = 1 + (size_t)rand_r(&seed) % (next.to - next.from) % 20;
		for (size_t i = 0; i < count; i++)
			taken[next.from + i]++;
		rouse_pending_take(&pending, count);
	}
	for (size_t i = 0; i < PAGES; i++)
		assert_int_equal(taken[i], 1);
	rouse_pending_finish(&pending);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_jumps_it_goes_from_the_beginning_to_the_end),
		cmocka_unit_test(after_a_jump_what_was_left_behind_comes_last),
		cmocka_unit_test(a_jump_to_what_was_taken_goes_on_behind_it),
		cmocka_unit_test(a_jump_behind_everything_changes_nothing),
		cmocka_unit_test(an_empty_region_has_nothing_pending),
		cmocka_unit_test(whatever_the_jumps_each_page_is_taken_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
