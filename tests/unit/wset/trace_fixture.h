/* SPDX-License-Identifier: MIT */
/* A process that checks itself, and a trace of its memory. */
#ifndef ROUSE_TESTS_TRACE_FIXTURE_H
#define ROUSE_TESTS_TRACE_FIXTURE_H

#include "../unit.h"

#include "../target/checker.h"
#include "trace_possible.h"
#include "wset/trace.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PAGES 3072u
#define WRITTEN 3000u /* the rest are holes */

static struct checker checker;

static inline void begin(bool shared,
	bool (*call)(struct checker_control *control, char *memory, uint32_t *generations))
{
	/* Copied by the fork that it begins with. */
	const struct checker_config config = {
		.pages = PAGES, .shared = shared, .holes_from = WRITTEN, .call = call};

	checker_start(&checker, &config);
}

static inline int try_start(
	struct target **target, struct trace **trace, bool shared, struct rouse_error *error)
{
	const struct trace_range range = {.address = checker.control->address,
		.bytes = PAGES * CHECKER_PAGE,
		.shared = shared};
	int code = target_open(checker.pid, target, error);

	*trace = NULL;
	return code < 0 ? code : trace_start(*target, &range, 1, 60000000, NULL, trace, error);
}

static inline struct trace *start(struct target **target, bool shared)
{
	struct rouse_error error = {0};
	struct trace *trace;

	if (try_start(target, &trace, shared, &error) < 0)
		fail_msg("%s", error.message);
	return trace;
}

static inline void stop(struct target *target, struct trace *trace, struct trace_report *report)
{
	struct rouse_error error = {0};

	if (trace_stop(trace, &error) < 0)
		fail_msg("%s", error.message);
	trace_get_report(trace, report);
	trace_free(trace);
	target_close(target);
}

/* The process does it twice while it is traced, with work before, between and behind. */
static inline void check_call(bool shared,
	bool (*call)(struct checker_control *control, char *memory, uint32_t *generations),
	unsigned int times, struct trace_report *report)
{
	struct target *target;
	struct trace *trace;

	begin(shared, call);
	trace = start(&target, shared);
	assert_true(checker_order(&checker, CHECKER_WORK));
	assert_true(checker_wait(&checker, 200));
	for (unsigned int i = 0; i < times; i++) {
		assert_true(checker_order(&checker, CHECKER_CALL));
		assert_int_equal(checker.control->errors, 0);
		assert_true(checker_order(&checker, CHECKER_WORK));
		assert_true(checker_wait(&checker, 200));
	}
	stop(target, trace, report);
	assert_true(checker_wait(&checker, 200));
	assert_true(checker_end(&checker));
}

static inline void wait_for_state(char wanted)
{
	char path[64], line[128];

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", checker.pid);
	for (;;) {
		FILE *file = fopen(path, "re");
		const char *at;

		assert_non_null(file);
		at = fgets(line, sizeof(line), file);
		(void)fclose(file);
		assert_non_null(at);
		at = strrchr(line, ')');
		if (at != NULL && at[2] == wanted)
			return;
		(void)usleep(1000);
	}
}

#endif
