/* SPDX-License-Identifier: MIT */
/* What is shown of a job's progress, and that it never waits for its reader. */
#include "../../../tool/progress.h"
#include "../../../tool/tool.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define SECOND 1000000u

/* stderr goes to a file while a test runs. */
struct capture {
	int saved;
	FILE *file;
	char text[1024];
};

static int begin_capture(void **state)
{
	struct capture *capture = calloc(1, sizeof(*capture));

	if (capture == NULL)
		return -1;
	capture->file = tmpfile();
	(void)fflush(stderr);
	capture->saved = dup(STDERR_FILENO);
	if (capture->file == NULL || dup2(fileno(capture->file), STDERR_FILENO) < 0)
		return -1;
	*state = capture;
	return 0;
}

static int end_capture(void **state)
{
	struct capture *capture = *state;

	(void)fflush(stderr);
	(void)dup2(capture->saved, STDERR_FILENO);
	(void)close(capture->saved);
	(void)fclose(capture->file);
	free(capture);
	return 0;
}

static const char *captured(struct capture *capture)
{
	ssize_t n;

	(void)fflush(stderr);
	n = pread(fileno(capture->file), capture->text, sizeof(capture->text) - 1, 0);
	capture->text[n > 0 ? n : 0] = '\0';
	return capture->text;
}

/* The job has been in this phase for ten seconds, and nothing was said for as long. */
static void let_time_pass(struct progress *progress)
{
	progress->begin_us -= 10 * SECOND;
	progress->last_us -= 10 * SECOND;
}

static void update(struct progress *progress, uint64_t done, uint64_t total)
{
	struct rouse_progress now = {.phase = "saving", .done = done, .total = total};

	progress_update(progress, &now);
}

static void plain_lines_have_rate_and_rest(void **state)
{
	struct progress progress = {.shown = true};

	update(&progress, 0, 400 << 20);
	assert_string_equal(captured(*state), "");
	let_time_pass(&progress);
	update(&progress, 100 << 20, 400 << 20);
	assert_string_equal(captured(*state),
		"rouse: saving: 25 % (100.0 MiB of 400.0 MiB, 10.0 MiB/s, 30 s left)\n");
	/* And then nothing, until some time has passed. */
	update(&progress, 200 << 20, 400 << 20);
	assert_null(strstr(captured(*state), "50 %"));
}

static void unknown_total_has_no_percentage(void **state)
{
	struct progress progress = {.shown = true};

	update(&progress, 0, 0);
	let_time_pass(&progress);
	update(&progress, 10 << 20, 0);
	assert_string_equal(captured(*state), "rouse: saving: 10.0 MiB, 1.0 MiB/s\n");
}

static void times_and_scans_are_no_bytes(void **state)
{
	struct rouse_progress now = {
		.phase = "tracing", .total = 10000000, .unit = ROUSE_PROGRESS_MICROSECONDS};
	struct progress progress = {.shown = true};

	progress_update(&progress, &now);
	let_time_pass(&progress);
	now.done = 5000000;
	progress_update(&progress, &now);
	assert_null(strstr(captured(*state), "B"));
	assert_non_null(strstr(captured(*state), "50 %"));
	assert_non_null(strstr(captured(*state), "s left"));
}

static void bar_is_drawn_and_taken_away(void **state)
{
	struct progress progress = {.shown = true, .terminal = true};
	const char *text;

	update(&progress, 0, 400 << 20);
	let_time_pass(&progress);
	update(&progress, 200 << 20, 400 << 20);
	text = captured(*state);
	assert_non_null(strstr(text, "[############------------]  50 %"));
	assert_null(strchr(text, '\n'));
	progress_clear(&progress);
	text = captured(*state);
	assert_string_equal(text + strlen(text) - strlen("\r\033[K"), "\r\033[K");
}

static void quiet_shows_nothing(void **state)
{
	struct progress progress;

	progress_init(&progress, true);
	update(&progress, 0, 100);
	let_time_pass(&progress);
	update(&progress, 50, 100);
	assert_string_equal(captured(*state), "");
}

static void full_pipe_is_not_waited_for(void **state)
{
	struct progress progress = {.shown = true};
	struct capture *capture = *state;
	char block[4096] = {0};
	int ends[2];

	(void)capture;
	assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
	while (write(ends[1], block, sizeof(block)) > 0)
		;
	/* From here on writing would wait for ever. */
	assert_int_equal(fcntl(ends[1], F_SETFL, 0), 0);
	assert_true(dup2(ends[1], STDERR_FILENO) >= 0);
	update(&progress, 0, 100);
	let_time_pass(&progress);
	update(&progress, 50, 100);
	(void)close(ends[0]);
	(void)close(ends[1]);
}

int main(void)
{
#define CAPTURED(test) cmocka_unit_test_setup_teardown(test, begin_capture, end_capture)
	const struct CMUnitTest tests[] = {
		CAPTURED(plain_lines_have_rate_and_rest),
		CAPTURED(unknown_total_has_no_percentage),
		CAPTURED(times_and_scans_are_no_bytes),
		CAPTURED(bar_is_drawn_and_taken_away),
		CAPTURED(quiet_shows_nothing),
		CAPTURED(full_pipe_is_not_waited_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
