/* SPDX-License-Identifier: MIT */
#include "api/doctor_child.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define KILL_GRACE_MS 2000

/* What is left until @end_ns, for poll(2). */
static int left_ms(uint64_t end_ns)
{
	uint64_t now = rouse_clock_ns();

	return now < end_ns ? (int)((end_ns - now) / 1000000 + 1) : 0;
}

static int poll_until(int fd, uint64_t end_ns)
{
	struct pollfd wanted = {.fd = fd, .events = POLLIN};
	int ready;

	do {
		ready = poll(&wanted, 1, left_ms(end_ns));
	} while (ready < 0 && errno == EINTR);
	return ready;
}

/*
 * Ends a child, if it has not ended by itself, and reaps it. A child that the kernel does not let
 * go of in time is left behind: waiting for it could take for ever.
 */
static int end_child(pid_t pid, int pidfd, int *status)
{
	pid_t reaped;

	if (pidfd >= 0 && poll_until(pidfd, 0) == 0) {
		(void)kill(pid, SIGKILL);
		(void)poll_until(pidfd, rouse_clock_ns() + KILL_GRACE_MS * UINT64_C(1000000));
	} else if (pidfd < 0) {
		(void)kill(pid, SIGKILL);
	}
	do {
		reaped = waitpid(pid, status, pidfd >= 0 ? WNOHANG : 0);
	} while (reaped < 0 && errno == EINTR);
	return reaped == pid ? 0 : -ETIMEDOUT;
}

int rouse_child_probe(int (*probe)(void *user), void *user, unsigned int timeout_ms)
{
	uint64_t end_ns = rouse_clock_ns() + timeout_ms * UINT64_C(1000000);
	cleanup_close int pidfd = -1;
	int status = 0;
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (pid == 0)
		_exit(probe(user));
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd >= 0)
		(void)poll_until(pidfd, end_ns);
	if (end_child(pid, pidfd, &status) < 0)
		return -ETIMEDOUT;
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	return WTERMSIG(status) == SIGKILL ? -ETIMEDOUT : -EFAULT;
}

static int spawn(const char *const *argv, int output, pid_t *pid)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none, defaults;
	int failed;

	(void)sigemptyset(&none);
	(void)sigfillset(&defaults);
	if (posix_spawn_file_actions_init(&actions) != 0)
		return -ENOMEM;
	if (posix_spawnattr_init(&attributes) != 0) {
		(void)posix_spawn_file_actions_destroy(&actions);
		return -ENOMEM;
	}
	failed = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	if (failed == 0)
		failed = posix_spawn_file_actions_adddup2(&actions, output, 1);
	if (failed == 0)
		failed = posix_spawn_file_actions_adddup2(&actions, output, 2);
	if (failed == 0)
		failed = posix_spawnattr_setflags(&attributes,
			POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	if (failed == 0)
		failed = posix_spawnattr_setsigmask(&attributes, &none);
	if (failed == 0)
		failed = posix_spawnattr_setsigdefault(&attributes, &defaults);
	/* posix_spawn(3) does not change the strings: its type is older than const. */
	if (failed == 0)
		failed = posix_spawnp(pid, argv[0], &actions, &attributes,
			(char *const *)(uintptr_t)argv, environ);
	(void)posix_spawnattr_destroy(&attributes);
	(void)posix_spawn_file_actions_destroy(&actions);
	return -failed;
}

static int read_output(int fd, const char *until, uint64_t end_ns, char *text, size_t room)
{
	size_t used = 0;

	text[0] = '\0';
	while (used < room - 1) {
		ssize_t n;

		if (poll_until(fd, end_ns) == 0)
			return -ETIMEDOUT;
		n = read(fd, text + used, room - 1 - used);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return 0;
		used += (size_t)n;
		text[used] = '\0';
		/* A NUL that was printed would hide what is behind it. */
		for (char *at = text; (at = memchr(at, '\0', (size_t)(text + used - at)));)
			*at = ' ';
		if (until != NULL && strstr(text, until) != NULL)
			return 0;
	}
	return 0;
}

int rouse_child_output(const char *const *argv, const char *until, unsigned int timeout_ms,
	char *text, size_t room)
{
	uint64_t end_ns = rouse_clock_ns() + timeout_ms * UINT64_C(1000000);
	cleanup_close int pidfd = -1;
	int pipe_fds[2], status, code;
	pid_t pid = 0;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return -errno;
	code = spawn(argv, pipe_fds[1], &pid);
	(void)close(pipe_fds[1]);
	if (code == 0) {
		pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
		code = read_output(pipe_fds[0], until, end_ns, text, room);
		(void)end_child(pid, pidfd, &status);
	}
	(void)close(pipe_fds[0]);
	return code;
}
