/* SPDX-License-Identifier: MIT */
/* Opening a process, and looking at it. */
#include "base/cleanup.h"
#include "base/io.h"
#include "target/target_private.h"

#include <dirent.h>
#include <poll.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#define MAX_STATUS_BYTES (64u << 10)

static int refuse_access(const struct target *target, int code, struct rouse_error *error)
{
	if (code == -ESRCH || code == -ENOENT)
		return rouse_error_set(
			error, ROUSE_ERROR_SYSTEM, -ESRCH, "there is no process %d", target->pid);
	if (code == -ENOSYS)
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -ENOSYS,
			"this kernel has no pidfd_getfd(2): Linux 5.6 or later is needed");
	if (code == -EPERM || code == -EACCES)
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EPERM,
			"process %d may not be looked into: run as its user with "
			"kernel.yama.ptrace_scope=0, or as root",
			target->pid);
	return rouse_error_errno(error, code, "cannot look into process %d", target->pid);
}

int target_open(int pid, struct target **target, struct rouse_error *error)
{
	struct target *t = calloc(1, sizeof(*t));
	int fd, code = 0;

	if (t == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot open process %d", pid);
	t->pid = pid;
	t->lock = -1;
	t->pidfd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
	if (t->pidfd < 0)
		code = pid > 0 ? -errno : -ESRCH;
	/* The same right is needed for ptrace(2): so it is asked for before anything is done. */
	if (code == 0) {
		fd = (int)syscall(SYS_pidfd_getfd, t->pidfd, 1 << 20, 0);
		if (fd >= 0)
			(void)close(fd);
		else if (errno != EBADF)
			code = -errno;
	}
	if (code < 0) {
		code = refuse_access(t, code, error);
		target_close(t);
		return code;
	}
	*target = t;
	return 0;
}

void target_close(struct target *target)
{
	if (target == NULL)
		return;
	target_go(target);
	if (target->pidfd >= 0)
		(void)close(target->pidfd);
	free(target);
}

int target_pid(const struct target *target)
{
	return target->pid;
}

int target_pidfd(const struct target *target)
{
	return target->pidfd;
}

bool target_alive(const struct target *target)
{
	struct pollfd ended = {.fd = target->pidfd, .events = POLLIN};

	return poll(&ended, 1, 0) == 0;
}

int target_threads(
	const struct target *target, int **tids, size_t *count, struct rouse_error *error)
{
	cleanup_free int *list = NULL;
	const struct dirent *entry;
	char path[64];
	size_t room = 0;
	int code = 0;
	DIR *tasks;

	(void)snprintf(path, sizeof(path), "/proc/%d/task", target->pid);
	tasks = opendir(path);
	if (tasks == NULL)
		return refuse_access(target, -errno, error);
	*count = 0;
	while (code == 0 && (entry = readdir(tasks)) != NULL) {
		int tid = (int)strtol(entry->d_name, NULL, 10);

		if (tid <= 0)
			continue;
		if (*count == room) {
			int *larger = reallocarray(list, room + 64, sizeof(*list));

			if (larger == NULL) {
				code = rouse_error_errno(error, -ENOMEM, "cannot list threads");
				break;
			}
			list = larger;
			room += 64;
		}
		list[(*count)++] = tid;
		/* The first thread's first, if it is still there. */
		if (tid == target->pid) {
			list[*count - 1] = list[0];
			list[0] = tid;
		}
	}
	(void)closedir(tasks);
	if (code == 0)
		*tids = take_ptr(&list);
	return code;
}

int target_status(const struct target *target, const char *key, char *value, size_t size)
{
	cleanup_free char *text = NULL;
	const size_t length = strlen(key);
	char path[64];
	size_t bytes;
	int code;

	(void)snprintf(path, sizeof(path), "/proc/%d/status", target->pid);
	code = rouse_io_read_file(path, MAX_STATUS_BYTES, &text, &bytes);
	if (code < 0)
		return code == -ENOENT ? -ESRCH : code;
	for (const char *line = text; line != NULL && *line != '\0';) {
		if (strncmp(line, key, length) == 0 && line[length] == ':') {
			line += length + 1;
			line += strspn(line, " \t");
			(void)snprintf(value, size, "%.*s", (int)strcspn(line, "\n"), line);
			return 0;
		}
		line = strchr(line, '\n');
		if (line != NULL)
			line++;
	}
	return -ENOENT;
}

/* @transfer: process_vm_readv or process_vm_writev. */
static int transfer_memory(const struct target *target,
	ssize_t (*transfer)(pid_t, const struct iovec *, unsigned long, const struct iovec *,
		unsigned long, unsigned long),
	uint64_t address, char *buffer, size_t size)
{
	while (size > 0) {
		struct iovec here = {buffer, size};
		struct iovec there = {(void *)(uintptr_t)address, size};
		ssize_t n = transfer(target->pid, &here, 1, &there, 1, 0);

		if (n < 0)
			return -errno;
		if (n == 0)
			return -EFAULT;
		buffer += n;
		address += (uint64_t)n;
		size -= (size_t)n;
	}
	return 0;
}

int target_read(const struct target *target, uint64_t address, void *buffer, size_t size)
{
	return transfer_memory(target, process_vm_readv, address, buffer, size);
}

int target_write(const struct target *target, uint64_t address, const void *buffer, size_t size)
{
	return transfer_memory(target, process_vm_writev, address, (char *)(uintptr_t)buffer, size);
}

int target_fetch_fd(const struct target *target, int fd)
{
	int copy = (int)syscall(SYS_pidfd_getfd, target->pidfd, fd, 0);

	return copy >= 0 ? copy : -errno;
}

/* @whole: the name itself, and not names that begin with it. */
static int find_fd(int pid, const char *name, bool whole, int from)
{
	const size_t compared = strlen(name) + (whole ? 1 : 0);
	const struct dirent *entry;
	char path[64], link[256];
	int found = -ENOENT;
	DIR *list;

	(void)snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	list = opendir(path);
	if (list == NULL)
		return errno == EACCES ? -EPERM : errno == ENOENT ? -ESRCH : -errno;
	while ((entry = readdir(list)) != NULL) {
		const long fd = strtol(entry->d_name, NULL, 10);
		ssize_t length;

		if (entry->d_name[0] == '.' || fd < from || (found >= 0 && fd >= found))
			continue;
		length = readlinkat(dirfd(list), entry->d_name, link, sizeof(link) - 1);
		if (length < 0)
			continue;
		link[length] = '\0';
		if (strncmp(link, name, compared) == 0)
			found = (int)fd;
	}
	(void)closedir(list);
	return found;
}

int target_find_fd(const struct target *target, const char *name, int from)
{
	return find_fd(target->pid, name, true, from);
}

int target_find_fd_in(int pid, const char *name)
{
	return find_fd(pid, name, true, 0);
}

int target_find_fd_below(const struct target *target, const char *directory)
{
	return find_fd(target->pid, directory, false, 0);
}
