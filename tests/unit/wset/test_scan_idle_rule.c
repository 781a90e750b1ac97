/* SPDX-License-Identifier: MIT */
/* What the kernel's words mean to a scan by page_idle, and how they are asked for. */
#include "../unit.h"

#include "wset/scan_idle_rule.h"

#include <string.h>

#define PRESENT (UINT64_C(1) << 63)
#define SWAPPED (UINT64_C(1) << 62)
#define OTHER_BITS (UINT64_C(0x7f) << 55) /* soft-dirty, exclusive, file, swapped */

/* ---- Words of the page map ------------------------------------------------------------------- */

static void a_page_that_is_there_has_a_frame(void **state)
{
	const struct scan_idle_entry entry = scan_idle_entry_parse(PRESENT | OTHER_BITS | 0x1234);

	(void)state;
	assert_int_equal(entry.where, SCAN_IDLE_SOMEWHERE);
	assert_int_equal(entry.pfn, 0x1234);
}

static void a_frame_number_may_have_all_its_bits(void **state)
{
	(void)state;
	assert_true(scan_idle_entry_parse(UINT64_MAX).pfn == (UINT64_C(1) << 55) - 1);
}

static void a_page_without_a_frame_number_is_hidden(void **state)
{
	(void)state;
	assert_int_equal(scan_idle_entry_parse(PRESENT).where, SCAN_IDLE_HIDDEN);
	assert_int_equal(scan_idle_entry_parse(PRESENT | OTHER_BITS).where, SCAN_IDLE_HIDDEN);
}

static void a_page_in_swap_is_nowhere_whatever_its_number(void **state)
{
	const struct scan_idle_entry entry = scan_idle_entry_parse(SWAPPED | 0x1234);

	(void)state;
	assert_int_equal(entry.where, SCAN_IDLE_NOWHERE);
	assert_int_equal(entry.pfn, 0);
	assert_int_equal(scan_idle_entry_parse(0).where, SCAN_IDLE_NOWHERE);
}

/* ---- Judging --------------------------------------------------------------------------------- */

#define HERE ((struct scan_idle_entry){.where = SCAN_IDLE_SOMEWHERE, .pfn = 7})
#define ELSEWHERE ((struct scan_idle_entry){.where = SCAN_IDLE_SOMEWHERE, .pfn = 8})
#define GONE ((struct scan_idle_entry){.where = SCAN_IDLE_NOWHERE})

static enum scan_idle_verdict judge(
	enum scan_idle_state marked, struct scan_idle_entry now, enum scan_idle_bit bit)
{
	const struct scan_idle_page page = {.state = marked & 7u, .pfn = 7};

	return scan_idle_judge(&page, now, bit);
}

static void a_watched_page_goes_by_its_bit(void **state)
{
	(void)state;
	assert_int_equal(judge(SCAN_IDLE_WATCHED, HERE, SCAN_IDLE_SET), SCAN_IDLE_QUIET);
	assert_int_equal(judge(SCAN_IDLE_WATCHED, HERE, SCAN_IDLE_CLEAR), SCAN_IDLE_ACCESSED);
	assert_int_equal(judge(SCAN_IDLE_WATCHED, HERE, SCAN_IDLE_UNREAD), SCAN_IDLE_UNKNOWN);
}

static void the_bit_of_a_page_that_is_elsewhere_is_not_believed(void **state)
{
	(void)state;
	for (int bit = SCAN_IDLE_UNREAD; bit <= SCAN_IDLE_SET; bit++) {
		assert_int_equal(judge(SCAN_IDLE_WATCHED, ELSEWHERE, (enum scan_idle_bit)bit),
			SCAN_IDLE_ACCESSED);
		assert_int_equal(judge(SCAN_IDLE_UNWATCHED, ELSEWHERE, (enum scan_idle_bit)bit),
			SCAN_IDLE_ACCESSED);
	}
}

static void a_page_that_is_gone_was_not_accessed(void **state)
{
	(void)state;
	for (int from = SCAN_IDLE_TO_MARK; from <= SCAN_IDLE_UNWATCHED; from++) {
		for (int bit = SCAN_IDLE_UNREAD; bit <= SCAN_IDLE_SET; bit++)
			assert_int_equal(
				judge((enum scan_idle_state)from, GONE, (enum scan_idle_bit)bit),
				SCAN_IDLE_QUIET);
	}
}

static void a_page_that_came_was_accessed(void **state)
{
	(void)state;
	assert_int_equal(judge(SCAN_IDLE_ABSENT, HERE, SCAN_IDLE_UNREAD), SCAN_IDLE_ACCESSED);
	assert_int_equal(judge(SCAN_IDLE_ABSENT, ELSEWHERE, SCAN_IDLE_SET), SCAN_IDLE_ACCESSED);
}

static void of_a_page_that_could_not_be_marked_nothing_is_known(void **state)
{
	(void)state;
	for (int bit = SCAN_IDLE_UNREAD; bit <= SCAN_IDLE_SET; bit++) {
		assert_int_equal(judge(SCAN_IDLE_UNWATCHED, HERE, (enum scan_idle_bit)bit),
			SCAN_IDLE_UNKNOWN);
		assert_int_equal(
			judge(SCAN_IDLE_TO_MARK, HERE, (enum scan_idle_bit)bit), SCAN_IDLE_UNKNOWN);
	}
}

static void the_page_of_zeros_counts_when_it_is_written(void **state)
{
	(void)state;
	assert_int_equal(judge(SCAN_IDLE_EMPTY, HERE, SCAN_IDLE_CLEAR), SCAN_IDLE_QUIET);
	assert_int_equal(judge(SCAN_IDLE_EMPTY, ELSEWHERE, SCAN_IDLE_CLEAR), SCAN_IDLE_ACCESSED);
}

static void only_a_quiet_page_keeps_its_mark(void **state)
{
	const struct scan_idle_page watched = {.state = SCAN_IDLE_WATCHED, .pfn = 7};

	(void)state;
	assert_int_equal(scan_idle_next(&watched, HERE, SCAN_IDLE_QUIET), SCAN_IDLE_WATCHED);
	assert_int_equal(scan_idle_next(&watched, HERE, SCAN_IDLE_ACCESSED), SCAN_IDLE_TO_MARK);
	assert_int_equal(scan_idle_next(&watched, HERE, SCAN_IDLE_UNKNOWN), SCAN_IDLE_TO_MARK);
	assert_int_equal(scan_idle_next(&watched, GONE, SCAN_IDLE_QUIET), SCAN_IDLE_ABSENT);
}

/* ---- Runs ------------------------------------------------------------------------------------ */

static void fill(struct scan_idle_item *items, const uint64_t *pfns, size_t count)
{
	memset(items, 0, count * sizeof(*items));
	for (size_t i = 0; i < count; i++)
		items[i].pfn = pfns[i];
}

static void pages_of_one_word_are_one_run(void **state)
{
	static const uint64_t pfns[] = {64, 64, 65, 127, 128};
	struct scan_idle_item items[5];
	struct scan_idle_run run;

	(void)state;
	fill(items, pfns, 4);
	run = scan_idle_run_next(items, 4, 0, 64, 0);
	assert_int_equal(run.first, 1);
	assert_int_equal(run.words, 1);
	assert_int_equal(run.end, 4);
	fill(items, pfns, 5);
	run = scan_idle_run_next(items, 5, 0, 64, 0);
	assert_int_equal(run.words, 2);
	assert_int_equal(run.end, 5);
}

static void a_gap_ends_a_run_if_it_is_too_wide(void **state)
{
	static const uint64_t pfns[] = {0, 64 * 3};
	struct scan_idle_item items[2];

	(void)state;
	fill(items, pfns, 2);
	assert_int_equal(scan_idle_run_next(items, 2, 0, 64, 1).end, 1);
	assert_int_equal(scan_idle_run_next(items, 2, 0, 64, 2).end, 2);
	assert_int_equal(scan_idle_run_next(items, 2, 0, 64, 2).words, 4);
	assert_int_equal(scan_idle_run_next(items, 2, 1, 64, 2).first, 3);
}

static void a_run_is_no_longer_than_the_kernel_serves(void **state)
{
	struct scan_idle_item items[1000] = {{0}};
	struct scan_idle_run run;

	(void)state;
	for (uint64_t i = 0; i < 1000; i++)
		items[i].pfn = 100 + i;
	run = scan_idle_run_next(items, 1000, 0, 1, 16);
	assert_int_equal(run.words, SCAN_IDLE_RUN_WORDS);
	assert_int_equal(run.end, SCAN_IDLE_RUN_WORDS);
	run = scan_idle_run_next(items, 1000, run.end, 1, 16);
	assert_int_equal(run.first, 100 + SCAN_IDLE_RUN_WORDS);
	assert_int_equal(run.words, 1000 - SCAN_IDLE_RUN_WORDS);
	assert_int_equal(run.end, 1000);
}

static void frames_at_the_end_of_the_numbers_do_not_wrap(void **state)
{
	static const uint64_t pfns[] = {0, SCAN_IDLE_PFNS - 1};
	struct scan_idle_item items[2];

	(void)state;
	fill(items, pfns, 2);
	assert_int_equal(scan_idle_run_next(items, 2, 0, 1, 4).end, 1);
	assert_true(scan_idle_run_next(items, 2, 1, 1, 4).first == SCAN_IDLE_PFNS - 1);
}

static void items_are_sorted_by_frame(void **state)
{
	static const uint64_t pfns[] = {9, 3, 3, UINT64_C(1) << 40, 0};
	struct scan_idle_item items[5];

	(void)state;
	fill(items, pfns, 5);
	items[3].page = 77;
	scan_idle_sort(items, 5);
	for (size_t i = 1; i < 5; i++)
		assert_true(items[i - 1].pfn <= items[i].pfn);
	assert_int_equal(items[4].page, 77);
}

/* ---- Bits ------------------------------------------------------------------------------------ */

static void each_bit_of_a_word_is_a_frame_the_lowest_first(void **state)
{
	const struct scan_idle_run run = {.first = 10, .words = 2};

	(void)state;
	for (uint64_t pfn = 640; pfn < 768; pfn++) {
		uint64_t words[2] = {0, 0};

		scan_idle_bit_put(words, &run, pfn);
		assert_true(words[pfn / 64 - 10] == UINT64_C(1) << (pfn - 640) % 64);
		assert_true(words[(pfn / 64 - 10) ^ 1u] == 0);
		for (uint64_t other = 640; other < 768; other++)
			assert_int_equal(scan_idle_bit_get(words, &run, 2, other),
				other == pfn ? SCAN_IDLE_SET : SCAN_IDLE_CLEAR);
	}
}

static void a_bit_that_could_not_be_read_is_not_clear(void **state)
{
	const struct scan_idle_run run = {.first = 10, .words = 2};
	const uint64_t words[2] = {0, 0};

	(void)state;
	assert_int_equal(scan_idle_bit_get(words, &run, 1, 703), SCAN_IDLE_CLEAR);
	assert_int_equal(scan_idle_bit_get(words, &run, 1, 704), SCAN_IDLE_UNREAD);
	assert_int_equal(scan_idle_bit_get(words, &run, 0, 640), SCAN_IDLE_UNREAD);
}

/* ---- Heads ----------------------------------------------------------------------------------- */

static uint64_t head_after(uint64_t flags_before, uint64_t pfn_before, uint64_t flags)
{
	const struct scan_idle_item before = {
		.pfn = pfn_before, .flags = flags_before, .head = 512};
	const struct scan_idle_item item = {.pfn = 600, .flags = flags};

	return scan_idle_head(&before, &item);
}

static void a_page_that_is_no_tail_is_its_own_head(void **state)
{
	(void)state;
	assert_int_equal(head_after(SCAN_IDLE_FLAG_TAIL, 599, 0), 600);
	assert_int_equal(head_after(SCAN_IDLE_FLAG_TAIL, 599, SCAN_IDLE_FLAG_HEAD), 600);
}

static void a_tail_has_the_head_of_the_page_before_it(void **state)
{
	const struct scan_idle_item item = {.pfn = 600, .flags = SCAN_IDLE_FLAG_TAIL};

	(void)state;
	assert_int_equal(head_after(SCAN_IDLE_FLAG_TAIL, 599, SCAN_IDLE_FLAG_TAIL), 512);
	assert_int_equal(head_after(SCAN_IDLE_FLAG_HEAD, 599, SCAN_IDLE_FLAG_TAIL), 512);
	assert_int_equal(head_after(SCAN_IDLE_FLAG_TAIL, 600, SCAN_IDLE_FLAG_TAIL), 512);
	assert_true(head_after(SCAN_IDLE_FLAG_TAIL, 598, SCAN_IDLE_FLAG_TAIL) == SCAN_IDLE_NO_HEAD);
	assert_true(head_after(0, 599, SCAN_IDLE_FLAG_TAIL) == SCAN_IDLE_NO_HEAD);
	assert_true(scan_idle_head(NULL, &item) == SCAN_IDLE_NO_HEAD);
}

static void heads_are_looked_for_at_multiples_of_their_size(void **state)
{
	static const uint64_t expected[] = {0x2be, 0x2bc, 0x2b8, 0x2b0, 0x2a0, 0x280, 0x200};

	(void)state;
	for (unsigned int i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
		assert_int_equal(scan_idle_head_candidate(0x2bf, i), expected[i]);
	assert_true(scan_idle_head_candidate(0x2bf, 7) == SCAN_IDLE_NO_HEAD);
	assert_true(scan_idle_head_candidate(0x200, 0) == SCAN_IDLE_NO_HEAD);
}

static void a_tail_of_a_huge_page_goes_by_the_head_while_it_is_whole(void **state)
{
	const struct scan_idle_page marked = {
		.pfn = 600, .to_head = 88, .state = SCAN_IDLE_WATCHED};
	struct scan_idle_item now = {.pfn = 600, .flags = SCAN_IDLE_FLAG_TAIL, .head = 512};

	(void)state;
	assert_int_equal(scan_idle_tail_now(&marked, &now), SCAN_IDLE_BIT_OF_HEAD);
	now.head = 592;
	assert_int_equal(scan_idle_tail_now(&marked, &now), SCAN_IDLE_BIT_LOST);
	now.head = SCAN_IDLE_NO_HEAD;
	assert_int_equal(scan_idle_tail_now(&marked, &now), SCAN_IDLE_BIT_LOST);
	now = (struct scan_idle_item){.pfn = 600, .head = 600};
	assert_int_equal(scan_idle_tail_now(&marked, &now), SCAN_IDLE_BIT_OF_ITS_OWN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_page_that_is_there_has_a_frame),
		cmocka_unit_test(a_frame_number_may_have_all_its_bits),
		cmocka_unit_test(a_page_without_a_frame_number_is_hidden),
		cmocka_unit_test(a_page_in_swap_is_nowhere_whatever_its_number),
		cmocka_unit_test(a_watched_page_goes_by_its_bit),
		cmocka_unit_test(the_bit_of_a_page_that_is_elsewhere_is_not_believed),
		cmocka_unit_test(a_page_that_is_gone_was_not_accessed),
		cmocka_unit_test(a_page_that_came_was_accessed),
		cmocka_unit_test(of_a_page_that_could_not_be_marked_nothing_is_known),
		cmocka_unit_test(the_page_of_zeros_counts_when_it_is_written),
		cmocka_unit_test(only_a_quiet_page_keeps_its_mark),
		cmocka_unit_test(pages_of_one_word_are_one_run),
		cmocka_unit_test(a_gap_ends_a_run_if_it_is_too_wide),
		cmocka_unit_test(a_run_is_no_longer_than_the_kernel_serves),
		cmocka_unit_test(frames_at_the_end_of_the_numbers_do_not_wrap),
		cmocka_unit_test(items_are_sorted_by_frame),
		cmocka_unit_test(each_bit_of_a_word_is_a_frame_the_lowest_first),
		cmocka_unit_test(a_bit_that_could_not_be_read_is_not_clear),
		cmocka_unit_test(a_page_that_is_no_tail_is_its_own_head),
		cmocka_unit_test(a_tail_has_the_head_of_the_page_before_it),
		cmocka_unit_test(heads_are_looked_for_at_multiples_of_their_size),
		cmocka_unit_test(a_tail_of_a_huge_page_goes_by_the_head_while_it_is_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
