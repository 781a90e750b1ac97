/* SPDX-License-Identifier: MIT */
/* The metric: worked examples, edges, and random logs against a model that tries every window. */
#include "ttr/ttr.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define MS 1000u

struct interval {
	uint64_t from, to;
};

static struct rouse_stalls *log_of(
	unsigned int vcpus, const struct interval *intervals, size_t count)
{
	struct rouse_stalls *stalls = NULL;

	assert_int_equal(rouse_stalls_new(vcpus, &stalls), 0);
	for (size_t i = 0; i < count; i++)
		assert_int_equal(rouse_stalls_add(stalls, intervals[i].from, intervals[i].to), 0);
	return stalls;
}

static uint64_t ttr_of(const struct rouse_stalls *stalls, double utilization, uint64_t window_us)
{
	struct rouse_ttr_point point = {.utilization = utilization, .window_us = window_us};

	return rouse_stalls_ttr(stalls, &point);
}

/* TTR of a log that is only made for this. */
static uint64_t ttr(unsigned int vcpus, const struct interval *intervals, size_t count,
	double utilization, uint64_t window_us)
{
	struct rouse_stalls *stalls = log_of(vcpus, intervals, count);
	uint64_t result = ttr_of(stalls, utilization, window_us);

	rouse_stalls_free(stalls);
	return result;
}

#define TTR(vcpus, intervals, u, w) \
	ttr(vcpus, intervals, sizeof(intervals) / sizeof((intervals)[0]), u, w)

static void empty_log_is_responsive_at_once(void **state)
{
	(void)state;
	assert_int_equal(ttr(2, NULL, 0, 0.9, 100 * MS), 0);
	assert_int_equal(ttr(2, NULL, 0, 1.0, 0), 0);
}

static void one_start_stall_ends_the_allowed_share_early(void **state)
{
	/* A window may begin while at most 10 % of it, 10 ms, are still stalled. */
	static const struct interval one[] = {{0, 500 * MS}};
	static const struct interval four[] = {
		{0, 500 * MS}, {0, 500 * MS}, {0, 500 * MS}, {0, 500 * MS}};

	(void)state;
	assert_int_equal(TTR(1, one, 0.9, 100 * MS), 490 * MS);
	assert_int_equal(TTR(4, four, 0.9, 100 * MS), 490 * MS);
	assert_int_equal(TTR(4, four, 0.99, 10 * MS), 500 * MS - 100);
	assert_int_equal(TTR(4, four, 0.5, 1000 * MS), 0);
	assert_int_equal(TTR(4, four, 0.75, 1000 * MS), 250 * MS);
}

static void one_of_four_vcpus_stalled_for_long_is_a_quarter(void **state)
{
	static const struct interval log[] = {{0, 500 * MS}};

	(void)state;
	assert_int_equal(TTR(4, log, 0.75, 100 * MS), 0);
	/* 10 % of 4 vCPUs times 100 ms are 40 ms of the one. */
	assert_int_equal(TTR(4, log, 0.9, 100 * MS), 460 * MS);
}

static void full_utilization_waits_for_the_last_stall_to_end(void **state)
{
	static const struct interval log[] = {{0, 10}, {1000, 1001}};

	(void)state;
	assert_int_equal(TTR(2, log, 1.0, 100), 1001);
	assert_int_equal(TTR(2, log, 1.0, 1000 * MS), 1001);
}

static void no_utilization_is_always_reached(void **state)
{
	static const struct interval log[] = {{0, 500 * MS}};

	(void)state;
	assert_int_equal(TTR(1, log, 0.0, 10 * MS), 0);
	assert_int_equal(TTR(1, log, -1.0, 10 * MS), 0);
}

/*
 * 2 vCPUs start at 200 ms; one of them waits for 30 ms for a page at
 * 300 ms. U = 90 %, w = 100 ms: a window may have 20 ms of stalls.
 */
static const struct interval one_fault[] = {{0, 200 * MS}, {0, 200 * MS}, {300 * MS, 330 * MS}};

static void a_start_and_one_fault(void **state)
{
	struct rouse_stalls *stalls = log_of(2, one_fault, 3);

	(void)state;
	assert_int_equal(ttr_of(stalls, 0.9, 100 * MS), 310 * MS);
	/* The window from 175 ms that is 100 ms long is good; the one up to 330 ms is not. */
	assert_int_equal(ttr_of(stalls, 0.75, 100 * MS), 176667);
	assert_int_equal(ttr_of(stalls, 0.9, 1000 * MS), 115 * MS);
	assert_int_equal(ttr_of(stalls, 0.99, 10 * MS), 329800);
	assert_true(rouse_stalls_utilization(stalls, 290 * MS, 100 * MS) > 0.8499);
	assert_true(rouse_stalls_utilization(stalls, 290 * MS, 100 * MS) < 0.8501);
	rouse_stalls_free(stalls);
}

/* Windows of exactly w can all be good while a longer one is bad. */
static void longer_windows_count_too(void **state)
{
	static const struct interval log[] = {{0, 4}, {10, 14}, {17, 20}};

	(void)state;
	/* [6, 11] has 1 stalled of 5, but [6, 20] has 7 of 14. */
	assert_int_equal(TTR(1, log, 0.6, 5), 18);
	assert_int_equal(TTR(1, log, 0.5, 8), 13);
	assert_int_equal(TTR(1, log, 0.55, 14), 11);
}

static void more_stalls_than_vcpus_count_as_all_vcpus(void **state)
{
	static const struct interval log[] = {{0, 100}, {0, 100}, {50, 100}, {50, 150}};
	struct rouse_stalls *stalls = log_of(2, log, 4);

	(void)state;
	assert_int_equal(rouse_stalls_stalled_us(stalls, 0, 1000), 250);
	assert_int_equal(rouse_stalls_stalled_us(stalls, 0, 100), 200);
	assert_int_equal(rouse_stalls_stalled_us(stalls, 75, 110), 60);
	assert_int_equal(rouse_stalls_stalled_us(stalls, 150, 1000), 0);
	assert_int_equal(rouse_stalls_stalled_us(stalls, 20, 10), 0);
	rouse_stalls_free(stalls);
}

static void result_is_rounded_up(void **state)
{
	/* Of 7 us 0.7 may be stalled: the window may begin at 9.3. */
	static const struct interval log[] = {{0, 10}};

	(void)state;
	assert_int_equal(TTR(1, log, 0.9, 7), 10);
	assert_int_equal(TTR(1, log, 0.9, 10), 9);
	assert_int_equal(TTR(1, log, 0.9, 11), 9);
}

static void huge_times_and_windows_do_not_overflow(void **state)
{
	static const uint64_t far = UINT64_C(1) << 44;
	struct rouse_stalls *stalls = NULL;

	(void)state;
	assert_int_equal(rouse_stalls_new(4096, &stalls), 0);
	for (unsigned int i = 0; i < 4096; i++)
		assert_int_equal(rouse_stalls_add(stalls, 0, far), 0);
	assert_int_equal(ttr_of(stalls, 0.9, 100 * MS), far - 10 * MS);
	assert_int_equal(ttr_of(stalls, 0.999999, UINT64_MAX), far - (far / 1000000));
	assert_int_equal(rouse_stalls_stalled_us(stalls, 0, UINT64_MAX), far * 4096);
	assert_int_equal(rouse_stalls_add(stalls, 0, far + 1), -EINVAL);
	rouse_stalls_free(stalls);
}

static void a_log_grows_after_it_was_asked(void **state)
{
	static const struct interval log[] = {{0, 500 * MS}};
	struct rouse_stalls *stalls = log_of(1, log, 1);

	(void)state;
	assert_int_equal(ttr_of(stalls, 0.9, 100 * MS), 490 * MS);
	assert_int_equal(rouse_stalls_add(stalls, 600 * MS, 700 * MS), 0);
	assert_int_equal(ttr_of(stalls, 0.9, 100 * MS), 690 * MS);
	rouse_stalls_free(stalls);
}

static void impossible_stalls_are_refused(void **state)
{
	struct rouse_stalls *stalls = NULL;

	(void)state;
	assert_int_equal(rouse_stalls_new(0, &stalls), -EINVAL);
	assert_int_equal(rouse_stalls_new(4097, &stalls), -EINVAL);
	assert_int_equal(rouse_stalls_new(1, &stalls), 0);
	assert_int_equal(rouse_stalls_add(stalls, 2, 1), -EINVAL);
	assert_int_equal(rouse_stalls_add(stalls, 1, 1), 0);
	assert_int_equal(ttr_of(stalls, 1.0, 1), 0);
	rouse_stalls_free(stalls);
}

static void table_has_every_threshold(void **state)
{
	struct rouse_stalls *stalls = log_of(2, one_fault, 3);
	uint64_t table[ROUSE_TTR_UTILIZATIONS][ROUSE_TTR_WINDOWS];

	(void)state;
	rouse_stalls_table(stalls, table);
	assert_int_equal(table[2][1], 310 * MS); /* 90 %, 100 ms */
	assert_int_equal(table[1][1], 176667);   /* 75 %, 100 ms */
	assert_int_equal(table[4][0], 329800);   /* 99 %, 10 ms */
	rouse_stalls_free(stalls);
}

/* ---- Random logs against a model ---------------------------------------------------------- */

#define MODEL_US 400u

static uint64_t next_random(uint64_t *state)
{
	*state = *state * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return *state >> 33;
}

/*
 * Tries every window that begins and ends at a whole microsecond. That is exact although times are
 * real: corners are whole, g is straight between them, so if any window from near the end of the
 * violating times is bad, then so is one that begins at the whole microsecond before it.
 */
static uint64_t model_ttr(unsigned int vcpus, const struct interval *intervals, size_t count,
	int64_t millionths, uint64_t window)
{
	int64_t g[3 * MODEL_US + 1] = {0};
	uint64_t result = 0;

	for (uint64_t t = 0; t < 3 * MODEL_US; t++) {
		int64_t stalled = 0;

		for (size_t i = 0; i < count; i++)
			stalled += intervals[i].from <= t && t < intervals[i].to;
		if (stalled > (int64_t)vcpus)
			stalled = vcpus;
		g[t + 1] = g[t] + stalled * 1000000 - (1000000 - millionths) * (int64_t)vcpus;
	}
	for (uint64_t t = 0; t <= MODEL_US; t++) {
		for (uint64_t y = t + window; y <= 3 * MODEL_US; y++) {
			if (g[y] > g[t])
				result = t + 1;
		}
	}
	return result;
}

static void random_logs_agree_with_the_model(void **state)
{
	static const int64_t utilizations[] = {
		0, 100000, 500000, 750000, 900000, 950000, 990000, 1000000};
	uint64_t seed = 2011;

	(void)state;
	for (unsigned int round = 0; round < 2000; round++) {
		unsigned int vcpus = 1 + (unsigned int)next_random(&seed) % 4;
		struct interval intervals[12];
		size_t count = next_random(&seed) % 13;
		uint64_t longest = 1 + next_random(&seed) % (round % 2 ? 200 : 20);
		uint64_t window = next_random(&seed) % 150;
		int64_t utilization = utilizations[next_random(&seed) % 8];
		uint64_t expected, found;

		for (size_t i = 0; i < count; i++) {
			intervals[i].from = next_random(&seed) % (MODEL_US - longest);
			intervals[i].to = intervals[i].from + next_random(&seed) % (longest + 1);
		}
		expected = model_ttr(vcpus, intervals, count, utilization, window);
		found = ttr(vcpus, intervals, count, (double)utilization / 1e6, window);
		if (found != expected)
			fail_msg("round %u: %u vCPUs, U %ld, w %lu: %lu, the model says %lu", round,
				vcpus, (long)utilization, (unsigned long)window,
				(unsigned long)found, (unsigned long)expected);
	}
}

static bool is(double value, double wanted)
{
	return value > wanted - 1e-9 && value < wanted + 1e-9;
}

static void percentiles_are_nearest_ranks(void **state)
{
	uint32_t values[200], one[] = {7};
	struct rouse_percentiles p;

	(void)state;
	for (uint32_t i = 0; i < 200; i++)
		values[i] = 200 - i;
	rouse_percentiles_compute(values, 200, &p);
	assert_true(is(p.p50, 100) && is(p.p90, 180) && is(p.p99, 198) && is(p.max, 200));
	rouse_percentiles_compute(one, 1, &p);
	assert_true(is(p.p50, 7) && is(p.p99, 7) && is(p.max, 7));
	rouse_percentiles_compute(NULL, 0, &p);
	assert_true(is(p.p50, 0) && is(p.max, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(empty_log_is_responsive_at_once),
		cmocka_unit_test(one_start_stall_ends_the_allowed_share_early),
		cmocka_unit_test(one_of_four_vcpus_stalled_for_long_is_a_quarter),
		cmocka_unit_test(full_utilization_waits_for_the_last_stall_to_end),
		cmocka_unit_test(no_utilization_is_always_reached),
		cmocka_unit_test(a_start_and_one_fault),
		cmocka_unit_test(longer_windows_count_too),
		cmocka_unit_test(more_stalls_than_vcpus_count_as_all_vcpus),
		cmocka_unit_test(result_is_rounded_up),
		cmocka_unit_test(huge_times_and_windows_do_not_overflow),
		cmocka_unit_test(a_log_grows_after_it_was_asked),
		cmocka_unit_test(impossible_stalls_are_refused),
		cmocka_unit_test(table_has_every_threshold),
		cmocka_unit_test(random_logs_agree_with_the_model),
		cmocka_unit_test(percentiles_are_nearest_ranks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
