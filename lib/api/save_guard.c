/* SPDX-License-Identifier: MIT */
#include "api/save_guard.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

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
	(void)close_range(2, ~0U, 0);
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
