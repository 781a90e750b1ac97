/* SPDX-License-Identifier: MIT */
/* The depth of a stream, against disks that are played. */
#include "../unit.h"

#include "source/read_depth.h"

#define EPOCH_BYTES (UINT64_C(4) << 20)

/* A disk that gives @rate bytes/s for each block in flight, up to @most; the reader always waits.
 */
static void play(struct rouse_read_depth *depth, uint64_t rate, unsigned int most,
	uint64_t urgent_ns, unsigned int epochs)
{
	while (epochs-- > 0) {
		unsigned int used = depth->depth < most ? depth->depth : most;
		uint64_t ns = EPOCH_BYTES * 1000000000 / (rate * used);

		rouse_read_depth_epoch(
			depth, &(struct rouse_read_epoch){EPOCH_BYTES, ns, ns, urgent_ns});
	}
}

static void grows_while_the_rate_does(void **state)
{
	struct rouse_read_depth depth;

	(void)state;
	rouse_read_depth_init(&depth);
	play(&depth, 100000000, ROUSE_READ_DEPTH_MAX, 0, 8);
	assert_int_equal(depth.depth, ROUSE_READ_DEPTH_MAX);
}

static void goes_back_to_what_gave_as_much(void **state)
{
	struct rouse_read_depth depth;

	(void)state;
	rouse_read_depth_init(&depth);
	play(&depth, 100000000, 8, 0, 3);
	assert_int_equal(depth.depth, 8);
	play(&depth, 100000000, 8, 0, 30);
	assert_int_equal(depth.depth, 8);
}

static void tries_again_later(void **state)
{
	struct rouse_read_depth depth;

	(void)state;
	rouse_read_depth_init(&depth);
	play(&depth, 100000000, 4, 0, 10);
	assert_int_equal(depth.depth, 4);
	play(&depth, 100000000, 32, 0, 60);
	assert_int_equal(depth.depth, 32);
}

static void stays_while_the_reader_is_what_limits(void **state)
{
	struct rouse_read_depth depth;

	(void)state;
	rouse_read_depth_init(&depth);
	for (unsigned int i = 0; i < 10; i++)
		rouse_read_depth_epoch(
			&depth, &(struct rouse_read_epoch){EPOCH_BYTES, 8000000, 1000, 0});
	assert_int_equal(depth.depth, ROUSE_READ_DEPTH_FIRST);
}

static void shrinks_when_urgent_reads_suffer(void **state)
{
	struct rouse_read_depth depth;

	(void)state;
	rouse_read_depth_init(&depth);
	play(&depth, 100000000, ROUSE_READ_DEPTH_MAX, 100000, 8);
	assert_int_equal(depth.depth, ROUSE_READ_DEPTH_MAX);
	play(&depth, 100000000, ROUSE_READ_DEPTH_MAX, 1000000, 1);
	assert_int_equal(depth.depth, ROUSE_READ_DEPTH_MAX / 2);
	play(&depth, 100000000, ROUSE_READ_DEPTH_MAX, 1000000, 10);
	assert_int_equal(depth.depth, 1);
}

static void urgent_reads_that_are_always_slow_do_not_shrink_it(void **state)
{
	struct rouse_read_depth depth;

	(void)state;
	rouse_read_depth_init(&depth);
	play(&depth, 100000000, ROUSE_READ_DEPTH_MAX, 12000000, 8);
	assert_int_equal(depth.depth, ROUSE_READ_DEPTH_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(grows_while_the_rate_does),
		cmocka_unit_test(goes_back_to_what_gave_as_much),
		cmocka_unit_test(tries_again_later),
		cmocka_unit_test(stays_while_the_reader_is_what_limits),
		cmocka_unit_test(shrinks_when_urgent_reads_suffer),
		cmocka_unit_test(urgent_reads_that_are_always_slow_do_not_shrink_it),
	};

	return cmocka_run_group_tests_name("read_depth", tests, NULL, NULL);
}
