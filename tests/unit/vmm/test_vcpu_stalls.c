/* SPDX-License-Identifier: MIT */
/* What stat files say. */
#include "vmm/vcpu_stalls.h"

#include "../unit.h"

#include <errno.h>
#include <string.h>

static int parse(const char *text, struct thread_stat *stat)
{
	return thread_stat_parse(text, strlen(text), stat);
}

static void the_state_and_the_major_faults_are_found(void **state)
{
	struct thread_stat stat = {0};

	(void)state;
	assert_int_equal(
		parse("7 (CPU 0/TCG) D 1 2 3 0 -1 4194368 500 0 37 0 1 2 0 0 20\n", &stat), 0);
	assert_int_equal(stat.state, 'D');
	assert_int_equal(stat.major_faults, 37);
}

static void a_name_may_hold_anything(void **state)
{
	struct thread_stat stat = {0};

	(void)state;
	assert_int_equal(parse("7 (a) R (b) D 1) S 1 2 3 0 -1 4 5 0 6 0 1\n", &stat), 0);
	assert_int_equal(stat.state, 'S');
	assert_int_equal(stat.major_faults, 6);
}

static void what_is_no_stat_file_is_refused(void **state)
{
	static const char *const texts[] = {"", ")", ") D", ") D ", "7 (a) D 1 2 3 0 -1 4 5 0",
		"7 (a) D 1 2 3 0 -1 4 5 0 6", "7 (a) D 1 2 x 0 -1 4 5 0 6 0",
		"7 (a) D 1 2 3 0 - 4 5 0 6 0", "7 (a) D  1 2 3 0 -1 4 5 0 6 0",
		"7 (a) D 1 2 3 0 -1 4 5 0 99999999999999999999 0", "7 a D 1 2 3 0 -1 4 5 0 6 0"};
	struct thread_stat stat = {0};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		assert_int_equal(parse(texts[i], &stat), -EUCLEAN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_state_and_the_major_faults_are_found),
		cmocka_unit_test(a_name_may_hold_anything),
		cmocka_unit_test(what_is_no_stat_file_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
