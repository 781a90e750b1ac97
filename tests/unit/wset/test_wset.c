/* SPDX-License-Identifier: MIT */
/* Working-set files: there and back, and everything that can be wrong with one. */
#include "base/cleanup.h"
#include "base/error.h"
#include "base/io.h"
#include "wset/wset.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define HEADER sizeof(struct rouse_disk_wset_header)
#define FIRST_BLOCK_BYTES (8 + 1 + 6)
#define BLOCKS_BYTES (FIRST_BLOCK_BYTES + 8 + 1 + 9)

static struct rouse_wset_block blocks[] = {
	{.name = "pc.ram", .used_bytes = 8 * 4096},
	{.name = "/rom@acpi", .used_bytes = 2 * 4096},
};
static struct rouse_wset_page pages[] = {
	{.page = 9, .time_us = 1, .vcpu = 1, .flags = ROUSE_WSET_PAGE_FAULTED},
	{.page = 0, .time_us = 70000, .vcpu = ROUSE_WSET_VCPU_UNKNOWN},
	{.page = 7, .time_us = 70001, .vcpu = 0, .flags = ROUSE_WSET_PAGE_FAULTED},
};
static const struct rouse_wset example = {.blocks = blocks,
	.pages = pages,
	.block_count = 2,
	.page_count = 3,
	.flags = ROUSE_WSET_FLAG_COMPLETE};

/* The same after eight restores, with a page that waits. */
static struct rouse_wset_page learned_pages[] = {
	{.page = 9, .time_us = 1, .vcpu = 1, .last = 8, .count = 7, .looks = 8, .weight = 60000},
	{.page = 0, .time_us = 70000, .last = 6, .count = 2, .looks = 2, .weight = 65535},
};
static struct rouse_wset_page learned_waiting[] = {
	{.page = 3, .time_us = 5, .last = 8, .count = 1, .looks = 8, .weight = 16384},
};
static const struct rouse_wset learned = {.blocks = blocks,
	.pages = learned_pages,
	.block_count = 2,
	.page_count = 2,
	.runs = 8,
	.waiting_count = 1,
	.waiting = learned_waiting,
	.look = {.prefetched = 2, .sampled = 1, .used = 1, .missed = 1}};

/* An example as a file, to be broken. */
struct file {
	char *bytes;
	size_t size;
};

static int make_file(void **state)
{
	struct file *file = calloc(1, sizeof(*file));

	if (file == NULL || rouse_wset_encode(&example, &file->bytes, &file->size, NULL) < 0)
		return -1;
	*state = file;
	return 0;
}

static int make_learned_file(void **state)
{
	struct file *file = calloc(1, sizeof(*file));

	if (file == NULL || rouse_wset_encode(&learned, &file->bytes, &file->size, NULL) < 0)
		return -1;
	*state = file;
	return 0;
}

static int free_file(void **state)
{
	struct file *file = *state;

	free(file->bytes);
	free(file);
	return 0;
}

static void fix_checksum(struct file *file)
{
	struct rouse_disk_wset_header header;

	memcpy(&header, file->bytes, HEADER);
	header.body_bytes = le64_make(file->size - HEADER);
	header.checksum =
		le64_make(rouse_wset_checksum(&header, file->bytes + HEADER, file->size - HEADER));
	memcpy(file->bytes, &header, HEADER);
}

static void put32(struct file *file, size_t offset, uint32_t value)
{
	le32_t disk = le32_make(value);

	memcpy(file->bytes + offset, &disk, sizeof(disk));
}

static void expect(const struct file *file, int code, const char *message)
{
	struct rouse_wset *wset = NULL;
	struct rouse_error error = {0};

	assert_int_equal(rouse_wset_parse(file->bytes, file->size, &wset, &error), code);
	assert_null(wset);
	assert_int_equal(error.kind,
		code == -EPROTONOSUPPORT ? ROUSE_ERROR_UNSUPPORTED : ROUSE_ERROR_DAMAGED);
	if (strstr(error.message, message) == NULL)
		fail_msg("\"%s\" does not say \"%s\"", error.message, message);
}

static void encoded_set_parses_to_the_same(void **state)
{
	const struct file *file = *state;
	struct rouse_wset *wset = NULL;

	assert_int_equal(rouse_wset_parse(file->bytes, file->size, &wset, NULL), 0);
	assert_int_equal(wset->block_count, 2);
	assert_string_equal(wset->blocks[0].name, "pc.ram");
	assert_string_equal(wset->blocks[1].name, "/rom@acpi");
	assert_int_equal(wset->blocks[1].used_bytes, 2 * 4096);
	assert_int_equal(wset->page_count, 3);
	assert_memory_equal(wset->pages, pages, sizeof(pages));
	assert_int_equal(wset->flags, ROUSE_WSET_FLAG_COMPLETE);
	rouse_wset_close(wset);
}

static void public_calls_describe_it(void **state)
{
	const struct file *file = *state;
	struct rouse_wset *wset = NULL;
	struct rouse_wset_info info;
	uint64_t page, time_us;

	assert_int_equal(rouse_wset_parse(file->bytes, file->size, &wset, NULL), 0);
	rouse_wset_get_info(wset, &info);
	assert_int_equal(info.pages, 3);
	assert_int_equal(info.block_count, 2);
	assert_int_equal(info.ram_bytes, 10 * 4096);
	assert_int_equal(info.span_us, 70001);
	assert_true(info.complete);
	assert_int_equal(rouse_wset_get_page(wset, 1, &page, &time_us), 0);
	assert_int_equal(page, 0);
	assert_int_equal(time_us, 70000);
	assert_int_equal(rouse_wset_get_page(wset, 3, &page, &time_us), -ERANGE);
	rouse_wset_close(wset);
}

static void every_truncation_is_refused(void **state)
{
	const struct file *file = *state;

	for (size_t size = 0; size < file->size; size++) {
		/* A copy of just that size: reading behind it is then seen by the sanitizer. */
		cleanup_free char *copy = malloc(size > 0 ? size : 1);
		struct file shorter = {.bytes = copy, .size = size};

		memcpy(copy, file->bytes, size);
		expect(&shorter, -EUCLEAN, size < 8 ? "not a working-set file" : "truncated");
	}
}

static void every_flipped_bit_is_noticed(void **state)
{
	struct file *file = *state;

	for (size_t bit = 0; bit < file->size * 8; bit++) {
		struct rouse_wset *wset = NULL;

		file->bytes[bit / 8] ^= (char)(1 << bit % 8);
		assert_true(rouse_wset_parse(file->bytes, file->size, &wset, NULL) < 0);
		file->bytes[bit / 8] ^= (char)(1 << bit % 8);
	}
}

static void bytes_behind_the_end_are_refused(void **state)
{
	struct file *file = *state;

	file->bytes = realloc(file->bytes, file->size + 1);
	file->bytes[file->size++] = 0;
	expect(file, -EUCLEAN, "behind its end");
}

static void newer_format_is_named(void **state)
{
	struct file *file = *state;

	put32(file, offsetof(struct rouse_disk_wset_header, version), 3);
	fix_checksum(file);
	expect(file, -EPROTONOSUPPORT, "format 3");
}

static void page_outside_the_blocks_is_refused(void **state)
{
	struct file *file = *state;

	put32(file, HEADER + BLOCKS_BYTES, 10);
	fix_checksum(file);
	expect(file, -EUCLEAN, "page 10 of the working-set file is outside");
}

static void page_of_a_vm_without_memory_is_refused(void **state)
{
	struct rouse_wset_block none = {.name = "pc.ram"};
	struct rouse_wset_page first = {.page = 0};
	const struct rouse_wset set = {
		.blocks = &none, .pages = &first, .block_count = 1, .page_count = 1};
	struct file file = {0};

	(void)state;
	assert_int_equal(rouse_wset_encode(&set, &file.bytes, &file.size, NULL), 0);
	expect(&file, -EUCLEAN, "page 0 of the working-set file is outside");
	free(file.bytes);
}

static void page_that_comes_twice_is_refused(void **state)
{
	struct file *file = *state;

	put32(file, HEADER + BLOCKS_BYTES + 2 * sizeof(struct rouse_disk_wset_page), 9);
	fix_checksum(file);
	expect(file, -EUCLEAN, "there twice");
}

static void counts_beyond_the_body_are_refused(void **state)
{
	struct file *file = *state;

	put32(file, offsetof(struct rouse_disk_wset_header, page_count), 4);
	fix_checksum(file);
	expect(file, -EUCLEAN, "as many pages");
	put32(file, offsetof(struct rouse_disk_wset_header, page_count), UINT32_MAX);
	fix_checksum(file);
	expect(file, -EUCLEAN, "header");
	put32(file, offsetof(struct rouse_disk_wset_header, page_count), 3);
	put32(file, offsetof(struct rouse_disk_wset_header, block_count), 1024);
	fix_checksum(file);
	expect(file, -EUCLEAN, "RAM block");
	put32(file, offsetof(struct rouse_disk_wset_header, block_count), 0);
	fix_checksum(file);
	expect(file, -EUCLEAN, "header");
}

static void senseless_blocks_are_refused(void **state)
{
	struct file *file = *state;
	le64_t huge = le64_make(UINT64_C(1) << 63), odd = le64_make(4097);

	memcpy(file->bytes + HEADER, &odd, sizeof(odd));
	fix_checksum(file);
	expect(file, -EUCLEAN, "RAM block 0");
	memcpy(file->bytes + HEADER, &huge, sizeof(huge));
	fix_checksum(file);
	expect(file, -EUCLEAN, "16 TiB");
	memcpy(file->bytes + HEADER, &(le64_t){8 * 4096}, sizeof(huge));
	file->bytes[HEADER + 8 + 1 + 2] = '\0';
	fix_checksum(file);
	expect(file, -EUCLEAN, "RAM block 0");
}

/* ---- Version 2 ------------------------------------------------------------------------------ */

#define LEARNED sizeof(struct rouse_disk_wset_learned)
#define RECORD(i) (HEADER + LEARNED + BLOCKS_BYTES + (i) * sizeof(struct rouse_disk_wset_record))

static void learned_set_parses_to_the_same(void **state)
{
	const struct file *file = *state;
	struct rouse_wset *wset = NULL;

	assert_int_equal(rouse_wset_parse(file->bytes, file->size, &wset, NULL), 0);
	assert_int_equal(wset->runs, 8);
	assert_int_equal(wset->page_count, 2);
	assert_int_equal(wset->waiting_count, 1);
	assert_memory_equal(wset->pages, learned_pages, sizeof(learned_pages));
	assert_memory_equal(wset->waiting, learned_waiting, sizeof(learned_waiting));
	assert_memory_equal(&wset->look, &learned.look, sizeof(learned.look));
	rouse_wset_close(wset);
}

/* Written by another program from the drawing in wset.h; the checksum is left 0. */
static void layout_of_version_2_is_fixed(void **state)
{
	static const char bytes[] =
		"\x52\x4f\x55\x53\x45\x57\x53\x54\x02\x00\x00\x00\x00\x00\x00\x00"
		"\x02\x00\x00\x00\x02\x00\x00\x00\x89\x00\x00\x00\x00\x00\x00\x00"
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
		"\x00\x00\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00\x01\x00\x00\x00"
		"\x02\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00"
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80\x00\x00\x00\x00\x00\x00"
		"\x06\x70\x63\x2e\x72\x61\x6d\x00\x20\x00\x00\x00\x00\x00\x00\x09"
		"\x2f\x72\x6f\x6d\x40\x61\x63\x70\x69\x09\x00\x00\x00\x01\x00\x00"
		"\x00\x01\x00\x00\x00\x08\x00\x00\x00\x07\x00\x08\x00\x60\xea\x00"
		"\x00\x00\x00\x00\x00\x70\x11\x01\x00\x00\x00\x00\x00\x06\x00\x00"
		"\x00\x02\x00\x02\x00\xff\xff\x00\x00\x03\x00\x00\x00\x05\x00\x00"
		"\x00\x00\x00\x00\x00\x08\x00\x00\x00\x01\x00\x08\x00\x00\x40\x00"
		"\x00";
	const struct file *file = *state;
	const size_t checksum = offsetof(struct rouse_disk_wset_header, checksum);

	assert_int_equal(file->size, sizeof(bytes) - 1);
	assert_memory_equal(file->bytes, bytes, checksum);
	assert_memory_equal(file->bytes + HEADER, bytes + HEADER, file->size - HEADER);
}

static void public_calls_tell_the_history(void **state)
{
	const struct file *file = *state;
	struct rouse_wset *wset = NULL;
	struct rouse_wset_info info;
	struct rouse_wset_page_info page;
	struct rouse_block_info block;
	uint64_t number, time_us;

	assert_int_equal(rouse_wset_parse(file->bytes, file->size, &wset, NULL), 0);
	rouse_wset_get_info(wset, &info);
	assert_int_equal(info.version, 2);
	assert_int_equal(info.pages, 2);
	assert_int_equal(info.runs, 8);
	assert_int_equal(info.waiting, 1);
	assert_int_equal(info.sampled, 1);
	assert_int_equal(rouse_wset_get_entry(wset, 2, &page), 0);
	assert_true(page.waiting && page.page == 3 && page.count == 1 && page.looks == 8);
	assert_true(page.weight > 0.24 && page.weight < 0.26);
	assert_int_equal(rouse_wset_get_entry(wset, 3, &page), -ERANGE);
	/* Who prefetches does not see pages that wait. */
	assert_int_equal(rouse_wset_get_page(wset, 2, &number, &time_us), -ERANGE);
	assert_int_equal(rouse_wset_get_block(wset, 1, &block), 0);
	assert_string_equal(block.name, "/rom@acpi");
	assert_int_equal(block.first_page, 8);
	assert_int_equal(rouse_wset_get_block(wset, 2, &block), -ERANGE);
	rouse_wset_close(wset);
}

static void plain_set_counts_as_one_restore(void **state)
{
	const struct file *file = *state;
	struct rouse_wset *wset = NULL;
	struct rouse_wset_info info;
	struct rouse_wset_page_info page;

	assert_int_equal(rouse_wset_parse(file->bytes, file->size, &wset, NULL), 0);
	rouse_wset_get_info(wset, &info);
	assert_int_equal(info.version, 1);
	assert_int_equal(info.runs, 1);
	assert_int_equal(rouse_wset_get_entry(wset, 1, &page), 0);
	assert_true(page.vcpu == -1 && page.count == 1 && page.looks == 1 && page.last == 1);
	assert_true(page.weight > 0.999 && !page.waiting);
	rouse_wset_close(wset);
}

static void senseless_history_is_refused(void **state)
{
	struct file *file = *state;
	const size_t last = RECORD(1) + offsetof(struct rouse_disk_wset_record, last);
	const size_t counts = RECORD(1) + offsetof(struct rouse_disk_wset_record, count);
	/* last: before the first, after the latest; count and looks: none, more than looks, more
	   looks than restores. */
	const struct {
		size_t at;
		uint32_t bad, good;
	} cases[] = {{last, 0, 6}, {last, 9, 6}, {counts, 2u << 16, 2u << 16 | 2},
		{counts, 2u << 16 | 3, 2u << 16 | 2}, {counts, 9u << 16 | 2, 2u << 16 | 2}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		put32(file, cases[i].at, cases[i].bad);
		fix_checksum(file);
		expect(file, -EUCLEAN, "the history of page 0");
		put32(file, cases[i].at, cases[i].good);
	}
}

static void senseless_numbers_of_a_learned_set_are_refused(void **state)
{
	struct file *file = *state;
	const struct {
		size_t at;
		uint32_t bad, good;
		const char *message;
	} cases[] = {
		{HEADER + offsetof(struct rouse_disk_wset_learned, runs), 0, 8, "has learned"},
		{HEADER + offsetof(struct rouse_disk_wset_learned, runs), UINT32_MAX, 8,
			"has learned"},
		{HEADER + offsetof(struct rouse_disk_wset_learned, waiting_count), UINT32_MAX, 1,
			"has learned"},
		{HEADER + offsetof(struct rouse_disk_wset_learned, waiting_count), 2, 1,
			"as many pages"},
		{HEADER + offsetof(struct rouse_disk_wset_learned, sampled), 3, 1, "has learned"},
		{HEADER + offsetof(struct rouse_disk_wset_learned, used), 2, 1, "has learned"},
		{RECORD(2), 9, 3, "page 9 of the working-set file is there twice"},
		{RECORD(2), 10, 3, "page 10 of the working-set file is outside"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		put32(file, cases[i].at, cases[i].bad);
		fix_checksum(file);
		expect(file, -EUCLEAN, cases[i].message);
		put32(file, cases[i].at, cases[i].good);
	}
}

static void set_that_learned_nothing_is_written_for_older_readers(void **state)
{
	const struct file *file = *state;
	struct rouse_disk_wset_header header;

	memcpy(&header, file->bytes, HEADER);
	assert_int_equal(le32_get(header.version), 1);
}

/* ---- Files ---------------------------------------------------------------------------------- */

static unsigned int entries_of(const char *directory)
{
	DIR *stream = opendir(directory);
	unsigned int count = 0;

	assert_non_null(stream);
	while (readdir(stream) != NULL)
		count++;
	(void)closedir(stream);
	return count - 2;
}

static void written_file_opens_again(void **state)
{
	char directory[] = "/tmp/rouse-test-XXXXXX", path[64];
	struct rouse_wset *wset = NULL;

	(void)state;
	assert_non_null(mkdtemp(directory));
	(void)snprintf(path, sizeof(path), "%s/set", directory);
	assert_int_equal(rouse_wset_write(&example, path, NULL), 0);
	/* Again, over the first one. */
	assert_int_equal(rouse_wset_write(&example, path, NULL), 0);
	assert_int_equal(entries_of(directory), 1);
	assert_int_equal(rouse_wset_open(path, &wset, NULL), 0);
	assert_int_equal(wset->page_count, 3);
	rouse_wset_close(wset);
	(void)unlink(path);
	(void)rmdir(directory);
}

static void failed_writing_leaves_nothing(void **state)
{
	char directory[] = "/tmp/rouse-test-XXXXXX", path[64];
	struct rouse_error error = {0};

	(void)state;
	assert_non_null(mkdtemp(directory));
	(void)snprintf(path, sizeof(path), "%s/none/set", directory);
	assert_int_equal(rouse_wset_write(&example, path, &error), -ENOENT);
	assert_non_null(strstr(error.message, path));
	/* A directory stands at the name. */
	assert_int_equal(rouse_wset_write(&example, directory, &error), -EINVAL);
	assert_int_equal(rouse_wset_write(&example, "/dev/null", &error), -EINVAL);
	assert_int_equal(error.kind, ROUSE_ERROR_USAGE);
	assert_int_equal(entries_of(directory), 0);
	(void)rmdir(directory);
}

static void opening_names_the_file(void **state)
{
	struct rouse_wset *wset = NULL;
	struct rouse_error error = {0};

	(void)state;
	assert_int_equal(rouse_wset_open("/nonexistent/set", &wset, &error), -ENOENT);
	assert_non_null(strstr(error.message, "/nonexistent/set"));
	assert_int_equal(rouse_wset_open("/dev/null", &wset, &error), -EUCLEAN);
	assert_non_null(strstr(error.message, "/dev/null: not a working-set file"));
}

int main(void)
{
#define WITH_FILE(test) cmocka_unit_test_setup_teardown(test, make_file, free_file)
#define WITH_LEARNED(test) cmocka_unit_test_setup_teardown(test, make_learned_file, free_file)
	const struct CMUnitTest tests[] = {
		WITH_FILE(encoded_set_parses_to_the_same),
		WITH_FILE(public_calls_describe_it),
		WITH_FILE(every_truncation_is_refused),
		WITH_FILE(every_flipped_bit_is_noticed),
		WITH_FILE(bytes_behind_the_end_are_refused),
		WITH_FILE(newer_format_is_named),
		WITH_FILE(page_outside_the_blocks_is_refused),
		cmocka_unit_test(page_of_a_vm_without_memory_is_refused),
		WITH_FILE(page_that_comes_twice_is_refused),
		WITH_FILE(counts_beyond_the_body_are_refused),
		WITH_FILE(senseless_blocks_are_refused),
		WITH_FILE(plain_set_counts_as_one_restore),
		WITH_FILE(set_that_learned_nothing_is_written_for_older_readers),
		WITH_LEARNED(learned_set_parses_to_the_same),
		WITH_LEARNED(layout_of_version_2_is_fixed),
		WITH_LEARNED(public_calls_tell_the_history),
		WITH_LEARNED(every_truncation_is_refused),
		WITH_LEARNED(every_flipped_bit_is_noticed),
		WITH_LEARNED(senseless_history_is_refused),
		WITH_LEARNED(senseless_numbers_of_a_learned_set_are_refused),
		cmocka_unit_test(written_file_opens_again),
		cmocka_unit_test(failed_writing_leaves_nothing),
		cmocka_unit_test(opening_names_the_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
