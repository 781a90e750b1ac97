/* SPDX-License-Identifier: MIT */
#include "../unit.h"

#include "base/endian.h"

static void little_endian_types_have_the_order_of_the_file(void **state)
{
	static const unsigned char bytes[] = {1, 2, 3, 4, 5, 6, 7, 8};
	le16_t a;
	le32_t b;
	le64_t c;

	(void)state;
	memcpy(&a, bytes, sizeof(a));
	memcpy(&b, bytes, sizeof(b));
	memcpy(&c, bytes, sizeof(c));
	assert_int_equal(le16_get(a), 0x0201);
	assert_int_equal(le32_get(b), 0x04030201);
	assert_true(le64_get(c) == UINT64_C(0x0807060504030201));
	a = le16_make(0x0201);
	b = le32_make(0x04030201);
	c = le64_make(UINT64_C(0x0807060504030201));
	assert_memory_equal(&a, bytes, sizeof(a));
	assert_memory_equal(&b, bytes, sizeof(b));
	assert_memory_equal(&c, bytes, sizeof(c));
}

static void big_endian_loads_and_stores_at_odd_addresses(void **state)
{
	unsigned char bytes[12] = {0};

	(void)state;
	be64_store(bytes + 3, UINT64_C(0x0102030405060708));
	for (unsigned int i = 0; i < 8; i++)
		assert_int_equal(bytes[3 + i], i + 1);
	assert_true(be64_load(bytes + 3) == UINT64_C(0x0102030405060708));
	assert_int_equal(be32_load(bytes + 3), 0x01020304);
	assert_int_equal(be16_load(bytes + 3), 0x0102);
	be32_store(bytes + 1, 0x0a0b0c0d);
	assert_int_equal(be32_load(bytes + 1), 0x0a0b0c0d);
	be16_store(bytes + 5, 0x0e0f);
	assert_int_equal(be16_load(bytes + 5), 0x0e0f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(little_endian_types_have_the_order_of_the_file),
		cmocka_unit_test(big_endian_loads_and_stores_at_odd_addresses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
