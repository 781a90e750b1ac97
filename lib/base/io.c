/* SPDX-License-Identifier: MIT */
#include "base/io.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define MAX_LINKS 40 /* as many as the kernel follows */
#define MEMORY_RETRY_MS 10

ssize_t rouse_io_read(int fd, void *buffer, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = read(fd, (char *)buffer + done, size - done);

		if (n == 0)
			break;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

int rouse_io_pread(int fd, void *buffer, size_t size, uint64_t offset)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = pread(fd, (char *)buffer + done, size - done, (off_t)(offset + done));

		if (n == 0)
			return -ENODATA;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return 0;
}

int rouse_io_write(int fd, const void *buffer, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = write(fd, (const char *)buffer + done, size - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return 0;
}

int rouse_io_pwrite(int fd, const void *buffer, size_t size, uint64_t offset)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = pwrite(
			fd, (const char *)buffer + done, size - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return 0;
}

int rouse_io_await_room(int fd, int cancel_fd)
{
	struct pollfd fds[] = {
		{.fd = fd, .events = POLLOUT},
		{.fd = cancel_fd, .events = POLLIN},
	};
	int n;

	do {
		n = poll(fds, 2, -1);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return fds[1].revents != 0 ? -ECANCELED : 0;
}

/*
 * After a write that the kernel had no memory for, and that sent nothing. The socket may well be
 * writable, so that poll(2) would not wait for it.
 */
static int await_memory(int cancel_fd)
{
	struct pollfd cancel = {.fd = cancel_fd, .events = POLLIN};
	int n;

	do {
		n = poll(&cancel, 1, MEMORY_RETRY_MS);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return cancel.revents != 0 ? -ECANCELED : 0;
}

int rouse_io_send(int fd, int cancel_fd, struct iovec *pieces, int count)
{
	while (count > 0) {
		struct msghdr message = {.msg_iov = pieces, .msg_iovlen = (size_t)count};
		/* As long as there is room it costs this one call, whoever may cancel. */
		ssize_t n = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
		const bool no_memory = n < 0 && (errno == ENOBUFS || errno == ENOMEM);
		int code;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN && !no_memory)
			return -errno;
		if (n < 0)
			n = 0;
		while (count > 0 && (size_t)n >= pieces->iov_len) {
			n -= (ssize_t)pieces->iov_len;
			pieces++;
			count--;
		}
		if (count == 0)
			break;
		pieces->iov_base = (char *)pieces->iov_base + n;
		pieces->iov_len -= (size_t)n;
		code = no_memory ? await_memory(cancel_fd) : rouse_io_await_room(fd, cancel_fd);
		if (code < 0)
			return code;
	}
	return 0;
}

int rouse_io_read_file(const char *path, size_t max, char **data, size_t *size)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	cleanup_free char *bytes = NULL;
	size_t room = 4096, used = 0;

	if (fd < 0)
		return -errno;
	for (;;) {
		char *more = realloc(bytes, room + 1);
		ssize_t n;

		if (more == NULL)
			return -ENOMEM;
		bytes = more;
		n = rouse_io_read(fd, bytes + used, room - used);
		if (n < 0)
			return (int)n;
		used += (size_t)n;
		if (used < room)
			break;
		if (room > max)
			return -EFBIG;
		room *= 2;
	}
	if (used > max)
		return -EFBIG;
	bytes[used] = '\0';
	*data = take_ptr(&bytes);
	*size = used;
	return 0;
}

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
	cleanup_free char *name =
		slash == NULL ? strdup(".") : strndup(path, (size_t)(slash - path) + 1);

	return name != NULL && realpath(name, real) != NULL;
}

static const char *last_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash != NULL ? slash + 1 : path;
}

/* What a path is, and if a link, to @here what it leads to. */
enum link_kind { LINK_NONE, LINK_FOLLOWED, LINK_TO_OPEN_FILE, LINK_BROKEN };

static enum link_kind follow_link(char here[PATH_MAX])
{
	char directory[PATH_MAX], target[PATH_MAX];
	struct stat status;
	ssize_t length;
	int used;

	if (lstat(here, &status) < 0 || !S_ISLNK(status.st_mode))
		return LINK_NONE;
	if (!directory_of(here, directory))
		return LINK_BROKEN;
	/* Files in /dev/shm are files. */
	if (begins_with(directory, "/proc") ||
		(begins_with(directory, "/dev") && !begins_with(directory, "/dev/shm")))
		return LINK_TO_OPEN_FILE;
	length = readlink(here, target, sizeof(target) - 1);
	if (length < 0)
		return LINK_BROKEN;
	target[length] = '\0';
	used = target[0] == '/' ? snprintf(here, PATH_MAX, "%s", target)
				: snprintf(here, PATH_MAX, "%s/%s", directory, target);
	return used < 0 || used >= PATH_MAX ? LINK_BROKEN : LINK_FOLLOWED;
}

static enum link_kind follow_links(const char *path, char here[PATH_MAX])
{
	enum link_kind kind = LINK_FOLLOWED;

	if (snprintf(here, PATH_MAX, "%s", path) >= PATH_MAX)
		return LINK_BROKEN;
	for (unsigned int i = 0; kind == LINK_FOLLOWED && i < MAX_LINKS; i++)
		kind = follow_link(here);
	return kind;
}

bool rouse_io_is_open_file(const char *path)
{
	char here[PATH_MAX];

	return follow_links(path, here) == LINK_TO_OPEN_FILE;
}

char *rouse_io_follow_links(const char *path)
{
	char here[PATH_MAX];

	return strdup(follow_links(path, here) == LINK_NONE ? here : path);
}

/* Of two files of which one at least is not there: whether they would be one. */
static bool is_same_place(const char *one, const char *other)
{
	char first[PATH_MAX], second[PATH_MAX], first_in[PATH_MAX], second_in[PATH_MAX];

	return follow_links(one, first) == LINK_NONE && follow_links(other, second) == LINK_NONE &&
	       directory_of(first, first_in) && directory_of(second, second_in) &&
	       strcmp(first_in, second_in) == 0 && strcmp(last_name(first), last_name(second)) == 0;
}

bool rouse_io_is_same_file(const char *one, const char *other)
{
	struct stat first, second;

	if (strcmp(one, other) == 0)
		return true;
	if (stat(one, &first) < 0 || stat(other, &second) < 0)
		return is_same_place(one, other);
	return first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}
