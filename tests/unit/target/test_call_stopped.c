/* SPDX-License-Identifier: MIT */
/* Stopping a thread for calls: others stop it, too, or it does not stop, or we are to stop. */
#include "call_fixture.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_is_stopped_during_calls_makes_them_and_stops_then),
		cmocka_unit_test(calls_are_made_whenever_their_thread_is_stopped),
		cmocka_unit_test(a_thread_that_stands_still_in_the_kernel_is_not_waited_for),
		cmocka_unit_test(a_stop_from_the_keyboard_waits_until_the_thread_is_let_go_of),
		cmocka_unit_test(who_does_not_stop_in_time_is_let_go_of_although_signals_arrive),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
