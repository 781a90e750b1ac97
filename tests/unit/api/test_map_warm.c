/* SPDX-License-Identifier: MIT */
/* What is found when all of a flat file is read. */
#include "api/map_warm.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../unit.h"

#define PAGE ROUSE_IMAGE_PAGE_BYTES
#define PAGES 300
#define DATA_PAGES 3 /* every hundredth */

/* A file with a page of data among every hundred; the others are holes. */
static int make_file(char *path)
{
	const struct rouse_flat flat = {.page_count = PAGES, .main_pages = PAGES};
	struct rouse_flat_writer writer;
	uint8_t page[PAGE];
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	memset(page, 7, sizeof(page));
	assert_int_equal(rouse_flat_writer_begin(fd, &flat, &writer), 0);
	for (uint64_t i = 50; i < PAGES; i += 100)
		assert_int_equal(rouse_flat_writer_page(&writer, i, page), 0);
	assert_int_equal(rouse_flat_writer_end(&writer), 0);
	rouse_flat_writer_finish(&writer);
	return fd;
}

/* Reads all of it. */
static int warm_all(const char *path, struct map_warm_stats *stats, struct rouse_error *error)
{
	struct rouse_flat_file file;
	struct map_warm_config config = {.file = &file, .all = true};
	struct map_warm *warm = NULL;
	int code;

	assert_int_equal(rouse_flat_open(path, &file, NULL), 0);
	assert_int_equal(map_warm_begin(&config, &warm, NULL), 0);
	code = map_warm_wait(warm, error);
	map_warm_get_stats(warm, stats);
	map_warm_free(warm);
	rouse_flat_close(&file);
	return code;
}

static void holes_are_not_read(void **state)
{
	char path[] = "/tmp/rouse-map-warm-XXXXXX";
	struct map_warm_stats stats;
	int fd = make_file(path);

	(void)state;
	assert_int_equal(warm_all(path, &stats, NULL), 0);
	assert_int_equal(stats.first_pages, DATA_PAGES);
	(void)close(fd);
	(void)unlink(path);
}

static void zeros_that_are_not_holes_are_right(void **state)
{
	static const uint8_t zeros[8 * PAGE];
	char path[] = "/tmp/rouse-map-warm-XXXXXX";
	struct map_warm_stats stats;
	int fd = make_file(path);

	(void)state;
	assert_int_equal(pwrite(fd, zeros, sizeof(zeros), 120 * PAGE), sizeof(zeros));
	assert_int_equal(warm_all(path, &stats, NULL), 0);
	assert_int_equal(stats.first_pages, DATA_PAGES);
	(void)close(fd);
	(void)unlink(path);
}

static void a_byte_where_zeros_belong_is_found(void **state)
{
	static const uint64_t places[] = {0, 49, 51, 177, PAGES - 1};

	(void)state;
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		char path[] = "/tmp/rouse-map-warm-XXXXXX", name[32];
		struct map_warm_stats stats;
		struct rouse_error error = {0};
		int fd = make_file(path);

		assert_int_equal(pwrite(fd, "x", 1, (off_t)(places[i] * PAGE + 99)), 1);
		assert_int_equal(warm_all(path, &stats, &error), -EUCLEAN);
		assert_int_equal(error.kind, ROUSE_ERROR_DAMAGED);
		(void)snprintf(name, sizeof(name), "page %d ", (int)places[i]);
		assert_non_null(strstr(error.message, name));
		(void)close(fd);
		(void)unlink(path);
	}
}

/* Nothing before the start, the rest behind it, of which @pages are left then. */
static int warm_rest_of(
	const char *path, off_t pages, struct map_warm_stats *stats, struct rouse_error *error)
{
	struct rouse_flat_file file;
	struct map_warm_config config = {.file = &file};
	struct map_warm *warm;
	int code;

	assert_int_equal(rouse_flat_open(path, &file, NULL), 0);
	assert_int_equal(map_warm_begin(&config, &warm, NULL), 0);
	assert_int_equal(map_warm_wait(warm, NULL), 0);
	assert_int_equal(truncate(path, pages * (off_t)PAGE), 0);
	code = map_warm_rest(warm, ROUSE_BACKGROUND_MAX, NULL, error);
	map_warm_get_stats(warm, stats);
	map_warm_free(warm);
	rouse_flat_close(&file);
	return code;
}

static int warm_rest(const char *path, struct map_warm_stats *stats, struct rouse_error *error)
{
	struct stat status;

	assert_int_equal(stat(path, &status), 0);
	return warm_rest_of(path, status.st_size / (off_t)PAGE, stats, error);
}

static void a_file_that_becomes_shorter_is_damaged(void **state)
{
	char path[] = "/tmp/rouse-map-warm-XXXXXX";
	struct map_warm_stats stats;
	struct rouse_error error = {0};
	int fd = make_file(path);

	(void)state;
	assert_int_equal(warm_rest_of(path, 200, &stats, &error), -EUCLEAN);
	assert_int_equal(error.kind, ROUSE_ERROR_DAMAGED);
	assert_non_null(strstr(error.message, "shorter"));
	(void)close(fd);
	(void)unlink(path);
}

static void a_byte_where_zeros_belong_is_found_behind_the_start(void **state)
{
	char path[] = "/tmp/rouse-map-warm-XXXXXX";
	struct map_warm_stats stats;
	struct rouse_error error = {0};
	int fd = make_file(path);

	(void)state;
	assert_int_equal(warm_rest(path, &stats, &error), 0);
	assert_int_equal(stats.rest_pages, DATA_PAGES);
	assert_int_equal(pwrite(fd, "x", 1, (off_t)(177 * PAGE + 99)), 1);
	assert_int_equal(warm_rest(path, &stats, &error), -EUCLEAN);
	assert_non_null(strstr(error.message, "page 177 "));
	(void)close(fd);
	(void)unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(holes_are_not_read),
		cmocka_unit_test(zeros_that_are_not_holes_are_right),
		cmocka_unit_test(a_byte_where_zeros_belong_is_found),
		cmocka_unit_test(a_byte_where_zeros_belong_is_found_behind_the_start),
		cmocka_unit_test(a_file_that_becomes_shorter_is_damaged),
	};

	return cmocka_run_group_tests_name("map_warm", tests, NULL, NULL);
}
