/* SPDX-License-Identifier: MIT */
#include "bench_guard.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MARK "ROUSE_BENCH"
#define TURN_MS 20
#define TURNS 500 /* 10 s for all to be gone */

/* ---- In the guard ------------------------------------------------------------------------------
 */

/* Whether the text is one of the variables of a process; that of others' processes is not seen. */
static bool is_marked(const char *pid, const char *mark)
{
	char path[64], *variable = NULL;
	size_t room = 0;
	bool found = false;
	FILE *file;

	(void)snprintf(path, sizeof(path), "/proc/%.20s/environ", pid);
	file = fopen(path, "re");
	while (file != NULL && !found && getdelim(&variable, &room, '\0', file) > 0)
		found = strcmp(variable, mark) == 0;
	free(variable);
	if (file != NULL)
		(void)fclose(file);
	return found;
}

/* Kills one, whose number cannot become another's while it is looked at. Whether it was ours. */
static bool kill_if_marked(const char *name, const char *mark)
{
	const pid_t pid = (pid_t)strtol(name, NULL, 10);
	int fd = pid > 0 && pid != getpid() ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
	bool marked = fd >= 0 && is_marked(name, mark);

	if (marked)
		(void)syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
	if (fd >= 0)
		(void)close(fd);
	return marked;
}

/* How many were still there. */
static unsigned int kill_marked(const char *mark)
{
	const struct dirent *entry;
	unsigned int count = 0;
	DIR *list = opendir("/proc");

	while (list != NULL && (entry = readdir(list)) != NULL)
		count += kill_if_marked(entry->d_name, mark);
	if (list != NULL)
		(void)closedir(list);
	return count;
}

/* Nobody's terminal, output or process group: nothing that is meant for the benchmark reaches it.
 */
static void stand_apart(int lifeline)
{
	const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
	int null;

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		(void)signal(numbers[i], SIG_IGN);
	(void)setsid();
	lifeline = fcntl(lifeline, F_DUPFD_CLOEXEC, 3);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (lifeline < 0 || null < 0 || dup2(lifeline, 0) < 0 || dup2(null, 1) < 0 ||
		dup2(null, 2) < 0 || chdir("/") < 0)
		_exit(1);
	(void)close_range(3, ~0U, 0);
}

static _Noreturn void run(int lifeline, const char *mark, const char *folder, const char *monitor)
{
	char byte;
	ssize_t n;

	stand_apart(lifeline);
	do
		n = read(0, &byte, 1);
	while (n < 0 && errno == EINTR);
	if (n != 0) /* it has tidied up */
		_exit(0);
	for (unsigned int turn = 0; turn < TURNS && kill_marked(mark) > 0; turn++)
		(void)poll(NULL, 0, TURN_MS);
	(void)unlink(monitor);
	(void)rmdir(folder);
	_exit(0);
}

/* ---- In the benchmark --------------------------------------------------------------------------
 */

int bench_guard_begin(struct bench_guard *guard, const char *folder, const char *monitor)
{
	char mark[256];
	int fds[2];

	*guard = (struct bench_guard){.lifeline = -1};
	(void)snprintf(mark, sizeof(mark), "%s=%s", MARK, folder);
	if (setenv(MARK, folder, 1) < 0 || pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	(void)fflush(NULL);
	guard->pid = fork();
	if (guard->pid == 0) {
		(void)close(fds[1]);
		run(fds[0], mark, folder, monitor);
	}
	(void)close(fds[0]);
	if (guard->pid < 0) {
		int code = -errno;

		(void)close(fds[1]);
		*guard = (struct bench_guard){.lifeline = -1};
		return code;
	}
	guard->lifeline = fds[1];
	return 0;
}

void bench_guard_end(struct bench_guard *guard)
{
	if (guard->pid == 0)
		return;
	(void)!write(guard->lifeline, "", 1);
	(void)close(guard->lifeline);
	while (waitpid(guard->pid, NULL, 0) < 0 && errno == EINTR)
		;
	*guard = (struct bench_guard){.lifeline = -1};
}
