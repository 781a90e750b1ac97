/* SPDX-License-Identifier: MIT */
/*
 * A QEMU's monitor for tests that need one beside what they test: a thread at the other end of a
 * socket pair that knows the answers of a list, and says CommandNotFound to everything else.
 */
#ifndef ROUSE_TESTS_FAKE_MONITOR_H
#define ROUSE_TESTS_FAKE_MONITOR_H

#include "vmm/qmp.h"

#include "../unit.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct fake_answer {
	const char *command;
	const char *result; /* JSON */
	unsigned int asked; /* how often; to be read once the monitor is closed */
};

struct fake_monitor {
	struct fake_answer *answers; /* up to one without a command; of the test */
	struct qmp *qmp;
	int fd;
	pthread_t thread;
};

static const char *fake_result(struct fake_monitor *monitor, const char *command)
{
	if (strcmp(command, "qmp_capabilities") == 0)
		return "{}";
	for (struct fake_answer *a = monitor->answers; a != NULL && a->command != NULL; a++) {
		if (strcmp(a->command, command) == 0) {
			a->asked++;
			return a->result;
		}
	}
	return NULL;
}

static void *fake_monitor_run(void *argument)
{
	static const char greeting[] = "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\n";
	struct fake_monitor *monitor = argument;
	FILE *in = fdopen(dup(monitor->fd), "r");
	char line[4096], text[4096];
	int size = (int)sizeof(greeting) - 1;

	memcpy(text, greeting, sizeof(greeting));
	while (send(monitor->fd, text, (size_t)size, MSG_NOSIGNAL) == size &&
		fgets(line, sizeof(line), in) != NULL) {
		json_t *command = json_loads(line, 0, NULL);
		const char *result = fake_result(
			monitor, json_string_value(json_object_get(command, "execute")));
		const long long id = json_integer_value(json_object_get(command, "id"));

		size = result != NULL ? snprintf(text, sizeof(text),
						"{\"return\": %s, \"id\": %lld}\n", result, id)
				      : snprintf(text, sizeof(text),
						"{\"error\": {\"class\": \"CommandNotFound\", "
						"\"desc\": \"no\"}, \"id\": %lld}\n",
						id);
		json_decref(command);
	}
	(void)fclose(in);
	return NULL;
}

/* @answers: up to one without a command, or NULL. */
static void fake_monitor_open(struct fake_monitor *monitor, struct fake_answer *answers)
{
	int fds[2];

	*monitor = (struct fake_monitor){.answers = answers};
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	monitor->fd = fds[1];
	assert_int_equal(pthread_create(&monitor->thread, NULL, fake_monitor_run, monitor), 0);
	assert_int_equal(qmp_attach(fds[0], 5000, NULL, &monitor->qmp, NULL), 0);
}

static void fake_monitor_close(struct fake_monitor *monitor)
{
	qmp_close(monitor->qmp);
	(void)pthread_join(monitor->thread, NULL);
	(void)close(monitor->fd);
}

#endif
