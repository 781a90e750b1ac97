/* SPDX-License-Identifier: MIT */
#include "base/observer.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct rouse_cancel {
	int fd; /* an eventfd: writing to it is allowed in a signal handler, and poll(2) sees it */
};

int rouse_cancel_new(struct rouse_cancel **cancel)
{
	struct rouse_cancel *c = malloc(sizeof(*c));

	if (c == NULL)
		return -ENOMEM;
	c->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->fd < 0) {
		int code = -errno;

		free(c);
		return code;
	}
	*cancel = c;
	return 0;
}

void rouse_cancel_fire(struct rouse_cancel *cancel)
{
	uint64_t one = 1;
	int saved = errno;
	/* It can only fail when it has been fired 2^64 - 2 times: then it is readable anyway. */
	ssize_t ignored = write(cancel->fd, &one, sizeof(one));

	(void)ignored;
	errno = saved;
}

void rouse_cancel_free(struct rouse_cancel *cancel)
{
	if (cancel == NULL)
		return;
	(void)close(cancel->fd);
	free(cancel);
}

int rouse_cancel_fd(const struct rouse_cancel *cancel)
{
	return cancel != NULL ? cancel->fd : -1;
}

int rouse_observer_cancel_fd(const struct rouse_observer *observer)
{
	return observer != NULL ? rouse_cancel_fd(observer->cancel) : -1;
}

bool rouse_cancelled(const struct rouse_observer *observer)
{
	struct pollfd fd = {.fd = rouse_observer_cancel_fd(observer), .events = POLLIN};

	return fd.fd >= 0 && poll(&fd, 1, 0) > 0;
}

void rouse_log(
	const struct rouse_observer *observer, enum rouse_log_level level, const char *format, ...)
{
	char line[1024];
	va_list args;

	if (observer == NULL || observer->log == NULL)
		return;
	va_start(args, format);
	(void)vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	observer->log(observer->user, level, line);
}

void rouse_progress(
	const struct rouse_observer *observer, const char *phase, uint64_t done, uint64_t total)
{
	rouse_progress_in(observer, ROUSE_PROGRESS_BYTES, phase, done, total);
}

void rouse_progress_in(const struct rouse_observer *observer, enum rouse_progress_unit unit,
	const char *phase, uint64_t done, uint64_t total)
{
	struct rouse_progress progress = {
		.phase = phase, .done = done, .total = total, .unit = unit};

	if (observer != NULL && observer->progress != NULL)
		observer->progress(observer->user, &progress);
}

void rouse_event(const struct rouse_observer *observer, enum rouse_event event, const char *text)
{
	if (observer != NULL && observer->event != NULL)
		observer->event(observer->user, event, text);
}
