/* SPDX-License-Identifier: MIT */
#include "api/doctor_child.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

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

/*
 * In a new child. The doctor may be killed while it probes: what it tries ends with it, also where
 * nothing of it can get a signal of the terminal. @parent may have ended before the kernel was
 * told.
 */
static void end_with_parent(pid_t parent)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
		_exit(EXIT_FAILURE);
}

int rouse_child_probe(int (*probe)(void *user), void *user, unsigned int timeout_ms)
{
	uint64_t end_ns = rouse_clock_ns() + timeout_ms * UINT64_C(1000000);
	cleanup_close int pidfd = -1;
	const pid_t parent = getpid();
	int status = 0;
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (pid == 0) {
		end_with_parent(parent);
		_exit(probe(user));
	}
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd >= 0)
		(void)poll_until(pidfd, end_ns);
	if (end_child(pid, pidfd, &status) < 0)
		return -ETIMEDOUT;
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	return WTERMSIG(status) == SIGKILL ? -ETIMEDOUT : -EFAULT;
}

/* In a new child of a process with threads perhaps: only what is safe in signal handlers. */
static _Noreturn void become(const char *const *argv, int output, int failure)
{
	struct kernel_action {
		void (*handler)(int);
		unsigned long rest[3];
	} defaults = {.handler = SIG_DFL};
	sigset_t none;
	int code;

	(void)sigemptyset(&none);
	/* sigaction(2) past the C library, whose own signals need their defaults, too. */
	for (int number = 1; number < NSIG; number++)
		(void)syscall(SYS_rt_sigaction, number, &defaults, NULL, sizeof(uint64_t));
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)setsid();
	(void)close(STDIN_FILENO);
	if (open("/dev/null", O_RDONLY) == STDIN_FILENO && dup2(output, STDOUT_FILENO) >= 0 &&
		dup2(output, STDERR_FILENO) >= 0)
		/* execvp(3) does not change the strings: its type is older than const. */
		(void)execvp(argv[0], (char *const *)(uintptr_t)argv);
	code = errno;
	(void)!write(failure, &code, sizeof(code));
	_exit(EXIT_FAILURE);
}

/* posix_spawn(3) cannot tie a child to its parent. */
static int spawn(const char *const *argv, int output, pid_t *pid)
{
	const pid_t parent = getpid();
	int failure[2], code = 0;

	if (pipe2(failure, O_CLOEXEC) < 0)
		return -errno;
	*pid = fork();
	if (*pid == 0) {
		end_with_parent(parent);
		become(argv, output, failure[1]);
	}
	if (*pid < 0)
		code = errno;
	(void)close(failure[1]);
	/* Nothing comes, and the end, if it could be started. */
	if (*pid > 0 && rouse_io_read(failure[0], &code, sizeof(code)) == sizeof(code))
		(void)waitpid(*pid, NULL, 0);
	(void)close(failure[0]);
	return -code;
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
