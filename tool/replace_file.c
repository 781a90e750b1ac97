/* SPDX-License-Identifier: MIT */
#include "replace_file.h"

#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_LINKS 40 /* as many as the kernel follows */

static bool begins_with(const char *path, const char *directory)
{
	const size_t length = strlen(directory);

	return strncmp(path, directory, length) == 0 &&
	       (path[length] == '/' || path[length] == '\0');
}

/* The directory that the last name of @path is in, with all links followed. False: none. */
static bool directory_of(const char *path, char real[PATH_MAX])
{
	const char *slash = strrchr(path, '/');
	char *name = slash == NULL ? strdup(".") : strndup(path, (size_t)(slash - path) + 1);
	const bool found = name != NULL && realpath(name, real) != NULL;

	free(name);
	return found;
}

bool replace_is_open_file(const char *path)
{
	char here[PATH_MAX], directory[PATH_MAX], target[PATH_MAX];
	struct stat status;

	if (snprintf(here, sizeof(here), "%s", path) >= (int)sizeof(here))
		return false;
	for (unsigned int i = 0; i < MAX_LINKS; i++) {
		ssize_t length;
		int used;

		if (lstat(here, &status) < 0 || !S_ISLNK(status.st_mode) ||
			!directory_of(here, directory))
			return false;
		/* Files in /dev/shm are files. */
		if (begins_with(directory, "/proc") ||
			(begins_with(directory, "/dev") && !begins_with(directory, "/dev/shm")))
			return true;
		length = readlink(here, target, sizeof(target) - 1);
		if (length < 0)
			return false;
		target[length] = '\0';
		used = target[0] == '/' ? snprintf(here, sizeof(here), "%s", target)
					: snprintf(here, sizeof(here), "%s/%s", directory, target);
		if (used < 0 || (size_t)used >= sizeof(here))
			return false;
	}
	return false;
}

bool replace_is_same_file(const char *one, const char *other)
{
	struct stat a, b;

	return strcmp(one, other) == 0 || (stat(one, &a) == 0 && stat(other, &b) == 0 &&
						  a.st_dev == b.st_dev && a.st_ino == b.st_ino);
}

bool replace_is_possible(const char *path)
{
	struct stat status;

	if (stat(path, &status) == 0)
		return S_ISREG(status.st_mode) && !replace_is_open_file(path);
	return lstat(path, &status) < 0;
}

static bool takes_text(const char *path)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat status;
	char begin[4096];
	ssize_t n = 0;

	if (fd < 0)
		return true; /* writing will say why it cannot be, if so */
	if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode))
		n = read(fd, begin, sizeof(begin));
	(void)close(fd);
	return n <= 0 || memchr(begin, '\0', (size_t)n) == NULL;
}

bool replace_check_text(const char *path)
{
	if (takes_text(path))
		return true;
	message(MESSAGE_ERROR,
		"%s is there and is no text: it is not replaced; name another file, or remove it "
		"first",
		path);
	return false;
}

#define TEMPORARY_END ".XXXXXX"

int replace_begin(const char *path, char **temporary)
{
	const mode_t mask = umask(0);
	char *real = realpath(path, NULL); /* a link stays one */
	mode_t mode = 0666 & ~mask;
	struct stat status;
	int fd, code;

	(void)umask(mask);
	if (stat(path, &status) == 0)
		mode = status.st_mode & 0777;
	code = asprintf(temporary, "%s" TEMPORARY_END, real != NULL ? real : path);
	free(real);
	if (code < 0) {
		*temporary = NULL;
		return -ENOMEM;
	}
	fd = mkostemp(*temporary, O_CLOEXEC);
	if (fd >= 0 && fchmod(fd, mode) == 0)
		return fd;
	code = -errno;
	if (fd >= 0) {
		(void)close(fd);
		(void)unlink(*temporary);
	}
	free(*temporary);
	*temporary = NULL;
	return code;
}

int replace_end(char *temporary, int code)
{
	const size_t length = temporary != NULL ? strlen(temporary) : 0;
	char *name = length > 0 ? strndup(temporary, length - strlen(TEMPORARY_END)) : NULL;

	if (code == 0 && (name == NULL || rename(temporary, name) < 0))
		code = name != NULL ? -errno : -ENOMEM;
	if (code < 0 && temporary != NULL)
		(void)unlink(temporary);
	free(name);
	free(temporary);
	return code;
}

static int write_json(const json_t *json, FILE *file, size_t flags)
{
	int code = 0;

	errno = 0;
	if (json_dumpf(json, file, flags) < 0 || fflush(file) != 0)
		code = errno != 0 ? -errno : -EIO;
	/* Else a power failure may leave an empty file under the name of the old one. */
	if (code == 0 && fsync(fileno(file)) < 0 && errno != EINVAL && errno != EROFS)
		code = -errno;
	if (fclose(file) != 0 && code == 0)
		code = -errno;
	return code;
}

int replace_by_json(const json_t *json, const char *path, size_t flags)
{
	char *temporary = NULL;
	FILE *file;
	int fd;

	if (!replace_is_possible(path)) {
		file = fopen(path, "we");
		return file != NULL ? write_json(json, file, flags) : -errno;
	}
	fd = replace_begin(path, &temporary);
	if (fd < 0)
		return fd;
	file = fdopen(fd, "w");
	if (file == NULL) {
		const int code = -errno;

		(void)close(fd);
		return replace_end(temporary, code);
	}
	return replace_end(temporary, write_json(json, file, flags));
}
