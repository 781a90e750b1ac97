/* SPDX-License-Identifier: MIT */
#include "../unit.h"

#include "base/bitmap.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

static void a_new_bitmap_is_clear(void **state)
{
	struct rouse_bitmap bitmap;

	(void)state;
	assert_int_equal(rouse_bitmap_init(&bitmap, 1000), 0);
	assert_int_equal(rouse_bitmap_count(&bitmap), 0);
	for (uint64_t bit = 0; bit < 1000; bit++)
		assert_false(rouse_bitmap_test(&bitmap, bit));
	rouse_bitmap_finish(&bitmap);
}

static void setting_a_bit_sets_no_other(void **state)
{
	static const uint64_t bits[] = {0, 1, 31, 32, 62, 63, 64, 65, 127, 128, 999};
	struct rouse_bitmap bitmap;

	(void)state;
	for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
		assert_int_equal(rouse_bitmap_init(&bitmap, 1000), 0);
		rouse_bitmap_set(&bitmap, bits[i]);
		for (uint64_t bit = 0; bit < 1000; bit++)
			assert_int_equal(rouse_bitmap_test(&bitmap, bit), bit == bits[i]);
		rouse_bitmap_finish(&bitmap);
	}
}

static void test_and_set_tells_what_was_there(void **state)
{
	struct rouse_bitmap bitmap;

	(void)state;
	assert_int_equal(rouse_bitmap_init(&bitmap, 128), 0);
	assert_false(rouse_bitmap_test_and_set(&bitmap, 64));
	assert_true(rouse_bitmap_test_and_set(&bitmap, 64));
	assert_false(rouse_bitmap_test_and_set(&bitmap, 63));
	assert_int_equal(rouse_bitmap_count(&bitmap), 2);
	rouse_bitmap_finish(&bitmap);
}

static void count_is_right_when_the_size_is_no_multiple_of_a_word(void **state)
{
	struct rouse_bitmap bitmap;

	(void)state;
	assert_int_equal(rouse_bitmap_init(&bitmap, 65), 0);
	for (uint64_t bit = 0; bit < 65; bit++)
		rouse_bitmap_set(&bitmap, bit);
	assert_int_equal(rouse_bitmap_count(&bitmap), 65);
	rouse_bitmap_finish(&bitmap);
}

static void no_bits_is_fine(void **state)
{
	struct rouse_bitmap bitmap;

	(void)state;
	assert_int_equal(rouse_bitmap_init(&bitmap, 0), 0);
	assert_int_equal(rouse_bitmap_count(&bitmap), 0);
	rouse_bitmap_finish(&bitmap);
}

static void finish_is_safe_twice_and_on_zeros(void **state)
{
	struct rouse_bitmap bitmap = {0};

	(void)state;
	rouse_bitmap_finish(&bitmap);
	assert_int_equal(rouse_bitmap_init(&bitmap, 64), 0);
	rouse_bitmap_finish(&bitmap);
	rouse_bitmap_finish(&bitmap);
	assert_null(bitmap.words);
}

/* Of this process, in pages: the second number of statm. */
static long resident_pages(void)
{
	FILE *file = fopen("/proc/self/statm", "re");
	long resident = -1;

	assert_non_null(file);
	assert_int_equal(fscanf(file, "%*s %ld", &resident), 1);
	(void)fclose(file);
	return resident;
}

/* Invariant 7: a bitmap for 16 TiB of guest memory is half a gigabyte, if it were all touched. */
static void memory_is_used_where_bits_are_set(void **state)
{
	struct rouse_bitmap bitmap;
	long before;

	(void)state;
	assert_int_equal(rouse_bitmap_init(&bitmap, UINT64_C(1) << 32), 0);
	before = resident_pages();
	rouse_bitmap_set(&bitmap, 0);
	rouse_bitmap_set(&bitmap, (UINT64_C(1) << 32) - 1);
	assert_true(resident_pages() - before < 8L * 512);
	rouse_bitmap_finish(&bitmap);
}

static void a_size_beyond_the_address_space_is_refused(void **state)
{
	struct rouse_bitmap bitmap;

	(void)state;
	assert_int_equal(rouse_bitmap_init(&bitmap, UINT64_C(1) << 62), -ENOMEM);
	rouse_bitmap_finish(&bitmap);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_new_bitmap_is_clear),
		cmocka_unit_test(setting_a_bit_sets_no_other),
		cmocka_unit_test(test_and_set_tells_what_was_there),
		cmocka_unit_test(count_is_right_when_the_size_is_no_multiple_of_a_word),
		cmocka_unit_test(no_bits_is_fine),
		cmocka_unit_test(finish_is_safe_twice_and_on_zeros),
		cmocka_unit_test(memory_is_used_where_bits_are_set),
		cmocka_unit_test(a_size_beyond_the_address_space_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
