/* SPDX-License-Identifier: MIT */
/*
 * The loop of learning, simulated: a set is prefetched but for its sample, the guest touches what
 * it uses, the set learns. What must come out of many rounds, whatever the random choices.
 */
#include "sets.h"

#include "wset/wset_sample.h"

#define SET_PAGES 10000u

/* Whether the guest uses a page in a round. */
typedef bool uses_fn(uint32_t page, uint32_t round);

struct loop {
	struct rouse_wset *set;
	struct rouse_wset_rules rules;
	uses_fn *uses;
	uint32_t round, faults, prefetched;
	struct rouse_wset_share hits;
};

static void loop_begin(struct loop *loop, uses_fn *uses)
{
	*loop = (struct loop){.uses = uses};
	assert_int_equal(rouse_wset_rules_complete(&loop->rules, VM_PAGES, NULL), 0);
}

/* What the guest is seen to touch: what it uses and was not prefetched. */
static struct rouse_wset *touch(
	const struct loop *loop, const struct rouse_bitmap *hidden, struct rouse_bitmap *touched)
{
	struct rouse_wset *trace = make_set(0, VM_PAGES, 1);
	uint32_t count = 0;

	for (uint32_t page = 0; page < VM_PAGES; page++) {
		if (!loop->uses(page, loop->round) || rouse_bitmap_test(hidden, page))
			continue;
		trace->pages[count++] = trace->pages[page];
		rouse_bitmap_set(touched, page);
	}
	trace->page_count = count;
	return trace;
}

static void loop_round(struct loop *loop)
{
	struct rouse_bitmap hidden = {0}, touched = {0};
	struct rouse_wset_sample sample = {0};
	struct rouse_wset_unseen unseen = {
		.whole = true, .until_us = UINT32_MAX, .hidden = &hidden};
	struct rouse_wset_group *groups = NULL;
	struct rouse_wset *trace, *merged = NULL;

	loop->round++;
	assert_int_equal(rouse_bitmap_init(&hidden, VM_PAGES), 0);
	assert_int_equal(rouse_bitmap_init(&touched, VM_PAGES), 0);
	if (loop->set != NULL)
		assert_int_equal(
			rouse_wset_sample_draw(&sample, loop->set->pages, loop->set->page_count,
				&(struct rouse_wset_sample_config){.vm_pages = VM_PAGES,
					.until_us = UINT32_MAX,
					.one_in = 0,
					.seed = loop->round}),
			0);
	for (uint32_t i = 0; i < sample.count; i++) {
		if (!rouse_bitmap_test(&sample.left_out, sample.pages[i]))
			rouse_bitmap_set(&hidden, sample.pages[i]);
	}
	trace = touch(loop, &hidden, &touched);
	if (loop->set != NULL)
		assert_int_equal(
			rouse_wset_sample_groups(&sample, &touched, &groups, &unseen.group_count),
			0);
	unseen.groups = groups;
	loop->faults = trace->page_count;
	loop->prefetched = sample.count - sample.left_out_count;
	if (loop->set != NULL)
		loop->hits = rouse_wset_share_of(rouse_wset_sample_used(&sample, &touched),
			sample.drawn_count, 4); /* a chance of 1 in 16000 */
	assert_int_equal(rouse_wset_combine(loop->set, trace, &unseen, &loop->rules, &merged), 0);
	rouse_wset_close(loop->set);
	rouse_wset_close(trace);
	loop->set = merged;
	free(groups);
	rouse_wset_sample_finish(&sample);
	rouse_bitmap_finish(&hidden);
	rouse_bitmap_finish(&touched);
}

static void loop_end(struct loop *loop)
{
	rouse_wset_close(loop->set);
}

/* Pages of the set that are below @end and from @begin on. */
static uint32_t count_between(const struct rouse_wset *set, uint32_t begin, uint32_t end)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < set->page_count; i++)
		count += set->pages[i].page >= begin && set->pages[i].page < end;
	return count;
}

/* ---- Guests ---------------------------------------------------------------------------------- */

static uint32_t mix(uint32_t page, uint32_t round)
{
	uint32_t x = page * 2654435761u ^ round * 2246822519u;

	x = (x ^ x >> 15) * 2246822519u;
	x = (x ^ x >> 13) * 3266489917u;
	return x ^ x >> 16;
}

/* The same pages for ever. */
static bool steady(uint32_t page, uint32_t round)
{
	(void)round;
	return page < SET_PAGES;
}

/* From round 4 on the upper 4000 of the 10000 pages are not used any more. */
static bool shrinks(uint32_t page, uint32_t round)
{
	return page < (round < 4 ? SET_PAGES : 6000);
}

/* From round 4 on two pages of five are not used any more. */
static bool thins_out(uint32_t page, uint32_t round)
{
	return page < SET_PAGES && (round < 4 || page % 5 < 3);
}

/* From round 4 on it uses other pages altogether. */
static bool moves(uint32_t page, uint32_t round)
{
	return round < 4 ? page < SET_PAGES : page >= 50000 && page < 50000 + SET_PAGES;
}

/* Round 4 is odd: 60000 pages more. */
static bool odd_once(uint32_t page, uint32_t round)
{
	return page < SET_PAGES || (round == 4 && page >= 30000 && page < 90000);
}

/* 10000 pages always, and 3 in 100 of 50000 others, new ones in each round. */
static bool noisy(uint32_t page, uint32_t round)
{
	return page < SET_PAGES || (page < 60000 && mix(page, round) % 100 < 3);
}

/* ---- What comes out -------------------------------------------------------------------------- */

static void steady_guest_keeps_its_set_and_faults_for_the_sample_only(void **state)
{
	struct loop loop;

	(void)state;
	loop_begin(&loop, steady);
	for (unsigned int i = 0; i < 60; i++) {
		loop_round(&loop);
		assert_int_equal(loop.set->page_count, SET_PAGES);
		if (i > 0)
			assert_int_equal(loop.faults, SET_PAGES / ROUSE_WSET_SAMPLE_ONE_IN);
	}
	assert_true(loop.hits.value > 0.999);
	assert_int_equal(loop.set->waiting_count, 0);
	loop_end(&loop);
}

static void stretch_that_is_not_used_any_more_leaves_the_set(void **state)
{
	struct loop loop;
	uint32_t before = 0;

	(void)state;
	loop_begin(&loop, shrinks);
	for (unsigned int i = 0; i < 4; i++)
		loop_round(&loop);
	/* The sample sees it at once: 60 % are used. */
	assert_true(loop.hits.low < 0.6 && loop.hits.high > 0.6);
	while (count_between(loop.set, 6000, SET_PAGES) > 1000 && loop.round < 100)
		loop_round(&loop);
	print_message(
		"three quarters of the unused pages had left after %u restores\n", loop.round - 3);
	assert_in_range(loop.round, 4, 20);
	for (unsigned int i = 0; i < 60; i++) {
		before = count_between(loop.set, 0, 6000);
		loop_round(&loop);
	}
	print_message("after 60 more the set had %u of 6000 used and %u of 4000 unused pages\n",
		before, count_between(loop.set, 6000, SET_PAGES));
	assert_in_range(before, 5900, 6000);
	assert_in_range(count_between(loop.set, 6000, SET_PAGES), 0, 400);
	loop_end(&loop);
}

static void unused_pages_among_used_ones_leave_slowly(void **state)
{
	struct loop loop;
	uint32_t used = 0;

	(void)state;
	loop_begin(&loop, thins_out);
	for (unsigned int i = 0; i < 64; i++)
		loop_round(&loop);
	for (uint32_t i = 0; i < loop.set->page_count; i++)
		used += loop.set->pages[i].page % 5 < 3;
	print_message("after 60 restores the set has %u of 6000 used and %u of 4000 unused pages\n",
		used, loop.set->page_count - used);
	assert_in_range(used, 5900, 6000);
	assert_in_range(loop.set->page_count - used, 0, 3000);
	loop_end(&loop);
}

static void guest_that_moves_takes_its_set_along(void **state)
{
	struct loop loop;

	(void)state;
	loop_begin(&loop, moves);
	for (unsigned int i = 0; i < 4; i++)
		loop_round(&loop);
	assert_true(loop.hits.high < 0.1);
	for (unsigned int i = 0; i < 12; i++)
		loop_round(&loop);
	assert_int_equal(count_between(loop.set, 0, SET_PAGES), 0);
	assert_int_equal(count_between(loop.set, 50000, 60000), SET_PAGES);
	loop_end(&loop);
}

static void odd_round_costs_nothing_afterwards(void **state)
{
	struct loop loop;

	(void)state;
	loop_begin(&loop, odd_once);
	for (unsigned int i = 0; i < 12; i++) {
		loop_round(&loop);
		assert_int_equal(loop.set->page_count, SET_PAGES);
		if (i > 0)
			assert_in_range(loop.prefetched, 9000, SET_PAGES);
	}
	/* 0.43 * 0.75^k is below forget after 8 more. */
	assert_int_equal(loop.set->waiting_count, 0);
	loop_end(&loop);
}

/* The union of what 100 restores touch is more than 50000 pages. */
static void noise_does_not_grow_the_set(void **state)
{
	struct loop loop;

	(void)state;
	loop_begin(&loop, noisy);
	for (unsigned int i = 0; i < 100; i++)
		loop_round(&loop);
	print_message("10000 pages always, 1500 at random: the set has %u, %u wait\n",
		loop.set->page_count, loop.set->waiting_count);
	assert_int_equal(count_between(loop.set, 0, SET_PAGES), SET_PAGES);
	assert_in_range(loop.set->page_count, SET_PAGES, SET_PAGES + 5000);
	loop_end(&loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(steady_guest_keeps_its_set_and_faults_for_the_sample_only),
		cmocka_unit_test(stretch_that_is_not_used_any_more_leaves_the_set),
		cmocka_unit_test(unused_pages_among_used_ones_leave_slowly),
		cmocka_unit_test(guest_that_moves_takes_its_set_along),
		cmocka_unit_test(odd_round_costs_nothing_afterwards),
		cmocka_unit_test(noise_does_not_grow_the_set),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
