/* SPDX-License-Identifier: MIT */
/* Traces that cannot end as they should: the process is killed or stopped, or lies. */
#include "trace_fixture.h"
#include "wset/trace_record.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

static void a_process_that_is_killed_ends_the_trace(void **state)
{
	struct rouse_error error = {0};
	struct target *target;
	struct trace *trace;

	(void)state;
	need_trace();
	begin(false, NULL);
	trace = start(&target, false);
	(void)kill(checker.pid, SIGKILL);
	assert_int_equal(trace_wait(trace, 60000000, &error), -ESRCH);
	assert_int_equal(trace_stop(trace, &error), -ESRCH);
	trace_free(trace);
	target_close(target);
	(void)waitpid(checker.pid, NULL, 0);
}

static void a_process_that_is_stopped_puts_everything_back_when_it_goes_on(void **state)
{
	struct rouse_error error = {0};
	struct target *target;
	struct trace *trace;
	bool found;

	(void)state;
	need_trace();
	begin(false, NULL);
	trace = start(&target, false);
	assert_true(checker_order(&checker, CHECKER_WORK));
	assert_true(checker_wait(&checker, 50));
	(void)kill(checker.pid, SIGSTOP);
	wait_for_state('T');
	assert_int_equal(trace_stop(trace, &error), -EBUSY);
	assert_non_null(strstr(error.message, "SIGCONT"));
	trace_free(trace);
	assert_int_equal(trace_disarm(target, NULL, &found, &error), -EBUSY);
	(void)kill(checker.pid, SIGCONT);
	assert_true(checker_wait(&checker, 500));
	assert_int_equal(trace_disarm(target, NULL, &found, &error), 0);
	target_close(target);
	assert_true(checker_end(&checker));
}

static pid_t find_agent(void)
{
	char path[320], name[32] = "";
	struct dirent *entry;
	pid_t found = 0;
	DIR *list;

	(void)snprintf(path, sizeof(path), "/proc/%d/task", checker.pid);
	list = opendir(path);
	assert_non_null(list);
	while ((entry = readdir(list)) != NULL) {
		FILE *file;

		(void)snprintf(
			path, sizeof(path), "/proc/%d/task/%s/comm", checker.pid, entry->d_name);
		file = entry->d_name[0] != '.' ? fopen(path, "re") : NULL;
		if (file != NULL && fgets(name, sizeof(name), file) != NULL &&
			strcmp(name, "rouse-trace\n") == 0)
			found = (pid_t)strtol(entry->d_name, NULL, 10);
		if (file != NULL)
			(void)fclose(file);
	}
	(void)closedir(list);
	return found;
}

/* As in a call that does not return. It takes as long as a tracer waits. */
static void an_agent_that_does_not_get_on_is_not_waited_for_for_ever(void **state)
{
	struct rouse_error error = {0};
	struct target *target;
	struct trace *trace;
	bool found;
	pid_t agent;

	(void)state;
	need_trace();
	begin(false, NULL);
	trace = start(&target, false);
	agent = find_agent();
	assert_true(agent > 0);
	assert_int_equal(ptrace(PTRACE_SEIZE, agent, NULL, NULL), 0);
	assert_int_equal(ptrace(PTRACE_INTERRUPT, agent, NULL, NULL), 0);
	assert_int_equal(waitpid(agent, NULL, __WALL), agent);
	assert_int_equal(trace_stop(trace, &error), -ETIMEDOUT);
	assert_non_null(strstr(error.message, "--disarm"));
	trace_free(trace);
	assert_int_equal(ptrace(PTRACE_DETACH, agent, NULL, NULL), 0);
	assert_int_equal(trace_disarm(target, NULL, &found, &error), 0);
	assert_int_equal(find_agent(), 0);
	target_close(target);
	assert_true(checker_end(&checker));
}

/* The record of the trace, which the process can find, and change. */
static struct trace_record *find_record(void)
{
	FILE *file = fopen("/proc/self/maps", "re");
	unsigned long start = 0;
	char line[512];

	while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
		if (strstr(line, "/memfd:rouse-trace ") != NULL && strstr(line, " rw-s ") != NULL)
			start = strtoul(line, NULL, 16);
	}
	if (file != NULL)
		(void)fclose(file);
	return (struct trace_record *)start;
}

/* Sizes and places that make sense, but are not those that the tracer has mapped. */
static bool do_falsify(struct checker_control *control, char *memory, uint32_t *generations)
{
	struct trace_record *record = find_record();

	(void)control, (void)memory, (void)generations;
	if (record == NULL)
		return false;
	record->data_bytes += record->code_bytes;
	record->code_bytes = 0;
	record->log_offset = record->data_bytes - TRACE_PAGE;
	record->log_room = record->log_count = TRACE_PAGE / sizeof(struct trace_entry);
	return true;
}

static void a_record_that_the_process_has_falsified_is_not_believed(void **state)
{
	struct rouse_error error = {0};
	struct target *target = NULL;
	struct trace *trace;

	(void)state;
	need_trace();
	begin(false, do_falsify);
	trace = start(&target, false);
	assert_true(checker_order(&checker, CHECKER_CALL));
	assert_int_equal(checker.control->errors, 0);
	assert_int_equal(trace_stop(trace, &error), -EUCLEAN);
	trace_free(trace);
	target_close(target);
	assert_true(checker_end(&checker));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_process_that_is_killed_ends_the_trace),
		cmocka_unit_test(a_process_that_is_stopped_puts_everything_back_when_it_goes_on),
		cmocka_unit_test(an_agent_that_does_not_get_on_is_not_waited_for_for_ever),
		cmocka_unit_test(a_record_that_the_process_has_falsified_is_not_believed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
