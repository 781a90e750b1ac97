/* SPDX-License-Identifier: MIT */
#include "../unit.h"

#include "vmm/uffd_record.h"

#include <errno.h>

#define PAGES 1000u

static struct uffd_record good(void)
{
	return (struct uffd_record){.magic = UFFD_RECORD_MAGIC,
		.version = UFFD_RECORD_VERSION,
		.state = UFFD_RUNNING,
		.pages = PAGES,
		.uffd = 17,
		.area_count = 2,
		.areas = {{0x7f0000000000, 0, 900}, {0x7e0000000000, 950, 50}}};
}

static void a_good_record_is_accepted(void **state)
{
	const struct uffd_record record = good();

	(void)state;
	assert_int_equal(uffd_record_check(&record, uffd_record_bytes(PAGES)), 0);
}

static void the_bitmap_has_a_bit_for_each_page(void **state)
{
	(void)state;
	assert_int_equal(uffd_record_bytes(1), 8192);
	assert_int_equal(uffd_record_bytes(4096 * 8), 8192);
	assert_int_equal(uffd_record_bytes(4096 * 8 + 1), 12288);
}

static void a_memfd_that_is_too_short_is_refused(void **state)
{
	const struct uffd_record record = good();

	(void)state;
	assert_int_equal(uffd_record_check(&record, uffd_record_bytes(PAGES) - 1), -EUCLEAN);
	assert_int_equal(uffd_record_check(&record, 0), -EUCLEAN);
}

static void a_record_that_was_not_finished_is_refused(void **state)
{
	const struct uffd_record record = {0};

	(void)state;
	assert_int_equal(uffd_record_check(&record, uffd_record_bytes(PAGES)), -EUCLEAN);
}

static void another_version_is_told(void **state)
{
	struct uffd_record record = good();

	(void)state;
	record.version++;
	assert_int_equal(uffd_record_check(&record, uffd_record_bytes(PAGES)), -EPROTONOSUPPORT);
}

static void what_points_outside_is_refused(void **state)
{
	static const struct uffd_area bad[] = {
		{0x7f0000000000, 0, PAGES + 1},
		{0x7f0000000000, PAGES, 1},
		{0x7f0000000000, UINT64_MAX, 2},
		{0x7f0000000000, 1, UINT64_MAX},
		{0x7f0000000001, 0, 1},
		{0, 0, 1},
		{UINT64_MAX - 4095, 0, 2},
		{0x7f0000000000, 0, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct uffd_record record = good();

		record.areas[1] = bad[i];
		assert_int_equal(uffd_record_check(&record, uffd_record_bytes(PAGES)), -EUCLEAN);
	}
}

static void what_is_impossible_is_refused(void **state)
{
	struct uffd_record record = good();

	(void)state;
	record.area_count = UFFD_RECORD_AREAS + 1;
	assert_int_equal(uffd_record_check(&record, uffd_record_bytes(PAGES)), -EUCLEAN);
	record = good();
	record.area_count = 0;
	assert_int_equal(uffd_record_check(&record, uffd_record_bytes(PAGES)), -EUCLEAN);
	record = good();
	record.state = UFFD_COMPLETE + 1;
	assert_int_equal(uffd_record_check(&record, uffd_record_bytes(PAGES)), -EUCLEAN);
	record = good();
	record.uffd = -1;
	assert_int_equal(uffd_record_check(&record, uffd_record_bytes(PAGES)), -EUCLEAN);
	record = good();
	record.pages = UINT64_MAX;
	assert_int_equal(uffd_record_check(&record, UINT64_MAX), -EUCLEAN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_good_record_is_accepted),
		cmocka_unit_test(the_bitmap_has_a_bit_for_each_page),
		cmocka_unit_test(a_memfd_that_is_too_short_is_refused),
		cmocka_unit_test(a_record_that_was_not_finished_is_refused),
		cmocka_unit_test(another_version_is_told),
		cmocka_unit_test(what_points_outside_is_refused),
		cmocka_unit_test(what_is_impossible_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
