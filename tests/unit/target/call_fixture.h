/* SPDX-License-Identifier: MIT */
/* Processes that notice what a call made in them leaves behind, and the calls that are made. */
#ifndef ROUSE_TESTS_CALL_FIXTURE_H
#define ROUSE_TESTS_CALL_FIXTURE_H

#include "../unit.h"

#include "target/target_private.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
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
static inline pid_t start(void (*function)(struct shared *shared), struct shared **shared)
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

static inline void wait_counter(const uint64_t *counter, uint64_t more)
{
	const uint64_t until = __atomic_load_n(counter, __ATOMIC_SEQ_CST) + more;
	const time_t began = time(NULL);

	while (__atomic_load_n(counter, __ATOMIC_SEQ_CST) < until) {
		if (time(NULL) - began > 60)
			fail_msg("the process hangs");
		(void)usleep(200);
	}
}

static inline void wait_rounds(const struct shared *shared, uint64_t rounds)
{
	wait_counter(&shared->rounds, rounds);
}

static inline void end(pid_t pid, struct shared *shared)
{
	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, NULL, 0);
	assert_int_equal(shared->errors, 0);
	(void)munmap(shared, sizeof(*shared));
}

/* A system call that has to be taken up again where it was interrupted. */
static inline void sleep_a_little(struct shared *shared)
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
static inline void watch_registers(struct shared *shared)
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
static inline int make_calls(pid_t pid, struct rouse_error *error)
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

static inline void check_results(pid_t pid)
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
static inline void need_calls(pid_t pid)
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

/* The signals that it blocks. */
static inline void note_signals(pid_t pid, char *value, size_t size)
{
	struct target *target = NULL;

	assert_int_equal(target_open(pid, &target, NULL), 0);
	assert_int_equal(target_status(target, "SigBlk", value, size), 0);
	target_close(target);
}

/*
 * Calls between which SIGSTOP comes at any moment. fork(2) is one that gives way to a signal; the
 * child, which would go on as the process does, is not needed.
 */
static inline int call_and_fork(struct target *target, pid_t pid, struct rouse_error *error)
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

#endif
