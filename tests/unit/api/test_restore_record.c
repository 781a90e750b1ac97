/* SPDX-License-Identifier: MIT */
/* When a page would have been touched if the guest had never waited for one. */
#include "api/restore_record.h"

#include "../unit.h"

#define US UINT64_C(1000)
#define MS UINT64_C(1000000)

static void a_guest_that_does_nothing_but_wait_touches_all_at_once(void **state)
{
	struct restore_record_clock clock = {.transport_ns = 200 * US};

	(void)state;
	for (unsigned int i = 0; i < 1000; i++)
		assert_int_equal(restore_record_touch_us(&clock, i * 300 * US, 100 * US), 0);
}

static void what_it_does_between_two_faults_counts(void **state)
{
	struct restore_record_clock clock = {.transport_ns = 200 * US};

	(void)state;
	assert_int_equal(restore_record_touch_us(&clock, 5 * MS, 100 * US), 5000);
	assert_int_equal(restore_record_touch_us(&clock, 15 * MS, 100 * US), 14700);
	assert_int_equal(restore_record_touch_us(&clock, 25 * MS, 100 * US), 24400);
}

/* Two vCPUs wait at the same time: more than the time that has gone by. */
static void the_order_of_the_touches_stays(void **state)
{
	struct restore_record_clock clock = {.transport_ns = 200 * US};
	uint64_t last = 0;

	(void)state;
	assert_int_equal(restore_record_touch_us(&clock, 5 * MS, 100 * US), 5000);
	for (unsigned int i = 0; i < 100; i++) {
		uint64_t time_us = restore_record_touch_us(&clock, 5 * MS + i * 150 * US, 100 * US);

		assert_true(time_us >= last);
		last = time_us;
	}
	assert_int_equal(last, 5000);
}

static void without_knowing_the_transport_the_service_alone_is_left_out(void **state)
{
	struct restore_record_clock clock = {0};

	(void)state;
	assert_int_equal(restore_record_touch_us(&clock, 1 * MS, 100 * US), 1000);
	assert_int_equal(restore_record_touch_us(&clock, 2 * MS, 100 * US), 1900);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_guest_that_does_nothing_but_wait_touches_all_at_once),
		cmocka_unit_test(what_it_does_between_two_faults_counts),
		cmocka_unit_test(the_order_of_the_touches_stays),
		cmocka_unit_test(without_knowing_the_transport_the_service_alone_is_left_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
