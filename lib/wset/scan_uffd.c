/* SPDX-License-Identifier: MIT */
/*
 * A userfaultfd(2) of another process, in our hands alone. It belongs to the memory of the process
 * that made the call, not to its descriptors: so it is made there, fetched, and closed there, while
 * one thread stands still.
 *
 *	memfd_create   a marker: a scan begins
 *	userfaultfd    fetched by us
 *	close, close   the userfaultfd, the marker
 *
 * Killed in between, at most two unused descriptors stay there. The marker tells them from others.
 */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "wset/scan_private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define MARKER "rouse-scan"
#define MARKER_LINK "/memfd:" MARKER " (deleted)"
#define UFFD_LINK "anon_inode:[userfaultfd]"

/*
 * As the kernel numbers them; older headers do not have all. With WP_ASYNC nothing that is done
 * with the descriptor can make a thread wait for us.
 */
#define FEATURE_WP (UINT64_C(1) << 0)
#define FEATURE_WP_SHMEM (UINT64_C(1) << 12)
#define FEATURE_WP_UNPOPULATED (UINT64_C(1) << 13)
#define FEATURE_WP_ASYNC (UINT64_C(1) << 15)

/* A call whose result is a number or, negative, an error. */
static int call(struct target *target, long number, const uint64_t arguments[6], const void *data,
	size_t data_bytes, const char *what, struct rouse_error *error)
{
	int64_t result = 0;
	int code = target_call(target, number, arguments, data, data_bytes, &result, error);

	if (code < 0)
		return code;
	if (result < 0)
		return rouse_error_errno(
			error, (int)result, "process %d: cannot %s", target_pid(target), what);
	return (int)result;
}

static int close_there(struct target *target, int fd, struct rouse_error *error)
{
	const uint64_t arguments[6] = {(uint64_t)fd};

	return call(target, SYS_close, arguments, NULL, 0, "close a descriptor", error);
}

int scan_drop(struct target *target, uint64_t address, uint64_t bytes, struct rouse_error *error)
{
	const uint64_t arguments[6] = {address, bytes, MADV_DONTNEED};

	return call(target, SYS_madvise, arguments, NULL, 0, "unmap shared memory", error);
}

/* Whether a userfaultfd has not been set up yet (UFFDIO_API): its fdinfo shows no features. */
static bool is_unused(const struct target *target, int fd)
{
	static const char key[] = "API:\t";
	cleanup_free char *text = NULL;
	unsigned int api, features;
	char path[64];
	const char *line;
	size_t size;

	(void)snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", target_pid(target), fd);
	if (rouse_io_read_file(path, 4096, &text, &size) < 0)
		return false;
	line = strstr(text, key);
	return line != NULL && sscanf(line + strlen(key), "%x:%x", &api, &features) == 2 &&
	       features == 0;
}

enum kind { KIND_OTHER, KIND_MARKER, KIND_UNUSED_UFFD };

static enum kind kind_of(const struct target *target, int directory, const char *name)
{
	char link[64];
	ssize_t length = readlinkat(directory, name, link, sizeof(link) - 1);

	if (length < 0)
		return KIND_OTHER;
	link[length] = '\0';
	if (strcmp(link, MARKER_LINK) == 0)
		return KIND_MARKER;
	if (strcmp(link, UFFD_LINK) == 0 && is_unused(target, atoi(name)))
		return KIND_UNUSED_UFFD;
	return KIND_OTHER;
}

/* The first descriptor of that kind; negative: there is none. */
static int find_fd(const struct target *target, enum kind wanted)
{
	const struct dirent *entry;
	char path[64];
	DIR *directory;
	int fd = -ENOENT;

	(void)snprintf(path, sizeof(path), "/proc/%d/fd", target_pid(target));
	directory = opendir(path);
	if (directory == NULL)
		return -errno;
	while (fd < 0 && (entry = readdir(directory)) != NULL) {
		if (entry->d_name[0] != '.' &&
			kind_of(target, dirfd(directory), entry->d_name) == wanted)
			fd = atoi(entry->d_name);
	}
	(void)closedir(directory);
	return fd;
}

/*
 * Nobody else can be at work here: scans begin with the process locked by target_stop(). The marker
 * goes last, so that a death in between leaves something to go on with.
 */
static int clean(struct target *target, bool *found, struct rouse_error *error)
{
	int marker, fd, code = 0;

	*found = false;
	while (code == 0 && (marker = find_fd(target, KIND_MARKER)) >= 0) {
		*found = true;
		while (code == 0 && (fd = find_fd(target, KIND_UNUSED_UFFD)) >= 0)
			code = close_there(target, fd, error);
		if (code == 0)
			code = close_there(target, marker, error);
	}
	return code;
}

int scan_clean(struct target *target, bool *found, struct rouse_error *error)
{
	int code = target_stop(target, error);

	if (code == 0)
		code = clean(target, found, error);
	target_go(target);
	return code;
}

/*
 * Makes and fetches it. What is made there is closed there, whatever fails; where that fails, too,
 * the marker stays, by which clean() finds the userfaultfd.
 */
static int make(struct target *target, int *uffd, struct rouse_error *error)
{
	const uint64_t marker_arguments[6] = {TARGET_DATA, MFD_CLOEXEC};
	const uint64_t arguments[6] = {O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY};
	int marker = call(target, SYS_memfd_create, marker_arguments, MARKER, sizeof(MARKER),
		"make a memfd", error);
	int fd, closed;

	if (marker < 0)
		return marker;
	fd = call(target, SYS_userfaultfd, arguments, NULL, 0, "use userfaultfd", error);
	if (fd >= 0) {
		*uffd = target_fetch_fd(target, fd);
		closed = close_there(target, fd, error);
		if (closed < 0)
			return closed;
		if (*uffd < 0)
			fd = rouse_error_errno(error, *uffd, "cannot fetch a userfaultfd");
	}
	closed = close_there(target, marker, fd < 0 ? NULL : error);
	return fd < 0 ? fd : closed;
}

static int negotiate(int uffd)
{
	struct uffdio_api api = {.api = UFFD_API,
		.features =
			FEATURE_WP | FEATURE_WP_SHMEM | FEATURE_WP_UNPOPULATED | FEATURE_WP_ASYNC};

	return ioctl(uffd, UFFDIO_API, &api) < 0 ? -ENOTSUP : 0;
}

int scan_uffd_probe(void)
{
	cleanup_close int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	return uffd < 0 ? -errno : negotiate(uffd);
}

int scan_uffd_open(struct target *target, int *uffd, uint64_t *stop_ns, struct rouse_error *error)
{
	uint64_t began_ns;
	bool unused;
	int code = target_stop(target, error);

	*uffd = -1;
	if (code < 0)
		return code;
	began_ns = rouse_clock_ns();
	code = clean(target, &unused, error);
	if (code == 0)
		code = make(target, uffd, error);
	target_go(target);
	*stop_ns = rouse_clock_ns() - began_ns;
	if (code == 0 && negotiate(*uffd) < 0)
		code = rouse_error_set(error, ROUSE_ERROR_REFUSED, -ENOTSUP,
			"this kernel's userfaultfd has no asynchronous write protection: scanning "
			"needs Linux 6.7 or later");
	if (code < 0 && *uffd >= 0)
		(void)close(take_fd(uffd));
	return code;
}

int scan_uffd_register(int uffd, const struct scan_area *area, struct rouse_error *error)
{
	struct uffdio_register what = {.range = {.start = area->address, .len = area->bytes},
		.mode = UFFDIO_REGISTER_MODE_WP};

	if (ioctl(uffd, UFFDIO_REGISTER, &what) == 0)
		return 0;
	if (errno == EBUSY)
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EBUSY,
			"the memory has a userfaultfd already: it is being traced or scanned, or "
			"QEMU is in a postcopy migration or background-snapshot");
	return rouse_error_errno(error, -errno, "cannot watch the memory");
}
