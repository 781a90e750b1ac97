/* SPDX-License-Identifier: MIT */
/* The rule of merging, by its properties. */
#include "sets.h"

#include "wset/wset_merge.h"

/* *sum becomes *sum merged with @next, which is closed. */
static void add_with(struct rouse_wset **sum, struct rouse_wset *next,
	const struct rouse_wset_unseen *unseen, struct rouse_wset_rules rules)
{
	struct rouse_wset *merged = NULL;

	assert_int_equal(rouse_wset_rules_complete(&rules, VM_PAGES, NULL), 0);
	assert_int_equal(rouse_wset_combine(*sum, next, unseen, &rules, &merged), 0);
	rouse_wset_close(*sum);
	rouse_wset_close(next);
	*sum = merged;
}

static void add(struct rouse_wset **sum, struct rouse_wset *next)
{
	add_with(sum, next, NULL, (struct rouse_wset_rules){0});
}

static struct rouse_wset *stable_after(unsigned int runs)
{
	struct rouse_wset *sum = NULL;

	for (unsigned int i = 0; i < runs; i++)
		add(&sum, make_set(1000, 200, 3));
	return sum;
}

static void first_set_is_believed_at_once(void **state)
{
	struct rouse_wset *sum = stable_after(1);

	(void)state;
	assert_int_equal(sum->page_count, 200);
	assert_int_equal(sum->waiting_count, 0);
	assert_int_equal(sum->runs, 1);
	assert_int_equal(sum->pages[7].page, 1021);
	assert_int_equal(sum->pages[7].count, 1);
	assert_int_equal(sum->pages[7].weight, ROUSE_WSET_WEIGHT_ONE);
	rouse_wset_close(sum);
}

static void equal_sets_merge_to_the_same_set(void **state)
{
	struct rouse_wset *sum = stable_after(1), *again = stable_after(7);

	(void)state;
	assert_int_equal(again->page_count, sum->page_count);
	assert_int_equal(again->waiting_count, 0);
	assert_int_equal(again->runs, 7);
	for (uint32_t i = 0; i < sum->page_count; i++) {
		assert_int_equal(again->pages[i].page, sum->pages[i].page);
		assert_int_equal(again->pages[i].time_us, sum->pages[i].time_us);
		assert_int_equal(again->pages[i].weight, sum->pages[i].weight);
		assert_int_equal(again->pages[i].count, 7);
		assert_int_equal(again->pages[i].looks, 7);
		assert_int_equal(again->pages[i].last, 7);
	}
	rouse_wset_close(sum);
	rouse_wset_close(again);
}

static void learned_set_merged_with_itself_keeps_pages_and_weights(void **state)
{
	struct rouse_wset_rules rules = {0};
	struct rouse_wset *set = stable_after(3), *merged = NULL;

	(void)state;
	add(&set, make_set(1000, 150, 3));
	add(&set, make_set(1000, 100, 6));
	assert_int_equal(rouse_wset_rules_complete(&rules, VM_PAGES, NULL), 0);
	assert_int_equal(rouse_wset_combine(set, set, NULL, &rules, &merged), 0);
	assert_int_equal(merged->page_count, set->page_count);
	assert_int_equal(merged->waiting_count, set->waiting_count);
	assert_int_equal(merged->runs, 10);
	for (uint32_t i = 0; i < set->page_count; i++) {
		assert_int_equal(merged->pages[i].page, set->pages[i].page);
		assert_in_range(merged->pages[i].weight + 1, set->pages[i].weight,
			set->pages[i].weight + 2);
	}
	rouse_wset_close(set);
	rouse_wset_close(merged);
}

/* fcvm#858: the union of all clones grew from 1.7 to 31 million pages. */
static void odd_run_does_not_displace_the_stable_set(void **state)
{
	struct rouse_wset *sum = stable_after(3);

	(void)state;
	add(&sum, make_set(10000, 50000, 1));
	assert_int_equal(sum->page_count, 200);
	for (uint32_t i = 0; i < 200; i++)
		assert_true(has_page(sum, 1000 + 3 * i));
	for (unsigned int i = 0; i < 10; i++)
		add(&sum, make_set(1000, 200, 3));
	assert_int_equal(sum->page_count, 200);
	assert_int_equal(sum->waiting_count, 0);
	rouse_wset_close(sum);
}

static void odd_run_does_not_pass_a_small_budget_either(void **state)
{
	const struct rouse_wset_rules rules = {.budget_bytes = 150 * 4096, .confirm = 1};
	struct rouse_wset *sum = stable_after(3);

	(void)state;
	add_with(&sum, make_set(10000, 50000, 1), NULL, rules);
	assert_int_equal(sum->page_count, 150);
	assert_int_equal(sum->waiting_count, 150);
	/* The first in order of touch of those that are equally likely. */
	for (uint32_t i = 0; i < 150; i++)
		assert_int_equal(sum->pages[i].page, 1000 + 3 * i);
	rouse_wset_close(sum);
}

static void many_odd_runs_stay_within_the_budget(void **state)
{
	const struct rouse_wset_rules rules = {.budget_bytes = 1000 * 4096};
	struct rouse_wset *sum = NULL;

	(void)state;
	for (uint32_t i = 0; i < 40; i++) {
		add_with(&sum, make_set(i * 1999, 3000 + 17 * i, 1), NULL, rules);
		assert_in_range(sum->page_count, 0, 1000);
		assert_in_range(sum->waiting_count, 0, 1000);
	}
	rouse_wset_close(sum);
}

static void new_page_comes_in_when_a_second_restore_touches_it(void **state)
{
	struct rouse_wset *sum = stable_after(2);

	(void)state;
	add(&sum, make_set(1000, 210, 3));
	assert_int_equal(sum->page_count, 200);
	assert_true(waits(sum, 1000 + 3 * 205));
	add(&sum, make_set(1000, 210, 3));
	assert_int_equal(sum->page_count, 210);
	assert_int_equal(sum->waiting_count, 0);
	rouse_wset_close(sum);
}

/* One of many restores weighs less than what is forgotten. */
static void new_page_is_remembered_however_many_restores_there_were(void **state)
{
	const struct rouse_wset_rules rules = {.decay = 1, .keep = 0.06};
	struct rouse_wset *sum = NULL;

	(void)state;
	for (unsigned int i = 0; i < 21; i++)
		add_with(&sum, make_set(1000, 200, 3), NULL, rules);
	add_with(&sum, make_set(1000, 201, 3), NULL, rules);
	assert_true(waits(sum, 1000 + 3 * 200));
	add_with(&sum, make_set(1000, 201, 3), NULL, rules);
	assert_true(has_page(sum, 1000 + 3 * 200));
	assert_int_equal(find_page(sum->pages, sum->page_count, 1000 + 3 * 200)->count, 2);
	rouse_wset_close(sum);
}

static void confirm_1_makes_the_union(void **state)
{
	struct rouse_wset *sum = NULL;

	(void)state;
	add_with(&sum, make_set(0, 10, 1), NULL, (struct rouse_wset_rules){.confirm = 1});
	add_with(&sum, make_set(100, 10, 1), NULL, (struct rouse_wset_rules){.confirm = 1});
	assert_int_equal(sum->page_count, 20);
	rouse_wset_close(sum);
}

static void unused_page_leaves_the_set_and_is_forgotten(void **state)
{
	struct rouse_wset *sum = stable_after(20);
	unsigned int left = 0, forgotten = 0;

	(void)state;
	for (unsigned int i = 1; forgotten == 0 && i < 100; i++) {
		add(&sum, make_set(1000, 100, 3));
		if (left == 0 && !has_page(sum, 1000 + 3 * 150))
			left = i;
		if (!has_page(sum, 1000 + 3 * 150) && !waits(sum, 1000 + 3 * 150))
			forgotten = i;
	}
	/* 0.75^5 = 0.237 is below keep, 0.75^11 = 0.042 below forget. */
	assert_int_equal(left, 5);
	assert_int_equal(forgotten, 11);
	assert_int_equal(sum->page_count, 100);
	rouse_wset_close(sum);
}

static void page_that_waits_and_is_used_again_comes_back(void **state)
{
	struct rouse_wset *sum = stable_after(20);

	(void)state;
	for (unsigned int i = 0; i < 6; i++)
		add(&sum, make_set(1000, 100, 3));
	assert_true(waits(sum, 1000 + 3 * 150));
	add(&sum, make_set(1000, 200, 3));
	assert_true(has_page(sum, 1000 + 3 * 150));
	rouse_wset_close(sum);
}

static void order_stays_that_of_first_touch(void **state)
{
	struct rouse_wset *sum = NULL, *jitter;

	(void)state;
	for (uint32_t i = 0; i < 6; i++) {
		jitter = make_set(0, 500, 2);
		for (uint32_t j = 0; j < 500; j++)
			jitter->pages[j].time_us += (j * 7919 + i * 104729) % 10;
		add(&sum, jitter);
	}
	assert_int_equal(sum->page_count, 500);
	for (uint32_t i = 0; i < 500; i++)
		assert_int_equal(sum->pages[i].page, 2 * i);
	rouse_wset_close(sum);
}

static void newer_touches_move_a_page_by_their_share(void **state)
{
	struct rouse_wset *sum = stable_after(30), *later = make_set(1000, 200, 3);

	(void)state;
	later->pages[0].time_us = 4000;
	add(&sum, later);
	/* A quarter of the way from 0 to 4000. */
	assert_in_range(find_page(sum->pages, 200, 1000)->time_us, 990, 1010);
	rouse_wset_close(sum);
}

static void incomplete_trace_is_no_evidence_against_a_page(void **state)
{
	struct rouse_wset *sum = stable_after(3);

	(void)state;
	for (unsigned int i = 0; i < 20; i++) {
		struct rouse_wset *half = make_set(1000, 100, 3);

		half->flags = 0;
		add(&sum, half);
	}
	assert_int_equal(sum->page_count, 200);
	assert_int_equal(find_page(sum->pages, 200, 1000 + 3 * 150)->weight, ROUSE_WSET_WEIGHT_ONE);
	rouse_wset_close(sum);
}

/* ---- Pages that were prefetched -------------------------------------------------------------- */

struct hidden {
	struct rouse_bitmap bitmap;
	struct rouse_wset_group groups[2];
	struct rouse_wset_unseen unseen;
};

/* The stable set was prefetched; the rates of its first and its second hundred pages. */
static void hide(struct hidden *hidden, double first, double second)
{
	*hidden = (struct hidden){.groups = {{.end_page = 1300, .rate = first},
					  {.end_page = UINT32_MAX, .rate = second}}};
	assert_int_equal(rouse_bitmap_init(&hidden->bitmap, VM_PAGES), 0);
	for (uint32_t i = 0; i < 200; i++)
		rouse_bitmap_set(&hidden->bitmap, 1000 + 3 * i);
	hidden->unseen = (struct rouse_wset_unseen){.whole = true,
		.until_us = UINT32_MAX,
		.hidden = &hidden->bitmap,
		.groups = hidden->groups,
		.group_count = 2};
}

static void prefetched_page_stays_while_its_neighbours_are_used(void **state)
{
	struct rouse_wset *sum = stable_after(3);
	struct hidden hidden;

	(void)state;
	hide(&hidden, 1, 1);
	for (unsigned int i = 0; i < 50; i++)
		add_with(&sum, make_set(50000, 3, 1), &hidden.unseen, (struct rouse_wset_rules){0});
	/* And the three that were asked for every time came in. */
	assert_int_equal(sum->page_count, 203);
	assert_int_equal(find_page(sum->pages, 203, 1000)->looks, 3);
	rouse_bitmap_finish(&hidden.bitmap);
	rouse_wset_close(sum);
}

static void group_that_is_not_used_decays_as_a_whole(void **state)
{
	struct rouse_wset *sum = stable_after(20);
	struct hidden hidden;
	unsigned int runs = 0;

	(void)state;
	hide(&hidden, 1, 0.05);
	while (has_page(sum, 1000 + 3 * 150) && runs++ < 50)
		add_with(&sum, make_set(50000, 1, 1), &hidden.unseen, (struct rouse_wset_rules){0});
	/* 0.05 + 0.95 * 0.75^6 = 0.22 */
	assert_int_equal(runs, 6);
	for (uint32_t i = 0; i < 200; i++) {
		assert_true(has_page(sum, 1000 + 3 * i) == (i < 100));
		assert_true(waits(sum, 1000 + 3 * i) == (i >= 100));
	}
	rouse_bitmap_finish(&hidden.bitmap);
	rouse_wset_close(sum);
}

static void restore_that_is_watched_shortly_says_nothing_of_later_pages(void **state)
{
	struct rouse_wset *sum = stable_after(20);
	struct hidden hidden;

	(void)state;
	hide(&hidden, 0, 0);
	hidden.unseen.hidden = NULL;
	hidden.unseen.until_us = 10 * 99;
	for (unsigned int i = 0; i < 30; i++)
		add_with(&sum, make_set(50000, 1, 1), &hidden.unseen, (struct rouse_wset_rules){0});
	for (uint32_t i = 0; i < 200; i++)
		assert_true(has_page(sum, 1000 + 3 * i) == (i >= 100));
	rouse_bitmap_finish(&hidden.bitmap);
	rouse_wset_close(sum);
}

static void neighbours_never_make_a_page_likelier(void **state)
{
	struct rouse_wset *sum = stable_after(20);
	struct hidden hidden;
	uint16_t before;

	(void)state;
	add(&sum, make_set(1000, 100, 3));
	before = find_page(sum->pages, 200, 1000 + 3 * 150)->weight;
	hide(&hidden, 1, 0.9);
	add_with(&sum, make_set(50000, 1, 1), &hidden.unseen, (struct rouse_wset_rules){0});
	assert_int_equal(find_page(sum->pages, 200, 1000 + 3 * 150)->weight, before);
	rouse_bitmap_finish(&hidden.bitmap);
	rouse_wset_close(sum);
}

/* ---- Rules, and the edges -------------------------------------------------------------------- */

static void rules_that_make_no_sense_are_refused(void **state)
{
	const struct rouse_wset_rules bad[] = {
		{.decay = 1.5}, {.keep = -0.1}, {.forget = 2}, {.decay = __builtin_nan("")}};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct rouse_wset_rules rules = bad[i];

		assert_int_equal(rouse_wset_rules_complete(&rules, VM_PAGES, NULL), -EINVAL);
	}
}

static void decay_1_is_the_plain_average(void **state)
{
	const struct rouse_wset_rules rules = {.decay = 1};
	struct rouse_wset *sum = NULL;

	(void)state;
	for (uint32_t i = 0; i < 10; i++)
		add_with(&sum, make_set(0, i < 5 ? 20 : 10, 1), NULL, rules);
	assert_in_range(find_page(sum->pages, 20, 15)->weight, 32700, 32800);
	assert_int_equal(find_page(sum->pages, 20, 15)->count, 5);
	assert_int_equal(find_page(sum->pages, 20, 15)->looks, 10);
	rouse_wset_close(sum);
}

static void histories_stay_sensible_for_ever(void **state)
{
	struct rouse_wset_rules rules = {0};
	struct rouse_wset *sum = stable_after(3);

	(void)state;
	assert_int_equal(rouse_wset_rules_complete(&rules, VM_PAGES, NULL), 0);
	/* Doubling: 3 * 2^40 restores would not fit in 32 bits. */
	for (unsigned int i = 0; i < 40; i++) {
		struct rouse_wset *merged = NULL, *parsed = NULL;
		char *bytes = NULL;
		size_t size;

		assert_int_equal(rouse_wset_combine(sum, sum, NULL, &rules, &merged), 0);
		rouse_wset_close(sum);
		sum = merged;
		assert_int_equal(rouse_wset_encode(sum, &bytes, &size, NULL), 0);
		assert_int_equal(rouse_wset_parse(bytes, size, &parsed, NULL), 0);
		rouse_wset_close(parsed);
		free(bytes);
	}
	assert_int_equal(sum->runs, ROUSE_WSET_MAX_RUNS);
	assert_int_equal(sum->page_count, 200);
	rouse_wset_close(sum);
}

static void empty_sets_merge(void **state)
{
	struct rouse_wset *sum = NULL;

	(void)state;
	add(&sum, make_set(0, 0, 1));
	add(&sum, make_set(0, 0, 1));
	assert_int_equal(sum->page_count, 0);
	assert_int_equal(sum->runs, 2);
	rouse_wset_close(sum);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(first_set_is_believed_at_once),
		cmocka_unit_test(equal_sets_merge_to_the_same_set),
		cmocka_unit_test(learned_set_merged_with_itself_keeps_pages_and_weights),
		cmocka_unit_test(odd_run_does_not_displace_the_stable_set),
		cmocka_unit_test(odd_run_does_not_pass_a_small_budget_either),
		cmocka_unit_test(many_odd_runs_stay_within_the_budget),
		cmocka_unit_test(new_page_comes_in_when_a_second_restore_touches_it),
		cmocka_unit_test(new_page_is_remembered_however_many_restores_there_were),
		cmocka_unit_test(confirm_1_makes_the_union),
		cmocka_unit_test(unused_page_leaves_the_set_and_is_forgotten),
		cmocka_unit_test(page_that_waits_and_is_used_again_comes_back),
		cmocka_unit_test(order_stays_that_of_first_touch),
		cmocka_unit_test(newer_touches_move_a_page_by_their_share),
		cmocka_unit_test(incomplete_trace_is_no_evidence_against_a_page),
		cmocka_unit_test(prefetched_page_stays_while_its_neighbours_are_used),
		cmocka_unit_test(group_that_is_not_used_decays_as_a_whole),
		cmocka_unit_test(restore_that_is_watched_shortly_says_nothing_of_later_pages),
		cmocka_unit_test(neighbours_never_make_a_page_likelier),
		cmocka_unit_test(rules_that_make_no_sense_are_refused),
		cmocka_unit_test(decay_1_is_the_plain_average),
		cmocka_unit_test(histories_stay_sensible_for_ever),
		cmocka_unit_test(empty_sets_merge),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
