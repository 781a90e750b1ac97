/* SPDX-License-Identifier: MIT */
/* What does not go with a flat file. */
#include "api/restore_map.h"
#include "base/error.h"

#include <errno.h>

#include "../unit.h"

static void a_throttle_of_any_kind_is_refused(void **state)
{
	static const struct rouse_throttle throttles[] = {
		{.bytes_per_s = 1}, {.random_reads_per_s = 1}, {.latency_us = 1}};
	struct rouse_restore_options options = {.flat = "vm.flat"};
	struct rouse_error error = {0};

	(void)state;
	assert_int_equal(restore_map_check(&options, &error), 0);
	for (size_t i = 0; i < sizeof(throttles) / sizeof(throttles[0]); i++) {
		options.throttle = throttles[i];
		assert_int_equal(restore_map_check(&options, &error), -EINVAL);
		assert_int_equal(error.kind, ROUSE_ERROR_USAGE);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_throttle_of_any_kind_is_refused),
	};

	return cmocka_run_group_tests_name("restore_map", tests, NULL, NULL);
}
