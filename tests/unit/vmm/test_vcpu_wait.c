/* SPDX-License-Identifier: MIT */
/* What schedstat files say. */
#include "vmm/vcpu_wait.h"

#include "../unit.h"

#include <errno.h>
#include <string.h>

static int parse(const char *text, uint64_t *wait_ns)
{
	return schedstat_parse(text, strlen(text), wait_ns);
}

static void the_second_number_is_the_wait(void **state)
{
	uint64_t wait_ns = 0;

	(void)state;
	assert_int_equal(parse("70786557 7686220 396\n", &wait_ns), 0);
	assert_int_equal(wait_ns, 7686220);
	assert_int_equal(parse("0 0 1\n", &wait_ns), 0);
	assert_int_equal(wait_ns, 0);
}

static void numbers_behind_are_for_later_kernels(void **state)
{
	uint64_t wait_ns = 0;

	(void)state;
	assert_int_equal(parse("1 2 3 4\n", &wait_ns), 0);
	assert_int_equal(wait_ns, 2);
}

static void what_is_no_schedstat_is_refused(void **state)
{
	static const char *const texts[] = {"", "\n", "1", "1 2", "1 2 3", "1 2\n", "-1 2 3\n",
		"1 x 3\n", "1 2 x\n", "1  2 3\n", "99999999999999999999 2 3\n"};
	uint64_t wait_ns = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		assert_int_equal(parse(texts[i], &wait_ns), -EUCLEAN);
}

static void a_kernel_that_does_not_count_is_told_by_its_zeros(void **state)
{
	uint64_t wait_ns = 0;

	(void)state;
	assert_int_equal(parse("0 0 0\n", &wait_ns), -EUCLEAN);
}

static void the_text_need_not_be_terminated(void **state)
{
	const char text[] = {'1', ' ', '2', ' ', '3', '\n'};
	uint64_t wait_ns = 0;

	(void)state;
	assert_int_equal(schedstat_parse(text, sizeof(text), &wait_ns), 0);
	assert_int_equal(schedstat_parse(text, sizeof(text) - 1, &wait_ns), -EUCLEAN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_second_number_is_the_wait),
		cmocka_unit_test(numbers_behind_are_for_later_kernels),
		cmocka_unit_test(what_is_no_schedstat_is_refused),
		cmocka_unit_test(a_kernel_that_does_not_count_is_told_by_its_zeros),
		cmocka_unit_test(the_text_need_not_be_terminated),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
