/* SPDX-License-Identifier: MIT */
/* What is mapped in a process: lines of maps, flags, and which file is the C library. */
#include "../unit.h"

#include "target/target_private.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void the_c_library_is_known_by_its_name(void **state)
{
#ifdef __x86_64__
	static const char *const are[] = {"/usr/lib/x86_64-linux-gnu/libc.so.6",
		"/lib/libc-2.31.so", "/lib/ld-musl-x86_64.so.1", "/lib/libc.musl-x86_64.so.1"};
	static const char *const are_not[] = {"", "libc.so.6", "/usr/lib/libcurl.so.4",
		"/usr/lib/libcrypto.so.3", "/opt/libc/plugin.so", "/opt/libc.so.6/plugin.so"};

	(void)state;
	for (size_t i = 0; i < sizeof(are) / sizeof(are[0]); i++)
		assert_true(target_is_c_library(are[i]));
	for (size_t i = 0; i < sizeof(are_not) / sizeof(are_not[0]); i++)
		assert_false(target_is_c_library(are_not[i]));
#else
	(void)state;
	skip();
#endif
}

static void lines_of_maps_are_parsed(void **state)
{
	static const char good[] =
		"7f00-8000 rw-s 00001000 fe:01 123                 /a b (deleted)";
	static const char *const bad[] = {"", "7f00", "7f00-7f00 rw-p 0 0:0 0",
		"8000-7f00 rw-p 0 0:0 0", "7f00-8000 rw-x 0 0:0 0", "7f00-8000 rw-p 0 0:0 ",
		"10000000000000000-20000000000000000 rw-p 0 0:0 0"};
	struct target_map map;

	(void)state;
	assert_int_equal(target_map_parse(good, strlen(good), &map), 0);
	assert_int_equal(map.start, 0x7f00);
	assert_int_equal(map.end, 0x8000);
	assert_int_equal(map.offset, 0x1000);
	assert_int_equal(map.inode, 123);
	assert_true(map.read && map.write && !map.execute && map.shared);
	assert_string_equal(map.name, "/a b (deleted)");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(target_map_parse(bad[i], strlen(bad[i]), &map), -EUCLEAN);
}

static void flags_of_mappings_are_found(void **state)
{
	static const char *const flags[] = {"dc", "rd", "zz"};
	const size_t size = 4 << 20;
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct rouse_error error = {0};
	struct target *target = NULL;
	uint32_t any, all;

	(void)state;
	assert_ptr_not_equal(memory, MAP_FAILED);
	assert_int_equal(madvise(memory, size / 2, MADV_DONTFORK), 0);
	assert_int_equal(target_open(getpid(), &target, &error), 0);
	assert_int_equal(target_flags(target, (uintptr_t)memory, (uintptr_t)memory + size, flags, 3,
				 &any, &all, &error),
		0);
	assert_int_equal(any, 3);
	assert_int_equal(all, 2);
	assert_int_equal(target_flags(target, (uintptr_t)memory, (uintptr_t)memory + size / 2,
				 flags, 3, &any, &all, &error),
		0);
	assert_int_equal(all, 3);
	target_close(target);
	(void)munmap(memory, size);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_c_library_is_known_by_its_name),
		cmocka_unit_test(lines_of_maps_are_parsed),
		cmocka_unit_test(flags_of_mappings_are_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
