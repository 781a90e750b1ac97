/* SPDX-License-Identifier: MIT */
/* Whether a process can be traced here at all: tests that need it are skipped otherwise. */
#ifndef ROUSE_TESTS_TRACE_POSSIBLE_H
#define ROUSE_TESTS_TRACE_POSSIBLE_H

#include "../target/checker.h"
#include "wset/trace.h"

/** Skips the running test, with the reason, if neither this user nor this kernel allows it. */
static inline void need_trace(void)
{
	const struct checker_config config = {.pages = 64};
	struct rouse_error error = {0};
	struct target *target = NULL;
	struct trace *trace = NULL;
	struct trace_range range;
	struct checker probe;
	int code;

	checker_start(&probe, &config);
	range = (struct trace_range){
		.address = probe.control->address, .bytes = probe.control->pages * CHECKER_PAGE};
	code = target_open(probe.pid, &target, &error);
	if (code == 0)
		code = trace_start(target, &range, 1, 1000000, NULL, &trace, &error);
	if (code == 0)
		code = trace_stop(trace, &error);
	trace_free(trace);
	target_close(target);
	assert_true(checker_end(&probe));
	if (code == -EPERM || code == -ENOTSUP || code == -ENOSYS) {
		print_message("%s\n", error.message);
		skip();
	}
}

#endif
