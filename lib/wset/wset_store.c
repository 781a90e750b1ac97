/* SPDX-License-Identifier: MIT */
#include "wset/wset_store.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/io.h"

#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>

#define RETRY_NS 5000000L

int rouse_wset_store_check(const char *path, struct rouse_error *error)
{
	cleanup_free char *copy = rouse_io_follow_links(path);

	if (copy == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot write %s", path);
	if (access(dirname(copy), W_OK | X_OK) < 0)
		return rouse_error_errno(
			error, -errno, "cannot write %s, because of its directory", path);
	return 0;
}

int rouse_wset_store_lock(struct rouse_wset_store *store, const char *path, unsigned int timeout_ms,
	struct rouse_error *error)
{
	const uint64_t end_ns = rouse_clock_ns() + (uint64_t)timeout_ms * 1000000;
	cleanup_free char *copy = NULL;
	cleanup_close int fd = -1;

	free(store->real);
	store->real = rouse_io_follow_links(path);
	store->path = store->real;
	store->directory = -1;
	copy = store->real != NULL ? strdup(store->real) : NULL;
	if (copy == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot lock %s", path);
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return rouse_error_errno(error, -errno, "cannot open the directory of %s", path);
	/* flock(2) has no timeout: a lock that somebody keeps must not hang us. */
	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		int code = -errno;

		if (code == -EWOULDBLOCK && rouse_clock_ns() >= end_ns)
			return rouse_error_set(error, ROUSE_ERROR_REFUSED, -ETIMEDOUT,
				"somebody else keeps the directory of %s locked", path);
		if (code != -EWOULDBLOCK && code != -EINTR)
			return rouse_error_errno(
				error, code, "cannot lock the directory of %s", path);
		(void)nanosleep(&(struct timespec){.tv_nsec = RETRY_NS}, NULL);
	}
	store->directory = take_fd(&fd);
	return 0;
}

int rouse_wset_store_read(
	const struct rouse_wset_store *store, struct rouse_wset **wset, struct rouse_error *error)
{
	*wset = NULL;
	if (access(store->path, F_OK) < 0 && errno == ENOENT)
		return 0;
	return rouse_wset_open(store->path, wset, error);
}

int rouse_wset_store_write(const struct rouse_wset_store *store, const struct rouse_wset *wset,
	struct rouse_error *error)
{
	char temporary[PATH_MAX];
	int code;

	if (snprintf(temporary, sizeof(temporary), "%s.learn.tmp", store->path) >= PATH_MAX)
		return rouse_error_errno(error, -ENAMETOOLONG, "cannot write %s", store->path);
	/* Under the lock it can only be what somebody left who was killed. */
	(void)unlink(temporary);
	code = rouse_wset_write_by(wset, store->path, temporary, error);
	if (code == -EEXIST)
		return rouse_error_errno(error, code, "cannot write %s", temporary);
	return code;
}

void rouse_wset_store_unlock(struct rouse_wset_store *store)
{
	if (store->directory >= 0)
		(void)close(store->directory);
	store->directory = -1;
	free(store->real);
	store->real = NULL;
	store->path = NULL;
}
