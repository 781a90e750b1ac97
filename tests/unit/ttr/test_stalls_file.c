/* SPDX-License-Identifier: MIT */
/* Stall logs as text: what is written can be read, and what is wrong is named by its line. */
#include "base/cleanup.h"
#include "base/error.h"
#include "ttr/ttr.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void written_log_reads_back_the_same(void **state)
{
	struct rouse_stalls *stalls = NULL, *again = NULL;
	cleanup_free char *text = NULL, *second = NULL;
	size_t size, second_size;
	FILE *file = open_memstream(&text, &size);

	(void)state;
	assert_int_equal(rouse_stalls_new(3, &stalls), 0);
	assert_int_equal(rouse_stalls_add(stalls, 5, 90), 0);
	assert_int_equal(rouse_stalls_add(stalls, 0, 17), 0);
	assert_int_equal(rouse_stalls_write(stalls, file), 0);
	assert_int_equal(fclose(file), 0);
	assert_string_equal(text, "rouse-stalls 1\nvcpus 3\n5 90\n0 17\n");

	assert_int_equal(rouse_stalls_parse(text, size, &again, NULL), 0);
	assert_int_equal(rouse_stalls_stalled_us(again, 0, 100), 102);
	file = open_memstream(&second, &second_size);
	assert_int_equal(rouse_stalls_write(again, file), 0);
	assert_int_equal(fclose(file), 0);
	assert_string_equal(second, text);
	rouse_stalls_free(stalls);
	rouse_stalls_free(again);
}

static void stalls_come_back_one_by_one(void **state)
{
	struct rouse_stalls *stalls = NULL;
	uint64_t from = 0, to = 0;

	(void)state;
	assert_int_equal(rouse_stalls_new(2, &stalls), 0);
	assert_int_equal(rouse_stalls_get_stall(stalls, 0, &from, &to), -ERANGE);
	assert_int_equal(rouse_stalls_add(stalls, 70, 90), 0);
	assert_int_equal(rouse_stalls_add(stalls, 0, 17), 0);
	assert_int_equal(rouse_stalls_get_stall(stalls, 0, &from, &to), 0);
	assert_int_equal(from, 70);
	assert_int_equal(to, 90);
	assert_int_equal(rouse_stalls_get_stall(stalls, 1, &from, &to), 0);
	assert_int_equal(from, 0);
	assert_int_equal(to, 17);
	assert_int_equal(rouse_stalls_get_stall(stalls, 2, &from, &to), -ERANGE);
	rouse_stalls_free(stalls);
}

static void comments_and_empty_lines_are_skipped(void **state)
{
	static const char text[] = "rouse-stalls 1\n# why\n\nvcpus 1\n#\n1 2\n\n# end";
	struct rouse_stalls *stalls = NULL;

	(void)state;
	assert_int_equal(rouse_stalls_parse(text, sizeof(text) - 1, &stalls, NULL), 0);
	assert_int_equal(rouse_stalls_stalled_us(stalls, 0, 100), 1);
	rouse_stalls_free(stalls);
}

static void a_log_replaces_logs_and_empty_files_only(void **state)
{
	static const struct {
		const char *text;
		int expected;
	} cases[] = {{"", 0}, {"rouse-stalls 1\nvcpus 2\n", 0}, {"rouse-stalls 9\n", 0},
		{"QFI\xfb", -EEXIST}, {"rouse-stall", -EEXIST}, {"#!/bin/sh\n", -EEXIST}};
	char path[] = "/tmp/rouse-test-stalls-XXXXXX";
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const size_t size = strlen(cases[i].text);
		struct rouse_error error = {0};

		assert_int_equal(ftruncate(fd, 0), 0);
		assert_int_equal(pwrite(fd, cases[i].text, size, 0), (ssize_t)size);
		assert_int_equal(rouse_stalls_check_place(path, &error), cases[i].expected);
		assert_int_equal(error.kind != 0, cases[i].expected != 0);
	}
	(void)close(fd);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rouse_stalls_check_place(path, NULL), 0);
	assert_int_equal(rouse_stalls_check_place("/dev/null", NULL), 0);
}

static void last_line_needs_no_newline(void **state)
{
	static const char text[] = "rouse-stalls 1\nvcpus 1\n1 20";
	struct rouse_stalls *stalls = NULL;

	(void)state;
	/* The 0 is behind the text: it must not be read. */
	assert_int_equal(rouse_stalls_parse(text, sizeof(text) - 2, &stalls, NULL), 0);
	assert_int_equal(rouse_stalls_stalled_us(stalls, 0, 100), 1);
	rouse_stalls_free(stalls);
}

static void expect_bad(const char *text, const char *line)
{
	struct rouse_stalls *stalls = NULL;
	struct rouse_error error = {0};

	assert_int_equal(rouse_stalls_parse(text, strlen(text), &stalls, &error), -EUCLEAN);
	assert_null(stalls);
	assert_int_equal(error.kind, ROUSE_ERROR_DAMAGED);
	if (strstr(error.message, line) == NULL)
		fail_msg("\"%s\" does not name \"%s\"", error.message, line);
}

static void broken_lines_are_named(void **state)
{
	(void)state;
	expect_bad("", "line 0");
	expect_bad("rouse-stalls 2\nvcpus 1\n", "line 1");
	expect_bad("rouse-stalls 1\n", "line 1");
	expect_bad("rouse-stalls 1\nvcpus 0\n", "line 2");
	expect_bad("rouse-stalls 1\nvcpus 4097\n", "line 2");
	expect_bad("rouse-stalls 1\nvcpus 1x\n", "line 2");
	expect_bad("rouse-stalls 1\nvcpus 1\n1\n", "line 3");
	expect_bad("rouse-stalls 1\nvcpus 1\n1 2\n3 2\n", "line 4");
	expect_bad("rouse-stalls 1\nvcpus 1\n1 2 3\n", "line 3");
	expect_bad("rouse-stalls 1\nvcpus 1\n-1 2\n", "line 3");
	expect_bad("rouse-stalls 1\nvcpus 1\n1 99999999999999999999999999\n", "line 3");
}

static void missing_file_is_a_system_error(void **state)
{
	struct rouse_stalls *stalls = NULL;
	struct rouse_error error = {0};

	(void)state;
	assert_int_equal(rouse_stalls_load("/nonexistent/stalls", &stalls, &error), -ENOENT);
	assert_int_equal(error.kind, ROUSE_ERROR_SYSTEM);
	assert_non_null(strstr(error.message, "/nonexistent/stalls"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(written_log_reads_back_the_same),
		cmocka_unit_test(stalls_come_back_one_by_one),
		cmocka_unit_test(comments_and_empty_lines_are_skipped),
		cmocka_unit_test(a_log_replaces_logs_and_empty_files_only),
		cmocka_unit_test(last_line_needs_no_newline),
		cmocka_unit_test(broken_lines_are_named),
		cmocka_unit_test(missing_file_is_a_system_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
