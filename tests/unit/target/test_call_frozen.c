/* SPDX-License-Identifier: MIT */
/* System calls in a process whose cgroup is frozen: always, or now and then. */
#include "call_fixture.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Writes a line into a file of a cgroup. */
static bool write_cgroup(const char *cgroup, const char *name, const char *line)
{
	char path[512];
	bool good;
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", cgroup, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	good = write(fd, line, strlen(line)) == (ssize_t)strlen(line);
	(void)close(fd);
	return good;
}

/* Where cgroups of version 2 are, "" if nowhere; and which of them we are in. */
static void find_cgroup(char mount[200], char own[200])
{
	char line[1024];
	FILE *file = fopen("/proc/self/mounts", "re");

	mount[0] = own[0] = '\0';
	while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
		if (strstr(line, " cgroup2 ") == NULL || sscanf(line, "%*s %199s", mount) != 1)
			mount[0] = '\0';
		else
			break;
	}
	if (file != NULL)
		(void)fclose(file);
	file = fopen("/proc/self/cgroup", "re");
	while (file != NULL && fgets(line, sizeof(line), file) != NULL)
		(void)sscanf(line, "0::%199s", own);
	if (file != NULL)
		(void)fclose(file);
}

/* A cgroup of its own for the process. False: not here. */
static bool make_cgroup(pid_t pid, char *cgroup, size_t size)
{
	char mount[200], own[200], line[32];

	find_cgroup(mount, own);
	(void)snprintf(cgroup, size, "%s%s/rouse-test-%d", mount, own, (int)pid);
	(void)snprintf(line, sizeof(line), "%d\n", (int)pid);
	if (mount[0] == '\0' || mkdir(cgroup, 0755) < 0)
		return false;
	if (write_cgroup(cgroup, "cgroup.procs", line) &&
		write_cgroup(cgroup, "cgroup.freeze", "0"))
		return true;
	(void)rmdir(cgroup);
	return false;
}

/* Ends the process and its cgroup. */
static void end_frozen(pid_t pid, struct shared *shared, const char *cgroup)
{
	char after[64];

	(void)write_cgroup(cgroup, "cgroup.freeze", "0");
	wait_rounds(shared, 2);
	note_signals(pid, after, sizeof(after));
	end(pid, shared);
	for (unsigned int i = 0; rmdir(cgroup) < 0 && i < 1000; i++)
		(void)usleep(1000);
	/* None is blocked: as at the start of a program. */
	assert_int_equal(strtoull(after, NULL, 16), 0);
}

struct attempt {
	int stopped, calls[2];
	time_t seconds;
	struct rouse_error error;
};

/* Freezes the process, before or after one of its threads is stopped, and tries to make calls. */
static void try_frozen(pid_t pid, const char *cgroup, bool stop_first, struct attempt *attempt)
{
	const uint64_t none[6] = {0};
	struct target *target = NULL;
	const time_t began = time(NULL);
	int64_t result = 0;

	*attempt = (struct attempt){0};
	assert_int_equal(target_open(pid, &target, &attempt->error), 0);
	if (stop_first)
		attempt->stopped = target_stop(target, &attempt->error);
	(void)write_cgroup(cgroup, "cgroup.freeze", "1");
	(void)usleep(20000);
	if (!stop_first)
		attempt->stopped = target_stop(target, &attempt->error);
	for (unsigned int i = 0; i < 2 && attempt->stopped == 0; i++)
		attempt->calls[i] =
			target_call(target, SYS_getpid, none, NULL, 0, &result, &attempt->error);
	target_close(target);
	attempt->seconds = time(NULL) - began;
	(void)write_cgroup(cgroup, "cgroup.freeze", "0");
}

static void check_frozen(void (*function)(struct shared *shared))
{
	struct shared *shared;
	pid_t pid = start(function, &shared);
	struct attempt attempts[2];
	char cgroup[480];

	need_calls(pid);
	wait_rounds(shared, 1);
	if (!make_cgroup(pid, cgroup, sizeof(cgroup))) {
		end(pid, shared);
		print_message("no cgroup of version 2 can be made here\n");
		skip();
	}
	for (unsigned int i = 0; i < 2; i++) {
		try_frozen(pid, cgroup, i == 1, &attempts[i]);
		wait_rounds(shared, 2);
		check_results(pid);
	}
	assert_int_equal(shared->interrupted, 0);
	end_frozen(pid, shared, cgroup);
	for (unsigned int i = 0; i < 2; i++) {
		assert_int_equal(attempts[i].stopped, 0);
		assert_int_equal(attempts[i].calls[0], -EBUSY);
		assert_int_equal(attempts[i].calls[1], -EBUSY);
		assert_non_null(strstr(attempts[i].error.message, "is frozen"));
		assert_true(attempts[i].seconds < 30);
	}
}

static void a_frozen_process_is_refused_and_goes_on_when_it_is_thawed(void **state)
{
	(void)state;
#ifdef HAVE_REGISTERS
	check_frozen(watch_registers);
#endif
	check_frozen(sleep_a_little);
}

/* A process that freezes the others of a cgroup and thaws them, over and over. */
static pid_t start_freezer(const char *cgroup)
{
	pid_t freezer;

	(void)fflush(NULL);
	freezer = fork();
	if (freezer == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (unsigned int i = 0;; i++) {
			(void)write_cgroup(cgroup, "cgroup.freeze", "1");
			(void)usleep(i % 16 * 10);
			(void)write_cgroup(cgroup, "cgroup.freeze", "0");
			(void)usleep(i % 64 * 10);
		}
	}
	assert_true(freezer > 0);
	return freezer;
}

static void calls_are_made_although_their_thread_is_frozen_now_and_then(void **state)
{
#ifdef HAVE_REGISTERS
	void (*const function)(struct shared * shared) = watch_registers;
#else
	void (*const function)(struct shared * shared) = sleep_a_little;
#endif
	struct shared *shared;
	pid_t pid = start(function, &shared), freezer;
	unsigned int refused = 0;
	char cgroup[480];
	int code = 0;

	(void)state;
	need_calls(pid);
	if (!make_cgroup(pid, cgroup, sizeof(cgroup))) {
		end(pid, shared);
		print_message("no cgroup of version 2 can be made here\n");
		skip();
	}
	freezer = start_freezer(cgroup);
	for (unsigned int i = 0; i < 100 && (code == 0 || code == -EBUSY); i++) {
		struct rouse_error error = {0};
		struct target *target = NULL;

		assert_int_equal(target_open(pid, &target, &error), 0);
		code = target_stop(target, &error);
		for (unsigned int n = 0; n < 3 && code == 0; n++)
			code = call_and_fork(target, pid, &error);
		target_close(target);
		refused += code == -EBUSY;
		wait_rounds(shared, 1);
	}
	print_message("%u calls refused\n", refused);
	(void)kill(freezer, SIGKILL);
	(void)waitpid(freezer, NULL, 0);
	end_frozen(pid, shared, cgroup);
	assert_true(code == 0 || code == -EBUSY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_frozen_process_is_refused_and_goes_on_when_it_is_thawed),
		cmocka_unit_test(calls_are_made_although_their_thread_is_frozen_now_and_then),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
