/* SPDX-License-Identifier: MIT */
/* Telling the caller of the library what goes on. All accept a NULL observer. */
#ifndef ROUSE_BASE_OBSERVER_H
#define ROUSE_BASE_OBSERVER_H

#include <rouse.h>

/** Formats and hands a line to the observer's log. Not for hot paths. */
void rouse_log(const struct rouse_observer *observer, enum rouse_log_level level,
	const char *format, ...) __attribute__((format(printf, 3, 4)));
void rouse_progress(
	const struct rouse_observer *observer, const char *phase, uint64_t done, uint64_t total);
/** The same, of something else than bytes. */
void rouse_progress_in(const struct rouse_observer *observer, enum rouse_progress_unit unit,
	const char *phase, uint64_t done, uint64_t total);
void rouse_event(const struct rouse_observer *observer, enum rouse_event event, const char *text);

/** A descriptor that becomes readable when the job is cancelled; -1 without a cancel object. */
int rouse_cancel_fd(const struct rouse_cancel *cancel);
/** Whether the observer's cancel object has been fired. */
bool rouse_cancelled(const struct rouse_observer *observer);
/** The same descriptor by the observer, which may be NULL. */
int rouse_observer_cancel_fd(const struct rouse_observer *observer);

#endif
