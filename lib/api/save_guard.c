/* SPDX-License-Identifier: MIT */
#include "api/save_guard.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdalign.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* The guard's own: the stream, and the lifeline. From here on descriptors are closed. */
#define FIRST_FOREIGN 2
/* For a limit that cannot be asked for. */
#define LIKELY_FILES 65536

/* The descriptor that a name in /proc/self/fd stands for; -1: none. */
static int number_of(const char *name)
{
	int number = 0;

	if (*name == '\0')
		return -1;
	for (; *name >= '0' && *name <= '9'; name++)
		number = number * 10 + (*name - '0');
	return *name == '\0' ? number : -1;
}

/* Those of a part of the list; @list, which is being read, stays. */
static void close_entries(const char *entries, ssize_t size, int list)
{
	const struct dirent64 *entry;

	for (ssize_t at = 0; at < size; at += entry->d_reclen) {
		int number;

		entry = (const struct dirent64 *)(const void *)(entries + at);
		number = number_of(entry->d_name);
		if (number >= FIRST_FOREIGN && number != list)
			(void)close(number);
	}
}

/* Whether the list was there, and was read to its end. */
static bool close_listed(void)
{
	alignas(struct dirent64) char entries[4096];
	ssize_t n;
	int list;

	(void)close(FIRST_FOREIGN); /* a place for the list, at the limit of open files too */
	list = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (list < 0)
		return false;
	do {
		n = getdents64(list, entries, sizeof(entries));
		close_entries(entries, n, list);
	} while (n > 0);
	(void)close(list);
	return n == 0;
}

static void close_numbers(void)
{
	struct rlimit limit;
	int end = LIKELY_FILES;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
		end = limit.rlim_cur < INT_MAX ? (int)limit.rlim_cur : INT_MAX;
	for (int number = FIRST_FOREIGN; number < end; number++)
		(void)close(number);
}

/* Linux before 5.9 has no close_range(2), and a filter of system calls may know nothing of it. */
static void close_foreign(void)
{
	if (close_range(FIRST_FOREIGN, ~0U, 0) < 0 && !close_listed())
		close_numbers();
}

/*
 * The guard. Other threads of ours were not copied and may have held any lock: only system calls.
 * Every other descriptor is closed; among them QEMU's end of the socket and our end of the
 * lifeline, which would keep what the guard waits for from coming.
 */
static _Noreturn void guard_run(int fd, int lifeline)
{
	char scratch[65536];
	ssize_t n;

	(void)setsid();    /* what is sent to our process group is not for it */
	if (lifeline == 0) /* nobody's standard input: it must not be overwritten */
		lifeline = dup(lifeline);
	if (dup2(fd, 0) < 0 || dup2(lifeline, 1) < 0)
		_exit(1);
	close_foreign();
	do
		n = read(1, scratch, 1);
	while (n > 0 || (n < 0 && errno == EINTR));
	do
		n = read(0, scratch, sizeof(scratch));
	while (n > 0 || (n < 0 && errno == EINTR));
	_exit(0);
}

int save_guard_start(struct save_guard *guard, int fd)
{
	int fds[2], high, code = 0;
	long pid;

	guard->pid = 0;
	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	/* Not 0 or 1, which the guard takes for its own. */
	high = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (high < 0)
		code = -errno;
	/* Without a signal at its end: it is not a child that the program waits for. */
	pid = code == 0 ? syscall(SYS_clone, 0UL, NULL, NULL, NULL, 0UL) : -1;
	if (pid == 0)
		guard_run(high, fds[0]);
	if (code == 0 && pid < 0)
		code = -errno;
	(void)close(fds[0]);
	if (high >= 0)
		(void)close(high);
	if (code < 0) {
		(void)close(fds[1]);
		return code;
	}
	guard->lifeline = fds[1];
	guard->pid = (int)pid;
	return 0;
}

void save_guard_leave(struct save_guard *guard)
{
	if (guard->pid != 0)
		(void)close(guard->lifeline);
	guard->pid = 0;
}

void save_guard_end(struct save_guard *guard)
{
	if (guard->pid == 0)
		return;
	(void)close(guard->lifeline);
	while (waitpid(guard->pid, NULL, __WCLONE) < 0 && errno == EINTR)
		;
	guard->pid = 0;
}
