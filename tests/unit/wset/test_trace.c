/* SPDX-License-Identifier: MIT */
/* Memory tracing of a process that checks itself. */
#include "../unit.h"

#include "../target/checker.h"
#include "trace_possible.h"
#include "wset/trace.h"

#include <stdlib.h>

static struct trace *start(const struct checker *checker, struct target **target, bool shared)
{
	const struct trace_range range = {.address = checker->control->address,
		.bytes = checker->control->pages * CHECKER_PAGE,
		.shared = shared};
	struct rouse_error error = {0};
	struct trace *trace = NULL;

	if (target_open(checker->pid, target, &error) < 0 ||
		trace_start(*target, &range, 1, 20000000, NULL, &trace, &error) < 0)
		print_message("%s\n", error.message);
	assert_non_null(trace);
	return trace;
}

static void stop(struct trace *trace, struct trace_report *report)
{
	struct rouse_error error = {0};

	if (trace_stop(trace, &error) < 0)
		fail_msg("%s", error.message);
	trace_get_report(trace, report);
	print_message("stop %llu us, arm %llu us (gap %llu), disarm %llu us (gap %llu), faults "
		      "%llu, service %llu ns, skipped %llu, copied %llu\n",
		(unsigned long long)report->stop_ns / 1000,
		(unsigned long long)report->arm_ns / 1000,
		(unsigned long long)report->arm_pause_ns / 1000,
		(unsigned long long)report->disarm_ns / 1000,
		(unsigned long long)report->disarm_pause_ns / 1000,
		(unsigned long long)report->faults,
		(unsigned long long)(report->faults > 0 ? report->service_ns / report->faults : 0),
		(unsigned long long)report->skipped, (unsigned long long)report->copied);
}

static void check_known_touches(bool shared, bool huge)
{
	const struct checker_config config = {
		.pages = 16384, .shared = shared, .huge = huge, .holes_from = 15000};
	struct checker checker;
	struct target *target = NULL;
	struct trace_report report;
	const struct trace_touch *touches;
	struct trace *trace;
	size_t count;

	checker_start(&checker, &config);
	checker.control->list_count = 2500;
	for (uint32_t i = 0; i < 2500; i++)
		checker.control->list[i] = (struct checker_list){
			.page = (i * 7919u + 13) % 16384u, .write = i % 3 == 0};
	trace = start(&checker, &target, shared);
	assert_true(checker_order(&checker, CHECKER_TOUCH));
	stop(trace, &report);
	touches = trace_touches(trace, &count);
	assert_int_equal(count, 2500);
	for (uint32_t i = 0; i < 2500; i++) {
		assert_int_equal(touches[i].page, checker.control->list[i].page);
		assert_int_equal(touches[i].write, checker.control->list[i].write);
		assert_int_equal(touches[i].tid, checker.pid);
	}
	trace_free(trace);
	target_close(target);
	assert_true(checker_end(&checker));
}

static void known_touches_of_private_memory_are_traced_in_order(void **state)
{
	(void)state;
	need_trace();
	check_known_touches(false, false);
}

static void known_touches_of_huge_pages_are_traced_in_order(void **state)
{
	(void)state;
	need_trace();
	check_known_touches(false, true);
}

static void known_touches_of_shared_memory_are_traced_in_order(void **state)
{
	(void)state;
	need_trace();
	check_known_touches(true, false);
}

static void check_work(bool shared, bool huge)
{
	const struct checker_config config = {
		.pages = 12288, .shared = shared, .huge = huge, .holes_from = 12000};
	struct checker checker;

	checker_start(&checker, &config);
	assert_true(checker_order(&checker, CHECKER_WORK));
	for (unsigned int i = 0; i < 5; i++) {
		struct target *target = NULL;
		struct trace_report report;
		struct trace *trace = start(&checker, &target, shared);

		assert_true(checker_wait(&checker, 1000 * i));
		stop(trace, &report);
		assert_int_equal(report.lost, 0);
		trace_free(trace);
		target_close(target);
		assert_true(checker_wait(&checker, 100));
	}
	assert_true(checker_end(&checker));
}

static void private_memory_stays_right_under_work(void **state)
{
	(void)state;
	need_trace();
	check_work(false, false);
}

static void huge_pages_stay_right_under_work(void **state)
{
	(void)state;
	need_trace();
	check_work(false, true);
}

static void shared_memory_stays_right_under_work(void **state)
{
	(void)state;
	need_trace();
	check_work(true, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_touches_of_private_memory_are_traced_in_order),
		cmocka_unit_test(known_touches_of_huge_pages_are_traced_in_order),
		cmocka_unit_test(known_touches_of_shared_memory_are_traced_in_order),
		cmocka_unit_test(private_memory_stays_right_under_work),
		cmocka_unit_test(huge_pages_stay_right_under_work),
		cmocka_unit_test(shared_memory_stays_right_under_work),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
