/* SPDX-License-Identifier: MIT */
#include "bench_process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int64_t now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
}

/* ---- Signals --------------------------------------------------------------------------------- */

int bench_signals_begin(struct bench_signals *signals)
{
	static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
	sigset_t set;

	*signals = (struct bench_signals){.fd = -1};
	(void)sigemptyset(&set);
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		struct sigaction old;

		/* nohup(1) and shells have a signal ignored on purpose; blocked, it would come. */
		if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
			(void)sigaddset(&set, numbers[i]);
	}
	/* Who started us may have had its children reaped by nobody: we want to know how ours end.
	 */
	(void)signal(SIGCHLD, SIG_DFL);
	signals->fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (signals->fd < 0)
		return -errno;
	(void)sigprocmask(SIG_BLOCK, &set, &signals->before);
	return 0;
}

void bench_signals_end(struct bench_signals *signals)
{
	if (signals->fd < 0)
		return;
	/* None that has come may end the process now, before it has said what was measured. */
	(void)bench_signals_seen(signals);
	(void)sigprocmask(SIG_SETMASK, &signals->before, NULL);
	close_fd(&signals->fd);
}

bool bench_signals_seen(struct bench_signals *signals)
{
	struct signalfd_siginfo info;

	while (read(signals->fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
		signals->count++;
	return signals->count > 0;
}

/* ---- Processes ------------------------------------------------------------------------------- */

static int pidfd_of(pid_t pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	return fd >= 0 ? fd : -errno;
}

static int set_up(posix_spawn_file_actions_t *actions, posix_spawnattr_t *attributes,
	const struct bench_process *process, const struct bench_signals *signals)
{
	int failed = posix_spawn_file_actions_addopen(actions, 0, "/dev/null", O_RDONLY, 0);

	if (failed == 0)
		failed = posix_spawn_file_actions_adddup2(actions, process->out, 1);
	if (failed == 0)
		failed = posix_spawn_file_actions_adddup2(actions, process->err, 2);
	if (failed == 0)
		failed = posix_spawnattr_setsigmask(attributes, &signals->before);
	if (failed == 0)
		failed = posix_spawnattr_setflags(
			attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
	return failed;
}

static int spawn(
	struct bench_process *process, char *const *argv, const struct bench_signals *signals)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	int failed = posix_spawn_file_actions_init(&actions);

	if (failed != 0)
		return -failed;
	failed = posix_spawnattr_init(&attributes);
	if (failed == 0) {
		failed = set_up(&actions, &attributes, process, signals);
		if (failed == 0)
			failed = posix_spawn(&process->pid, "/proc/self/exe", &actions, &attributes,
				argv, environ);
		(void)posix_spawnattr_destroy(&attributes);
	}
	(void)posix_spawn_file_actions_destroy(&actions);
	return -failed;
}

int bench_process_start(
	struct bench_process *process, char *const *argv, const struct bench_signals *signals)
{
	int code;

	*process = (struct bench_process)BENCH_NO_PROCESS;
	/* Not pipes: nobody needs to read them meanwhile, and what the child starts may keep them.
	 */
	process->out = memfd_create("rouse-bench-out", MFD_CLOEXEC);
	process->err = memfd_create("rouse-bench-err", MFD_CLOEXEC);
	code = process->out >= 0 && process->err >= 0 ? spawn(process, argv, signals) : -errno;
	if (code == 0) {
		/* It is our child, and not waited for: the number is still its own. */
		process->pidfd = pidfd_of(process->pid);
		code = process->pidfd < 0 ? process->pidfd : 0;
		if (code < 0) {
			(void)kill(process->pid, SIGKILL);
			(void)waitpid(process->pid, NULL, 0);
		}
	}
	if (code < 0)
		bench_process_close(process);
	return code;
}

int bench_process_take(struct bench_process *process, pid_t pid)
{
	*process = (struct bench_process)BENCH_NO_PROCESS;
	process->pid = pid;
	process->pidfd = pidfd_of(pid);
	return process->pidfd < 0 ? process->pidfd : 0;
}

void bench_process_close(struct bench_process *process)
{
	close_fd(&process->pidfd);
	close_fd(&process->out);
	close_fd(&process->err);
}

enum bench_wake bench_process_wait(
	const struct bench_process *process, struct bench_signals *signals, int timeout_ms)
{
	struct pollfd fds[] = {
		{.fd = process->pidfd, .events = POLLIN}, {.fd = signals->fd, .events = POLLIN}};
	const int64_t until = now_ms() + timeout_ms;
	int ready;

	do {
		int64_t left = until - now_ms();

		ready = poll(fds, 2, timeout_ms < 0 ? -1 : left > 0 ? (int)left : 0);
	} while (ready < 0 && errno == EINTR);
	if (ready <= 0)
		return BENCH_TIMEOUT;
	if (fds[1].revents != 0)
		(void)bench_signals_seen(signals);
	return fds[0].revents != 0 ? BENCH_ENDED : BENCH_SIGNAL;
}

bool bench_process_end(const struct bench_process *process, struct bench_signals *signals,
	const struct bench_step *steps, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		enum bench_wake wake;

		if (signals->count > 1)
			i = count - 1;
		if (steps[i].signal != 0)
			(void)syscall(
				SYS_pidfd_send_signal, process->pidfd, steps[i].signal, NULL, 0);
		do {
			wake = bench_process_wait(process, signals, steps[i].timeout_ms);
		} while (wake == BENCH_SIGNAL && (signals->count < 2 || i == count - 1));
		if (wake == BENCH_ENDED)
			return true;
	}
	return false;
}
