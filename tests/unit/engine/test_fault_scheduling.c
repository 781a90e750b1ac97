/* SPDX-License-Identifier: MIT */
/* How the thread that answers faults is scheduled: as far as it is allowed to be. */
#include "engine_fixture.h"

#include <errno.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define UNPRIVILEGED 65534 /* nobody */

/* Whether a thread of this process may be realtime; it is not, afterwards. */
static bool may_be_realtime(void)
{
	const struct sched_param realtime = {.sched_priority = sched_get_priority_min(SCHED_RR)};
	const struct sched_param ordinary = {.sched_priority = 0};
	const bool may = sched_setscheduler(0, SCHED_RR, &realtime) == 0;

	assert_int_equal(sched_setscheduler(0, SCHED_OTHER, &ordinary), 0);
	return may;
}

static void faults_are_answered_in_realtime_where_that_is_allowed(void **state)
{
	static const uint64_t wanted[] = {1};
	const struct fixture *fixture = *state;
	const bool may = may_be_realtime();
	struct run run;

	make_image(fixture->path, NULL, 0);
	run_open(&run, fixture->path);
	assert_int_equal(run_engine(&run,
				 (struct rouse_engine_config){.policy = ROUSE_POLICY_LAZY,
					 .background = ROUSE_BACKGROUND_MAX},
				 wanted, 1),
		0);
	assert_int_equal(run.fake->scheduling, may ? SCHED_RR : SCHED_OTHER);
	assert_int_equal(sched_getscheduler(0), SCHED_OTHER);
	run_close(&run);
}

/* A limit on realtime without a pause: it would end the process. */
static int answer_with_a_limit_on_realtime(struct run *run)
{
	static const uint64_t wanted[] = {1};
	const struct rlimit second = {.rlim_cur = 1000000, .rlim_max = 1000000};

	if (setrlimit(RLIMIT_RTTIME, &second) < 0)
		return 1;
	if (run_engine(run,
		    (struct rouse_engine_config){
			    .policy = ROUSE_POLICY_LAZY, .background = ROUSE_BACKGROUND_MAX},
		    wanted, 1) < 0)
		return 3;
	return run->fake->scheduling == SCHED_OTHER ? 0 : 4;
}

/* In a child: the exit code. */
static int answer_without_privileges(struct run *run)
{
	static const uint64_t wanted[] = {1};
	const struct rlimit none = {0};
	const int nice = getpriority(PRIO_PROCESS, 0);

	if (setrlimit(RLIMIT_RTPRIO, &none) < 0 || setrlimit(RLIMIT_NICE, &none) < 0)
		return 1;
	if (geteuid() == 0 && setresuid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED) < 0)
		return errno == EINVAL ? 0 : 2; /* a namespace has no such user */
	if (run_engine(run,
		    (struct rouse_engine_config){
			    .policy = ROUSE_POLICY_LAZY, .background = ROUSE_BACKGROUND_MAX},
		    wanted, 1) < 0)
		return 3;
	return run->fake->scheduling == SCHED_OTHER && run->fake->nice == nice ? 0 : 4;
}

static void answer_in_child(const char *path, int (*answer)(struct run *run))
{
	struct run run;
	int status;
	pid_t child;

	make_image(path, NULL, 0);
	run_open(&run, path);
	child = fork();
	assert_true(child >= 0);
	if (child == 0)
		_exit(answer(&run));
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	rouse_reader_close(run.reader);
	rouse_source_destroy(run.source);
}

static void faults_are_answered_where_no_priority_is_allowed(void **state)
{
	answer_in_child(((struct fixture *)*state)->path, answer_without_privileges);
}

static void faults_are_not_answered_in_realtime_under_a_limit(void **state)
{
	answer_in_child(((struct fixture *)*state)->path, answer_with_a_limit_on_realtime);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
		T(faults_are_answered_in_realtime_where_that_is_allowed),
		T(faults_are_answered_where_no_priority_is_allowed),
		T(faults_are_not_answered_in_realtime_under_a_limit),
#undef T
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
