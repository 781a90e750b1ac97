/* SPDX-License-Identifier: MIT */
/*
 * A working-set file that several processes improve at once: read, change, replace, under a lock.
 *
 *   lock the directory --> read the file --> merge --> temporary file, fsync, rename --> unlock
 *
 * The lock is flock(2) on the file's directory: the file itself is replaced, so a lock on it would
 * be a lock on what was there before, and nothing is left behind. The kernel drops the lock of a
 * process that dies. The temporary file has one name, FILE.learn.tmp: what somebody left who was
 * killed while writing is used up by the next one.
 */
#ifndef ROUSE_WSET_WSET_STORE_H
#define ROUSE_WSET_WSET_STORE_H

#include "wset/wset.h"

struct rouse_wset_store {
	const char *path; /* the caller's, or real */
	char *real;       /* with links followed; of the store */
	int directory;    /* locked; -1: not */
};

#define ROUSE_WSET_STORE_INIT   \
	{                       \
		.directory = -1 \
	}

/** Whether a file could be written at @path, as far as its directory says. -ENOENT, -EACCES, ... */
int rouse_wset_store_check(const char *path, struct rouse_error *error);
/**
 * Waits up to @timeout_ms for the lock. A link is followed: it stays one, and whoever comes by the
 * file's other names waits for the same lock. -ETIMEDOUT, and errors of opening the directory.
 */
int rouse_wset_store_lock(struct rouse_wset_store *store, const char *path, unsigned int timeout_ms,
	struct rouse_error *error);
/** The set that is there: *wset is NULL if there is no file. Errors as rouse_wset_open(). */
int rouse_wset_store_read(
	const struct rouse_wset_store *store, struct rouse_wset **wset, struct rouse_error *error);
/** Replaces it. Errors as rouse_wset_write(). */
int rouse_wset_store_write(const struct rouse_wset_store *store, const struct rouse_wset *wset,
	struct rouse_error *error);
/** Safe without a lock, and twice. */
void rouse_wset_store_unlock(struct rouse_wset_store *store);

#endif
