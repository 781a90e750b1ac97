/* SPDX-License-Identifier: MIT */
#include "../unit.h"

#include "base/error.h"

#include <string.h>

static void set_fills_in_the_error_and_returns_its_code(void **state)
{
	struct rouse_error error;

	(void)state;
	memset(&error, 0xff, sizeof(error));
	assert_int_equal(
		rouse_error_set(&error, ROUSE_ERROR_DAMAGED, -EUCLEAN, "chunk %d is bad", 7),
		-EUCLEAN);
	assert_int_equal(error.code, -EUCLEAN);
	assert_int_equal(error.kind, ROUSE_ERROR_DAMAGED);
	assert_string_equal(error.message, "chunk 7 is bad");
}

static void set_cuts_a_long_message(void **state)
{
	struct rouse_error error;
	char text[2 * sizeof(error.message)];

	(void)state;
	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	(void)rouse_error_set(&error, ROUSE_ERROR_USAGE, -EINVAL, "%s", text);
	assert_int_equal(strlen(error.message), sizeof(error.message) - 1);
}

static void everything_accepts_no_error(void **state)
{
	(void)state;
	assert_int_equal(rouse_error_set(NULL, ROUSE_ERROR_VMM, -EPIPE, "gone"), -EPIPE);
	assert_int_equal(rouse_error_errno(NULL, -ENOENT, "opening"), -ENOENT);
	assert_true(rouse_error_prefix(NULL, "while testing") < 0);
}

static void errno_appends_the_text_of_the_code(void **state)
{
	struct rouse_error error = {0};

	(void)state;
	assert_int_equal(rouse_error_errno(&error, -ENOSPC, "writing %s", "a.img"), -ENOSPC);
	assert_int_equal(error.kind, ROUSE_ERROR_SYSTEM);
	assert_string_equal(error.message, "writing a.img: No space left on device");
}

static void errno_knows_cancelling(void **state)
{
	struct rouse_error error = {0};

	(void)state;
	(void)rouse_error_errno(&error, -ECANCELED, "saving");
	assert_int_equal(error.kind, ROUSE_ERROR_CANCELLED);
}

static void errno_keeps_a_long_message_in_bounds(void **state)
{
	struct rouse_error error;
	char text[sizeof(error.message)];

	(void)state;
	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	(void)rouse_error_errno(&error, -EIO, "%s", text);
	assert_int_equal(strlen(error.message), sizeof(error.message) - 1);
}

static void prefix_goes_before_the_message(void **state)
{
	struct rouse_error error = {0};

	(void)state;
	(void)rouse_error_set(&error, ROUSE_ERROR_DAMAGED, -EUCLEAN, "bad magic");
	assert_int_equal(rouse_error_prefix(&error, "%s", "a.img"), -EUCLEAN);
	assert_int_equal(error.kind, ROUSE_ERROR_DAMAGED);
	assert_string_equal(error.message, "a.img: bad magic");
}

static void prefix_keeps_a_long_message_in_bounds(void **state)
{
	struct rouse_error error;
	char text[sizeof(error.message)];

	(void)state;
	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	(void)rouse_error_set(&error, ROUSE_ERROR_USAGE, -EINVAL, "%s", text);
	(void)rouse_error_prefix(&error, "%s", text);
	assert_int_equal(strlen(error.message), sizeof(error.message) - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(set_fills_in_the_error_and_returns_its_code),
		cmocka_unit_test(set_cuts_a_long_message),
		cmocka_unit_test(everything_accepts_no_error),
		cmocka_unit_test(errno_appends_the_text_of_the_code),
		cmocka_unit_test(errno_knows_cancelling),
		cmocka_unit_test(errno_keeps_a_long_message_in_bounds),
		cmocka_unit_test(prefix_goes_before_the_message),
		cmocka_unit_test(prefix_keeps_a_long_message_in_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
