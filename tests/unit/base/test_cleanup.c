/* SPDX-License-Identifier: MIT */
#include "../unit.h"

#include "base/cleanup.h"

#include <fcntl.h>

static int is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static void close_closes_at_the_end_of_the_scope(void **state)
{
	int number;

	(void)state;
	{
		cleanup_close int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

		number = fd;
		assert_true(is_open(number));
	}
	assert_false(is_open(number));
}

static void close_leaves_a_negative_descriptor_alone(void **state)
{
	(void)state;
	{
		cleanup_close int fd = -1;

		(void)fd;
	}
	assert_true(is_open(0) || is_open(1));
}

static void take_fd_hands_the_descriptor_on(void **state)
{
	int taken;

	(void)state;
	{
		cleanup_close int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

		taken = take_fd(&fd);
		assert_int_equal(fd, -1);
	}
	assert_true(is_open(taken));
	(void)close(taken);
}

static void take_ptr_hands_the_pointer_on(void **state)
{
	char *taken;

	(void)state;
	{
		cleanup_free char *text = malloc(16);

		assert_non_null(text);
		text[0] = 'x';
		taken = take_ptr(&text);
		assert_null(text);
	}
	assert_int_equal(taken[0], 'x'); /* ASan sees it if it has been freed */
	free(taken);
}

static void fclose_closes_at_the_end_of_the_scope(void **state)
{
	int number;

	(void)state;
	{
		cleanup_fclose FILE *file = fopen("/dev/null", "re");
		cleanup_fclose FILE *none = NULL;

		assert_non_null(file);
		assert_null(none);
		number = fileno(file);
	}
	assert_false(is_open(number));
}

static void count_call(int *const *counter)
{
	(**counter)++;
}

static void with_calls_the_function_once(void **state)
{
	int calls = 0;

	(void)state;
	{
		cleanup_with(count_call) int *counter = &calls;

		assert_int_equal(*counter, 0);
	}
	assert_int_equal(calls, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(close_closes_at_the_end_of_the_scope),
		cmocka_unit_test(close_leaves_a_negative_descriptor_alone),
		cmocka_unit_test(take_fd_hands_the_descriptor_on),
		cmocka_unit_test(take_ptr_hands_the_pointer_on),
		cmocka_unit_test(fclose_closes_at_the_end_of_the_scope),
		cmocka_unit_test(with_calls_the_function_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
