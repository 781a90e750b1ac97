/* SPDX-License-Identifier: MIT */
/* Flat files: what is written comes back, and what was changed does not. */
#include "image/flat.h"

#include "image_fixture.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

/* Three blocks of 3, 5 and 2 pages, of which the second is mapped. */
#define PAGES 10
static const struct rouse_flat plan = {.id = "an image's id...",
	.checkpoint = 11,
	.blocks_checksum = 12,
	.page_count = PAGES,
	.main_first = 3,
	.main_pages = 5};

static void fill(uint8_t *bytes, uint64_t page)
{
	memset(bytes, (int)page + 1, PAGE);
}

/* All pages but 4 and 9, which are zero. */
static void write_file(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	struct rouse_flat_writer writer;
	uint8_t bytes[PAGE];

	assert_true(fd >= 0);
	assert_int_equal(rouse_flat_writer_begin(fd, &plan, &writer), 0);
	for (uint64_t page = 0; page < PAGES; page++) {
		fill(bytes, page);
		if (page != 4 && page != 9)
			assert_int_equal(rouse_flat_writer_page(&writer, page, bytes), 0);
	}
	assert_int_equal(rouse_flat_writer_page(&writer, PAGES, bytes), -ERANGE);
	assert_int_equal(rouse_flat_writer_end(&writer), 0);
	rouse_flat_writer_finish(&writer);
	(void)close(fd);
}

static void change(const char *path, off_t offset)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	uint8_t byte;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, offset), 1);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, offset), 1);
	(void)close(fd);
}

static void open_file(const char *path, struct rouse_flat_file *file)
{
	assert_int_equal(rouse_flat_open(path, file, NULL), 0);
	assert_int_equal(rouse_flat_load_table(file, NULL), 0);
}

static void the_mapped_block_stands_first(void **state)
{
	(void)state;
	assert_int_equal(rouse_flat_index(&plan, 3), 0);
	assert_int_equal(rouse_flat_index(&plan, 7), 4);
	assert_int_equal(rouse_flat_index(&plan, 0), 5);
	assert_int_equal(rouse_flat_index(&plan, 2), 7);
	assert_int_equal(rouse_flat_index(&plan, 8), 8);
	for (uint64_t page = 0; page < PAGES; page++)
		assert_int_equal(rouse_flat_page(&plan, rouse_flat_index(&plan, page)), page);
}

static void what_is_written_comes_back(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_flat_file file;
	uint8_t read[PAGE], expected[PAGE];
	uint64_t wrong;

	write_file(fixture->path);
	open_file(fixture->path, &file);
	assert_true(file.unchanged);
	assert_int_equal(file.flat.checkpoint, 11);
	assert_int_equal(file.flat.blocks_checksum, 12);
	assert_int_equal(file.flat.zero_pages, 2);
	assert_memory_equal(file.flat.id, plan.id, sizeof(plan.id));
	for (uint64_t page = 0; page < PAGES; page++) {
		uint64_t index = rouse_flat_index(&plan, page);

		fill(expected, page);
		if (page == 4 || page == 9)
			memset(expected, 0, PAGE);
		assert_int_equal(rouse_flat_is_zero(&file, index), page == 4 || page == 9);
		assert_int_equal(rouse_flat_read(&file, index, 1, read, &wrong), 0);
		assert_memory_equal(read, expected, PAGE);
	}
	rouse_flat_close(&file);
}

static void a_page_that_was_changed_is_named(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_flat_file file;
	uint8_t read[PAGES * PAGE];
	uint64_t wrong = 0;

	write_file(fixture->path);
	change(fixture->path, 2 * PAGE + 77);
	open_file(fixture->path, &file);
	assert_int_equal(rouse_flat_read(&file, 0, PAGES, read, &wrong), -EUCLEAN);
	assert_int_equal(wrong, 2);
	rouse_flat_close(&file);
	/* A zero page is checked like any other. */
	write_file(fixture->path);
	change(fixture->path, 1 * PAGE + 4095);
	open_file(fixture->path, &file);
	assert_int_equal(rouse_flat_read(&file, 0, PAGES, read, &wrong), -EUCLEAN);
	assert_int_equal(wrong, 1);
	rouse_flat_close(&file);
}

static void a_file_that_was_written_to_is_not_unchanged(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_flat_file file;

	write_file(fixture->path);
	change(fixture->path, 0);
	change(fixture->path, 0);
	open_file(fixture->path, &file);
	assert_false(file.unchanged);
	rouse_flat_close(&file);
}

static void a_table_that_was_changed_is_refused(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_flat_file file;

	write_file(fixture->path);
	change(fixture->path, PAGES * PAGE + 8);
	assert_int_equal(rouse_flat_open(fixture->path, &file, NULL), 0);
	assert_int_equal(rouse_flat_load_table(&file, NULL), -EUCLEAN);
	rouse_flat_close(&file);
}

static void a_file_that_is_cut_off_is_refused(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_flat_file file;
	struct stat status;

	write_file(fixture->path);
	assert_int_equal(stat(fixture->path, &status), 0);
	assert_int_equal(truncate(fixture->path, status.st_size - PAGE), 0);
	assert_int_equal(rouse_flat_open(fixture->path, &file, NULL), -EUCLEAN);
	rouse_flat_close(&file);
	assert_int_equal(truncate(fixture->path, 0), 0);
	assert_int_equal(rouse_flat_open(fixture->path, &file, NULL), -EUCLEAN);
	rouse_flat_close(&file);
}

/* A pipe that nobody writes to: nothing may wait for it. */
static void what_is_no_file_is_refused(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_flat_file file;

	(void)unlink(fixture->path);
	assert_int_equal(mkfifo(fixture->path, 0600), 0);
	assert_int_equal(rouse_flat_open(fixture->path, &file, NULL), -EINVAL);
	rouse_flat_close(&file);
	assert_int_equal(rouse_flat_open("/tmp", &file, NULL), -EINVAL);
	rouse_flat_close(&file);
}

/* ---- Parsing: each broken footer has a right checksum, so that its numbers are looked at. ---- */

static void make_footer(struct rouse_disk_flat *disk)
{
	struct rouse_flat flat = plan;

	rouse_flat_lay_out(&flat);
	rouse_flat_encode(&flat, disk);
}

static int parse(struct rouse_disk_flat *disk)
{
	struct rouse_flat flat, laid_out = plan;

	rouse_flat_lay_out(&laid_out);
	disk->checksum = le64_make(XXH3_64bits(disk, offsetof(struct rouse_disk_flat, checksum)));
	return rouse_flat_parse(disk, sizeof(*disk), laid_out.file_bytes, &flat, NULL);
}

static void a_footer_of_wrong_numbers_is_refused(void **state)
{
	static const size_t offsets[] = {offsetof(struct rouse_disk_flat, page_count),
		offsetof(struct rouse_disk_flat, main_first),
		offsetof(struct rouse_disk_flat, main_pages),
		offsetof(struct rouse_disk_flat, zero_pages),
		offsetof(struct rouse_disk_flat, table_offset),
		offsetof(struct rouse_disk_flat, file_bytes)};
	static const uint64_t values[] = {PAGES + 1, UINT64_MAX, UINT64_MAX / PAGE + 1};
	struct rouse_disk_flat disk;

	(void)state;
	make_footer(&disk);
	assert_int_equal(parse(&disk), 0);
	for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
		for (size_t v = 0; v < sizeof(values) / sizeof(values[0]); v++) {
			le64_t value = le64_make(values[v]);

			make_footer(&disk);
			memcpy((uint8_t *)&disk + offsets[i], &value, sizeof(value));
			assert_int_equal(parse(&disk), -EUCLEAN);
		}
	}
	make_footer(&disk);
	disk.main_pages = le64_make(0);
	assert_int_equal(parse(&disk), -EUCLEAN);
}

static void a_newer_footer_is_told_apart(void **state)
{
	struct rouse_disk_flat disk;

	(void)state;
	make_footer(&disk);
	disk.version = le32_make(2);
	assert_int_equal(parse(&disk), -EPROTONOSUPPORT);
	make_footer(&disk);
	disk.incompat = le64_make(1);
	assert_int_equal(parse(&disk), -EPROTONOSUPPORT);
	make_footer(&disk);
	disk.compat = le64_make(1);
	assert_int_equal(parse(&disk), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_mapped_block_stands_first),
		TEST(what_is_written_comes_back),
		TEST(a_page_that_was_changed_is_named),
		TEST(a_file_that_was_written_to_is_not_unchanged),
		TEST(a_table_that_was_changed_is_refused),
		TEST(a_file_that_is_cut_off_is_refused),
		TEST(what_is_no_file_is_refused),
		cmocka_unit_test(a_footer_of_wrong_numbers_is_refused),
		cmocka_unit_test(a_newer_footer_is_told_apart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
