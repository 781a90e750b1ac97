/* SPDX-License-Identifier: MIT */
/* Watching a job of the library: its log, its progress, and the signals that cancel it. */
#include "tool.h"

#include "progress.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

struct watch {
	struct rouse_observer observer;
	struct progress progress;
	pthread_mutex_t lock; /* the log may be called from any thread */
	bool quiet, verbose;
	void *context;
};

static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
#define SIGNAL_COUNT (sizeof(signals) / sizeof(signals[0]))

/* What the signals' handler cancels: a handler has no other way to know. */
static struct rouse_cancel *volatile job;

static void on_signal(int number)
{
	(void)number;
	if (job != NULL)
		rouse_cancel_fire(job);
	/* Whoever asks a second time does not want to wait for a clean end. */
	for (size_t i = 0; i < SIGNAL_COUNT; i++)
		(void)signal(signals[i], SIG_DFL);
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
