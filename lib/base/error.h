/* SPDX-License-Identifier: MIT */
/*
 * How control paths say what went wrong: a return of -errno, and a caller-owned struct rouse_error
 * as the last argument, which may be NULL. Hot paths return -errno alone.
 */
#ifndef ROUSE_BASE_ERROR_H
#define ROUSE_BASE_ERROR_H

#include <rouse.h>

#include <errno.h>

/**
 * Fills in @error, if there is one, and returns @code, so that failing is one statement:
 * `return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN, "chunk %u ...", n);`
 * @code is a negative errno value.
 */
int rouse_error_set(struct rouse_error *error, enum rouse_error_kind kind, int code,
	const char *format, ...) __attribute__((format(printf, 4, 5)));

/** The same for a failed system call: kind SYSTEM, and ": <text of -code>" is appended. */
int rouse_error_errno(struct rouse_error *error, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/** Puts "<prefix>: " before the message: for a caller that knows more. Returns the error's code. */
int rouse_error_prefix(struct rouse_error *error, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

#endif
