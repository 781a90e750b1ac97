/* SPDX-License-Identifier: MIT */
/* System calls in another process, whose caller is killed at each of its own. */
#include "call_fixture.h"

#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			registers_stay_when_the_caller_is_killed_at_each_of_its_system_calls),
		cmocka_unit_test(a_sleeping_process_wakes_when_the_caller_is_killed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
