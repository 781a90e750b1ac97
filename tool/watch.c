/* SPDX-License-Identifier: MIT */
/* Watching a job of the library: its log, its progress, and the signals that cancel it. */
#include "tool.h"

#include "progress.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct watch {
	struct rouse_observer observer;
	struct progress progress;
	pthread_mutex_t lock; /* the log may be called from any thread */
	bool quiet, verbose;
	void *context;
};

static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
#define SIGNAL_COUNT (sizeof(signals) / sizeof(signals[0]))

#define SAME_REQUEST_NS UINT64_C(1000000000)

/* What the signals' handler cancels: a handler has no other way to know. */
static struct rouse_cancel *volatile job;
/* When the first signal came; 0: none has. Any thread may get one. */
static _Atomic uint64_t asked_ns;

static uint64_t now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/*
 * Whoever asks a second time does not want to wait for a clean end. But what comes at once is the
 * same request: timeout(1) signals its child and then the group, a terminal that closes sends two.
 */
static void on_signal(int number)
{
	const int saved = errno;
	const uint64_t now = now_ns();
	uint64_t first = 0;

	if (atomic_compare_exchange_strong(&asked_ns, &first, now)) {
		if (job != NULL)
			rouse_cancel_fire(job);
	} else if (now > first && now - first > SAME_REQUEST_NS) {
		/* It is not one that is ignored on purpose: those have no handler. */
		(void)signal(number, SIG_DFL);
		(void)raise(number);
	}
	errno = saved;
}

static void set_handlers(void (*handler)(int))
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART}, old;

	(void)sigemptyset(&action.sa_mask);
	for (size_t i = 0; i < SIGNAL_COUNT; i++) {
		/* nohup(1) and shells have a signal ignored on purpose. */
		if (sigaction(signals[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
			(void)sigaction(signals[i], &action, NULL);
	}
}

static void on_log(void *user, enum rouse_log_level level, const char *text)
{
	struct watch *watch = user;

	if ((level == ROUSE_LOG_INFO && watch->quiet) ||
		(level == ROUSE_LOG_DEBUG && !watch->verbose))
		return;
	(void)pthread_mutex_lock(&watch->lock);
	progress_clear(&watch->progress);
	message(level == ROUSE_LOG_ERROR     ? MESSAGE_ERROR
		: level == ROUSE_LOG_WARNING ? MESSAGE_WARNING
					     : MESSAGE_NOTE,
		"%s", text);
	(void)pthread_mutex_unlock(&watch->lock);
}

static void on_progress(void *user, const struct rouse_progress *now)
{
	struct watch *watch = user;

	(void)pthread_mutex_lock(&watch->lock);
	progress_update(&watch->progress, now);
	(void)pthread_mutex_unlock(&watch->lock);
}

struct watch *watch_begin(bool quiet, bool verbose)
{
	struct watch *watch = calloc(1, sizeof(*watch));
	int code = watch != NULL ? rouse_cancel_new(&watch->observer.cancel) : -ENOMEM;

	if (code < 0) {
		message(MESSAGE_ERROR, "%s", strerror(-code));
		free(watch);
		return NULL;
	}
	watch->quiet = quiet;
	watch->verbose = verbose;
	(void)pthread_mutex_init(&watch->lock, NULL);
	progress_init(&watch->progress, quiet);
	watch->observer.user = watch;
	watch->observer.log = on_log;
	watch->observer.progress = on_progress;
	job = watch->observer.cancel;
	atomic_store(&asked_ns, 0);
	set_handlers(on_signal);
	return watch;
}

struct rouse_observer *watch_observer(struct watch *watch)
{
	return &watch->observer;
}

void watch_set_context(struct watch *watch, void *context)
{
	watch->context = context;
}

void *watch_context(const struct watch *watch)
{
	return watch->context;
}

void watch_end(struct watch *watch)
{
	if (watch == NULL)
		return;
	set_handlers(SIG_DFL);
	job = NULL;
	progress_clear(&watch->progress);
	rouse_cancel_free(watch->observer.cancel);
	(void)pthread_mutex_destroy(&watch->lock);
	free(watch);
}
