/* SPDX-License-Identifier: MIT */
/* What rouse bench restores in which order, and what is said of several rounds. */
#include "../unit.h"

#include "../../../tool/bench_plan.h"
#include "../../../tool/spread.h"

#include <string.h>

static struct bench_plan plan_of(const char *storages, const char *policies)
{
	struct bench_plan plan = {.rounds = 3};
	char wrong[32];

	assert_true(bench_plan_storages(&plan, storages, NULL, 0, wrong));
	assert_true(bench_plan_policies(&plan, policies, wrong));
	return plan;
}

static void every_round_has_every_way_once(void **state)
{
	struct bench_plan plan = plan_of("disk,slow", "lazy,eager,ws");

	(void)state;
	assert_int_equal(bench_plan_ways(&plan), 6);
	for (unsigned int round = 0; round < 8; round++) {
		unsigned int seen[2][3] = {0};

		for (unsigned int i = 0; i < 6; i++) {
			struct bench_way way = bench_plan_way(&plan, round, i);
			unsigned int policy = 0;

			while (way.policy != plan.policies[policy])
				policy++;
			seen[way.storage - plan.storages][policy]++;
		}
		for (unsigned int i = 0; i < 6; i++)
			assert_int_equal(seen[i / 3][i % 3], 1);
	}
}

static void every_round_begins_with_the_way_that_was_second(void **state)
{
	struct bench_plan plan = plan_of("disk,slow", "lazy,eager");

	(void)state;
	for (unsigned int round = 0; round < 9; round++) {
		struct bench_way second = bench_plan_way(&plan, round, 1);
		struct bench_way first = bench_plan_way(&plan, round + 1, 0);

		assert_ptr_equal(first.storage, second.storage);
		assert_ptr_equal(first.policy, second.policy);
	}
}

static void disk_and_all_policies_are_the_default(void **state)
{
	struct bench_plan plan = plan_of(NULL, NULL);

	(void)state;
	assert_int_equal(plan.storage_count, 1);
	assert_string_equal(plan.storages[0].name, "disk");
	assert_string_equal(plan.storages[0].throttle, "");
	assert_true(plan.policy_count >= 5);
	assert_string_equal(plan.policies[0], "auto");
}

static void what_stands_in_a_list_twice_counts_once(void **state)
{
	struct bench_plan plan = plan_of("slow,disk,slow", "ws,lazy,ws");

	(void)state;
	assert_int_equal(plan.storage_count, 2);
	assert_string_equal(plan.storages[0].throttle, "100MB,100");
	assert_int_equal(plan.policy_count, 2);
	assert_string_equal(plan.policies[1], "lazy");
}

static void unknown_words_are_named(void **state)
{
	static const char *const lists[][2] = {
		{"lazy,wss", "wss"}, {"", ""}, {"lazy,", ""}, {"disk", "disk"}, {"Lazy", "Lazy"}};
	char wrong[32];

	(void)state;
	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
		struct bench_plan plan = {0};

		assert_false(bench_plan_policies(&plan, lists[i][0], wrong));
		assert_string_equal(wrong, lists[i][1]);
	}
	assert_false(bench_plan_storages(&(struct bench_plan){0}, "disk,tape", NULL, 0, wrong));
	assert_string_equal(wrong, "tape");
}

static void policy_that_is_left_out_is_gone(void **state)
{
	struct bench_plan plan = plan_of("disk", "ws,lazy,paced");

	(void)state;
	bench_plan_leave_out(&plan, "lazy");
	bench_plan_leave_out(&plan, "eager");
	assert_int_equal(plan.policy_count, 2);
	assert_string_equal(plan.policies[0], "ws");
	assert_string_equal(plan.policies[1], "paced");
}

static void storages_are_a_name_and_a_throttle(void **state)
{
	struct bench_storage storage;

	(void)state;
	assert_true(bench_storage_parse("my-hdd.2=150MB,120", &storage));
	assert_string_equal(storage.name, "my-hdd.2");
	assert_string_equal(storage.throttle, "150MB,120");
	assert_true(bench_storage_parse("far=1GB,0,5ms", &storage));
	assert_string_equal(storage.throttle, "1GB,0,5ms");
}

static void senseless_storages_are_refused(void **state)
{
	static const char *const texts[] = {"", "hdd", "=1MB", "hdd=", "hdd=fast", "h,d=1MB",
		"h d=1MB", "disk=1MB", "net=1MB", "a-name-that-is-longer-than-any-table-has=1MB"};
	struct bench_storage storage;

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		if (bench_storage_parse(texts[i], &storage))
			fail_msg("'%s' is taken for a storage", texts[i]);
	}
}

static void own_storages_are_measured_wherever_they_are_named(void **state)
{
	const struct bench_storage own[] = {{"hdd", "150MB,120"}, {"far", "1GB,0,5ms"}};
	struct bench_plan beside = {0}, named = {0};
	char wrong[32];

	(void)state;
	assert_true(bench_plan_storages(&beside, NULL, own, 2, wrong));
	assert_int_equal(beside.storage_count, 3);
	assert_string_equal(beside.storages[0].name, "disk");
	assert_string_equal(beside.storages[2].name, "far");
	assert_true(bench_plan_storages(&named, "far,hdd", own, 2, wrong));
	assert_int_equal(named.storage_count, 2);
	assert_string_equal(named.storages[0].throttle, "1GB,0,5ms");
}

static void median_is_the_middle_whatever_the_order(void **state)
{
	double values[] = {30, 10, 20};
	struct spread spread = spread_of(values, 3);

	(void)state;
	assert_int_equal((int)spread.median, 20);
	assert_int_equal((int)spread.least, 10);
	assert_int_equal((int)spread.greatest, 30);
	assert_int_equal(spread.count, 3);
}

static void median_of_an_even_number_is_between_the_middle_two(void **state)
{
	double values[] = {40, 10, 20, 1000};

	(void)state;
	assert_int_equal((int)spread_of(values, 4).median, 30);
	assert_int_equal((int)spread_of(values, 1).median, 10);
}

static void spread_of_nothing_is_nothing(void **state)
{
	struct spread spread = spread_of(NULL, 0);

	(void)state;
	assert_int_equal(spread.count, 0);
	assert_int_equal((int)spread.median, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_round_has_every_way_once),
		cmocka_unit_test(every_round_begins_with_the_way_that_was_second),
		cmocka_unit_test(disk_and_all_policies_are_the_default),
		cmocka_unit_test(what_stands_in_a_list_twice_counts_once),
		cmocka_unit_test(unknown_words_are_named),
		cmocka_unit_test(policy_that_is_left_out_is_gone),
		cmocka_unit_test(storages_are_a_name_and_a_throttle),
		cmocka_unit_test(senseless_storages_are_refused),
		cmocka_unit_test(own_storages_are_measured_wherever_they_are_named),
		cmocka_unit_test(median_is_the_middle_whatever_the_order),
		cmocka_unit_test(median_of_an_even_number_is_between_the_middle_two),
		cmocka_unit_test(spread_of_nothing_is_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
