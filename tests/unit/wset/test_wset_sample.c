/* SPDX-License-Identifier: MIT */
/* The sample that is left out of a prefetch, and what is concluded from it. */
#include "sets.h"

#include "wset/wset_sample.h"

#define SEED 20261124u

static void expect_size(uint32_t count, uint32_t one_in, uint32_t drawn)
{
	struct rouse_wset *set = make_set(5, count, 2);
	struct rouse_wset_sample sample;

	assert_int_equal(rouse_wset_sample_draw(&sample, set->pages, count,
				 &(struct rouse_wset_sample_config){.vm_pages = VM_PAGES,
					 .until_us = UINT32_MAX,
					 .one_in = one_in,
					 .seed = SEED}),
		0);
	assert_int_equal(sample.drawn_count, drawn);
	assert_int_equal(rouse_bitmap_count(&sample.drawn), drawn);
	assert_int_equal(rouse_bitmap_count(&sample.left_out), drawn);
	for (uint32_t page = 0; page < VM_PAGES; page++)
		assert_true(!rouse_bitmap_test(&sample.drawn, page) || has_page(set, page));
	rouse_wset_sample_finish(&sample);
	rouse_wset_close(set);
}

static void sample_is_one_page_in_64_within_bounds(void **state)
{
	(void)state;
	expect_size(0, 0, 0);
	expect_size(3, 0, 0);
	expect_size(40, 0, 10);
	expect_size(1000, 0, 32);
	expect_size(6400, 0, 100);
	expect_size(40000, 0, 256);
}

static void size_that_is_asked_for_is_taken(void **state)
{
	(void)state;
	expect_size(1000, 10, 100);
	expect_size(1000, 1, 1000);
	expect_size(1000, ROUSE_LEARN_NO_SAMPLE, 0);
}

static void every_page_is_drawn_equally_often(void **state)
{
	struct rouse_wset *set = make_set(0, 200, 1);
	unsigned int drawn[200] = {0};

	(void)state;
	/* 32 of 200, 2000 times: 320 for each page, with a standard deviation of 16.4. */
	for (uint64_t seed = 1; seed <= 2000; seed++) {
		struct rouse_wset_sample sample;

		assert_int_equal(rouse_wset_sample_draw(&sample, set->pages, 200,
					 &(struct rouse_wset_sample_config){.vm_pages = VM_PAGES,
						 .until_us = UINT32_MAX,
						 .one_in = 0,
						 .seed = seed}),
			0);
		for (uint32_t i = 0; i < 200; i++)
			drawn[i] += rouse_bitmap_test(&sample.drawn, i);
		rouse_wset_sample_finish(&sample);
	}
	for (uint32_t i = 0; i < 200; i++)
		assert_in_range(drawn[i], 320 - 82, 320 + 82);
	rouse_wset_close(set);
}

static void doubtful_pages_are_left_out_too_the_least_likely_first(void **state)
{
	struct rouse_wset *set = make_set(0, 1000, 1);
	struct rouse_wset_sample sample;

	(void)state;
	for (uint32_t i = 0; i < 1000; i++)
		set->pages[i].weight = (uint16_t)(i < 100 ? 20000 + i : ROUSE_WSET_WEIGHT_ONE);
	assert_int_equal(rouse_wset_sample_draw(&sample, set->pages, 1000,
				 &(struct rouse_wset_sample_config){.vm_pages = VM_PAGES,
					 .until_us = UINT32_MAX,
					 .one_in = 0,
					 .seed = SEED}),
		0);
	assert_int_equal(sample.drawn_count, 32);
	for (uint32_t i = 0; i < 32; i++)
		assert_true(rouse_bitmap_test(&sample.left_out, i));
	assert_in_range(sample.left_out_count, 33, 64);
	assert_int_equal(rouse_bitmap_count(&sample.left_out), sample.left_out_count);
	rouse_wset_sample_finish(&sample);
	rouse_wset_close(set);
}

static void pages_beyond_the_time_that_is_watched_are_left_alone(void **state)
{
	struct rouse_wset *set = make_set(0, 1000, 1);
	struct rouse_wset_sample sample;
	const struct rouse_wset_sample_config config = {
		.vm_pages = VM_PAGES, .until_us = 10 * 499, .one_in = 10, .seed = SEED};

	(void)state;
	for (uint32_t i = 0; i < 1000; i++)
		set->pages[i].weight = 20000;
	assert_int_equal(rouse_wset_sample_draw(&sample, set->pages, 1000, &config), 0);
	assert_int_equal(sample.count, 500);
	assert_int_equal(sample.drawn_count, 50);
	for (uint32_t i = 500; i < 1000; i++)
		assert_false(rouse_bitmap_test(&sample.left_out, i));
	rouse_wset_sample_finish(&sample);
	rouse_wset_close(set);
}

static void interval_is_wilsons(void **state)
{
	struct rouse_wset_share share = rouse_wset_share_of(8, 10, 1.959964);

	(void)state;
	/* Known values: 0.4902 to 0.9433. */
	assert_in_range((int)(share.low * 10000), 4900, 4904);
	assert_in_range((int)(share.high * 10000), 9430, 9436);
	share = rouse_wset_share_of(0, 20, 1.959964);
	assert_in_range((int)(share.high * 10000), 1605, 1615);
	share = rouse_wset_share_of(20, 20, 1.959964);
	assert_true(share.high > 0.9999 && share.low < 0.85);
	share = rouse_wset_share_of(0, 0, 1.959964);
	assert_true(share.value < 0 && share.low < 0.001 && share.high > 0.999);
}

static void interval_holds_the_truth_19_times_of_20(void **state)
{
	struct rouse_wset *set = make_set(0, 6400, 1);
	unsigned int held = 0;

	(void)state;
	/* A set of which 70 % are used: the sample of 100 must tell so. */
	for (uint64_t seed = 1; seed <= 1000; seed++) {
		struct rouse_wset_sample sample;
		struct rouse_bitmap touched = {0};
		struct rouse_wset_share share;

		assert_int_equal(rouse_bitmap_init(&touched, VM_PAGES), 0);
		for (uint32_t i = 0; i < 6400; i++) {
			if (i % 10 < 7)
				rouse_bitmap_set(&touched, i);
		}
		assert_int_equal(rouse_wset_sample_draw(&sample, set->pages, 6400,
					 &(struct rouse_wset_sample_config){.vm_pages = VM_PAGES,
						 .until_us = UINT32_MAX,
						 .one_in = 0,
						 .seed = seed}),
			0);
		share = rouse_wset_share_of(
			rouse_wset_sample_used(&sample, &touched), sample.drawn_count, 1.959964);
		held += share.low <= 0.7 && share.high >= 0.7;
		rouse_wset_sample_finish(&sample);
		rouse_bitmap_finish(&touched);
	}
	/* 950 expected, with a standard deviation of 7. */
	assert_in_range(held, 925, 975);
	rouse_wset_close(set);
}

static void groups_tell_the_used_part_from_the_unused(void **state)
{
	struct rouse_wset *set = make_set(0, 20000, 1);
	struct rouse_wset_sample sample;
	struct rouse_bitmap touched = {0};
	struct rouse_wset_group *groups = NULL;
	size_t count = 0;

	(void)state;
	assert_int_equal(rouse_bitmap_init(&touched, VM_PAGES), 0);
	for (uint32_t i = 0; i < 10000; i++)
		rouse_bitmap_set(&touched, i);
	assert_int_equal(rouse_wset_sample_draw(&sample, set->pages, 20000,
				 &(struct rouse_wset_sample_config){.vm_pages = VM_PAGES,
					 .until_us = UINT32_MAX,
					 .one_in = 0,
					 .seed = SEED}),
		0);
	assert_int_equal(rouse_wset_sample_groups(&sample, &touched, &groups, &count), 0);
	assert_int_equal(count, sample.drawn_count / ROUSE_WSET_GROUP_SAMPLES);
	assert_true(groups[0].rate > 0.99);
	assert_true(groups[count - 1].rate < 0.1);
	assert_int_equal(groups[count - 1].end_page, UINT32_MAX);
	for (size_t i = 1; i < count; i++)
		assert_true(groups[i - 1].end_page < groups[i].end_page);
	free(groups);
	rouse_wset_sample_finish(&sample);
	rouse_bitmap_finish(&touched);
	rouse_wset_close(set);
}

static void sample_too_small_for_a_group_makes_none(void **state)
{
	struct rouse_wset *set = make_set(0, 20, 1);
	struct rouse_wset_sample sample;
	struct rouse_bitmap touched = {0};
	struct rouse_wset_group *groups = NULL;
	size_t count = 1;

	(void)state;
	assert_int_equal(rouse_bitmap_init(&touched, VM_PAGES), 0);
	assert_int_equal(rouse_wset_sample_draw(&sample, set->pages, 20,
				 &(struct rouse_wset_sample_config){.vm_pages = VM_PAGES,
					 .until_us = UINT32_MAX,
					 .one_in = 0,
					 .seed = SEED}),
		0);
	assert_int_equal(rouse_wset_sample_groups(&sample, &touched, &groups, &count), 0);
	assert_int_equal(count, 0);
	free(groups);
	rouse_wset_sample_finish(&sample);
	rouse_bitmap_finish(&touched);
	rouse_wset_close(set);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sample_is_one_page_in_64_within_bounds),
		cmocka_unit_test(size_that_is_asked_for_is_taken),
		cmocka_unit_test(every_page_is_drawn_equally_often),
		cmocka_unit_test(doubtful_pages_are_left_out_too_the_least_likely_first),
		cmocka_unit_test(pages_beyond_the_time_that_is_watched_are_left_alone),
		cmocka_unit_test(interval_is_wilsons),
		cmocka_unit_test(interval_holds_the_truth_19_times_of_20),
		cmocka_unit_test(groups_tell_the_used_part_from_the_unused),
		cmocka_unit_test(sample_too_small_for_a_group_makes_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
