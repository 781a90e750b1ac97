/* SPDX-License-Identifier: MIT */
/* The guard has closed what is not its own, also where the kernel has no close_range(2). */
#include "api/save_guard.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../unit.h"

#define WAIT_MS 10000
#define MANY 600 /* more descriptors than the guard lists at once */
#define SMALL_LIMIT 64

/* How a process of a test ended. */
enum {
	GOOD,
	NO_FILTER,
	NO_GUARD,
	KEPT_THE_STREAM,
	KEPT_THE_LIFELINE,
};

/* System calls that answer ENOSYS from here on: in an old kernel, or behind a container's filter.
 */
static int forget_calls(long one, long other)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned int)one, 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned int)other, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
		prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
		return -errno;
	return syscall(one, ~0U, 0, 0) < 0 && errno == ENOSYS ? 0 : -EINVAL;
}

/* The stream's end: its other end is closed here, and by the guard if it kept it. */
static int judge_stream(int fd)
{
	struct pollfd end = {.fd = fd, .events = POLLIN};
	char byte;

	if (poll(&end, 1, WAIT_MS) != 1)
		return KEPT_THE_STREAM;
	return read(fd, &byte, 1) == 0 ? GOOD : KEPT_THE_STREAM;
}

/* With our end of the lifeline closed it reads on, to the stream's end, and then is gone. */
static int judge_lifeline(const struct save_guard *guard)
{
	(void)close(guard->lifeline);
	for (int waited = 0; waited < WAIT_MS; waited += 10) {
		if (waitpid(guard->pid, NULL, __WCLONE | WNOHANG) == guard->pid)
			return GOOD;
		(void)poll(NULL, 0, 10);
	}
	return KEPT_THE_LIFELINE;
}

/* A guard of a stream whose QEMU is this process too. */
static int judge_guard(void)
{
	struct save_guard guard;
	int fds[2], code;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0 ||
		save_guard_start(&guard, fds[0]) < 0)
		return NO_GUARD;
	(void)close(fds[1]);
	code = judge_stream(fds[0]);
	if (code == GOOD)
		code = judge_lifeline(&guard);
	if (code != GOOD) { /* nothing is left behind */
		(void)kill(guard.pid, SIGKILL);
		(void)waitpid(guard.pid, NULL, __WCLONE);
	}
	return code;
}

static int judge_without(long one, long other)
{
	return forget_calls(one, other) < 0 ? NO_FILTER : judge_guard();
}

/* In a process of its own: a filter stays for good. How it ended. */
static int ends(int (*run)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(run());
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == NO_FILTER) {
		print_message("system calls cannot be filtered here\n");
		skip();
	}
	return WEXITSTATUS(status);
}

static void it_keeps_nothing_that_is_not_its_own(void **state)
{
	(void)state;
	assert_int_equal(ends(judge_guard), GOOD);
}

static int run_without_close_range(void)
{
	return judge_without(SYS_close_range, SYS_close_range);
}

static void it_keeps_nothing_without_close_range(void **state)
{
	(void)state;
	assert_int_equal(ends(run_without_close_range), GOOD);
}

static int run_with_many_files(void)
{
	const struct rlimit limit = {.rlim_cur = MANY + 100, .rlim_max = MANY + 100};

	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		return NO_FILTER;
	for (int i = 0; i < MANY; i++)
		(void)!dup(1);
	return run_without_close_range();
}

static void it_keeps_none_of_many_files_without_close_range(void **state)
{
	(void)state;
	assert_int_equal(ends(run_with_many_files), GOOD);
}

/* As where /proc is not mounted. */
static int run_without_a_list(void)
{
	const struct rlimit limit = {.rlim_cur = SMALL_LIMIT, .rlim_max = SMALL_LIMIT};

	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		return NO_FILTER;
	return judge_without(SYS_close_range, SYS_getdents64);
}

static void it_keeps_nothing_without_a_list_of_its_files(void **state)
{
	(void)state;
	assert_int_equal(ends(run_without_a_list), GOOD);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_keeps_nothing_that_is_not_its_own),
		cmocka_unit_test(it_keeps_nothing_without_close_range),
		cmocka_unit_test(it_keeps_none_of_many_files_without_close_range),
		cmocka_unit_test(it_keeps_nothing_without_a_list_of_its_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
