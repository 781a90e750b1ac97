/* SPDX-License-Identifier: MIT */
/* Which policy is predicted to be the best, on disks and with working sets that are numbers. */
#include "engine/policy_choice.h"

#include "../unit.h"

#define MB UINT64_C(1000000)

/* 450 MB stored of 900 MB; a disk of @mb_per_s with @read_us for a random read. */
static struct rouse_policy_facts image_on(double mb_per_s, double read_us)
{
	return (struct rouse_policy_facts){
		.stored_bytes = 450 * MB,
		.stored_pages = 220000,
		.bytes_per_s = mb_per_s * 1e6,
		.random_read_ns = read_us * 1e3,
	};
}

/* A packed set of @pages, two to one, touched @step_us apart. */
static void add_set(struct rouse_policy_facts *facts, uint64_t pages, uint32_t step_us)
{
	facts->wset_pages = pages;
	facts->wset_bytes = pages * 2048;
	for (uint64_t k = 0; k < pages; k++)
		rouse_policy_facts_touch(facts, k, (uint32_t)k * step_us);
}

static enum rouse_policy best_of(const struct rouse_policy_facts *facts)
{
	struct rouse_policy_prediction prediction;

	rouse_policy_predict(facts, &prediction);
	return prediction.best;
}

static void without_a_set_a_fast_disk_is_read_lazily(void **state)
{
	const struct rouse_policy_facts facts = image_on(1200, 100);

	(void)state;
	assert_int_equal(best_of(&facts), ROUSE_POLICY_LAZY);
}

static void without_a_set_a_disk_that_seeks_is_read_eagerly(void **state)
{
	const struct rouse_policy_facts slow = image_on(100, 10000), net = image_on(125, 20000);

	(void)state;
	assert_int_equal(best_of(&slow), ROUSE_POLICY_EAGER);
	assert_int_equal(best_of(&net), ROUSE_POLICY_EAGER);
}

static void without_a_set_nothing_is_predicted_for_the_policies_that_need_one(void **state)
{
	const struct rouse_policy_facts facts = image_on(100, 10000);
	struct rouse_policy_prediction prediction;

	(void)state;
	rouse_policy_predict(&facts, &prediction);
	assert_int_equal(prediction.ttr_us[ROUSE_POLICY_WS], 0);
	assert_int_equal(prediction.ttr_us[ROUSE_POLICY_PACED], 0);
	assert_in_range(prediction.ttr_us[ROUSE_POLICY_EAGER], 4400000, 4600000);
}

static void a_small_set_is_waited_for_on_every_disk(void **state)
{
	static const double disks[][2] = {{1200, 100}, {500, 1000}, {100, 10000}, {125, 20000}};

	(void)state;
	for (size_t i = 0; i < sizeof(disks) / sizeof(disks[0]); i++) {
		struct rouse_policy_facts facts = image_on(disks[i][0], disks[i][1]);

		add_set(&facts, 800, 1000);
		assert_int_equal(best_of(&facts), ROUSE_POLICY_WS);
	}
}

static void a_large_set_that_is_touched_slowly_is_paced(void **state)
{
	struct rouse_policy_facts facts = image_on(1200, 100);

	(void)state;
	add_set(&facts, 190000, 20);
	assert_int_equal(best_of(&facts), ROUSE_POLICY_PACED);
}

static void a_set_whose_placing_can_be_felt_is_paced(void **state)
{
	struct rouse_policy_facts facts = image_on(1200, 100);

	(void)state;
	add_set(&facts, 3000, 1000);
	assert_int_equal(best_of(&facts), ROUSE_POLICY_PACED);
}

/* The room for faults is not waited for: pages that are there by then are not late. */
static void a_set_that_is_touched_slowly_is_paced_where_a_late_page_is_dear(void **state)
{
	struct rouse_policy_facts facts = image_on(100, 10000);
	struct rouse_policy_prediction prediction;

	(void)state;
	add_set(&facts, 12000, 100);
	rouse_policy_predict(&facts, &prediction);
	assert_int_equal(prediction.best, ROUSE_POLICY_PACED);
	assert_true(
		prediction.ttr_us[ROUSE_POLICY_PACED] + 50000 < prediction.ttr_us[ROUSE_POLICY_WS]);
}

static void a_large_set_is_paced_where_a_late_page_costs_little(void **state)
{
	struct rouse_policy_facts disk = image_on(1200, 100), mid = image_on(500, 1000);

	(void)state;
	add_set(&disk, 190000, 0);
	assert_int_equal(best_of(&disk), ROUSE_POLICY_PACED);
	add_set(&mid, 190000, 0);
	assert_int_equal(best_of(&mid), ROUSE_POLICY_PACED);
}

/* A disk that seeks may show one short read: its rate tells. */
static void a_late_page_is_not_cheap_on_a_slow_disk_that_was_lucky_once(void **state)
{
	struct rouse_policy_facts facts = image_on(100, 100);

	(void)state;
	assert_false(rouse_policy_late_is_cheap(&facts));
	facts = image_on(500, 10000);
	assert_false(rouse_policy_late_is_cheap(&facts));
	facts = image_on(500, 1000);
	assert_true(rouse_policy_late_is_cheap(&facts));
	/* What a short read shows of it. */
	facts = image_on(215, 1000);
	assert_true(rouse_policy_late_is_cheap(&facts));
}

static void a_large_set_that_is_touched_at_once_is_waited_for(void **state)
{
	struct rouse_policy_facts facts = image_on(100, 10000);

	(void)state;
	add_set(&facts, 190000, 0);
	assert_int_equal(best_of(&facts), ROUSE_POLICY_WS);
}

/* A set that is not packed costs a read for each of its chunks. */
static void a_scattered_set_on_a_disk_that_seeks_loses_to_reading_everything(void **state)
{
	struct rouse_policy_facts facts = image_on(100, 10000);

	(void)state;
	facts.scattered_reads = 100000 / 16;
	add_set(&facts, 100000, 10);
	assert_int_equal(best_of(&facts), ROUSE_POLICY_EAGER);
}

static void absurd_numbers_give_a_policy(void **state)
{
	struct rouse_policy_facts facts = image_on(1e-6, 1e12);
	struct rouse_policy_prediction prediction;

	(void)state;
	facts.stored_bytes = facts.stored_pages = UINT64_MAX;
	facts.wset_pages = 1;
	facts.wset_bytes = UINT64_MAX;
	rouse_policy_facts_touch(&facts, UINT64_MAX - 1, UINT32_MAX);
	rouse_policy_predict(&facts, &prediction);
	assert_int_not_equal(prediction.best, ROUSE_POLICY_AUTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_a_set_a_fast_disk_is_read_lazily),
		cmocka_unit_test(without_a_set_a_disk_that_seeks_is_read_eagerly),
		cmocka_unit_test(without_a_set_nothing_is_predicted_for_the_policies_that_need_one),
		cmocka_unit_test(a_small_set_is_waited_for_on_every_disk),
		cmocka_unit_test(a_large_set_that_is_touched_slowly_is_paced),
		cmocka_unit_test(a_set_whose_placing_can_be_felt_is_paced),
		cmocka_unit_test(a_set_that_is_touched_slowly_is_paced_where_a_late_page_is_dear),
		cmocka_unit_test(a_large_set_is_paced_where_a_late_page_costs_little),
		cmocka_unit_test(a_late_page_is_not_cheap_on_a_slow_disk_that_was_lucky_once),
		cmocka_unit_test(a_large_set_that_is_touched_at_once_is_waited_for),
		cmocka_unit_test(a_scattered_set_on_a_disk_that_seeks_loses_to_reading_everything),
		cmocka_unit_test(absurd_numbers_give_a_policy),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
