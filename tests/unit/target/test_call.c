/* SPDX-License-Identifier: MIT */
/* System calls in another process: what they return, and that they leave nothing behind. */
#include "../unit.h"

#include "target/target_private.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
#define HAVE_REGISTERS 1
#endif

struct shared {
	uint64_t rounds, errors, interrupted;
	volatile pid_t child;
	/* Of start_stopper(): whether it is to, how often it has, how often it was told not to. */
	bool stop_it;
	uint64_t stops, rests;
};

/* Starts a process that runs @function for ever, with memory shared with it. */
static pid_t start(void (*function)(struct shared *shared), struct shared **shared)
{
	pid_t pid;

	*shared = mmap(
		NULL, sizeof(**shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(*shared, MAP_FAILED);
	(void)fflush(NULL);
	pid = fork();
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			function(*shared);
	}
	assert_true(pid > 0);
	return pid;
}

static void wait_counter(const uint64_t *counter, uint64_t more)
{
	const uint64_t until = __atomic_load_n(counter, __ATOMIC_SEQ_CST) + more;
	const time_t began = time(NULL);

	while (__atomic_load_n(counter, __ATOMIC_SEQ_CST) < until) {
		if (time(NULL) - began > 60)
			fail_msg("the process hangs");
		(void)usleep(200);
	}
}

static void wait_rounds(const struct shared *shared, uint64_t rounds)
{
	wait_counter(&shared->rounds, rounds);
}

static void end(pid_t pid, struct shared *shared)
{
	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, NULL, 0);
	assert_int_equal(shared->errors, 0);
	(void)munmap(shared, sizeof(*shared));
}

/* A system call that has to be taken up again where it was interrupted. */
static void sleep_a_little(struct shared *shared)
{
	const struct timespec pause = {.tv_nsec = 2000000};
	struct timespec before, after;

	(void)clock_gettime(CLOCK_MONOTONIC, &before);
	if (nanosleep(&pause, NULL) != 0)
		shared->interrupted++;
	(void)clock_gettime(CLOCK_MONOTONIC, &after);
	if ((after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec <
			2000000 &&
		shared->interrupted == 0)
		shared->errors++;
	__atomic_fetch_add(&shared->rounds, 1, __ATOMIC_SEQ_CST);
}

#ifdef HAVE_REGISTERS
/* All registers hold known values, and are looked at without end: no system call is ever made. */
static void watch_registers(struct shared *shared)
{
	uint64_t wrong = 0;

	__asm__ volatile("mov $0x1111111111111111, %%rbx\n"
			 "mov $0x2222222222222222, %%r12\n"
			 "mov $0x3333333333333333, %%r13\n"
			 "mov $0x4444444444444444, %%r11\n"
			 "mov $0x5555555555555555, %%rcx\n"
			 "mov $0x6666666666666666, %%rdx\n"
			 "movq %%rbx, %%xmm3\n"
			 "movq %%rcx, %%xmm13\n"
			 "mov %%rdx, -128(%%rsp)\n" /* the red zone */
			 "mov %%rcx, -8(%%rsp)\n"
			 "mov $20000, %%esi\n"
			 "1:\n"
			 "mov $0x1111111111111111, %%r8\n"
			 "cmp %%r8, %%rbx\n"
			 "jne 2f\n"
			 "movq %%xmm3, %%r9\n"
			 "cmp %%r8, %%r9\n"
			 "jne 2f\n"
			 "mov $0x2222222222222222, %%r8\n"
			 "cmp %%r8, %%r12\n"
			 "jne 2f\n"
			 "mov $0x3333333333333333, %%r8\n"
			 "cmp %%r8, %%r13\n"
			 "jne 2f\n"
			 "mov $0x4444444444444444, %%r8\n"
			 "cmp %%r8, %%r11\n"
			 "jne 2f\n"
			 "mov $0x5555555555555555, %%r8\n"
			 "cmp %%r8, %%rcx\n"
			 "jne 2f\n"
			 "cmp %%r8, -8(%%rsp)\n"
			 "jne 2f\n"
			 "movq %%xmm13, %%r9\n"
			 "cmp %%r8, %%r9\n"
			 "jne 2f\n"
			 "cmp %%rdx, -128(%%rsp)\n"
			 "jne 2f\n"
			 "dec %%esi\n"
			 "jnz 1b\n"
			 "jmp 3f\n"
			 "2:\n"
			 "mov $1, %0\n"
			 "3:\n"
			 : "+r"(wrong)
			 :
			 : "rbx", "r12", "r13", "r11", "rcx", "rdx", "rsi", "r8", "r9", "xmm3",
			 "xmm13", "memory", "cc");
	shared->errors += wrong;
	__atomic_fetch_add(&shared->rounds, 1, __ATOMIC_SEQ_CST);
}
#endif

/* Some calls with and without data. */
static int make_calls(pid_t pid, struct rouse_error *error)
{
	const uint64_t none[6] = {0}, file[6] = {TARGET_DATA, O_RDONLY | O_CLOEXEC};
	struct target *target = NULL;
	int64_t result = 0;
	int code = target_open(pid, &target, error);

	if (code == 0)
		code = target_stop(target, error);
	if (code == 0)
		code = target_call(target, SYS_getppid, none, NULL, 0, &result, error);
	if (code == 0)
		code = target_call(target, SYS_open, file, "/dev/null", 10, &result, error);
	if (code == 0 && result >= 0) {
		const uint64_t close_it[6] = {(uint64_t)result};

		code = target_call(target, SYS_close, close_it, NULL, 0, &result, error);
	}
	target_close(target);
	return code;
}

static void check_results(pid_t pid)
{
	const uint64_t none[6] = {0}, bad[6] = {(uint64_t)-1};
	struct rouse_error error = {0};
	struct target *target = NULL;
	int64_t result = 0;

	assert_int_equal(target_open(pid, &target, &error), 0);
	assert_int_equal(target_stop(target, &error), 0);
	assert_int_equal(target_call(target, SYS_getpid, none, NULL, 0, &result, &error), 0);
	assert_int_equal(result, pid);
	assert_int_equal(target_call(target, SYS_close, bad, NULL, 0, &result, &error), 0);
	assert_int_equal(result, -EBADF);
	target_close(target);
}

/* Skips the test if this user may not make calls in a process of his own. */
static void need_calls(pid_t pid)
{
	struct rouse_error error = {0};
	int code = make_calls(pid, &error);

	if (code == -EPERM || code == -ENOTSUP || code == -ENOSYS) {
		(void)kill(pid, SIGKILL);
		(void)waitpid(pid, NULL, 0);
		print_message("%s\n", error.message);
		skip();
	}
}

static void a_sleeping_process_sleeps_on(void **state)
{
	struct shared *shared;
	pid_t pid = start(sleep_a_little, &shared);

	(void)state;
	need_calls(pid);
	wait_rounds(shared, 3);
	for (unsigned int i = 0; i < 50; i++) {
		check_results(pid);
		wait_rounds(shared, 1);
	}
	assert_int_equal(shared->interrupted, 0);
	end(pid, shared);
}

static void registers_stay_as_they_were(void **state)
{
#ifdef HAVE_REGISTERS
	struct shared *shared;
	pid_t pid = start(watch_registers, &shared);

	(void)state;
	need_calls(pid);
	for (unsigned int i = 0; i < 50; i++) {
		check_results(pid);
		wait_rounds(shared, 1);
	}
	end(pid, shared);
#else
	(void)state;
	print_message("registers can be watched on x86-64 without sanitizers only\n");
	skip();
#endif
}

static char state_of(pid_t pid)
{
	char path[64], text[512] = "";
	const char *state;
	FILE *file;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "re");
	assert_non_null(file);
	(void)!fread(text, 1, sizeof(text) - 1, file);
	(void)fclose(file);
	state = strrchr(text, ')');
	assert_non_null(state);
	return state[2];
}

static void wait_state(pid_t pid, char state)
{
	for (unsigned int i = 0; state_of(pid) != state; i++) {
		if (i == 60000)
			fail_msg("the process is in state %c, not %c", state_of(pid), state);
		(void)usleep(1000);
	}
}

/* The signals that it blocks. */
static void note_signals(pid_t pid, char *value, size_t size)
{
	struct target *target = NULL;

	assert_int_equal(target_open(pid, &target, NULL), 0);
	assert_int_equal(target_status(target, "SigBlk", value, size), 0);
	target_close(target);
}

/* Stops the process while it is held, before each of two calls; @again: and lets it go on. */
static void stop_during_calls(pid_t pid, bool again)
{
	const uint64_t none[6] = {0}, bad[6] = {(uint64_t)-1};
	struct rouse_error error = {0};
	struct target *target = NULL;
	int64_t result = 0;

	assert_int_equal(target_open(pid, &target, &error), 0);
	assert_int_equal(target_stop(target, &error), 0);
	assert_int_equal(kill(pid, SIGSTOP), 0);
	if (target_call(target, SYS_getpid, none, NULL, 0, &result, &error) < 0)
		fail_msg("%s", error.message);
	assert_int_equal(result, pid);
	assert_int_equal(kill(pid, SIGSTOP), 0);
	if (again)
		assert_int_equal(kill(pid, SIGCONT), 0);
	if (target_call(target, SYS_close, bad, NULL, 0, &result, &error) < 0)
		fail_msg("%s", error.message);
	assert_int_equal(result, -EBADF);
	target_close(target);
}

static void check_stops(void (*function)(struct shared *shared))
{
	struct shared *shared;
	pid_t pid = start(function, &shared);
	char before[64], after[64];

	need_calls(pid);
	wait_rounds(shared, 1);
	note_signals(pid, before, sizeof(before));
	for (unsigned int i = 0; i < 20; i++) {
		stop_during_calls(pid, false);
		wait_state(pid, 'T');
		note_signals(pid, after, sizeof(after));
		assert_string_equal(after, before);
		assert_int_equal(kill(pid, SIGCONT), 0);
		wait_rounds(shared, 1);
		stop_during_calls(pid, true);
		wait_rounds(shared, 2);
		note_signals(pid, after, sizeof(after));
		assert_string_equal(after, before);
	}
	assert_int_equal(shared->interrupted, 0);
	end(pid, shared);
}

static void who_is_stopped_during_calls_makes_them_and_stops_then(void **state)
{
	(void)state;
#ifdef HAVE_REGISTERS
	check_stops(watch_registers);
#endif
	check_stops(sleep_a_little);
}

/* A process that sends SIGSTOP to another for as long as it is to. */
static pid_t start_stopper(pid_t pid, struct shared *shared)
{
	pid_t stopper;

	(void)fflush(NULL);
	stopper = fork();
	if (stopper == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (unsigned int i = 0;; i++) {
			(void)usleep(i % 64);
			if (__atomic_load_n(&shared->stop_it, __ATOMIC_SEQ_CST)) {
				(void)kill(pid, SIGSTOP);
				__atomic_fetch_add(&shared->stops, 1, __ATOMIC_SEQ_CST);
			} else {
				__atomic_fetch_add(&shared->rests, 1, __ATOMIC_SEQ_CST);
			}
		}
	}
	assert_true(stopper > 0);
	return stopper;
}

/*
 * Calls between which SIGSTOP comes at any moment. fork(2) is one that gives way to a signal; the
 * child, which would go on as the process does, is not needed.
 */
static int call_and_fork(struct target *target, pid_t pid, struct rouse_error *error)
{
	const uint64_t none[6] = {0};
	int64_t result = 0;
	int code = target_call(target, SYS_getpid, none, NULL, 0, &result, error);

	if (code == 0)
		assert_int_equal(result, pid);
	if (code == 0)
		code = target_call(target, SYS_fork, none, NULL, 0, &result, error);
	if (code == 0) {
		if (result <= 0)
			fail_msg("fork(2) gave %lld", (long long)result);
		assert_int_equal(kill((pid_t)result, SIGKILL), 0);
	}
	return code;
}

static void calls_are_made_whenever_their_thread_is_stopped(void **state)
{
#ifdef HAVE_REGISTERS
	void (*const function)(struct shared * shared) = watch_registers;
#else
	void (*const function)(struct shared * shared) = sleep_a_little;
#endif
	struct shared *shared;
	pid_t pid = start(function, &shared), stopper;
	unsigned int refused = 0;

	(void)state;
	need_calls(pid);
	stopper = start_stopper(pid, shared);
	for (unsigned int i = 0; i < 100; i++) {
		struct rouse_error error = {0};
		struct target *target = NULL;
		int code;

		assert_int_equal(target_open(pid, &target, &error), 0);
		assert_int_equal(target_stop(target, &error), 0);
		__atomic_store_n(&shared->stop_it, true, __ATOMIC_SEQ_CST);
		code = call_and_fork(target, pid, &error);
		wait_counter(&shared->stops, 2);
		target_close(target);
		__atomic_store_n(&shared->stop_it, false, __ATOMIC_SEQ_CST);
		wait_counter(&shared->rests, 2);
		if (code != 0 && code != -EBUSY)
			fail_msg("%s", error.message);
		refused += code != 0;
		wait_state(pid, 'T');
		assert_int_equal(kill(pid, SIGCONT), 0);
		wait_rounds(shared, 1);
	}
	print_message("%llu stops, %u calls refused\n", (unsigned long long)shared->stops, refused);
	(void)kill(stopper, SIGKILL);
	(void)waitpid(stopper, NULL, 0);
	end(pid, shared);
}

/* False: it ended before. */
static bool kill_caller_at(pid_t pid, unsigned int steps)
{
	pid_t caller;
	int status;

	(void)fflush(NULL);
	caller = fork();
	if (caller == 0) {
		struct rouse_error error = {0};

		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		(void)ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		(void)raise(SIGSTOP);
		_exit(make_calls(pid, &error) == 0 ? 0 : 1);
	}
	assert_int_equal(waitpid(caller, &status, 0), caller);
	for (unsigned int i = 0; i < steps; i++) {
		assert_int_equal(ptrace(PTRACE_SYSCALL, caller, NULL, NULL), 0);
		assert_int_equal(waitpid(caller, &status, 0), caller);
		if (WIFEXITED(status)) {
			assert_int_equal(WEXITSTATUS(status), 0);
			return false;
		}
	}
	(void)kill(caller, SIGKILL);
	while (waitpid(caller, &status, 0) == caller && !WIFSIGNALED(status))
		;
	return true;
}

static unsigned int kill_at_each_step(pid_t pid, struct shared *shared)
{
	unsigned int step = 1;

	while (kill_caller_at(pid, step)) {
		wait_rounds(shared, 2);
		assert_int_equal(shared->errors, 0);
		step++;
	}
	return step;
}

static void registers_stay_when_the_caller_is_killed_at_each_of_its_system_calls(void **state)
{
#ifdef HAVE_REGISTERS
	struct shared *shared;
	pid_t pid = start(watch_registers, &shared);

	(void)state;
	need_calls(pid);
	assert_true(kill_at_each_step(pid, shared) > 50);
	end(pid, shared);
#else
	(void)state;
	print_message("registers can be watched on x86-64 without sanitizers only\n");
	skip();
#endif
}

static void a_sleeping_process_wakes_when_the_caller_is_killed(void **state)
{
	struct shared *shared;
	pid_t pid = start(sleep_a_little, &shared);

	(void)state;
	need_calls(pid);
	assert_true(kill_at_each_step(pid, shared) > 50);
	end(pid, shared);
}

static void a_process_that_is_not_there_is_an_error(void **state)
{
	struct rouse_error error = {0};
	struct target *target = NULL;

	(void)state;
	assert_int_equal(target_open(0x3fffffff, &target, &error), -ESRCH);
	assert_int_equal(target_open(0, &target, &error), -ESRCH);
	assert_null(target);
}

/*
 * Whoever waits for a child of vfork(2) is in state D, as if a disk did not answer. Not by that
 * function, of which ThreadSanitizer makes a fork(2); and the child has memory of its own.
 */
static void wait_for_a_child(struct shared *shared)
{
	/* Only system calls in the child. */
	const pid_t child =
		(pid_t)syscall(SYS_clone, CLONE_VFORK | SIGCHLD, NULL, NULL, NULL, NULL);

	if (child == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		shared->child = getpid();
		(void)pause();
		_exit(0);
	}
	(void)waitpid(child, NULL, 0);
	__atomic_fetch_add(&shared->rounds, 1, __ATOMIC_SEQ_CST);
	for (;;)
		(void)pause();
}

static void a_thread_that_stands_still_in_the_kernel_is_not_waited_for(void **state)
{
	struct rouse_error error = {0};
	struct target *target = NULL;
	struct shared *shared;
	pid_t pid = start(wait_for_a_child, &shared);
	int code;

	(void)state;
	for (unsigned int i = 0; state_of(pid) != 'D' || shared->child == 0; i++) {
		assert_true(i < 60000);
		(void)usleep(1000);
	}
	code = target_open(pid, &target, &error);
	if (code == 0)
		code = target_stop(target, &error);
	target_close(target);
	assert_int_equal(kill(shared->child, SIGKILL), 0);
	for (unsigned int i = 0; __atomic_load_n(&shared->rounds, __ATOMIC_SEQ_CST) == 0; i++) {
		assert_true(i < 60000);
		(void)usleep(1000);
	}
	end(pid, shared);
	if (code == -EPERM || code == -ENOTSUP || code == -ENOSYS) {
		print_message("%s\n", error.message);
		skip();
	}
	assert_int_equal(code, -EBUSY);
	assert_non_null(strstr(error.message, "state D"));
}

#define PIECES 1024u
#define PIECE_BYTES ((size_t)2 << 20)

/*
 * One system call that takes a tenth of a second and more, and cannot be stopped in, but is not in
 * state D: it copies two gigabytes, the same two megabytes over and over. Then rest.
 */
static void copy_for_long(struct shared *shared)
{
	static char from[PIECE_BYTES], to[PIECE_BYTES];
	static struct iovec sources[PIECES], targets[PIECES];

	for (size_t i = 0; i < PIECES; i++) {
		sources[i] = (struct iovec){from, sizeof(from)};
		targets[i] = (struct iovec){to, sizeof(to)};
	}
	__atomic_store_n(&shared->child, getpid(), __ATOMIC_SEQ_CST); /* about to */
	if (syscall(SYS_process_vm_readv, getpid(), targets, PIECES, sources, PIECES, 0) < 0)
		shared->interrupted++;
	__atomic_store_n(&shared->child, 0, __ATOMIC_SEQ_CST);
	__atomic_fetch_add(&shared->rounds, 1, __ATOMIC_SEQ_CST);
	(void)usleep(50000);
}

static void do_nothing(int signal)
{
	(void)signal;
}

/* A timer every millisecond, as a program may have that uses the library; 0: none. */
static void set_timer(suseconds_t every_us)
{
	const struct itimerval timer = {{.tv_usec = every_us}, {.tv_usec = every_us}};
	/* No SA_RESTART: whatever waits gives EINTR. */
	const struct sigaction action = {.sa_handler = do_nothing};

	assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
	assert_int_equal(setitimer(ITIMER_REAL, &timer, NULL), 0);
}

static void assert_is_free(pid_t pid)
{
	struct target *target = NULL;
	char value[64];

	assert_int_equal(target_open(pid, &target, NULL), 0);
	assert_int_equal(target_status(target, "TracerPid", value, sizeof(value)), 0);
	assert_string_equal(value, "0");
	assert_int_equal(target_status(target, "State", value, sizeof(value)), 0);
	assert_true(value[0] != 't' && value[0] != 'T');
	target_close(target);
}

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

static unsigned int volatile taken;

static void count_signal(int signal)
{
	(void)signal;
	taken++;
}

static void a_stop_from_the_keyboard_waits_until_the_thread_is_let_go_of(void **state)
{
	const struct sigaction count = {.sa_handler = count_signal};
	struct sigaction before;
	struct rouse_error error = {0};
	struct target *target = NULL;
	struct shared *shared;
	pid_t pid = start(sleep_a_little, &shared);
	sigset_t mine, then;

	(void)state;
	need_calls(pid);
	taken = 0;
	(void)sigemptyset(&mine);
	(void)sigaddset(&mine, SIGTTOU);
	assert_int_equal(pthread_sigmask(SIG_BLOCK, &mine, NULL), 0);
	assert_int_equal(sigaction(SIGTSTP, &count, &before), 0);
	assert_int_equal(target_open(pid, &target, &error), 0);
	assert_int_equal(target_stop(target, &error), 0);
	assert_int_equal(kill(getpid(), SIGTSTP), 0);
	assert_int_equal(taken, 0);
	target_go(target);
	assert_int_equal(taken, 1);
	/* What was blocked before still is, and nothing else. */
	assert_int_equal(pthread_sigmask(SIG_UNBLOCK, &mine, &then), 0);
	assert_int_equal(sigismember(&then, SIGTTOU), 1);
	assert_int_equal(sigismember(&then, SIGTSTP), 0);
	assert_int_equal(sigismember(&then, SIGTTIN), 0);
	target_go(target); /* changes nothing: no thread is stopped */
	assert_int_equal(pthread_sigmask(SIG_SETMASK, NULL, &then), 0);
	assert_int_equal(sigismember(&then, SIGTTOU), 0);
	(void)sigaction(SIGTSTP, &before, NULL);
	target_close(target);
	end(pid, shared);
}

static void who_does_not_stop_in_time_is_let_go_of_although_signals_arrive(void **state)
{
	struct rouse_error error = {0};
	struct shared *shared;
	pid_t pid = start(copy_for_long, &shared);

	(void)state;
	need_calls(pid);
	for (unsigned int i = 0; i < 3; i++) {
		int code;

		for (unsigned int n = 0; __atomic_load_n(&shared->child, __ATOMIC_SEQ_CST) == 0;
			n++) {
			assert_true(n < 600000);
			(void)usleep(100);
		}
		(void)usleep(1000); /* until it is in the call */
		set_timer(1000);
		code = make_calls(pid, &error);
		set_timer(0);
		/* Refused for now is fine; not that somebody has it, who would be us. */
		if (code != 0 && code != -EBUSY)
			fail_msg("%s", error.message);
		assert_is_free(pid);
		wait_rounds(shared, 1);
	}
	if (shared->interrupted > 0) {
		print_message("process_vm_readv(2) is refused here\n");
		end(pid, shared);
		skip();
	}
	end(pid, shared);
}

static void the_c_library_is_known_by_its_name(void **state)
{
#ifdef __x86_64__
	static const char *const are[] = {"/usr/lib/x86_64-linux-gnu/libc.so.6",
		"/lib/libc-2.31.so", "/lib/ld-musl-x86_64.so.1", "/lib/libc.musl-x86_64.so.1"};
	static const char *const are_not[] = {"", "libc.so.6", "/usr/lib/libcurl.so.4",
		"/usr/lib/libcrypto.so.3", "/opt/libc/plugin.so", "/opt/libc.so.6/plugin.so"};

	(void)state;
	for (size_t i = 0; i < sizeof(are) / sizeof(are[0]); i++)
		assert_true(target_is_c_library(are[i]));
	for (size_t i = 0; i < sizeof(are_not) / sizeof(are_not[0]); i++)
		assert_false(target_is_c_library(are_not[i]));
#else
	(void)state;
	skip();
#endif
}

static void lines_of_maps_are_parsed(void **state)
{
	static const char good[] =
		"7f00-8000 rw-s 00001000 fe:01 123                 /a b (deleted)";
	static const char *const bad[] = {"", "7f00", "7f00-7f00 rw-p 0 0:0 0",
		"8000-7f00 rw-p 0 0:0 0", "7f00-8000 rw-x 0 0:0 0", "7f00-8000 rw-p 0 0:0 ",
		"10000000000000000-20000000000000000 rw-p 0 0:0 0"};
	struct target_map map;

	(void)state;
	assert_int_equal(target_map_parse(good, strlen(good), &map), 0);
	assert_int_equal(map.start, 0x7f00);
	assert_int_equal(map.end, 0x8000);
	assert_int_equal(map.offset, 0x1000);
	assert_int_equal(map.inode, 123);
	assert_true(map.read && map.write && !map.execute && map.shared);
	assert_string_equal(map.name, "/a b (deleted)");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(target_map_parse(bad[i], strlen(bad[i]), &map), -EUCLEAN);
}

static void flags_of_mappings_are_found(void **state)
{
	static const char *const flags[] = {"dc", "rd", "zz"};
	const size_t size = 4 << 20;
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct rouse_error error = {0};
	struct target *target = NULL;
	uint32_t any, all;

	(void)state;
	assert_ptr_not_equal(memory, MAP_FAILED);
	assert_int_equal(madvise(memory, size / 2, MADV_DONTFORK), 0);
	assert_int_equal(target_open(getpid(), &target, &error), 0);
	assert_int_equal(target_flags(target, (uintptr_t)memory, (uintptr_t)memory + size, flags, 3,
				 &any, &all, &error),
		0);
	assert_int_equal(any, 3);
	assert_int_equal(all, 2);
	assert_int_equal(target_flags(target, (uintptr_t)memory, (uintptr_t)memory + size / 2,
				 flags, 3, &any, &all, &error),
		0);
	assert_int_equal(all, 3);
	target_close(target);
	(void)munmap(memory, size);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_sleeping_process_sleeps_on),
		cmocka_unit_test(registers_stay_as_they_were),
		cmocka_unit_test(who_is_stopped_during_calls_makes_them_and_stops_then),
		cmocka_unit_test(calls_are_made_whenever_their_thread_is_stopped),
		cmocka_unit_test(
			registers_stay_when_the_caller_is_killed_at_each_of_its_system_calls),
		cmocka_unit_test(a_sleeping_process_wakes_when_the_caller_is_killed),
		cmocka_unit_test(a_process_that_is_not_there_is_an_error),
		cmocka_unit_test(a_thread_that_stands_still_in_the_kernel_is_not_waited_for),
		cmocka_unit_test(a_frozen_process_is_refused_and_goes_on_when_it_is_thawed),
		cmocka_unit_test(calls_are_made_although_their_thread_is_frozen_now_and_then),
		cmocka_unit_test(a_stop_from_the_keyboard_waits_until_the_thread_is_let_go_of),
		cmocka_unit_test(who_does_not_stop_in_time_is_let_go_of_although_signals_arrive),
		cmocka_unit_test(the_c_library_is_known_by_its_name),
		cmocka_unit_test(lines_of_maps_are_parsed),
		cmocka_unit_test(flags_of_mappings_are_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
