/* SPDX-License-Identifier: MIT */
/*
 * The tracer is killed: at each of its system calls, and at random moments. The traced process
 * checks itself all the time: it must lose nothing, must not hang, and must be as it was at the
 * end.
 */
#include "../unit.h"

#include "../target/checker.h"
#include "trace_possible.h"
#include "wset/trace_private.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RANDOM_KILLS 100u
#define TRACE_US 2000u
#define LEFT_BYTES 65536u /* the agent's code and record are less; its memory is much more */

static void trace_once(const struct checker *checker, bool shared)
{
	const struct trace_range range = {.address = checker->control->address,
		.bytes = checker->control->pages * CHECKER_PAGE,
		.shared = shared};
	struct rouse_error error = {0};
	struct target *target = NULL;
	struct trace *trace = NULL;
	int code = target_open(checker->pid, &target, &error);

	if (code == 0)
		code = trace_start(target, &range, 1, 20000000, NULL, &trace, &error);
	if (code == 0)
		code = trace_wait(trace, TRACE_US, &error);
	if (code == 0)
		code = trace_stop(trace, &error);
	if (code < 0)
		(void)fprintf(stderr, "%s\n", error.message);
	trace_free(trace);
	target_close(target);
	_exit(code == 0 ? 0 : 1);
}

/* In the tracer: never outlives the test. */
static pid_t fork_tracer(const struct checker *checker, bool shared, bool stepped)
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
		trace_once(checker, shared);
	}
	assert_true(pid > 0);
	return pid;
}

/* Ends what is left, as anybody could; nothing may be left then. Whether there was anything. */
static bool disarm(const struct checker *checker)
{
	struct rouse_error error = {0};
	struct target *target = NULL;
	bool found = false, again = true;

	if (target_open(checker->pid, &target, &error) < 0 ||
		trace_disarm(target, NULL, &found, &error) < 0 ||
		trace_disarm(target, NULL, &again, &error) < 0)
		fail_msg("%s", error.message);
	assert_false(again);
	target_close(target);
	return found;
}

/* How much memory there is in the file that a mapping is of. False: that is not ours to see. */
static bool file_bytes(const struct checker *checker, const struct target_map *map, uint64_t *bytes)
{
	struct stat status;
	char path[96];

	(void)snprintf(path, sizeof(path), "/proc/%d/map_files/%llx-%llx", checker->pid,
		(unsigned long long)map->start, (unsigned long long)map->end);
	if (stat(path, &status) < 0)
		return false;
	*bytes = (uint64_t)status.st_blocks * 512;
	return true;
}

/* The record of an agent, where it is mapped. False: there is none. */
static bool read_record(
	const struct target *target, struct target_map *map, struct trace_record *record)
{
	struct target_map *maps;
	bool found = false;
	size_t count;

	assert_int_equal(target_maps(target, &maps, &count, NULL), 0);
	for (size_t i = 0; i < count; i++) {
		if (!trace_is_agents(&maps[i]) || !maps[i].write)
			continue;
		*map = maps[i];
		found = target_read(target, map->start, record, sizeof(*record)) == 0;
	}
	free(maps);
	return found;
}

/*
 * What stays of an agent that has come to its end is its code and its record. Whether one has. One
 * whose tracer had not taken its lifeline yet waits for seconds, and is told by disarming.
 */
static bool is_emptied(const struct checker *checker)
{
	const time_t began = time(NULL);
	struct target *target = NULL;
	struct trace_record record;
	struct target_map map;
	uint64_t bytes;
	bool there;

	assert_int_equal(target_open(checker->pid, &target, NULL), 0);
	there = read_record(target, &map, &record) && record.state >= TRACE_STATE_ARMING;
	while (there && record.tid != 0) {
		assert_true(time(NULL) - began < 30);
		(void)usleep(200);
		assert_true(read_record(target, &map, &record));
	}
	target_close(target);
	if (there && file_bytes(checker, &map, &bytes))
		assert_in_range(bytes, 1, LEFT_BYTES);
	return there;
}

/* Runs a tracer up to its @steps-th system call stop, and kills it there. False: it ended before.
 */
static bool kill_at_step(struct checker *checker, bool shared, unsigned int steps)
{
	pid_t pid = fork_tracer(checker, shared, true);
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSTOPPED(status));
	(void)ptrace(PTRACE_SETOPTIONS, pid, NULL, (long)PTRACE_O_EXITKILL);
	for (unsigned int i = 0; i < steps; i++) {
		if (ptrace(PTRACE_SYSCALL, pid, NULL, NULL) < 0 || waitpid(pid, &status, 0) != pid)
			fail_msg("the tracer cannot be stepped");
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
	unsigned int step = 1, left = 0, emptied = 0;

	checker_start(&checker, &config);
	assert_true(checker_order(&checker, CHECKER_WORK));
	while (kill_at_step(&checker, shared, step)) {
		assert_true(checker_wait(&checker, 30));
		emptied += is_emptied(&checker);
		left += disarm(&checker);
		assert_true(checker_wait(&checker, 30));
		assert_int_equal(checker.control->errors, 0);
		step += CHECKER_STRIDE;
	}
	print_message("killed at %u system calls, something was left after %u, without memory "
		      "after %u\n",
		(step - 1) / CHECKER_STRIDE, left, emptied);
	assert_true(step > 100);
	assert_true(left > 10);
	assert_true(emptied > 10);
	assert_true(checker_end(&checker));
}

static void a_tracer_of_private_memory_is_killed_at_each_system_call(void **state)
{
	(void)state;
	need_trace();
	check_every_step(false);
}

static void a_tracer_of_shared_memory_is_killed_at_each_system_call(void **state)
{
	(void)state;
	need_trace();
	check_every_step(true);
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
		pid_t pid = fork_tracer(&checker, shared, false);
		/* A run takes some 5 to 20 ms; much of it is disarming. */
		struct timespec delay = {.tv_nsec = rand_r(&seed) % 15000000};
		int status;

		(void)nanosleep(&delay, NULL);
		(void)kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		ended += WIFEXITED(status);
		assert_true(checker_wait(&checker, 50));
		if (i % 2 == 0)
			(void)disarm(&checker); /* while the agent may be at work */
		else
			assert_true(checker_wait(&checker, 500));
		(void)disarm(&checker);
		assert_int_equal(checker.control->errors, 0);
	}
	print_message("%u of %u tracers ended before they were killed\n", ended, RANDOM_KILLS);
	assert_true(checker_end(&checker));
}

static void a_tracer_of_private_memory_is_killed_at_random_moments(void **state)
{
	(void)state;
	need_trace();
	check_random_moments(false, false);
}

static void a_tracer_of_huge_pages_is_killed_at_random_moments(void **state)
{
	(void)state;
	need_trace();
	check_random_moments(false, true);
}

static void a_tracer_of_shared_memory_is_killed_at_random_moments(void **state)
{
	(void)state;
	need_trace();
	check_random_moments(true, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_tracer_of_private_memory_is_killed_at_each_system_call),
		cmocka_unit_test(a_tracer_of_shared_memory_is_killed_at_each_system_call),
		cmocka_unit_test(a_tracer_of_private_memory_is_killed_at_random_moments),
		cmocka_unit_test(a_tracer_of_huge_pages_is_killed_at_random_moments),
		cmocka_unit_test(a_tracer_of_shared_memory_is_killed_at_random_moments),
	};

	/* Who is killed leaves pipes without a reader. */
	(void)signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
