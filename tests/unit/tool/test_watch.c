/* SPDX-License-Identifier: MIT */
/* Signals while a job is watched. */
#include "../../../tool/tool.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../unit.h"

/* How a process ends that does @what: as of waitpid(2). */
static int end_of(void (*what)(void))
{
	int status = 0;
	pid_t child = fork();

	assert_true(child >= 0);
	if (child == 0) {
		what();
		_exit(EXIT_SUCCESS);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	return status;
}

static void watch_and_ask_twice(void)
{
	if (watch_begin(true, false) == NULL)
		_exit(EXIT_FAILURE);
	(void)raise(SIGTERM);
	(void)raise(SIGTERM);
	(void)raise(SIGHUP);
}

static void ask_again_later(void)
{
	struct timespec rest = {.tv_sec = 1, .tv_nsec = 100000000};

	watch_and_ask_twice();
	while (nanosleep(&rest, &rest) < 0)
		;
	(void)raise(SIGTERM);
}

static void ask_by_what_is_ignored(void)
{
	(void)signal(SIGHUP, SIG_IGN);
	watch_and_ask_twice();
	/* The handler of the others has left it alone. */
	if (signal(SIGHUP, SIG_IGN) != SIG_IGN)
		_exit(EXIT_FAILURE);
}

static void a_request_that_comes_twice_at_once_is_one(void **state)
{
	int status = end_of(watch_and_ask_twice);

	(void)state;
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), EXIT_SUCCESS);
}

static void a_second_request_ends_the_process(void **state)
{
	int status = end_of(ask_again_later);

	(void)state;
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGTERM);
}

static void what_is_ignored_stays_ignored(void **state)
{
	int status = end_of(ask_by_what_is_ignored);

	(void)state;
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), EXIT_SUCCESS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_request_that_comes_twice_at_once_is_one),
		cmocka_unit_test(a_second_request_ends_the_process),
		cmocka_unit_test(what_is_ignored_stays_ignored),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
