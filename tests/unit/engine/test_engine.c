/* SPDX-License-Identifier: MIT */
/* The engine over real images and a fake guest (fake_sink.h). */
#include "engine/paced_start.h"
#include "engine/pacer.h"
#include "engine_fixture.h"

#include <sys/wait.h>

#define UNPRIVILEGED 65534 /* nobody */

#include <fcntl.h>

static void eager_places_every_page_before_the_start(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_engine_stats stats;
	struct run run;

	make_image(fixture->path, NULL, 0);
	run_open(&run, fixture->path);
	assert_int_equal(
		run_engine(
			&run, (struct rouse_engine_config){.policy = ROUSE_POLICY_EAGER}, NULL, 0),
		0);
	check_memory(&run, true);
	rouse_engine_get_stats(run.engine, &stats);
	assert_int_equal(stats.prefetched_pages, PAGES);
	for (uint64_t i = 0; i < PAGES; i++)
		assert_int_equal(run.fake->state[i], 1);
	run_close(&run);
}

static void lazy_answers_faults_and_delivers_the_rest(void **state)
{
	static const uint64_t wanted[] = {8999, 0, 14, 1, 2, 5000, 10, 15, 4095, 4096};
	const struct fixture *fixture = *state;
	const struct rouse_fault *faults;
	struct run run;
	uint64_t count;

	make_image(fixture->path, NULL, 0);
	run_open(&run, fixture->path);
	assert_int_equal(run_engine(&run,
				 (struct rouse_engine_config){.policy = ROUSE_POLICY_LAZY,
					 .background = ROUSE_BACKGROUND_MAX,
					 .record = true,
					 .quiet_us = 200000},
				 wanted, 10),
		0);
	check_memory(&run, false);
	faults = rouse_engine_faults(run.engine, &count);
	/* The background was held back for long enough: the trace is the guest's, in its order. */
	assert_int_equal(count, 10);
	for (size_t i = 0; i < 10; i++)
		assert_int_equal(faults[i].page, wanted[i]);
	run_close(&run);
}

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

static void without_background_only_what_is_asked_for_is_placed(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_cancel *cancel = NULL;
	const uint64_t wanted[] = {3, 4, 6};
	struct rouse_observer observer = {0};
	struct rouse_engine_stats stats;
	struct run run;

	make_image(fixture->path, NULL, 0);
	run_open(&run, fixture->path);
	assert_int_equal(rouse_cancel_new(&cancel), 0);
	observer.cancel = cancel;
	rouse_cancel_fire(cancel);
	assert_int_equal(run_engine(&run,
				 (struct rouse_engine_config){
					 .policy = ROUSE_POLICY_LAZY, .observer = &observer},
				 wanted, 3),
		-ECANCELED);
	assert_int_equal(run.error.kind, ROUSE_ERROR_CANCELLED);
	rouse_engine_get_stats(run.engine, &stats);
	assert_int_equal(stats.background_pages, 0);
	run_close(&run);
	rouse_cancel_free(cancel);
}

static void a_resume_without_background_ends_when_the_last_page_came(void **state)
{
	const struct fixture *fixture = *state;
	static uint64_t wanted[PAGES];
	unsigned char content[PAGE];
	struct rouse_engine_config config = {.policy = ROUSE_POLICY_LAZY, .resume = true};
	struct run run;
	size_t missing = 0;

	make_image(fixture->path, NULL, 0);
	run_open(&run, fixture->path);
	run.fake = fake_new(PAGES, wanted, 0);
	/* Two thirds were there before; the guest asks for the others that are not zero. */
	for (uint64_t i = 0; i < PAGES; i++) {
		if (i % 3 == 0 && seed_of(i) != 0)
			wanted[missing++] = i;
		if (i % 3 == 0)
			continue;
		fill_page(content, seed_of(i));
		memcpy(run.fake->memory + i * PAGE, content, PAGE);
		run.fake->state[i] = 3;
	}
	run.fake->wanted_count = missing;
	run.fake->started = true;
	config.reader = run.reader;
	config.source = run.source;
	assert_int_equal(rouse_engine_new(&config, &run.engine, &run.error), 0);
	assert_int_equal(rouse_engine_run(run.engine, &run.fake->sink, &run.error), 0);
	check_memory(&run, false);
	assert_true(run.fake->finished);
	run_close(&run);
}

static void ws_prefetches_the_working_set_and_no_more(void **state)
{
	/* 21 is a zero page, 25 and 30 are equal, 40 is asked for but not in the set. */
	static const struct rouse_writer_touch wset[] = {
		{.page = 8000}, {.page = 21}, {.page = 25}, {.page = 30}, {.page = 2}};
	static const uint64_t wanted[] = {8000, 21, 25, 30, 2, 41};
	const struct fixture *fixture = *state;
	struct rouse_engine_stats stats;
	struct run run;
	uint64_t count;

	make_image(fixture->path, wset, 5);
	run_open(&run, fixture->path);
	assert_int_equal(run_engine(&run,
				 (struct rouse_engine_config){.policy = ROUSE_POLICY_WS,
					 .background = ROUSE_BACKGROUND_MAX,
					 .quiet_us = 100000},
				 wanted, 6),
		0);
	check_memory(&run, false);
	rouse_engine_get_stats(run.engine, &stats);
	assert_int_equal(stats.prefetched_pages, 5);
	for (size_t i = 0; i < 5; i++)
		assert_int_equal(run.fake->state[wset[i].page], 1);
	(void)rouse_engine_faults(run.engine, &count);
	assert_int_equal(count, 1);
	assert_int_equal(run.fake->state[41], 2);
	run_close(&run);
}

enum { COUNT = 2000, FIRST = 4000 };

/* With a set of COUNT pages from FIRST on, touched @step_us apart. */
static void make_paced_image(const char *path, uint32_t step_us)
{
	static struct rouse_writer_touch wset[COUNT];

	for (uint32_t i = 0; i < COUNT; i++)
		wset[i] = (struct rouse_writer_touch){.page = FIRST + i, .time_us = i * step_us};
	make_image(path, wset, COUNT);
}

/* arrived[]: how many pages of the set came in which way, as in the fake's state. */
static void run_paced_by(
	struct run *run, const struct rouse_wset *wset, bool late_is_cheap, size_t arrived[4])
{
	assert_int_equal(run_engine(run,
				 (struct rouse_engine_config){.policy = ROUSE_POLICY_PACED,
					 .wset = wset,
					 .late_is_cheap = late_is_cheap,
					 .background = ROUSE_BACKGROUND_MAX},
				 NULL, 0),
		0);
	check_memory(run, false);
	memset(arrived, 0, 4 * sizeof(arrived[0]));
	for (uint32_t i = 0; i < COUNT; i++)
		arrived[run->fake->state[FIRST + i]]++;
	assert_int_equal(arrived[0], 0);
}

static void run_paced(const char *path, uint32_t step_us, struct run *run, size_t arrived[4])
{
	make_paced_image(path, step_us);
	run_open(run, path);
	run_paced_by(run, NULL, false, arrived);
}

static void paced_starts_before_the_set_is_there_and_delivers_it(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_engine_stats stats;
	struct run run;
	size_t arrived[4];

	/* A second between two touches: no disk is so slow. */
	run_paced(fixture->path, 1000000, &run, arrived);
	assert_true(arrived[1] > 0 && arrived[3] > 0);
	rouse_engine_get_stats(run.engine, &stats);
	assert_int_equal(stats.prefetched_pages, arrived[1]);
	run_close(&run);
}

static void paced_waits_for_a_set_that_is_touched_at_once(void **state)
{
	const struct fixture *fixture = *state;
	struct run run;
	size_t arrived[4];

	run_paced(fixture->path, 0, &run, arrived);
	assert_int_equal(arrived[3], 0);
	run_close(&run);
}

/* Given, since the rate at which a packed one comes is the machine's. */
static void paced_starts_with_the_first_pages_where_a_late_one_costs_little(void **state)
{
	const struct fixture *fixture = *state;
	static struct rouse_wset_page pages[COUNT];
	const struct rouse_wset wset = {.pages = pages, .page_count = COUNT};
	struct run run;
	size_t arrived[4];

	for (uint32_t i = 0; i < COUNT; i++)
		pages[i].page = FIRST + i;
	make_image(fixture->path, NULL, 0);
	run_open(&run, fixture->path);
	run_paced_by(&run, &wset, true, arrived);
	assert_true(arrived[1] >= ROUSE_PACED_FIRST_PAGES && arrived[1] < COUNT);
	run_close(&run);
}

/* A set of COUNT pages, and a guest that asks for one page of a chunk behind it. */
static void run_peer(const char *path, enum rouse_policy policy, struct run *run,
	struct rouse_engine_stats *stats)
{
	static const uint64_t wanted[] = {100};

	make_paced_image(path, 0);
	run_open(run, path);
	assert_int_equal(run_engine(run,
				 (struct rouse_engine_config){.policy = policy,
					 .background = ROUSE_BACKGROUND_MAX,
					 .quiet_us = 100000},
				 wanted, 1),
		0);
	check_memory(run, false);
	rouse_engine_get_stats(run->engine, stats);
}

static void reap_places_the_set_and_then_single_pages(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_engine_stats stats;
	struct run run;

	run_peer(fixture->path, ROUSE_POLICY_REAP, &run, &stats);
	assert_int_equal(stats.prefetched_pages, COUNT);
	assert_int_equal(stats.around_pages + stats.ahead_pages, 0);
	assert_int_equal(run.fake->state[100], 2);
	run_close(&run);
}

static void faasnap_starts_before_anything_is_placed_and_delivers_the_set(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_engine_stats stats;
	struct run run;

	run_peer(fixture->path, ROUSE_POLICY_FAASNAP, &run, &stats);
	assert_int_equal(stats.prefetched_pages, 0);
	assert_true(stats.background_pages >= COUNT);
	assert_true(stats.around_pages > 0);
	run_close(&run);
}

static void lazy_background_places_single_pages_and_the_rest_unasked(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_engine_stats stats;
	struct run run;

	run_peer(fixture->path, ROUSE_POLICY_LAZY_BACKGROUND, &run, &stats);
	assert_int_equal(stats.prefetched_pages + stats.around_pages + stats.ahead_pages, 0);
	assert_int_equal(run.fake->state[100], 2);
	run_close(&run);
}

static void a_working_set_that_is_given_replaces_the_images_own(void **state)
{
	static const struct rouse_writer_touch own[] = {{.page = 1}};
	struct rouse_wset_page pages[] = {{.page = 8999}, {.page = 4000}};
	const struct rouse_wset given = {.pages = pages, .page_count = 2};
	const struct fixture *fixture = *state;
	struct rouse_engine_stats stats;
	struct run run;

	make_image(fixture->path, own, 1);
	run_open(&run, fixture->path);
	assert_int_equal(run_engine(&run,
				 (struct rouse_engine_config){.policy = ROUSE_POLICY_WS,
					 .wset = &given,
					 .background = ROUSE_BACKGROUND_MAX},
				 NULL, 0),
		0);
	check_memory(&run, false);
	rouse_engine_get_stats(run.engine, &stats);
	assert_int_equal(stats.prefetched_pages, 2);
	assert_int_equal(run.fake->state[8999], 1);
	assert_int_equal(run.fake->state[1], 3);
	run_close(&run);
}

/* Of the image's own set, and of one that is given. */
static void expect_left_out(const struct fixture *fixture, const struct rouse_wset *given)
{
	static const uint64_t wanted[] = {25, 2};
	struct rouse_bitmap leave_out = {0};
	struct rouse_engine_stats stats;
	struct run run;

	assert_int_equal(rouse_bitmap_init(&leave_out, PAGES), 0);
	rouse_bitmap_set(&leave_out, 25);
	rouse_bitmap_set(&leave_out, 30);
	rouse_bitmap_set(&leave_out, 4000); /* not of the set */
	run_open(&run, fixture->path);
	assert_int_equal(run_engine(&run,
				 (struct rouse_engine_config){.policy = ROUSE_POLICY_WS,
					 .wset = given,
					 .leave_out = &leave_out,
					 .background = ROUSE_BACKGROUND_MAX,
					 .record = true,
					 .quiet_us = 100000},
				 wanted, 2),
		0);
	check_memory(&run, false);
	rouse_engine_get_stats(run.engine, &stats);
	assert_int_equal(stats.prefetched_pages, 2);
	assert_int_equal(run.fake->state[2], 1);
	/* Asked for, and not asked for. */
	assert_int_equal(run.fake->state[25], 2);
	assert_int_equal(run.fake->state[30], 3);
	run_close(&run);
	rouse_bitmap_finish(&leave_out);
}

static void pages_that_are_left_out_come_when_they_are_asked_for(void **state)
{
	static const struct rouse_writer_touch own[] = {
		{.page = 8000}, {.page = 25}, {.page = 30}, {.page = 2}};
	struct rouse_wset_page pages[] = {{.page = 8000}, {.page = 25}, {.page = 30}, {.page = 2}};
	const struct rouse_wset given = {.pages = pages, .page_count = 4};
	const struct fixture *fixture = *state;

	make_image(fixture->path, own, 4);
	expect_left_out(fixture, NULL);
	expect_left_out(fixture, &given);
}

static void ws_without_a_working_set_says_how_to_get_one(void **state)
{
	const struct fixture *fixture = *state;
	struct run run;

	make_image(fixture->path, NULL, 0);
	run_open(&run, fixture->path);
	assert_int_equal(
		run_engine(&run, (struct rouse_engine_config){.policy = ROUSE_POLICY_WS}, NULL, 0),
		-ENODATA);
	assert_non_null(strstr(run.error.message, "--record"));
	assert_false(run.fake->started);
	run_close(&run);
}

/* Overwrites a few stored bytes of the chunk that holds a page. */
/* Returns where in the image. */
static uint64_t damage_chunk_of(const char *path, uint64_t page)
{
	struct run run;
	struct rouse_chunk chunk;
	uint64_t locator;
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	run_open(&run, path);
	assert_int_equal(rouse_reader_locate(run.reader, page, ROUSE_READ_BULK, &locator), 0);
	assert_int_equal(rouse_reader_chunk(
				 run.reader, rouse_locator_chunk(locator), ROUSE_READ_BULK, &chunk),
		0);
	assert_int_equal(pwrite(fd, "damage", 6, (off_t)chunk.offset + 100), 6);
	(void)close(fd);
	rouse_reader_close(run.reader);
	rouse_source_destroy(run.source);
	return chunk.offset + 100;
}

static void damage_met_before_the_start_starts_nothing(void **state)
{
	const struct fixture *fixture = *state;
	struct run run;

	make_image(fixture->path, NULL, 0);
	(void)damage_chunk_of(fixture->path, 7003);
	run_open(&run, fixture->path);
	assert_int_equal(
		run_engine(
			&run, (struct rouse_engine_config){.policy = ROUSE_POLICY_EAGER}, NULL, 0),
		-EUCLEAN);
	assert_int_equal(run.error.kind, ROUSE_ERROR_DAMAGED);
	assert_false(run.fake->started);
	run_close(&run);
}

static void damage_met_by_the_background_stops_the_guest(void **state)
{
	const struct fixture *fixture = *state;
	struct run run;

	make_image(fixture->path, NULL, 0);
	(void)damage_chunk_of(fixture->path, 7003);
	run_open(&run, fixture->path);
	assert_int_equal(run_engine(&run,
				 (struct rouse_engine_config){.policy = ROUSE_POLICY_LAZY,
					 .background = ROUSE_BACKGROUND_MAX},
				 NULL, 0),
		-EUCLEAN);
	assert_true(run.fake->stopped);
	assert_int_equal(run.fake->state[7003], 0);
	run_close(&run);
}

/*
 * A source whose reads of one chunk wait until the guest has started. The readers are ahead of what
 * is placed: without it chance would decide whether they meet the damage before the start.
 */
struct gated_source {
	struct rouse_source source;
	struct rouse_source *inner;
	uint64_t gated; /* an offset */
	const struct run *run;
};

static int gated_read(struct rouse_source *source, uint64_t offset, void *buffer, size_t size,
	enum rouse_read_priority priority)
{
	const struct gated_source *gate = (const struct gated_source *)source;
	const struct timespec pause = {.tv_nsec = 1000000};

	/* Ten seconds: then the test fails instead of hanging. */
	for (int i = 0; i < 10000 && offset <= gate->gated && gate->gated - offset < size; i++) {
		if (fake_has_started(gate->run->fake))
			break;
		(void)nanosleep(&pause, NULL);
	}
	return rouse_source_read(gate->inner, offset, buffer, size, priority);
}

static uint64_t gated_size(const struct rouse_source *source)
{
	return rouse_source_size(((const struct gated_source *)source)->inner);
}

static const struct rouse_source_ops gated_ops = {.read = gated_read, .size = gated_size};

static void damage_in_what_a_paced_start_has_left_stops_the_guest(void **state)
{
	const struct fixture *fixture = *state;
	enum { LATE = FIRST + COUNT - 2 }; /* the last one of the set that is not zero */
	struct gated_source gate = {.source.ops = &gated_ops};
	struct rouse_source *plain;
	struct run run;

	make_paced_image(fixture->path, 1000000);
	gate.gated = damage_chunk_of(fixture->path, LATE);
	run_open(&run, fixture->path);
	gate.inner = plain = run.source;
	gate.run = &run;
	run.source = &gate.source;
	assert_int_equal(run_engine(&run,
				 (struct rouse_engine_config){.policy = ROUSE_POLICY_PACED,
					 .background = ROUSE_BACKGROUND_MAX},
				 NULL, 0),
		-EUCLEAN);
	assert_int_equal(run.error.kind, ROUSE_ERROR_DAMAGED);
	assert_true(run.fake->started && run.fake->stopped);
	assert_int_equal(run.fake->state[LATE], 0);
	run.source = plain;
	run_close(&run);
}

/* The readers are ahead: no VM is started from an image that is known to be damaged. */
static void damage_met_before_a_paced_start_starts_nothing(void **state)
{
	const struct fixture *fixture = *state;
	struct run run;

	make_paced_image(fixture->path, 1000000);
	(void)damage_chunk_of(fixture->path, FIRST + 1);
	run_open(&run, fixture->path);
	assert_int_equal(
		run_engine(
			&run, (struct rouse_engine_config){.policy = ROUSE_POLICY_PACED}, NULL, 0),
		-EUCLEAN);
	assert_int_equal(run.error.kind, ROUSE_ERROR_DAMAGED);
	assert_false(run.fake->started);
	run_close(&run);
}

static void a_fault_on_a_damaged_chunk_is_never_answered(void **state)
{
	const uint64_t wanted[] = {3, 7003};
	const struct fixture *fixture = *state;
	struct run run;

	make_image(fixture->path, NULL, 0);
	(void)damage_chunk_of(fixture->path, 7003);
	run_open(&run, fixture->path);
	assert_int_equal(run_engine(&run, (struct rouse_engine_config){.policy = ROUSE_POLICY_LAZY},
				 wanted, 2),
		-EUCLEAN);
	assert_int_equal(run.error.kind, ROUSE_ERROR_DAMAGED);
	assert_int_equal(run.fake->state[3], 2);
	assert_int_equal(run.fake->state[7003], 0);
	run_close(&run);
}

/* QEMU's main loop waits for it, and says nothing: without an end of the sink nobody would know. */
static void a_damaged_page_that_loading_needs_is_an_error(void **state)
{
	const uint64_t wanted[] = {7003};
	const struct fixture *fixture = *state;
	struct rouse_engine_config config = {.policy = ROUSE_POLICY_LAZY};
	struct run run;

	make_image(fixture->path, NULL, 0);
	(void)damage_chunk_of(fixture->path, 7003);
	run_open(&run, fixture->path);
	config.reader = run.reader;
	config.source = run.source;
	run.fake = fake_new(PAGES, wanted, 1);
	run.fake->loads = true;
	assert_int_equal(rouse_engine_new(&config, &run.engine, &run.error), 0);
	assert_int_equal(rouse_engine_run(run.engine, &run.fake->sink, &run.error), -EUCLEAN);
	assert_int_equal(run.error.kind, ROUSE_ERROR_DAMAGED);
	assert_non_null(strstr(run.error.message, "not started"));
	run_close(&run);
}

static void after_the_run_nobody_logs_faults_any_more(void **state)
{
	const uint64_t wanted[] = {3};
	const struct fixture *fixture = *state;
	struct run run;

	make_image(fixture->path, NULL, 0);
	(void)damage_chunk_of(fixture->path, 7003);
	run_open(&run, fixture->path);
	/* It breaks off in the background, with a guest that goes on asking. */
	assert_int_equal(run_engine(&run,
				 (struct rouse_engine_config){.policy = ROUSE_POLICY_LAZY,
					 .background = ROUSE_BACKGROUND_MAX},
				 wanted, 1),
		-EUCLEAN);
	assert_true(run.fake->interrupted);
	assert_true(run.fake->ended);
	run_close(&run);
}

static void a_guest_that_is_gone_ends_the_restore(void **state)
{
	const uint64_t wanted[] = {3};
	const struct fixture *fixture = *state;
	struct rouse_engine_config config = {.policy = ROUSE_POLICY_LAZY};
	struct run run;

	make_image(fixture->path, NULL, 0);
	run_open(&run, fixture->path);
	config.reader = run.reader;
	config.source = run.source;
	run.fake = fake_new(PAGES, wanted, 1);
	run.fake->fail_place = -EPIPE;
	assert_int_equal(rouse_engine_new(&config, &run.engine, &run.error), 0);
	assert_int_equal(rouse_engine_run(run.engine, &run.fake->sink, &run.error), -EPIPE);
	assert_int_equal(run.error.kind, ROUSE_ERROR_VMM);
	run_close(&run);
}

/* Cancelled while the sink takes the first pages, and what the sink says to them. */
static void run_cancelled(struct run *run, const char *path, struct rouse_engine_config config,
	int sink_says, size_t wanted_count)
{
	static const uint64_t wanted[] = {3};
	struct rouse_cancel *cancel = NULL;
	struct rouse_observer observer = {0};

	make_image(path, NULL, 0);
	run_open(run, path);
	assert_int_equal(rouse_cancel_new(&cancel), 0);
	observer.cancel = cancel;
	config.reader = run->reader;
	config.source = run->source;
	config.observer = &observer;
	run->fake = fake_new(PAGES, wanted, wanted_count);
	run->fake->on_place = cancel;
	run->fake->fail_place = sink_says;
	run->fake->fail_prefetch = sink_says;
	assert_int_equal(rouse_engine_new(&config, &run->engine, &run->error), 0);
	assert_int_equal(rouse_engine_run(run->engine, &run->fake->sink, &run->error), -ECANCELED);
	assert_int_equal(run->error.kind, ROUSE_ERROR_CANCELLED);
	run->fake->on_place = NULL;
	rouse_cancel_free(cancel);
}

static void a_wait_of_the_sink_that_is_cancelled_before_the_start_is_a_cancel(void **state)
{
	const struct fixture *fixture = *state;
	struct run run;

	run_cancelled(&run, fixture->path,
		(struct rouse_engine_config){.policy = ROUSE_POLICY_EAGER}, -ECANCELED, 0);
	assert_false(run.fake->started);
	run_close(&run);
}

static void a_wait_of_the_sink_that_is_cancelled_in_the_background_is_a_cancel(void **state)
{
	const struct fixture *fixture = *state;
	struct run run;

	run_cancelled(&run, fixture->path,
		(struct rouse_engine_config){
			.policy = ROUSE_POLICY_LAZY, .background = ROUSE_BACKGROUND_MAX},
		-ECANCELED, 0);
	assert_non_null(strstr(run.error.message, "--resume"));
	run_close(&run);
}

static void a_wait_of_the_sink_that_is_cancelled_for_a_fault_is_a_cancel(void **state)
{
	const struct fixture *fixture = *state;
	struct run run;

	run_cancelled(&run, fixture->path,
		(struct rouse_engine_config){.policy = ROUSE_POLICY_LAZY}, -ECANCELED, 1);
	assert_non_null(strstr(run.error.message, "--resume"));
	run_close(&run);
}

static void a_cancel_does_not_wait_for_the_rest_of_a_window(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_engine_stats stats;
	struct run run;

	/* A piece in a few hours: who goes on with the next one is seen to. */
	run_cancelled(&run, fixture->path,
		(struct rouse_engine_config){.policy = ROUSE_POLICY_LAZY, .background = 1}, 0, 0);
	rouse_engine_get_stats(run.engine, &stats);
	assert_true(stats.background_pages <= ROUSE_PACER_PIECE);
	run_close(&run);
}

/* Faults and background race for every page: all content right, each page placed by one of them. */
static void faults_and_background_together_deliver_each_page(void **state)
{
	static uint64_t wanted[PAGES];
	const struct fixture *fixture = *state;
	struct run run;

	for (uint64_t i = 0; i < PAGES; i++)
		wanted[i] = i * 4999 % PAGES;
	make_image(fixture->path, NULL, 0);
	for (unsigned int round = 0; round < 3; round++) {
		run_open(&run, fixture->path);
		assert_int_equal(run_engine(&run,
					 (struct rouse_engine_config){.policy = ROUSE_POLICY_LAZY,
						 .background = ROUSE_BACKGROUND_MAX},
					 wanted, PAGES),
			0);
		check_memory(&run, false);
		run_close(&run);
	}
}

static void a_background_rate_is_kept(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_engine_stats stats;
	struct run run;
	double rate;

	make_image(fixture->path, NULL, 0);
	run_open(&run, fixture->path);
	assert_int_equal(run_engine(&run,
				 (struct rouse_engine_config){.policy = ROUSE_POLICY_LAZY,
					 .background = UINT64_C(100000000)},
				 NULL, 0),
		0);
	check_memory(&run, false);
	rouse_engine_get_stats(run.engine, &stats);
	rate = (double)stats.background_pages * PAGE * 1e9 /
	       (double)(stats.complete_ns - stats.started_ns);
	/* A busy machine makes it slower, nothing may make it faster. */
	assert_true(rate < 101e6);
	run_close(&run);
}

/* A lazy restore with ROUSE_BACKGROUND_AUTO of a guest whose waiting is told by @fake's members. */
static void run_auto(struct run *run, const char *path, int processors, uint64_t wait_step_ns,
	struct rouse_engine_stats *stats)
{
	struct rouse_engine_config config = {
		.policy = ROUSE_POLICY_LAZY, .background = ROUSE_BACKGROUND_AUTO};

	make_image(path, NULL, 0);
	run_open(run, path);
	config.reader = run->reader;
	config.source = run->source;
	run->fake = fake_new(PAGES, NULL, 0);
	run->fake->processors = processors;
	run->fake->wait_step_ns = wait_step_ns;
	assert_int_equal(rouse_engine_new(&config, &run->engine, &run->error), 0);
	assert_int_equal(rouse_engine_run(run->engine, &run->fake->sink, &run->error), 0);
	check_memory(run, false);
	rouse_engine_get_stats(run->engine, stats);
	assert_true(stats->background_pages > 0);
	assert_true(stats->background_ns > 0);
}

static void auto_tells_how_long_the_guest_waited_for_processors(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_engine_stats stats;
	struct run run;

	run_auto(&run, fixture->path, 2, 1000000, &stats);
	assert_true(stats.guest_waited);
	/* The first look is what the wait is counted from. */
	assert_int_equal(stats.guest_wait_ns, run.fake->wait_ns - 1000000);
	assert_true(stats.guest_wait_ns > 0);
	run_close(&run);
}

static void auto_delivers_all_to_a_guest_that_only_waits(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_engine_stats stats;
	struct run run;

	run_auto(&run, fixture->path, 1, UINT64_C(3600000000000), &stats);
	assert_true(stats.guest_waited);
	run_close(&run);
}

static void auto_delivers_all_where_nobody_knows_how_the_guest_fares(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_engine_stats stats;
	struct run run;

	run_auto(&run, fixture->path, 0, 0, &stats);
	assert_false(stats.guest_waited);
	run_close(&run);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
		T(eager_places_every_page_before_the_start),
		T(lazy_answers_faults_and_delivers_the_rest),
		T(faults_are_answered_in_realtime_where_that_is_allowed),
		T(faults_are_answered_where_no_priority_is_allowed),
		T(faults_are_not_answered_in_realtime_under_a_limit),
		T(without_background_only_what_is_asked_for_is_placed),
		T(a_resume_without_background_ends_when_the_last_page_came),
		T(ws_prefetches_the_working_set_and_no_more),
		T(paced_starts_before_the_set_is_there_and_delivers_it),
		T(damage_in_what_a_paced_start_has_left_stops_the_guest),
		T(damage_met_before_a_paced_start_starts_nothing),
		T(paced_waits_for_a_set_that_is_touched_at_once),
		T(paced_starts_with_the_first_pages_where_a_late_one_costs_little),
		T(reap_places_the_set_and_then_single_pages),
		T(faasnap_starts_before_anything_is_placed_and_delivers_the_set),
		T(lazy_background_places_single_pages_and_the_rest_unasked),
		T(a_working_set_that_is_given_replaces_the_images_own),
		T(pages_that_are_left_out_come_when_they_are_asked_for),
		T(ws_without_a_working_set_says_how_to_get_one),
		T(damage_met_before_the_start_starts_nothing),
		T(damage_met_by_the_background_stops_the_guest),
		T(a_damaged_page_that_loading_needs_is_an_error),
		T(after_the_run_nobody_logs_faults_any_more),
		T(a_fault_on_a_damaged_chunk_is_never_answered),
		T(a_guest_that_is_gone_ends_the_restore),
		T(a_wait_of_the_sink_that_is_cancelled_before_the_start_is_a_cancel),
		T(a_wait_of_the_sink_that_is_cancelled_in_the_background_is_a_cancel),
		T(a_wait_of_the_sink_that_is_cancelled_for_a_fault_is_a_cancel),
		T(a_cancel_does_not_wait_for_the_rest_of_a_window),
		T(faults_and_background_together_deliver_each_page),
		T(a_background_rate_is_kept),
		T(auto_tells_how_long_the_guest_waited_for_processors),
		T(auto_delivers_all_to_a_guest_that_only_waits),
		T(auto_delivers_all_where_nobody_knows_how_the_guest_fares),
#undef T
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
