/* SPDX-License-Identifier: MIT */
/* What the page order of a background snapshot tells. */
#include "../unit.h"

#include "api/page_order.h"

#include <rouse.h>

static struct page_order *begin(void)
{
	const struct rouse_block blocks[] = {
		{.name = "a", .used_bytes = 10 * 4096}, {.name = "b", .used_bytes = 10 * 4096}};
	struct page_order *order;

	assert_int_equal(page_order_new(&order), 0);
	assert_int_equal(page_order_set_blocks(order, blocks, 2), 0);
	return order;
}

static void expect(struct page_order *order, const uint64_t *pages, size_t count,
	const uint32_t *written, uint32_t written_count)
{
	struct rouse_wset *wset;

	for (size_t i = 0; i < count; i++)
		assert_int_equal(page_order_note(order, pages[i]), 0);
	assert_int_equal(page_order_wset(order, &wset), 0);
	assert_int_equal(wset->block_count, 2);
	assert_string_equal(wset->blocks[1].name, "b");
	assert_int_equal(wset->page_count, written_count);
	for (uint32_t i = 0; i < written_count; i++)
		assert_int_equal(wset->pages[i].page, written[i]);
	rouse_wset_close(wset);
	page_order_free(order);
}

static void a_walk_from_the_first_page_to_the_last_tells_nothing(void **state)
{
	uint64_t pages[20];

	(void)state;
	for (uint64_t i = 0; i < 20; i++)
		pages[i] = i;
	expect(begin(), pages, 20, NULL, 0);
}

static void a_page_out_of_turn_was_written_and_the_walk_goes_on_behind_it(void **state)
{
	static const uint64_t pages[] = {0, 1, 7, 8, 9, 15, 16, 17, 18, 19, 2, 3, 12, 13, 14, 4};
	static const uint32_t written[] = {7, 15, 12};

	(void)state;
	expect(begin(), pages, sizeof(pages) / sizeof(pages[0]), written, 3);
}

static void pages_that_come_twice_or_are_outside_are_ignored(void **state)
{
	static const uint64_t pages[] = {0, 0, 1, 1, 100, 5, 5};
	static const uint32_t written[] = {5};

	(void)state;
	expect(begin(), pages, sizeof(pages) / sizeof(pages[0]), written, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_walk_from_the_first_page_to_the_last_tells_nothing),
		cmocka_unit_test(a_page_out_of_turn_was_written_and_the_walk_goes_on_behind_it),
		cmocka_unit_test(pages_that_come_twice_or_are_outside_are_ignored),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
