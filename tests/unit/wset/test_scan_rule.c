/* SPDX-License-Identifier: MIT */
/* Which pages a scan takes for the working set. */
#include "../unit.h"

#include "wset/scan_rule.h"

#include <errno.h>
#include <math.h>

/* @seen: a letter for each scan, the oldest first, 'x': it saw the page. */
static struct scan_page after(const struct scan_rule *rule, const char *seen)
{
	struct scan_page page = {0};

	for (uint32_t i = 0; seen[i] != '\0'; i++) {
		scan_rule_age(rule, &page, 1);
		if (seen[i] == 'x')
			scan_rule_note(&page, i + 1);
	}
	return page;
}

static bool holds(const struct scan_rule *rule, const char *seen)
{
	const struct scan_page page = after(rule, seen);

	return scan_rule_holds(rule, &page);
}

static void a_page_belongs_if_it_was_seen_in_the_last_scans(void **state)
{
	struct scan_rule rule;

	(void)state;
	assert_int_equal(scan_rule_set_last(&rule, 3), 0);
	assert_true(holds(&rule, "..x.."));
	assert_true(holds(&rule, "....x"));
	assert_true(holds(&rule, "x.x.."));
	assert_false(holds(&rule, ".x..."));
	assert_false(holds(&rule, "xx..."));
	assert_false(holds(&rule, "....."));
	assert_int_equal(scan_rule_set_last(&rule, 1), 0);
	assert_true(holds(&rule, "..x"));
	assert_false(holds(&rule, "xx."));
}

/* However long ago and however often: not by rounding either. */
static void the_last_scans_are_exact_at_the_limit(void **state)
{
	struct scan_rule rule;
	struct scan_page page = {0};

	(void)state;
	assert_int_equal(scan_rule_set_last(&rule, SCAN_RULE_MAX_LAST), 0);
	for (uint32_t scan = 1; scan <= 1000; scan++) {
		scan_rule_age(&rule, &page, 1);
		scan_rule_note(&page, scan);
	}
	for (unsigned int i = 0; i < SCAN_RULE_MAX_LAST - 1; i++)
		scan_rule_age(&rule, &page, 1);
	assert_true(scan_rule_holds(&rule, &page));
	scan_rule_age(&rule, &page, 1);
	assert_false(scan_rule_holds(&rule, &page));
}

static void without_decay_it_counts_how_often(void **state)
{
	struct scan_rule rule;

	(void)state;
	assert_int_equal(scan_rule_set(&rule, 1, 2), 0);
	assert_true(holds(&rule, "x.x......."));
	assert_false(holds(&rule, ".........x"));
}

static void with_a_slow_decay_often_outweighs_recently(void **state)
{
	struct scan_rule rule;

	(void)state;
	assert_int_equal(scan_rule_set(&rule, 0.75, 1.2), 0);
	assert_true(holds(&rule, "xxxx.."));
	assert_false(holds(&rule, ".....x"));
	assert_false(holds(&rule, "xxxx......"));
}

static void without_a_threshold_once_is_enough(void **state)
{
	struct scan_rule rule;

	(void)state;
	assert_int_equal(scan_rule_set(&rule, 0, 0), 0);
	assert_true(holds(&rule, "x........."));
	assert_false(holds(&rule, ".........."));
}

static void the_first_scan_that_saw_a_page_is_kept(void **state)
{
	struct scan_rule rule;

	(void)state;
	assert_int_equal(scan_rule_set_last(&rule, 2), 0);
	assert_int_equal(after(&rule, "..x.x").first, 3);
	assert_int_equal(after(&rule, "...").first, 0);
}

static void the_largest_score_does_not_wrap(void **state)
{
	struct scan_rule rule;
	struct scan_page page = {0};

	(void)state;
	assert_int_equal(scan_rule_set(&rule, 1, SCAN_RULE_MAX_SCANS), 0);
	for (uint32_t scan = 1; scan <= SCAN_RULE_MAX_SCANS; scan++) {
		assert_false(scan_rule_holds(&rule, &page));
		scan_rule_age(&rule, &page, 1);
		scan_rule_note(&page, scan);
	}
	assert_true(scan_rule_holds(&rule, &page));
	scan_rule_age(&rule, &page, 1);
	assert_true(scan_rule_holds(&rule, &page));
}

static void rules_that_make_no_sense_are_refused(void **state)
{
	struct scan_rule rule;

	(void)state;
	assert_int_equal(scan_rule_set(&rule, 1.01, 1), -EINVAL);
	assert_int_equal(scan_rule_set(&rule, -0.1, 1), -EINVAL);
	assert_int_equal(scan_rule_set(&rule, (double)NAN, 1), -EINVAL);
	assert_int_equal(scan_rule_set(&rule, 1, -1), -EINVAL);
	assert_int_equal(scan_rule_set(&rule, 1, 1e9), -EINVAL);
	assert_int_equal(scan_rule_set_last(&rule, 0), -EINVAL);
	assert_int_equal(scan_rule_set_last(&rule, SCAN_RULE_MAX_LAST + 1), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_page_belongs_if_it_was_seen_in_the_last_scans),
		cmocka_unit_test(the_last_scans_are_exact_at_the_limit),
		cmocka_unit_test(without_decay_it_counts_how_often),
		cmocka_unit_test(with_a_slow_decay_often_outweighs_recently),
		cmocka_unit_test(without_a_threshold_once_is_enough),
		cmocka_unit_test(the_first_scan_that_saw_a_page_is_kept),
		cmocka_unit_test(the_largest_score_does_not_wrap),
		cmocka_unit_test(rules_that_make_no_sense_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
