/* SPDX-License-Identifier: MIT */
/* Tracing a process that has pinned memory. */
#include "../unit.h"

#include "../target/checker.h"
#include "../wset/trace_possible.h"
#include "api/trace_session.h"

#include <errno.h>
#include <liburing.h>
#include <string.h>

#define PAGES 4096u
#define MIN_BYTES ((uint64_t)12 << 20) /* what the checker checks is more, all else is less */

static bool do_pin(struct checker_control *control, char *memory, uint32_t *generations)
{
	static struct io_uring ring;
	const struct iovec buffer = {memory + 40 * CHECKER_PAGE, 16 * CHECKER_PAGE};

	(void)generations;
	control->step = io_uring_queue_init(4, &ring, 0) == 0 &&
			io_uring_register_buffers(&ring, &buffer, 1) == 0;
	return true;
}

static void need_small_process(void)
{
	need_trace();
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	print_message("sanitizers have large mappings of their own\n");
	skip();
#endif
}

/* What trace_session_start() says of a process, with some memory pinned or not. */
static int try_start(bool shared, bool pin, struct rouse_trace_report *report)
{
	const struct checker_config config = {.pages = PAGES, .shared = shared, .call = do_pin};
	struct trace_session_config wanted = {.min_bytes = MIN_BYTES};
	struct trace_session *session = NULL;
	struct rouse_error error = {0};
	struct checker checker;
	int code;

	checker_start(&checker, &config);
	if (pin)
		assert_true(checker_order(&checker, CHECKER_CALL));
	if (pin && checker.control->step == 0) {
		assert_true(checker_end(&checker));
		print_message("io_uring cannot pin memory here\n");
		skip();
	}
	wanted.pid = checker.pid;
	assert_int_equal(trace_session_new(&wanted, &session, &error), 0);
	code = trace_session_start(session, 20000000, &error);
	if (code == 0)
		assert_int_equal(trace_session_stop(session, &error), 0);
	else
		assert_non_null(strstr(error.message, "pinned"));
	trace_session_get_report(session, report);
	trace_session_free(session);
	assert_true(checker_end(&checker));
	return code;
}

static void private_memory_is_traced_if_nothing_is_pinned(void **state)
{
	struct rouse_trace_report report;

	(void)state;
	need_small_process();
	assert_int_equal(try_start(false, false, &report), 0);
	assert_true(report.traced_bytes >= (uint64_t)PAGES * CHECKER_PAGE);
}

static void private_memory_is_left_out_if_something_is_pinned(void **state)
{
	struct rouse_trace_report report;

	(void)state;
	need_small_process();
	assert_int_equal(try_start(false, true, &report), -ENOTSUP);
	assert_int_equal(report.traced_bytes, 0);
	assert_true(report.untraced_bytes >= (uint64_t)PAGES * CHECKER_PAGE);
}

static void shared_memory_is_traced_although_something_is_pinned(void **state)
{
	struct rouse_trace_report report;

	(void)state;
	need_small_process();
	assert_int_equal(try_start(true, true, &report), 0);
	assert_true(report.traced_bytes >= (uint64_t)PAGES * CHECKER_PAGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(private_memory_is_traced_if_nothing_is_pinned),
		cmocka_unit_test(private_memory_is_left_out_if_something_is_pinned),
		cmocka_unit_test(shared_memory_is_traced_although_something_is_pinned),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
