/* SPDX-License-Identifier: MIT */
/* Values of the tool's options. */
#include "../../../tool/tool.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static uint64_t size_of(const char *text)
{
	uint64_t bytes = 77;

	assert_true(parse_size(text, &bytes));
	return bytes;
}

static bool is_size(const char *text)
{
	uint64_t bytes;

	return parse_size(text, &bytes);
}

static void sizes_count_in_1024_unless_b_follows(void **state)
{
	(void)state;
	assert_int_equal(size_of("0"), 0);
	assert_int_equal(size_of("100"), 100);
	assert_int_equal(size_of("100B"), 100);
	assert_int_equal(size_of("3K"), 3072);
	assert_int_equal(size_of("3k"), 3072);
	assert_int_equal(size_of("3KiB"), 3072);
	assert_int_equal(size_of("3KB"), 3000);
	assert_int_equal(size_of("100MB"), 100000000);
	assert_int_equal(size_of("1.5M"), 3 << 19);
	assert_int_equal(size_of("2G"), UINT64_C(2) << 30);
	assert_int_equal(size_of("1T"), UINT64_C(1) << 40);
}

static void senseless_sizes_are_refused(void **state)
{
	static const char *const texts[] = {"", "K", "-1", "+1", " 1", "1 K", "1Q", "1KBx", "1BK",
		"0x10", "nan", "inf", "1e30", "9999999T"};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		if (is_size(texts[i]))
			fail_msg("'%s' is taken for a size", texts[i]);
	}
}

static void rates_have_words_for_the_ends(void **state)
{
	uint64_t rate;

	(void)state;
	assert_true(parse_rate("off", &rate));
	assert_int_equal(rate, 0);
	assert_true(parse_rate("max", &rate));
	assert_int_equal(rate, UINT64_MAX);
	assert_true(parse_rate("auto", &rate));
	assert_int_equal(rate, ROUSE_BACKGROUND_AUTO);
	assert_true(parse_rate("10M", &rate));
	assert_int_equal(rate, 10 << 20);
	assert_false(parse_rate("0", &rate));
	assert_false(parse_rate("full", &rate));
}

static void durations_need_a_unit(void **state)
{
	uint64_t us;

	(void)state;
	assert_true(parse_duration("250us", &us));
	assert_int_equal(us, 250);
	assert_true(parse_duration("100ms", &us));
	assert_int_equal(us, 100000);
	assert_true(parse_duration("1.5s", &us));
	assert_int_equal(us, 1500000);
	assert_false(parse_duration("100", &us));
	assert_false(parse_duration("100 ms", &us));
	assert_false(parse_duration("ms", &us));
}

static void counts_are_plain_and_limited(void **state)
{
	uint64_t count;

	(void)state;
	assert_true(parse_count("512", 512, &count));
	assert_int_equal(count, 512);
	assert_false(parse_count("513", 512, &count));
	assert_false(parse_count("", 512, &count));
	assert_false(parse_count("-1", 512, &count));
	assert_false(parse_count("1k", 512, &count));
	assert_false(parse_count("99999999999999999999999", UINT64_MAX, &count));
}

static void ttr_points_are_percent_and_window(void **state)
{
	struct rouse_ttr_point point;

	(void)state;
	assert_true(parse_ttr_point("90,100ms", &point));
	assert_true(point.utilization > 0.8999 && point.utilization < 0.9001);
	assert_int_equal(point.window_us, 100000);
	assert_true(parse_ttr_point("99.9%,1s", &point));
	assert_true(point.utilization > 0.9989 && point.utilization < 0.9991);
	assert_false(parse_ttr_point("90", &point));
	assert_false(parse_ttr_point("90,", &point));
	assert_false(parse_ttr_point("101,1s", &point));
	assert_false(parse_ttr_point(",1s", &point));
}

static void throttles_are_a_rate_reads_and_latency(void **state)
{
	struct rouse_throttle throttle;

	(void)state;
	assert_true(parse_throttle("100MB,100", &throttle));
	assert_int_equal(throttle.bytes_per_s, 100000000);
	assert_int_equal(throttle.random_reads_per_s, 100);
	assert_true(parse_throttle("1K", &throttle));
	assert_int_equal(throttle.random_reads_per_s, 0);
	assert_int_equal(throttle.latency_us, 0);
	assert_true(parse_throttle("125MB,0,20ms", &throttle));
	assert_int_equal(throttle.bytes_per_s, 125000000);
	assert_int_equal(throttle.random_reads_per_s, 0);
	assert_int_equal(throttle.latency_us, 20000);
	assert_true(parse_throttle("0,0,1ms", &throttle));
	assert_false(parse_throttle("1K,2,", &throttle));
	assert_false(parse_throttle("1K,,1ms", &throttle));
	assert_false(parse_throttle("1K,2,3", &throttle));
	assert_false(parse_throttle("1K,2,3ms,", &throttle));
	assert_false(parse_throttle("1K,2,61s", &throttle));
	assert_false(parse_throttle("1K,", &throttle));
	assert_false(parse_throttle("1K,x", &throttle));
	assert_false(parse_throttle("", &throttle));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_count_in_1024_unless_b_follows),
		cmocka_unit_test(senseless_sizes_are_refused),
		cmocka_unit_test(rates_have_words_for_the_ends),
		cmocka_unit_test(durations_need_a_unit),
		cmocka_unit_test(counts_are_plain_and_limited),
		cmocka_unit_test(ttr_points_are_percent_and_window),
		cmocka_unit_test(throttles_are_a_rate_reads_and_latency),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
