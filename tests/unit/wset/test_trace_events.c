/* SPDX-License-Identifier: MIT */
/* What the traced process may do while it is traced: fork, move and give back memory, execute. */
#include "trace_fixture.h"

#include "trace_deeds.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void a_child_gets_all_memory_and_the_parent_keeps_it(void **state)
{
	struct trace_report report;

	(void)state;
	need_trace();
	check_call(false, do_fork, 2, &report);
	assert_true(report.forks >= 2); /* theirs too, if they had not got all by then */
}

static void a_child_may_change_its_memory_while_it_still_lacks_pages(void **state)
{
	struct trace_report report;

	(void)state;
	need_trace();
	check_call(false, do_busy_child, 2, &report);
}

static void a_child_that_executes_another_program_costs_nothing(void **state)
{
	struct trace_report report;

	(void)state;
	need_trace();
	check_call(false, do_exec_child, 2, &report);
}

static void memory_that_is_given_back_is_zeros_and_does_not_come_back(void **state)
{
	struct trace_report report;

	(void)state;
	need_trace();
	check_call(false, do_give_back, 2, &report);
	assert_true(report.removed >= 900);
}

static void shared_memory_that_is_unmapped_keeps_its_data(void **state)
{
	struct trace_report report;

	(void)state;
	need_trace();
	check_call(true, do_unmap_shared, 2, &report);
}

static void shared_memory_that_is_punched_out_is_zeros(void **state)
{
	struct trace_report report;

	(void)state;
	need_trace();
	check_call(true, do_punch_shared, 2, &report);
}

static void memory_may_be_unmapped_and_mapped_anew(void **state)
{
	struct trace_report report;

	(void)state;
	need_trace();
	check_call(false, do_map_over, 2, &report);
}

static void memory_may_be_unmapped_and_grown_back(void **state)
{
	struct trace_report report;

	(void)state;
	need_trace();
	check_call(false, do_grow_back, 4, &report);
	assert_true(report.removed > 0);
}

static void a_child_may_unmap_memory_and_grow_it_back(void **state)
{
	struct trace_report report;

	(void)state;
	need_trace();
	check_call(false, do_grow_child, 2, &report);
}

static void memory_may_be_moved(void **state)
{
	struct trace_report report;

	(void)state;
	need_trace();
	check_call(false, do_move, 2, &report);
	assert_true(report.remaps >= 3);
}

static void memory_may_be_moved_over_other_memory(void **state)
{
	struct trace_report report;

	(void)state;
	need_trace();
	check_call(false, do_move_over, 2, &report);
}

/* The trace ends before its table of areas is full; what happens until then must be right. */
static void memory_may_be_taken_to_pieces(void **state)
{
	struct rouse_error error = {0};
	struct trace_report report;
	struct target *target;
	struct trace *trace;

	(void)state;
	need_trace();
	begin(false, do_scatter);
	trace = start(&target, false);
	assert_true(checker_order(&checker, CHECKER_CALL));
	assert_int_equal(checker.control->errors, 0);
	assert_int_equal(trace_wait(trace, 60000000, &error), 1);
	stop(target, trace, &report);
	assert_true(report.remaps >= 256);
	assert_true(checker_end(&checker));
}

static void shared_memory_may_be_moved(void **state)
{
	struct trace_report report;

	(void)state;
	need_trace();
	check_call(true, do_move, 2, &report);
}

static void memory_may_be_locked(void **state)
{
	struct trace_report report;

	(void)state;
	need_trace();
	check_call(false, do_lock, 1, &report);
}

static void memory_may_be_advised_on(void **state)
{
	struct trace_report report;

	(void)state;
	need_trace();
	check_call(false, do_advise, 2, &report);
}

static void the_process_may_close_all_its_files(void **state)
{
	struct trace_report report;

	(void)state;
	need_trace();
	check_call(false, do_close_all, 2, &report);
}

static void memory_may_be_protected_when_it_is_put_back(void **state)
{
	struct trace_report report;
	struct target *target;
	struct trace *trace;

	(void)state;
	need_trace();
	begin(false, do_protect);
	trace = start(&target, false);
	assert_true(checker_order(&checker, CHECKER_CALL));
	stop(target, trace, &report);
	assert_true(report.copied > 0);
	assert_true(checker_order(&checker, CHECKER_CALL));
	assert_true(checker_end(&checker));
}

static void a_process_that_executes_another_program_is_left_alone(void **state)
{
	struct rouse_error error = {0};
	struct target *target;
	struct trace *trace;
	bool found;

	(void)state;
	need_trace();
	begin(false, do_exec);
	trace = start(&target, false);
	__atomic_store_n(&checker.control->order, CHECKER_CALL, __ATOMIC_SEQ_CST);
	__atomic_fetch_add(&checker.control->number, 1, __ATOMIC_SEQ_CST);
	assert_int_equal(trace_wait(trace, 60000000, &error), 1);
	(void)trace_stop(trace, &error);
	trace_free(trace);
	assert_int_equal(trace_disarm(target, NULL, &found, &error), 0);
	assert_false(found);
	assert_true(target_alive(target));
	target_close(target);
	(void)kill(checker.pid, SIGKILL);
	(void)waitpid(checker.pid, NULL, 0);
}

/* Forks without address space for anything, twice at once. */
static bool do_fork_limited(struct checker_control *control, char *memory, uint32_t *generations)
{
	const struct rlimit none = {CHECKER_PAGE, RLIM_INFINITY},
			    all = {RLIM_INFINITY, RLIM_INFINITY};
	bool good = true;
	pid_t pids[2];

	(void)control;
	if (setrlimit(RLIMIT_AS, &none) < 0)
		return false;
	for (unsigned int i = 0; i < 2; i++) {
		pids[i] = fork();
		if (pids[i] == 0)
			_exit(check_all(memory, generations) ? 0 : 1);
	}
	for (uint64_t page = 0; page < PAGES; page += 3)
		checker_stamp(memory, page, ++generations[page]);
	for (unsigned int i = 0; i < 2; i++)
		good = wait_child(pids[i]) && good;
	return setrlimit(RLIMIT_AS, &all) == 0 && good;
}

static void a_process_without_address_space_may_fork(void **state)
{
	struct trace_report report;

	(void)state;
	need_trace();
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	print_message("sanitizers need the address space themselves\n");
	skip();
#endif
	check_call(false, do_fork_limited, 2, &report);
	assert_true(report.forks >= 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_child_gets_all_memory_and_the_parent_keeps_it),
		cmocka_unit_test(a_child_may_change_its_memory_while_it_still_lacks_pages),
		cmocka_unit_test(a_child_that_executes_another_program_costs_nothing),
		cmocka_unit_test(memory_that_is_given_back_is_zeros_and_does_not_come_back),
		cmocka_unit_test(shared_memory_that_is_unmapped_keeps_its_data),
		cmocka_unit_test(shared_memory_that_is_punched_out_is_zeros),
		cmocka_unit_test(memory_may_be_unmapped_and_mapped_anew),
		cmocka_unit_test(memory_may_be_unmapped_and_grown_back),
		cmocka_unit_test(a_child_may_unmap_memory_and_grow_it_back),
		cmocka_unit_test(memory_may_be_moved),
		cmocka_unit_test(memory_may_be_moved_over_other_memory),
		cmocka_unit_test(memory_may_be_taken_to_pieces),
		cmocka_unit_test(shared_memory_may_be_moved),
		cmocka_unit_test(memory_may_be_locked),
		cmocka_unit_test(memory_may_be_advised_on),
		cmocka_unit_test(the_process_may_close_all_its_files),
		cmocka_unit_test(memory_may_be_protected_when_it_is_put_back),
		cmocka_unit_test(a_process_that_executes_another_program_is_left_alone),
		cmocka_unit_test(a_process_without_address_space_may_fork),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
