/* SPDX-License-Identifier: MIT */
/* Which mappings are of memory that can be traced. */
#include "../unit.h"

#include "api/trace_blocks.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statfs.h>
#include <unistd.h>

static bool is_shmem(const char *name)
{
	return trace_blocks_is_shmem(getpid(), name);
}

static void skip_without_tmpfs(const char *folder)
{
	struct statfs system;

	if (statfs(folder, &system) == 0 && system.f_type == TMPFS_MAGIC &&
		access(folder, W_OK) == 0)
		return;
	print_message("%s is no tmpfs that we may write to\n", folder);
	skip();
}

/* The name that /proc/self/maps has for a mapping. */
static void name_of(const void *address, char name[256])
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[512], start[32];

	assert_non_null(maps);
	(void)snprintf(start, sizeof(start), "%lx-", (unsigned long)address);
	name[0] = '\0';
	while (fgets(line, sizeof(line), maps) != NULL) {
		if (strncmp(line, start, strlen(start)) != 0)
			continue;
		assert_non_null(strchr(line, '/'));
		(void)snprintf(name, 256, "%s", strchr(line, '/'));
		name[strcspn(name, "\n")] = '\0';
	}
	assert_int_equal(fclose(maps), 0);
	assert_true(name[0] != '\0');
}

/* Whether a file in a folder counts, while it has a name and then without. */
static void check_file(const char *folder, bool expected)
{
	char path[128], name[256];
	void *memory;
	int fd;

	(void)snprintf(path, sizeof(path), "%s/rouse-test-XXXXXX", folder);
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 4096), 0);
	memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(memory, MAP_FAILED);
	name_of(memory, name);
	assert_int_equal(is_shmem(name), expected);
	assert_int_equal(unlink(path), 0);
	name_of(memory, name);
	assert_non_null(strstr(name, " (deleted)"));
	assert_int_equal(is_shmem(name), expected);
	assert_int_equal(munmap(memory, 4096), 0);
	assert_int_equal(close(fd), 0);
}

static void file_in_a_tmpfs_is_shmem_also_without_a_name(void **state)
{
	(void)state;
	skip_without_tmpfs("/dev/shm");
	check_file("/dev/shm", true);
}

static void file_on_a_disk_is_none_with_and_without_a_name(void **state)
{
	struct statfs system;

	(void)state;
	if (statfs(".", &system) < 0 || system.f_type == TMPFS_MAGIC || access(".", W_OK) < 0) {
		print_message("the tests run in a tmpfs, or may not write\n");
		skip();
	}
	check_file(".", false);
}

static void device_is_no_shmem(void **state)
{
	(void)state;
	skip_without_tmpfs("/dev");
	assert_false(is_shmem("/dev/null"));
	assert_false(is_shmem("/dev"));
}

static void memory_that_never_had_a_name_is_shmem(void **state)
{
	(void)state;
	assert_true(is_shmem("/memfd:pc.ram (deleted)"));
	assert_true(is_shmem("/dev/zero (deleted)"));
	assert_true(is_shmem("/SYSV00000000 (deleted)"));
}

static void name_that_leads_nowhere_is_none(void **state)
{
	(void)state;
	assert_false(is_shmem(""));
	assert_false(is_shmem("anon_inode:[io_uring]"));
	assert_false(is_shmem(" (deleted)"));
	assert_false(is_shmem("/no/such/folder/file"));
	assert_false(is_shmem("/no/such/folder/file (deleted)"));
	assert_false(is_shmem("/dev/shm/no such file"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(file_in_a_tmpfs_is_shmem_also_without_a_name),
		cmocka_unit_test(file_on_a_disk_is_none_with_and_without_a_name),
		cmocka_unit_test(device_is_no_shmem),
		cmocka_unit_test(memory_that_never_had_a_name_is_shmem),
		cmocka_unit_test(name_that_leads_nowhere_is_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
