/* SPDX-License-Identifier: MIT */
/* Pages of a large working set wait in a file. Opening one may fail here as where it must. */
#include "base/io.h"
#include "image/page_spool.h"
#include "image/writer_private.h"
#include "image_fixture.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define PAGES 700u
#define IN_MEMORY 8u

static bool no_unnamed_files; /* as on NFS */

int openat(int directory, const char *path, int flags, ...)
{
	if (no_unnamed_files && (flags & O_TMPFILE) == O_TMPFILE) {
		errno = EOPNOTSUPP;
		return -1;
	}
	return (int)syscall(SYS_openat, directory, path, flags, S_IRUSR | S_IWUSR);
}

static int teardown(void **state)
{
	no_unnamed_files = false;
	return fixture_teardown(state);
}

static struct rouse_page_spool *make_spool(
	const struct fixture *fixture, struct rouse_temp_file *beside)
{
	struct rouse_page_spool *spool = NULL;
	struct rouse_error error = {0};

	if (rouse_temp_file_open(fixture->path, beside, &error) != 0)
		fail_msg("%s", error.message);
	assert_int_equal(rouse_page_spool_new(beside, PAGES, IN_MEMORY, &spool), 0);
	return spool;
}

static void put(struct rouse_page_spool *spool, uint64_t index, uint64_t seed)
{
	unsigned char data[PAGE];

	fill_page(data, seed);
	assert_int_equal(rouse_page_spool_put(spool, index, data), 0);
}

static void assert_is(struct rouse_page_spool *spool, uint64_t index, uint64_t seed)
{
	unsigned char expected[PAGE];
	const void *data = NULL;

	fill_page(expected, seed);
	assert_int_equal(rouse_page_spool_get(spool, index, &data), 0);
	assert_memory_equal(data, expected, PAGE);
}

/* As a save puts them: in the order of addresses, which is not that of the set; some twice. */
static void put_and_get(const struct fixture *fixture)
{
	struct rouse_temp_file beside;
	struct rouse_page_spool *spool = make_spool(fixture, &beside);
	const unsigned int files = fixture_count_files(fixture);

	for (uint64_t i = 0; i < PAGES; i++)
		put(spool, i * 13 % PAGES, i + 1);
	for (uint64_t i = 0; i < PAGES; i += 3)
		put(spool, i * 13 % PAGES, i + 10001);
	assert_int_equal(fixture_count_files(fixture), files);
	for (uint64_t i = 0; i < PAGES; i++)
		put(spool, i, i + 50000);
	put(spool, 300, 7);
	for (uint64_t i = 0; i < PAGES; i++)
		assert_is(spool, i, i == 300 ? 7 : i + 50000);
	/* Put again after it was read. */
	put(spool, PAGES - 1, 9);
	assert_is(spool, PAGES - 1, 9);
	assert_is(spool, IN_MEMORY, IN_MEMORY + 50000);
	rouse_page_spool_free(spool);
	rouse_temp_file_discard(&beside);
	assert_int_equal(fixture_count_files(fixture), 0);
}

static void what_was_put_last_comes_back(void **state)
{
	put_and_get(*state);
}

static void without_nameless_files_none_is_left_either(void **state)
{
	no_unnamed_files = true;
	put_and_get(*state);
}

static void what_was_never_put_is_refused(void **state)
{
	struct rouse_temp_file beside;
	struct rouse_page_spool *spool = make_spool(*state, &beside);
	const void *data;

	put(spool, IN_MEMORY + 1, 1);
	assert_int_equal(rouse_page_spool_get(spool, IN_MEMORY + 2, &data), -ENODATA);
	assert_int_equal(rouse_page_spool_get(spool, PAGES, &data), -ERANGE);
	assert_int_equal(rouse_page_spool_put(spool, PAGES, ""), -ERANGE);
	rouse_page_spool_free(spool);
	rouse_temp_file_discard(&beside);
}

static void a_full_disk_is_told(void **state)
{
	struct rouse_temp_file beside;
	struct rouse_page_spool *spool = make_spool(*state, &beside);
	struct rlimit old, limit;
	unsigned char data[PAGE];

	fill_page(data, 1);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	limit = (struct rlimit){.rlim_cur = 4 * (rlim_t)PAGE, .rlim_max = old.rlim_max};
	(void)signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	assert_int_equal(rouse_page_spool_put(spool, IN_MEMORY + 3, data), 0);
	assert_int_equal(rouse_page_spool_put(spool, IN_MEMORY + 4, data), -EFBIG);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	rouse_page_spool_free(spool);
	rouse_temp_file_discard(&beside);
}

/* The last descriptor that was opened: the spool's file. */
static int last_fd(void)
{
	int fd = dup(STDIN_FILENO);

	(void)close(fd);
	return fd - 1;
}

/* A disk that gives back what nobody wrote. */
static void what_the_file_has_lost_is_an_error(void **state)
{
	struct rouse_temp_file beside;
	struct rouse_page_spool *spool = make_spool(*state, &beside);
	const void *data;

	put(spool, IN_MEMORY, 1);
	put(spool, IN_MEMORY + 1, 2);
	assert_int_equal(pwrite(last_fd(), "x", 1, PAGE + 100), 1);
	assert_is(spool, IN_MEMORY, 1);
	assert_int_equal(rouse_page_spool_get(spool, IN_MEMORY + 1, &data), -EIO);
	rouse_page_spool_free(spool);
	rouse_temp_file_discard(&beside);
}

/* Through the whole writer: some pages before the limit, some behind it, zeros, two equal ones. */
static void a_set_that_is_larger_than_its_memory_is_written(void **state)
{
	const struct fixture *fixture = *state;
	const uint32_t count = (uint32_t)ROUSE_WRITER_SPOOL_PAGES + 200;
	struct rouse_writer_touch *touches = calloc(count, sizeof(*touches));
	struct rouse_writer *writer;
	struct open_image image;

	assert_non_null(touches);
	/* The last pages of the VM are touched first. */
	for (uint32_t i = 0; i < count; i++)
		touches[i] = (struct rouse_writer_touch){.page = count - 1 - i, .time_us = i};
	writer = begin_image(fixture->path, count, NULL, touches, count);
	for (uint64_t page = 0; page < 400; page++)
		put_seed(writer, page, page == 5 ? 4 : page + 1);
	put_seed(writer, 7, 0);
	(void)end_image(writer);
	image = open_image(fixture->path);
	for (uint64_t page = 0; page < 400; page++)
		assert_page_is(&image, page, page == 5 ? 4 : page == 7 ? 0 : page + 1);
	assert_page_is(&image, count - 1, 0);
	close_image(&image);
	free(touches);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_was_put_last_comes_back),
		TEST(without_nameless_files_none_is_left_either),
		TEST(what_was_never_put_is_refused),
		TEST(what_the_file_has_lost_is_an_error),
		TEST(a_full_disk_is_told),
		TEST(a_set_that_is_larger_than_its_memory_is_written),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
