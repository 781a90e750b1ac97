/* SPDX-License-Identifier: MIT */
/* System calls in another process: what they return, and that they leave nothing behind. */
#include "call_fixture.h"

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

static void a_process_that_is_not_there_is_an_error(void **state)
{
	struct rouse_error error = {0};
	struct target *target = NULL;

	(void)state;
	assert_int_equal(target_open(0x3fffffff, &target, &error), -ESRCH);
	assert_int_equal(target_open(0, &target, &error), -ESRCH);
	assert_null(target);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_sleeping_process_sleeps_on),
		cmocka_unit_test(registers_stay_as_they_were),
		cmocka_unit_test(a_process_that_is_not_there_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
