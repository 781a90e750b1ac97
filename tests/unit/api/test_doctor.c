/* SPDX-License-Identifier: MIT */
/* The doctor's probes: they end in time whatever is probed, and leave no process behind. */
#include "api/doctor_child.h"
#include "base/clock.h"
#include "base/error.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../unit.h"

static void no_child_is_left(void)
{
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
}

static int give(void *user)
{
	return *(const int *)user;
}

static int hang(void *unused)
{
	(void)unused;
	for (;;)
		(void)pause();
	return 0;
}

static int crash(void *unused)
{
	(void)unused;
	(void)signal(SIGSEGV, SIG_DFL);
	(void)raise(SIGSEGV);
	return 0;
}

static void probe_gives_what_it_returned(void **state)
{
	int number = 17;

	(void)state;
	assert_int_equal(rouse_child_probe(give, &number, 5000), 17);
	no_child_is_left();
}

static void probe_that_hangs_is_ended(void **state)
{
	uint64_t begin_us = rouse_clock_us();

	(void)state;
	assert_int_equal(rouse_child_probe(hang, NULL, 100), -ETIMEDOUT);
	assert_true(rouse_clock_us() - begin_us >= 100000);
	no_child_is_left();
}

static void probe_that_crashes_is_told_apart(void **state)
{
	(void)state;
	assert_int_equal(rouse_child_probe(crash, NULL, 5000), -EFAULT);
	no_child_is_left();
}

static void output_has_both_streams(void **state)
{
	const char *const argv[] = {"sh", "-c", "echo out; echo err >&2", NULL};
	char text[64];

	(void)state;
	assert_int_equal(rouse_child_output(argv, NULL, 5000, text, sizeof(text)), 0);
	assert_string_equal(text, "out\nerr\n");
	no_child_is_left();
}

static void output_ends_at_the_word(void **state)
{
	const char *const argv[] = {"sh", "-c", "echo booted; exec sleep 60", NULL};
	char text[64];

	(void)state;
	assert_int_equal(rouse_child_output(argv, "booted", 30000, text, sizeof(text)), 0);
	assert_string_equal(text, "booted\n");
	no_child_is_left();
}

static void output_ends_at_the_time_limit(void **state)
{
	const char *const argv[] = {"sleep", "60", NULL};
	char text[64];

	(void)state;
	assert_int_equal(rouse_child_output(argv, NULL, 100, text, sizeof(text)), -ETIMEDOUT);
	assert_string_equal(text, "");
	no_child_is_left();
}

static void output_beyond_the_room_is_dropped(void **state)
{
	const char *const argv[] = {"sh", "-c", "while echo 0123456789; do :; done", NULL};
	char text[16];

	(void)state;
	assert_int_equal(rouse_child_output(argv, NULL, 5000, text, sizeof(text)), 0);
	assert_string_equal(text, "0123456789\n0123");
	no_child_is_left();
}

static void program_that_is_not_there_is_an_error(void **state)
{
	const char *const argv[] = {"/nonexistent/program", NULL};
	char text[16];

	(void)state;
	assert_int_equal(rouse_child_output(argv, NULL, 5000, text, sizeof(text)), -ENOENT);
	no_child_is_left();
}

/* ---- rouse_doctor() -------------------------------------------------------------------------- */

struct findings {
	unsigned int count;
	bool qemu, sound;
};

static void on_finding(void *user, const struct rouse_finding *finding)
{
	struct findings *findings = user;

	findings->count++;
	if (strcmp(finding->name, "qemu") == 0)
		findings->qemu = finding->available;
	findings->sound = findings->sound && finding->detail[0] != '\0' &&
			  finding->available == (finding->cost == NULL);
}

static void every_lack_has_a_cost(void **state)
{
	struct findings findings = {.sound = true};

	(void)state;
	assert_int_equal(rouse_doctor("/nonexistent/qemu", NULL, on_finding, &findings, NULL), 0);
	assert_true(findings.count >= 5);
	assert_true(findings.sound);
	assert_false(findings.qemu);
	no_child_is_left();
}

static void kernel_that_is_not_there_is_an_error(void **state)
{
	struct findings findings = {0};
	struct rouse_error error = {0};

	(void)state;
	assert_int_equal(
		rouse_doctor(NULL, "/nonexistent/vmlinuz", on_finding, &findings, &error), -ENOENT);
	assert_non_null(strstr(error.message, "/nonexistent/vmlinuz"));
	assert_int_equal(findings.count, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(probe_gives_what_it_returned),
		cmocka_unit_test(probe_that_hangs_is_ended),
		cmocka_unit_test(probe_that_crashes_is_told_apart),
		cmocka_unit_test(output_has_both_streams),
		cmocka_unit_test(output_ends_at_the_word),
		cmocka_unit_test(output_ends_at_the_time_limit),
		cmocka_unit_test(output_beyond_the_room_is_dropped),
		cmocka_unit_test(program_that_is_not_there_is_an_error),
		cmocka_unit_test(every_lack_has_a_cost),
		cmocka_unit_test(kernel_that_is_not_there_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
