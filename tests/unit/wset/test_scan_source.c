/* SPDX-License-Identifier: MIT */
/* By which source memory is scanned. */
#include "../unit.h"

#include "wset/scan_private.h"

#include <errno.h>

#define PRIVATE false
#define SHARED true

/* Negative: none. */
static int choose(enum rouse_scan_source wanted, bool shared, bool page_idle, bool page_tables)
{
	enum rouse_scan_source source = ROUSE_SCAN_AUTO;
	int code = scan_area_source(wanted, shared, page_idle, page_tables, &source);

	return code < 0 ? code : (int)source;
}

static void private_memory_is_scanned_by_page_idle_and_otherwise_by_writes(void **state)
{
	(void)state;
	assert_int_equal(choose(ROUSE_SCAN_AUTO, PRIVATE, true, true), ROUSE_SCAN_PAGE_IDLE);
	assert_int_equal(choose(ROUSE_SCAN_AUTO, PRIVATE, true, false), ROUSE_SCAN_PAGE_IDLE);
	assert_int_equal(choose(ROUSE_SCAN_AUTO, PRIVATE, false, true), ROUSE_SCAN_WRITES);
}

static void shared_memory_is_scanned_by_presence_and_otherwise_by_page_idle(void **state)
{
	(void)state;
	assert_int_equal(choose(ROUSE_SCAN_AUTO, SHARED, true, true), ROUSE_SCAN_PRESENCE);
	assert_int_equal(choose(ROUSE_SCAN_AUTO, SHARED, false, true), ROUSE_SCAN_PRESENCE);
	assert_int_equal(choose(ROUSE_SCAN_AUTO, SHARED, true, false), ROUSE_SCAN_PAGE_IDLE);
}

static void the_source_asked_for_is_taken_where_it_can_watch(void **state)
{
	(void)state;
	assert_int_equal(choose(ROUSE_SCAN_PAGE_IDLE, SHARED, true, true), ROUSE_SCAN_PAGE_IDLE);
	assert_int_equal(choose(ROUSE_SCAN_PAGE_IDLE, PRIVATE, true, true), ROUSE_SCAN_PAGE_IDLE);
	assert_int_equal(choose(ROUSE_SCAN_WRITES, PRIVATE, true, true), ROUSE_SCAN_WRITES);
	assert_int_equal(choose(ROUSE_SCAN_PRESENCE, SHARED, true, true), ROUSE_SCAN_PRESENCE);
}

static void elsewhere_the_choice_is_as_without_it(void **state)
{
	(void)state;
	for (int idle = 0; idle <= 1; idle++) {
		assert_int_equal(choose(ROUSE_SCAN_WRITES, SHARED, idle != 0, true),
			choose(ROUSE_SCAN_AUTO, SHARED, idle != 0, true));
		assert_int_equal(choose(ROUSE_SCAN_PRESENCE, PRIVATE, idle != 0, true),
			choose(ROUSE_SCAN_AUTO, PRIVATE, idle != 0, true));
	}
}

static void a_source_that_is_not_there_is_not_replaced_by_another(void **state)
{
	(void)state;
	assert_int_equal(choose(ROUSE_SCAN_PAGE_IDLE, SHARED, false, true), -ENOTSUP);
	assert_int_equal(choose(ROUSE_SCAN_PAGE_IDLE, PRIVATE, false, true), -ENOTSUP);
	assert_int_equal(choose(ROUSE_SCAN_WRITES, PRIVATE, true, false), -ENOTSUP);
	assert_int_equal(choose(ROUSE_SCAN_PRESENCE, SHARED, true, false), -ENOTSUP);
	assert_int_equal(choose(ROUSE_SCAN_AUTO, SHARED, false, false), -ENOTSUP);
	assert_int_equal(choose(ROUSE_SCAN_AUTO, PRIVATE, false, false), -ENOTSUP);
}

static struct target_map map_of(bool shared)
{
	return (struct target_map){.start = 0x10000,
		.end = 0x40000,
		.offset = 0x5000,
		.inode = shared ? 9 : 0,
		.shared = shared};
}

static void an_area_is_the_same_while_its_file_is(void **state)
{
	const struct scan_area area = {
		.address = 0x11000, .bytes = 0x2f000, .inode = 9, .offset = 0x6000, .shared = true};
	struct target_map map = map_of(true);

	(void)state;
	assert_true(scan_area_is_same(&area, &map, 1));
	map.inode = 8;
	assert_false(scan_area_is_same(&area, &map, 1));
	map = map_of(true);
	map.offset += 0x1000;
	assert_false(scan_area_is_same(&area, &map, 1));
	map = map_of(true);
	map.shared = false;
	assert_false(scan_area_is_same(&area, &map, 1));
}

static void a_private_area_is_the_same_while_one_mapping_covers_it(void **state)
{
	const struct scan_area area = {.address = 0x11000, .bytes = 0x2f000};
	struct target_map map = map_of(false);

	(void)state;
	assert_true(scan_area_is_same(&area, &map, 1));
	map.end -= 0x1000;
	assert_false(scan_area_is_same(&area, &map, 1));
	assert_false(scan_area_is_same(&area, &map, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(private_memory_is_scanned_by_page_idle_and_otherwise_by_writes),
		cmocka_unit_test(shared_memory_is_scanned_by_presence_and_otherwise_by_page_idle),
		cmocka_unit_test(the_source_asked_for_is_taken_where_it_can_watch),
		cmocka_unit_test(elsewhere_the_choice_is_as_without_it),
		cmocka_unit_test(a_source_that_is_not_there_is_not_replaced_by_another),
		cmocka_unit_test(an_area_is_the_same_while_its_file_is),
		cmocka_unit_test(a_private_area_is_the_same_while_one_mapping_covers_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
