/* SPDX-License-Identifier: MIT */
#include "../unit.h"

#include "base/observer.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct seen {
	enum rouse_log_level level;
	char line[2048];
	struct rouse_progress progress;
	enum rouse_event event;
	const char *text;
	int calls;
};

static void on_log(void *user, enum rouse_log_level level, const char *message)
{
	struct seen *seen = user;

	seen->level = level;
	(void)strncpy(seen->line, message, sizeof(seen->line) - 1);
	seen->calls++;
}

static void on_progress(void *user, const struct rouse_progress *progress)
{
	struct seen *seen = user;

	seen->progress = *progress;
	seen->calls++;
}

static void on_event(void *user, enum rouse_event event, const char *text)
{
	struct seen *seen = user;

	seen->event = event;
	seen->text = text;
	seen->calls++;
}

static void log_formats_the_line(void **state)
{
	struct seen seen = {0};
	const struct rouse_observer observer = {.user = &seen, .log = on_log};

	(void)state;
	rouse_log(&observer, ROUSE_LOG_WARNING, "%d of %s", 3, "four");
	assert_int_equal(seen.level, ROUSE_LOG_WARNING);
	assert_string_equal(seen.line, "3 of four");
}

static void log_cuts_a_long_line(void **state)
{
	struct seen seen = {0};
	const struct rouse_observer observer = {.user = &seen, .log = on_log};
	char text[4000];

	(void)state;
	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	rouse_log(&observer, ROUSE_LOG_INFO, "%s", text);
	assert_in_range(strlen(seen.line), 500, 1024);
}

static void progress_and_event_are_handed_on(void **state)
{
	struct seen seen = {0};
	const struct rouse_observer observer = {
		.user = &seen, .progress = on_progress, .event = on_event};

	(void)state;
	rouse_progress(&observer, "saving", 5, 9);
	assert_string_equal(seen.progress.phase, "saving");
	assert_int_equal(seen.progress.done, 5);
	assert_int_equal(seen.progress.total, 9);
	rouse_event(&observer, ROUSE_EVENT_QEMU_STARTED, "/a/socket");
	assert_int_equal(seen.event, ROUSE_EVENT_QEMU_STARTED);
	assert_string_equal(seen.text, "/a/socket");
	assert_int_equal(seen.calls, 2);
}

static void an_observer_may_be_absent_or_empty(void **state)
{
	const struct rouse_observer empty = {0};
	const struct rouse_observer *observers[] = {NULL, &empty};

	(void)state;
	for (int i = 0; i < 2; i++) {
		rouse_log(observers[i], ROUSE_LOG_ERROR, "unseen");
		rouse_progress(observers[i], "unseen", 0, 0);
		rouse_event(observers[i], ROUSE_EVENT_COMPLETE, NULL);
		assert_false(rouse_cancelled(observers[i]));
		assert_int_equal(rouse_observer_cancel_fd(observers[i]), -1);
	}
	assert_int_equal(rouse_cancel_fd(NULL), -1);
	rouse_cancel_free(NULL);
}

static int new_cancel(void **state)
{
	return rouse_cancel_new((struct rouse_cancel **)state);
}

static int free_cancel(void **state)
{
	rouse_cancel_free(*state);
	return 0;
}

static void firing_cancels_for_good(void **state)
{
	struct rouse_cancel *cancel = *state;
	const struct rouse_observer observer = {.cancel = cancel};

	assert_false(rouse_cancelled(&observer));
	rouse_cancel_fire(cancel);
	assert_true(rouse_cancelled(&observer));
	rouse_cancel_fire(cancel);
	assert_true(rouse_cancelled(&observer));
}

static void firing_leaves_errno_alone(void **state)
{
	struct rouse_cancel *cancel = *state;

	errno = EDOM;
	rouse_cancel_fire(cancel);
	assert_int_equal(errno, EDOM);
}

static void *fire(void *cancel)
{
	rouse_cancel_fire(cancel);
	return NULL;
}

static void firing_from_a_thread_wakes_poll(void **state)
{
	struct rouse_cancel *cancel = *state;
	struct pollfd fd = {.fd = rouse_cancel_fd(cancel), .events = POLLIN};
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, fire, cancel), 0);
	assert_int_equal(poll(&fd, 1, 10000), 1);
	assert_int_equal(pthread_join(thread, NULL), 0);
}

static struct rouse_cancel *signalled;

static void on_signal(int number)
{
	(void)number;
	rouse_cancel_fire(signalled);
}

static void firing_works_in_a_signal_handler(void **state)
{
	const struct rouse_observer observer = {.cancel = *state};
	struct sigaction action = {.sa_handler = on_signal}, old;

	signalled = *state;
	assert_int_equal(sigaction(SIGUSR1, &action, &old), 0);
	assert_int_equal(raise(SIGUSR1), 0);
	assert_int_equal(sigaction(SIGUSR1, &old, NULL), 0);
	assert_true(rouse_cancelled(&observer));
}

static void the_version_has_three_numbers(void **state)
{
	unsigned int major, minor, patch;
	char rest;

	(void)state;
	assert_int_equal(sscanf(rouse_version(), "%u.%u.%u%c", &major, &minor, &patch, &rest), 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(log_formats_the_line),
		cmocka_unit_test(log_cuts_a_long_line),
		cmocka_unit_test(progress_and_event_are_handed_on),
		cmocka_unit_test(an_observer_may_be_absent_or_empty),
		cmocka_unit_test_setup_teardown(firing_cancels_for_good, new_cancel, free_cancel),
		cmocka_unit_test_setup_teardown(firing_leaves_errno_alone, new_cancel, free_cancel),
		cmocka_unit_test_setup_teardown(
			firing_from_a_thread_wakes_poll, new_cancel, free_cancel),
		cmocka_unit_test_setup_teardown(
			firing_works_in_a_signal_handler, new_cancel, free_cancel),
		cmocka_unit_test(the_version_has_three_numbers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
