/* SPDX-License-Identifier: MIT */
/* How sets are compared. */
#include "sets.h"

#include "wset/wset_compare.h"

static struct rouse_wset_diff compare(const struct rouse_wset *a, const struct rouse_wset *b)
{
	struct rouse_wset_diff diff;

	assert_int_equal(rouse_wset_measure(a, b, &diff, NULL, NULL), 0);
	return diff;
}

static void equal_sets_are_equal(void **state)
{
	struct rouse_wset *set = make_set(7, 1000, 3);
	struct rouse_wset_diff diff = compare(set, set);

	(void)state;
	assert_int_equal(diff.common, 1000);
	assert_true(diff.recall > 0.9999 && diff.precision > 0.9999 && diff.kendall > 0.9999);
	rouse_wset_close(set);
}

static void recall_and_precision_are_shares_of_the_right_set(void **state)
{
	struct rouse_wset *a = make_set(0, 100, 1), *b = make_set(50, 200, 1);
	struct rouse_wset_diff diff = compare(a, b);

	(void)state;
	assert_int_equal(diff.pages_a, 100);
	assert_int_equal(diff.pages_b, 200);
	assert_int_equal(diff.common, 50);
	assert_in_range((int)(diff.recall * 1000), 499, 501);
	assert_in_range((int)(diff.precision * 1000), 249, 251);
	rouse_wset_close(a);
	rouse_wset_close(b);
}

static void reverse(struct rouse_wset *set)
{
	for (uint32_t i = 0; i < set->page_count / 2; i++) {
		struct rouse_wset_page page = set->pages[i];

		set->pages[i] = set->pages[set->page_count - 1 - i];
		set->pages[set->page_count - 1 - i] = page;
	}
}

static void reversed_order_is_minus_one(void **state)
{
	struct rouse_wset *a = make_set(0, 777, 1), *b = make_set(0, 777, 1);
	struct rouse_wset_diff diff;

	(void)state;
	reverse(b);
	diff = compare(a, b);
	assert_true(diff.kendall < -0.9999);
	rouse_wset_close(a);
	rouse_wset_close(b);
}

/* Against the definition: all pairs. */
static void tau_is_that_of_its_definition(void **state)
{
	(void)state;
	for (uint32_t n = 2; n < 70; n++) {
		struct rouse_wset *a = make_set(0, n, 1), *b = make_set(0, n, 1);
		int64_t sum = 0;
		double tau;

		for (uint32_t i = 0; i < n; i++) {
			struct rouse_wset_page page = b->pages[i];
			uint32_t j = (i * 7919 + n * 104729) % n;

			b->pages[i] = b->pages[j];
			b->pages[j] = page;
		}
		for (uint32_t i = 0; i < n; i++) {
			for (uint32_t j = 0; j < i; j++)
				sum += b->pages[i].page > b->pages[j].page ? 1 : -1;
		}
		tau = 2.0 * (double)sum / ((double)n * (n - 1));
		assert_true(compare(a, b).kendall - tau < 1e-9);
		assert_true(tau - compare(a, b).kendall < 1e-9);
		rouse_wset_close(a);
		rouse_wset_close(b);
	}
}

static void empty_sets_compare(void **state)
{
	struct rouse_wset *empty = make_set(0, 0, 1), *set = make_set(0, 5, 1);
	struct rouse_wset_diff diff = compare(empty, set);

	(void)state;
	assert_true(diff.recall > 0.99 && diff.precision < 0.01 && diff.kendall > 0.99);
	diff = compare(set, empty);
	assert_true(diff.recall < 0.01 && diff.precision > 0.99);
	rouse_wset_close(empty);
	rouse_wset_close(set);
}

struct seen {
	uint64_t a, b, last;
};

static void on_only(void *user, uint64_t page, bool in_a)
{
	struct seen *seen = user;

	assert_true(page >= seen->last);
	seen->last = page;
	seen->a += in_a;
	seen->b += !in_a;
}

static void pages_of_one_set_only_are_told_in_order(void **state)
{
	struct rouse_wset *a = make_set(0, 100, 2), *b = make_set(0, 100, 3);
	struct rouse_wset_diff diff;
	struct seen seen = {0};

	(void)state;
	assert_int_equal(rouse_wset_measure(a, b, &diff, on_only, &seen), 0);
	assert_int_equal(seen.a, 100 - diff.common);
	assert_int_equal(seen.b, 100 - diff.common);
	assert_int_equal(diff.common, 34);
	rouse_wset_close(a);
	rouse_wset_close(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(equal_sets_are_equal),
		cmocka_unit_test(recall_and_precision_are_shares_of_the_right_set),
		cmocka_unit_test(reversed_order_is_minus_one),
		cmocka_unit_test(tau_is_that_of_its_definition),
		cmocka_unit_test(empty_sets_compare),
		cmocka_unit_test(pages_of_one_set_only_are_told_in_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
