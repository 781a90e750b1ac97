/* SPDX-License-Identifier: MIT */
/*
 * The scanner is killed: at each of its system calls, and at random moments. The scanned process
 * checks itself all the time: it must lose nothing and not hang, and can be scanned again.
 */
#include "../unit.h"

#include "../target/checker.h"
#include "wset/scan.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RANDOM_KILLS 100u
#define SCANS 4u

/* The sources that put something into the process, and stop it. */
static const struct scan_config everything_shared = {
	.rule = {.decay = SCAN_RULE_DECAY_ONE}, .source = ROUSE_SCAN_PRESENCE};
static const struct scan_config everything_private = {
	.rule = {.decay = SCAN_RULE_DECAY_ONE}, .source = ROUSE_SCAN_WRITES};

static int scan_some(const struct checker *checker, bool shared)
{
	const struct trace_range range = {.address = checker->control->address,
		.bytes = checker->control->pages * CHECKER_PAGE,
		.shared = shared};
	struct rouse_error error = {0};
	struct target *target = NULL;
	struct scan *scan = NULL;
	int code = target_open(checker->pid, &target, &error);

	if (code == 0)
		code = scan_start(target, &range, 1,
			shared ? &everything_shared : &everything_private, &scan, &error);
	for (unsigned int i = 0; i < SCANS && code == 0; i++)
		code = scan_take(scan, i + 1 == SCANS, &error);
	if (code < 0)
		(void)fprintf(stderr, "%s\n", error.message);
	scan_free(scan);
	target_close(target);
	return code;
}

/* In the scanner: never outlives the test. */
static pid_t fork_scanner(const struct checker *checker, bool shared, bool stepped)
{
	pid_t pid;

	(void)fflush(NULL);
	pid = fork();
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (stepped) {
			(void)ptrace(PTRACE_TRACEME, 0, NULL, NULL);
			(void)raise(SIGSTOP);
		}
		_exit(scan_some(checker, shared) == 0 ? 0 : 1);
	}
	assert_true(pid > 0);
	return pid;
}

/* Whether anything was left; nothing is afterwards. */
static bool clean(const struct checker *checker)
{
	struct rouse_error error = {0};
	struct target *target = NULL;
	bool found = false, again = true;

	if (target_open(checker->pid, &target, &error) < 0 ||
		scan_clean(target, &found, &error) < 0 || scan_clean(target, &again, &error) < 0)
		fail_msg("%s", error.message);
	assert_false(again);
	target_close(target);
	return found;
}

/* Runs a scanner up to its @steps-th system call stop, and kills it there. False: it had ended. */
static bool kill_at_step(const struct checker *checker, bool shared, unsigned int steps)
{
	pid_t pid = fork_scanner(checker, shared, true);
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSTOPPED(status));
	(void)ptrace(PTRACE_SETOPTIONS, pid, NULL, (long)PTRACE_O_EXITKILL);
	for (unsigned int i = 0; i < steps; i++) {
		if (ptrace(PTRACE_SYSCALL, pid, NULL, NULL) < 0 || waitpid(pid, &status, 0) != pid)
			fail_msg("the scanner cannot be stepped");
		if (WIFEXITED(status)) {
			assert_int_equal(WEXITSTATUS(status), 0);
			return false;
		}
		assert_true(WIFSTOPPED(status));
	}
	(void)kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) == pid && !WIFSIGNALED(status))
		;
	return true;
}

static void check_every_step(bool shared)
{
	const struct checker_config config = {.pages = 1536, .shared = shared, .holes_from = 1500};
	struct checker checker;
	unsigned int step = 1, left = 0;

	checker_start(&checker, &config);
	assert_true(checker_order(&checker, CHECKER_WORK));
	while (kill_at_step(&checker, shared, step)) {
		assert_true(checker_wait(&checker, 30));
		if (step % 2 == 0)
			left += clean(&checker);
		if (step % 8 == 1)
			assert_int_equal(scan_some(&checker, shared), 0);
		assert_int_equal(checker.control->errors, 0);
		step += CHECKER_STRIDE;
	}
	print_message("killed at %u system calls, something was left after %u\n",
		(step - 1) / CHECKER_STRIDE, left);
	assert_true(step > 100);
	assert_true(left > 3);
	assert_false(clean(&checker));
	assert_true(checker_end(&checker));
}

static void a_scanner_of_shared_memory_is_killed_at_each_system_call(void **state)
{
	(void)state;
	check_every_step(true);
}

static void a_scanner_of_private_memory_is_killed_at_each_system_call(void **state)
{
	(void)state;
	check_every_step(false);
}

static unsigned int seeded(void)
{
	const char *given = getenv("ROUSE_TEST_SEED");
	unsigned int seed = given != NULL ? (unsigned int)strtoul(given, NULL, 10)
					  : (unsigned int)time(NULL) ^ (unsigned int)getpid();

	print_message("ROUSE_TEST_SEED=%u\n", seed);
	return seed;
}

static void check_random_moments(bool shared, bool huge)
{
	const struct checker_config config = {
		.pages = 12288, .shared = shared, .huge = huge, .holes_from = 12000};
	unsigned int seed = seeded(), ended = 0;
	struct checker checker;

	checker_start(&checker, &config);
	assert_true(checker_order(&checker, CHECKER_WORK));
	for (unsigned int i = 0; i < RANDOM_KILLS; i++) {
		pid_t pid = fork_scanner(&checker, shared, false);
		struct timespec delay = {.tv_nsec = rand_r(&seed) % 8000000};
		int status;

		(void)nanosleep(&delay, NULL);
		(void)kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		ended += WIFEXITED(status);
		assert_true(checker_wait(&checker, 50));
		assert_int_equal(checker.control->errors, 0);
		if (i % 10 == 0)
			assert_int_equal(scan_some(&checker, shared), 0);
	}
	print_message("%u of %u scanners ended before they were killed\n", ended, RANDOM_KILLS);
	assert_int_equal(scan_some(&checker, shared), 0);
	assert_false(clean(&checker));
	assert_true(checker_end(&checker));
}

static void a_scanner_of_shared_memory_is_killed_at_random_moments(void **state)
{
	(void)state;
	check_random_moments(true, false);
}

static void a_scanner_of_private_memory_is_killed_at_random_moments(void **state)
{
	(void)state;
	check_random_moments(false, false);
}

static void a_scanner_of_huge_pages_is_killed_at_random_moments(void **state)
{
	(void)state;
	check_random_moments(false, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_scanner_of_shared_memory_is_killed_at_each_system_call),
		cmocka_unit_test(a_scanner_of_private_memory_is_killed_at_each_system_call),
		cmocka_unit_test(a_scanner_of_shared_memory_is_killed_at_random_moments),
		cmocka_unit_test(a_scanner_of_private_memory_is_killed_at_random_moments),
		cmocka_unit_test(a_scanner_of_huge_pages_is_killed_at_random_moments),
	};

	/* Who is killed leaves pipes without a reader. */
	(void)signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
