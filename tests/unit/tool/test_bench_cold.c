/* SPDX-License-Identifier: MIT */
/* Files out of the page cache. */
#include "../unit.h"

#include "../../../tool/bench_cold.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#define TMPFS 0x01021994
#define PAGES 100

static char path[64];

static int make_file(void **state)
{
	static const char page[4096] = "full";
	const char *base = getenv("TMPDIR");
	int fd;

	(void)state;
	(void)snprintf(path, sizeof(path), "%.40s/rouse-cold-XXXXXX", base != NULL ? base : "/tmp");
	fd = mkstemp(path);
	if (fd < 0)
		return -1;
	for (int i = 0; i < PAGES; i++) {
		if (write(fd, page, sizeof(page)) != (ssize_t)sizeof(page))
			return -1;
	}
	return close(fd);
}

static int remove_file(void **state)
{
	(void)state;
	return unlink(path);
}

static void skip_without_disk(void)
{
	struct statfs status;

	if (statfs(path, &status) == 0 && status.f_type == TMPFS) {
		print_message("temporary files are in memory here\n");
		skip();
	}
}

static void file_that_was_just_written_becomes_cold(void **state)
{
	uint64_t left = 77;

	(void)state;
	skip_without_disk();
	assert_int_equal(bench_make_cold(path, &left), 0);
	assert_int_equal(left, 0);
}

static void page_that_is_in_use_stays_and_is_told(void **state)
{
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);
	FILE *file = fopen(path, "re");
	volatile const char *mapped;
	uint64_t left = 0;

	(void)state;
	skip_without_disk();
	assert_non_null(file);
	mapped = mmap(NULL, page, PROT_READ, MAP_SHARED, fileno(file), (off_t)(7 * page));
	assert_true(mapped != MAP_FAILED);
	assert_int_equal(mapped[0], 'f');
	assert_int_equal(bench_make_cold(path, &left), 0);
	/* As much as the kernel keeps together. */
	assert_true(left >= page);
	(void)munmap((void *)(uintptr_t)mapped, page);
	(void)fclose(file);
}

static void file_that_is_not_there_is_an_error(void **state)
{
	uint64_t left;

	(void)state;
	assert_int_equal(bench_make_cold("/nonexistent/file", &left), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			file_that_was_just_written_becomes_cold, make_file, remove_file),
		cmocka_unit_test_setup_teardown(
			page_that_is_in_use_stays_and_is_told, make_file, remove_file),
		cmocka_unit_test(file_that_is_not_there_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
