/* SPDX-License-Identifier: MIT */
/* The worked example of docs/ttr.md, read out of that file. */
#include "base/cleanup.h"
#include "base/io.h"
#include "ttr/ttr.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

/* Cuts the indented stall log out of the text. */
static size_t cut_log(const char *text, char *log, size_t room)
{
	const char *line = strstr(text, "    rouse-stalls 1\n");
	size_t used = 0;

	assert_non_null(line);
	while (strncmp(line, "    ", 4) == 0) {
		const char *end = strchr(line, '\n') + 1;
		size_t length = (size_t)(end - line) - 4;

		assert_true(used + length < room);
		memcpy(log + used, line + 4, length);
		used += length;
		line = end;
	}
	return used;
}

static uint64_t ttr(const struct rouse_stalls *stalls, double utilization, uint64_t window_us)
{
	const struct rouse_ttr_point point = {.utilization = utilization, .window_us = window_us};

	return rouse_stalls_ttr(stalls, &point);
}

static void the_worked_example_comes_out_as_the_document_says(void **state)
{
	cleanup_free char *text = NULL;
	struct rouse_stalls *stalls;
	struct rouse_error error = {0};
	char log[1024];
	size_t size;

	(void)state;
	assert_int_equal(rouse_io_read_file("docs/ttr.md", 1u << 20, &text, &size), 0);
	size = cut_log(text, log, sizeof(log));
	if (rouse_stalls_parse(log, size, &stalls, &error) != 0)
		fail_msg("%s", error.message);
	assert_int_equal(ttr(stalls, 0.9, 100000), 77500);
	assert_int_equal(ttr(stalls, 0.99, 100000), 310000);
	assert_int_equal(ttr(stalls, 0.9, 10000), 310000);
	assert_int_equal(ttr(stalls, 0.5, 10000), 80000);
	rouse_stalls_free(stalls);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_worked_example_comes_out_as_the_document_says),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
