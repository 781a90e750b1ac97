/* SPDX-License-Identifier: MIT */
/*
 * Probes that may hang or do harm run in a child process with a time limit. Children are ended by
 * their process id and reaped.
 */
#ifndef ROUSE_API_DOCTOR_CHILD_H
#define ROUSE_API_DOCTOR_CHILD_H

#include <stddef.h>

/**
 * Runs @probe(@user) in a forked child. It must keep to what is allowed between fork(2) and exec in
 * a program with threads: system calls. Returns what it returned (0 to 255), -ETIMEDOUT if it took
 * longer and was killed, -EFAULT if a signal ended it, or what fork(2) gave.
 */
int rouse_child_probe(int (*probe)(void *user), void *user, unsigned int timeout_ms);

/**
 * Runs a program and keeps the beginning of what it prints, stderr too, as a string in @text. It
 * is killed at the time limit or, if @until is not NULL, when @until has been printed. 0: it has
 * ended or printed @until; -ETIMEDOUT; or why it could not be started (-ENOENT).
 */
int rouse_child_output(const char *const *argv, const char *until, unsigned int timeout_ms,
	char *text, size_t room);

#endif
