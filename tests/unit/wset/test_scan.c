/* SPDX-License-Identifier: MIT */
/* Access-bit scanning of a process that checks itself. */
#include "../unit.h"

#include "../target/checker.h"
#include "wset/scan.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGES 16384u
#define TOUCHES 2500u

static const struct scan_config everything = {
	.rule = {.decay = SCAN_RULE_DECAY_ONE}, .source = ROUSE_SCAN_WRITES};

struct scanned {
	struct checker checker;
	struct target *target;
	struct scan *scan;
};

static int start_with(
	const struct scanned *it, const struct scan_config *config, bool shared, struct scan **scan)
{
	const struct trace_range range = {.address = it->checker.control->address,
		.bytes = it->checker.control->pages * CHECKER_PAGE,
		.shared = shared};
	struct rouse_error error = {0};
	int code = scan_start(it->target, &range, 1, config, scan, &error);

	if (code < 0)
		print_message("%s\n", error.message);
	return code;
}

static int try_start(const struct scanned *it, bool shared, struct scan **scan)
{
	return start_with(it, &everything, shared, scan);
}

static void start(struct scanned *it, const struct checker_config *config)
{
	struct rouse_error error = {0};

	checker_start(&it->checker, config);
	assert_int_equal(target_open(it->checker.pid, &it->target, &error), 0);
	assert_int_equal(try_start(it, config->shared, &it->scan), 0);
}

static void take(const struct scanned *it, bool last)
{
	struct rouse_error error = {0};

	if (scan_take(it->scan, last, &error) < 0)
		fail_msg("%s", error.message);
}

static void end(struct scanned *it)
{
	struct scan_report report;

	scan_get_report(it->scan, &report);
	print_message("%u scans in %llu us, %llu stops, at most %llu us, %llu pages skipped\n",
		report.scans, (unsigned long long)report.scan_ns / 1000,
		(unsigned long long)report.stops, (unsigned long long)report.stop_max_ns / 1000,
		(unsigned long long)report.skipped_pages);
	scan_free(it->scan);
	target_close(it->target);
	assert_true(checker_end(&it->checker));
}

static uint32_t page_of(uint32_t touch)
{
	return (touch * 7919u + 13) % PAGES;
}

/* Orders touches [from, to), each third a write. */
static void touch(struct scanned *it, uint32_t from, uint32_t to)
{
	struct checker_control *control = it->checker.control;

	control->list_count = to - from;
	for (uint32_t i = from; i < to; i++)
		control->list[i - from] =
			(struct checker_list){.page = page_of(i), .write = i % 3 == 0};
	assert_true(checker_order(&it->checker, CHECKER_TOUCH));
}

/* The first half was touched before the first scan, the rest before the second. */
static void check_found(const struct scanned *it, bool writes_only)
{
	uint32_t *expected = calloc(PAGES, sizeof(*expected));
	const struct scan_page *pages;
	size_t count;

	assert_non_null(expected);
	for (uint32_t i = 0; i < TOUCHES; i++) {
		if (!writes_only || i % 3 == 0)
			expected[page_of(i)] = i < TOUCHES / 2 ? 1 : 2;
	}
	pages = scan_pages(it->scan, &count);
	assert_int_equal(count, PAGES);
	for (uint32_t i = 0; i < PAGES; i++)
		assert_int_equal(pages[i].first, expected[i]);
	free(expected);
}

static void check_known_touches(bool shared, bool huge)
{
	const struct checker_config config = {.pages = PAGES, .shared = shared, .huge = huge};
	struct scanned it;

	start(&it, &config);
	touch(&it, 0, TOUCHES / 2);
	take(&it, false);
	touch(&it, TOUCHES / 2, TOUCHES);
	take(&it, true);
	check_found(&it, !shared);
	end(&it);
}

static void known_touches_of_shared_memory_are_found_and_no_others(void **state)
{
	(void)state;
	check_known_touches(true, false);
}

static void known_writes_of_private_memory_are_found_and_no_others(void **state)
{
	(void)state;
	check_known_touches(false, false);
}

static void known_writes_of_huge_pages_are_found_and_no_others(void **state)
{
	(void)state;
	check_known_touches(false, true);
}

static void check_work(bool shared, bool huge)
{
	const struct checker_config config = {
		.pages = 12288, .shared = shared, .huge = huge, .holes_from = 12000};
	struct scanned it;

	start(&it, &config);
	assert_true(checker_order(&it.checker, CHECKER_WORK));
	for (unsigned int i = 0; i < 20; i++) {
		assert_true(checker_wait(&it.checker, 200));
		take(&it, i == 19);
	}
	end(&it);
}

static void shared_memory_stays_right_under_work(void **state)
{
	(void)state;
	check_work(true, false);
}

static void private_memory_stays_right_under_work(void **state)
{
	(void)state;
	check_work(false, false);
}

static void huge_pages_stay_right_under_work(void **state)
{
	(void)state;
	check_work(false, true);
}

static unsigned int count_fds(const struct scanned *it)
{
	unsigned int count = 0;
	char path[64];
	DIR *directory;

	(void)snprintf(path, sizeof(path), "/proc/%d/fd", it->checker.pid);
	directory = opendir(path);
	assert_non_null(directory);
	while (readdir(directory) != NULL)
		count++;
	(void)closedir(directory);
	return count;
}

static void check_traceable(const struct scanned *it, bool shared)
{
	const struct trace_range range = {.address = it->checker.control->address,
		.bytes = it->checker.control->pages * CHECKER_PAGE,
		.shared = shared};
	struct rouse_error error = {0};
	struct trace *trace = NULL;

	if (trace_start(it->target, &range, 1, 20000000, NULL, &trace, &error) < 0)
		fail_msg("%s", error.message);
	assert_int_equal(trace_stop(trace, &error), 0);
	trace_free(trace);
}

static void check_nothing_left(bool shared)
{
	const struct checker_config config = {.pages = 4096, .shared = shared};
	struct scanned it;
	unsigned int before;

	start(&it, &config);
	before = count_fds(&it);
	take(&it, false);
	assert_int_equal(count_fds(&it), before);
	scan_free(it.scan);
	check_traceable(&it, shared);
	assert_int_equal(try_start(&it, shared, &it.scan), 0);
	assert_int_equal(count_fds(&it), before);
	take(&it, true);
	end(&it);
}

static void after_a_scan_nothing_is_left_and_others_can_follow(void **state)
{
	(void)state;
	check_nothing_left(true);
	check_nothing_left(false);
}

static void a_second_scan_at_the_same_time_is_refused(void **state)
{
	const struct checker_config config = {.pages = PAGES, .shared = true};
	struct scan *second = NULL;
	struct scanned it;

	(void)state;
	start(&it, &config);
	assert_int_equal(try_start(&it, true, &second), -EBUSY);
	touch(&it, 0, TOUCHES / 2);
	take(&it, false);
	touch(&it, TOUCHES / 2, TOUCHES);
	take(&it, true);
	check_found(&it, false);
	end(&it);
}

static void check_traced(bool shared)
{
	const struct checker_config config = {.pages = 4096, .shared = shared};
	struct rouse_error error = {0};
	struct scanned it = {0};
	struct trace_range range;
	struct trace *trace = NULL;
	struct scan *scan = NULL;

	checker_start(&it.checker, &config);
	assert_int_equal(target_open(it.checker.pid, &it.target, &error), 0);
	range = (struct trace_range){.address = it.checker.control->address,
		.bytes = 4096 * CHECKER_PAGE,
		.shared = shared};
	assert_int_equal(trace_start(it.target, &range, 1, 60000000, NULL, &trace, &error), 0);
	assert_int_equal(try_start(&it, shared, &scan), -EBUSY);
	/* The trace must still have it: every page is checked while it serves them. */
	assert_true(checker_order(&it.checker, CHECKER_CHECK));
	assert_int_equal(it.checker.control->errors, 0);
	assert_int_equal(trace_stop(trace, &error), 0);
	trace_free(trace);
	target_close(it.target);
	assert_true(checker_end(&it.checker));
}

static void memory_that_is_traced_is_refused_and_stays_traced(void **state)
{
	(void)state;
	check_traced(true);
	check_traced(false);
}

/* Private memory with the same contents, where shared memory was. */
static bool make_private(struct checker_control *control, char *memory, uint32_t *generations)
{
	const size_t bytes = control->pages * CHECKER_PAGE;

	if (mmap(memory, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		    0) != memory)
		return false;
	for (uint64_t page = 0; page < control->pages; page++)
		checker_stamp(memory, page, ++generations[page]);
	return true;
}

static void private_memory_in_the_place_of_shared_is_left_alone(void **state)
{
	const struct checker_config config = {.pages = 4096, .shared = true, .call = make_private};
	struct scan_report report;
	struct scanned it;

	(void)state;
	start(&it, &config);
	take(&it, false);
	assert_true(checker_order(&it.checker, CHECKER_CALL));
	take(&it, false);
	scan_get_report(it.scan, &report);
	assert_int_equal(report.skipped_pages, 4096);
	take(&it, true);
	end(&it);
}

/* Whoever reads the log waits for the first thread of the process, as a person might for long. */
struct slow_reader {
	struct checker *checker;
	unsigned int logs;
	bool went_on;
};

static void read_slowly(void *user, enum rouse_log_level level, const char *text)
{
	struct slow_reader *reader = user;

	if (level != ROUSE_LOG_WARNING)
		return;
	print_message("%s\n", text);
	reader->logs++;
	reader->went_on = checker_order_within(reader->checker, CHECKER_REST, 5);
}

static void the_process_runs_while_a_log_is_written(void **state)
{
	const struct checker_config config = {.pages = 4096, .shared = true, .call = make_private};
	struct scanned it;
	struct slow_reader reader = {.checker = &it.checker};
	const struct rouse_observer observer = {.log = read_slowly, .user = &reader};
	const struct scan_config scan = {.rule = {.decay = SCAN_RULE_DECAY_ONE},
		.source = ROUSE_SCAN_WRITES,
		.observer = &observer};

	(void)state;
	checker_start(&it.checker, &config);
	assert_int_equal(target_open(it.checker.pid, &it.target, NULL), 0);
	assert_int_equal(start_with(&it, &scan, true, &it.scan), 0);
	assert_true(checker_order(&it.checker, CHECKER_CALL));
	take(&it, false);
	assert_int_equal(reader.logs, 1);
	assert_true(reader.went_on);
	take(&it, true);
	end(&it);
}

static void private_memory_that_is_called_shared_is_refused(void **state)
{
	const struct checker_config config = {.pages = 1024};
	struct rouse_error error = {0};
	struct scanned it = {0};
	struct scan *scan = NULL;

	(void)state;
	checker_start(&it.checker, &config);
	assert_int_equal(target_open(it.checker.pid, &it.target, &error), 0);
	assert_int_equal(try_start(&it, true, &scan), -EINVAL);
	target_close(it.target);
	assert_true(checker_end(&it.checker));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_touches_of_shared_memory_are_found_and_no_others),
		cmocka_unit_test(known_writes_of_private_memory_are_found_and_no_others),
		cmocka_unit_test(known_writes_of_huge_pages_are_found_and_no_others),
		cmocka_unit_test(shared_memory_stays_right_under_work),
		cmocka_unit_test(private_memory_stays_right_under_work),
		cmocka_unit_test(huge_pages_stay_right_under_work),
		cmocka_unit_test(after_a_scan_nothing_is_left_and_others_can_follow),
		cmocka_unit_test(a_second_scan_at_the_same_time_is_refused),
		cmocka_unit_test(memory_that_is_traced_is_refused_and_stays_traced),
		cmocka_unit_test(private_memory_in_the_place_of_shared_is_left_alone),
		cmocka_unit_test(the_process_runs_while_a_log_is_written),
		cmocka_unit_test(private_memory_that_is_called_shared_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
