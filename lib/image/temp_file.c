/* SPDX-License-Identifier: MIT */
#include "image/temp_file.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/io.h"
#include "image/flat_format.h"
#include "image/format.h"

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

/*
 * Whether a file is of a kind that is written here: an image, a flat file, a migration stream of
 * QEMU. Their magic numbers: image/format.h, image/flat_format.h, QEMU's migration/savevm.c. An
 * empty one is: mktemp(1) makes such.
 */
static bool is_of_our_kinds(int fd, off_t size)
{
	char head[8] = {0}, foot[8] = {0};

	if (size == 0)
		return true;
	if (pread(fd, head, sizeof(head), 0) < 0)
		return false;
	if (size >= (off_t)ROUSE_FLAT_FOOTER_BYTES &&
		pread(fd, foot, sizeof(foot), size - (off_t)ROUSE_FLAT_FOOTER_BYTES) < 0)
		return false;
	return memcmp(head, ROUSE_IMAGE_MAGIC, sizeof(head)) == 0 || memcmp(head, "QEVM", 4) == 0 ||
	       memcmp(foot, ROUSE_FLAT_MAGIC, sizeof(foot)) == 0;
}

/*
 * The wrong name completed must not cost the user a file that only he has: the VM's disk, for one,
 * which would be gone with its last name when QEMU ends.
 */
static int check_replaced(
	const char *path, const struct rouse_temp_file *file, struct rouse_error *error)
{
	cleanup_close int fd =
		openat(file->directory_fd, file->name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	struct stat status;

	if (fd < 0 || fstat(fd, &status) < 0)
		return errno == ENOENT
			       ? 0
			       : rouse_error_errno(error, -errno, "cannot look at %s", path);
	if (is_of_our_kinds(fd, status.st_size))
		return 0;
	return rouse_error_set(error, ROUSE_ERROR_USAGE, -EEXIST,
		"%s is there and is no image, flat file or migration stream: it is not replaced; "
		"give another name, or remove it",
		path);
}

/* Renaming over /dev/null would be a bad surprise. */
static int check_target(
	const char *path, const struct rouse_temp_file *file, struct rouse_error *error)
{
	struct stat status;

	if (rouse_io_is_open_file(path))
		return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
			"%s stands for an open file, as standard output is: name the file itself",
			path);
	if (fstatat(file->directory_fd, file->name, &status, 0) < 0)
		return 0;
	if (S_ISREG(status.st_mode))
		return check_replaced(path, file, error);
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

int rouse_temp_file_open_nameless(const struct rouse_temp_file *file)
{
	struct rouse_temp_file named = {
		.fd = openat(
			file->directory_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, S_IRUSR | S_IWUSR),
		.directory_fd = file->directory_fd,
		.name = file->name,
	};
	int code;

	if (named.fd >= 0)
		return named.fd;
	code = open_named(&named);
	if (code < 0)
		return code;
	(void)unlinkat(named.directory_fd, named.temporary, 0);
	free(named.temporary);
	return named.fd;
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

/*
 * Gives the file that will be replaced a second name, which is returned. NULL: *code says why;
 * -ENOENT: there is no such file.
 */
static char *keep_old(const struct rouse_temp_file *file, int *code)
{
	*code = -EEXIST;
	for (unsigned int i = 0; *code == -EEXIST && i < TEMPORARY_TRIES; i++) {
		cleanup_free char *name = make_temporary_name(file->name);

		if (name == NULL)
			*code = -ENOMEM;
		else if (linkat(file->directory_fd, file->name, file->directory_fd, name, 0) < 0)
			*code = -errno;
		else
			return take_ptr(&name);
	}
	return NULL;
}

/* The new file loses its name, and the old one, if there was one, gets it again. */
static int take_back(const struct rouse_temp_file *file, const char *old, int kept)
{
	int result;

	if (old == NULL && kept != -ENOENT)
		return kept;
	if (old != NULL)
		result = renameat(file->directory_fd, old, file->directory_fd, file->name);
	else
		result = unlinkat(file->directory_fd, file->name, 0);
	return result < 0 ? -errno : 0;
}

static bool is_the_same(const struct stat *one, const struct stat *other)
{
	return one->st_dev == other->st_dev && one->st_ino == other->st_ino;
}

/*
 * After an error: NFS may have given the file its name all the same, and answered too late. Then
 * @old, a second name of the one that had it, gets it back; NULL: nothing had it.
 */
static void lose_name(const struct rouse_temp_file *file, const char *old)
{
	struct stat ours, there;
	bool done = fstat(file->fd, &ours) == 0 &&
		    fstatat(file->directory_fd, file->name, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
		    is_the_same(&ours, &there);

	if (done)
		(void)take_back(file, old, -ENOENT);
	else if (old != NULL)
		(void)unlinkat(file->directory_fd, old, 0);
}

/*
 * Renames over the file that @file replaces and no other. With an exchange what had the name is
 * looked at after it has lost it: nobody else can have got it in between.
 */
static int rename_over_that(struct rouse_temp_file *file)
{
	const int at = file->directory_fd;
	struct stat old;
	bool exchanged;

	if (file->temporary == NULL) /* never: it has a name by now */
		return -ENOENT;
	exchanged = renameat2(at, file->temporary, at, file->name, RENAME_EXCHANGE) == 0;
	if (!exchanged && errno != EINVAL && errno != ENOSYS)
		return errno == ENOENT ? -EBUSY : -errno;
	if (fstatat(at, exchanged ? file->temporary : file->name, &old, AT_SYMLINK_NOFOLLOW) < 0 ||
		!is_the_same(&old, &file->replaced)) {
		/* If it cannot be exchanged back, the other file keeps the name that it has. */
		if (exchanged &&
			renameat2(at, file->temporary, at, file->name, RENAME_EXCHANGE) < 0)
			free(take_ptr(&file->temporary));
		return -EBUSY;
	}
	if (exchanged) {
		(void)unlinkat(at, file->temporary, 0);
		return 0;
	}
	return renameat(at, file->temporary, at, file->name) < 0 ? -errno : 0;
}

/*
 * The final name instead of the temporary one. What had it gets *old, a second name until that is
 * on the disk. NULL: *kept says why there is none; -ENOENT: nothing had the name.
 */
static int rename_over(struct rouse_temp_file *file, char **old, int *kept)
{
	int code;

	*old = keep_old(file, kept);
	if (file->only_that)
		code = rename_over_that(file);
	else
		code = renameat(file->directory_fd, file->temporary, file->directory_fd,
			       file->name) < 0
			       ? -errno
			       : 0;
	/* Where there are no hard links, what had the name is gone if the renaming was done. */
	if (code < 0 && (*old != NULL || *kept == -ENOENT))
		lose_name(file, *old);
	return code;
}

/*
 * The name may be on the disk or not. The caller will do as if there were no new file: he lets a VM
 * go on, for one. So there must be none.
 */
static int error_directory(const struct rouse_temp_file *file, const char *old, int kept,
	int failed, struct rouse_error *error)
{
	int code = take_back(file, old, kept);
	size_t used;

	(void)rouse_error_errno(error, failed, "cannot write the directory of %s", file->name);
	if (code == 0 || error == NULL)
		return failed;
	used = strlen(error->message);
	(void)snprintf(error->message + used, sizeof(error->message) - used,
		"; the new file is there all the same and could not be taken back (%s)%s%s",
		strerrordesc_np(-code), old != NULL ? ", the old one is " : "",
		old != NULL ? old : "");
	return failed;
}

void rouse_temp_file_replaces(struct rouse_temp_file *file, const struct stat *replaced)
{
	file->only_that = true;
	file->replaced = *replaced;
}

int rouse_temp_file_commit(struct rouse_temp_file *file, struct rouse_error *error)
{
	cleanup_free char *old = NULL;
	bool done = false;
	int kept = -ENOENT, code;

	if (fsync(file->fd) < 0)
		return rouse_error_errno(error, -errno, "cannot write %s", file->name);
	if (file->temporary == NULL) {
		code = link_unnamed(file, &done);
		if (code < 0)
			lose_name(file, NULL);
		if (code < 0)
			return rouse_error_errno(error, code, "cannot create %s", file->name);
	}
	/* Of a file that was to be replaced nothing may be left to do so. */
	if (done && file->only_that) {
		(void)unlinkat(file->directory_fd, file->name, 0);
		code = -EBUSY;
	} else {
		code = done ? 0 : rename_over(file, &old, &kept);
	}
	if (code == -EBUSY && file->only_that)
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, code,
			"%s was replaced or removed meanwhile: it is left as it is", file->name);
	if (code < 0)
		return rouse_error_errno(error, code, "cannot rename to %s", file->name);
	free(take_ptr(&file->temporary));
	/* The file has its name already; without this it may lose it in a power failure. */
	if (fsync(file->directory_fd) < 0 && errno != EINVAL)
		return error_directory(file, old, kept, -errno, error);
	if (old != NULL)
		(void)unlinkat(file->directory_fd, old, 0);
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
