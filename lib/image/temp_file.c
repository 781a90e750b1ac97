/* SPDX-License-Identifier: MIT */
#include "image/temp_file.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#define TEMPORARY_TRIES 100

/* Splits a path: the directory is opened, the rest is the name in it. */
static int open_directory(const char *path, struct rouse_temp_file *file, struct rouse_error *error)
{
	const char *slash = strrchr(path, '/');
	const char *name = slash != NULL ? slash + 1 : path;
	cleanup_free char *directory = NULL;

	if (*name == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return rouse_error_set(
			error, ROUSE_ERROR_USAGE, -EINVAL, "%s does not name a file", path);
	if (slash == NULL)
		directory = strdup(".");
	else
		directory = strndup(path, slash == path ? 1 : (size_t)(slash - path));
	file->name = strdup(name);
	if (directory == NULL || file->name == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot create %s", path);
	file->directory_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (file->directory_fd < 0)
		return rouse_error_errno(error, -errno, "cannot open the directory of %s", path);
	return 0;
}

/* Renaming over /dev/null would be a bad surprise. */
static int check_target(
	const char *path, const struct rouse_temp_file *file, struct rouse_error *error)
{
	struct stat status;

	if (fstatat(file->directory_fd, file->name, &status, 0) < 0 || S_ISREG(status.st_mode))
		return 0;
	return rouse_error_set(
		error, ROUSE_ERROR_USAGE, -EINVAL, "%s is there and is not a regular file", path);
}

/* A fresh ".NAME.XXXXXX.tmp". */
static char *make_temporary_name(const char *name)
{
	char *result = NULL;
	uint32_t number = 0;

	(void)getrandom(&number, sizeof(number), 0);
	/* Cut, because a long name with more around it may not be a name any more. */
	if (asprintf(&result, ".%.200s.%06" PRIx32 ".tmp", name, number & 0xffffff) < 0)
		return NULL;
	return result;
}

static int open_named(struct rouse_temp_file *file)
{
	for (unsigned int i = 0; i < TEMPORARY_TRIES; i++) {
		cleanup_free char *name = make_temporary_name(file->name);

		if (name == NULL)
			return -ENOMEM;
		file->fd = openat(file->directory_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC,
			S_IRUSR | S_IWUSR);
		if (file->fd >= 0) {
			file->temporary = take_ptr(&name);
			return 0;
		}
		if (errno != EEXIST)
			return -errno;
	}
	return -EEXIST;
}

static int open_unnamed(struct rouse_temp_file *file)
{
	/* Giving it a name later goes through /proc. */
	if (access("/proc/self/fd", X_OK) < 0)
		return -errno;
	file->fd =
		openat(file->directory_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, S_IRUSR | S_IWUSR);
	return file->fd < 0 ? -errno : 0;
}

int rouse_temp_file_open(const char *path, struct rouse_temp_file *file, struct rouse_error *error)
{
	int code;

	*file = (struct rouse_temp_file){.fd = -1, .directory_fd = -1};
	code = open_directory(path, file, error);
	if (code == 0)
		code = check_target(path, file, error);
	if (code == 0 && open_unnamed(file) < 0) {
		code = open_named(file);
		if (code < 0)
			rouse_error_errno(error, code, "cannot create %s", path);
	}
	if (code < 0)
		rouse_temp_file_discard(file);
	return code;
}

static int link_to(const struct rouse_temp_file *file, const char *name)
{
	char self[64];

	(void)snprintf(self, sizeof(self), "/proc/self/fd/%d", file->fd);
	return linkat(AT_FDCWD, self, file->directory_fd, name, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
}

/* Names a file that has none: the final name if it is free, else one to rename from. */
static int link_unnamed(struct rouse_temp_file *file, bool *done)
{
	int code = link_to(file, file->name);

	*done = code == 0;
	for (unsigned int i = 0; code == -EEXIST && i < TEMPORARY_TRIES; i++) {
		cleanup_free char *name = make_temporary_name(file->name);

		if (name == NULL)
			return -ENOMEM;
		code = link_to(file, name);
		if (code == 0)
			file->temporary = take_ptr(&name);
	}
	return code;
}

int rouse_temp_file_commit(struct rouse_temp_file *file, struct rouse_error *error)
{
	bool done = false;
	int code;

	if (fsync(file->fd) < 0)
		return rouse_error_errno(error, -errno, "cannot write %s", file->name);
	if (file->temporary == NULL) {
		code = link_unnamed(file, &done);
		if (code < 0)
			return rouse_error_errno(error, code, "cannot create %s", file->name);
	}
	if (!done &&
		renameat(file->directory_fd, file->temporary, file->directory_fd, file->name) < 0)
		return rouse_error_errno(error, -errno, "cannot rename to %s", file->name);
	free(take_ptr(&file->temporary));
	/* The file has its name already; without this it may lose it in a power failure. */
	if (fsync(file->directory_fd) < 0 && errno != EINVAL)
		return rouse_error_errno(
			error, -errno, "cannot write the directory of %s", file->name);
	return 0;
}

void rouse_temp_file_discard(struct rouse_temp_file *file)
{
	if (file->temporary != NULL)
		(void)unlinkat(file->directory_fd, file->temporary, 0);
	if (file->fd >= 0)
		(void)close(file->fd);
	if (file->directory_fd >= 0)
		(void)close(file->directory_fd);
	free(file->temporary);
	free(file->name);
	*file = (struct rouse_temp_file){.fd = -1, .directory_fd = -1};
}
