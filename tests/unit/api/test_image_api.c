/* SPDX-License-Identifier: MIT */
/* Images through <rouse.h>: describing, verifying, laying out anew, copying. */
#include "../image/image_fixture.h"
#include "base/io.h"
#include "wset/wset.h"

#include <fcntl.h>
#include <signal.h>

#define PAGES 6000u

static uint64_t seed_of(uint64_t page)
{
	return page % 4 == 0 ? 0 : page % 5 == 0 ? 3 : page + 10;
}

/* Pages of their own content, far apart. */
#define REMEMBERED 40u

static uint32_t remembered(uint32_t i)
{
	return 101 + i * 100;
}

static void write_image(const struct fixture *fixture)
{
	struct rouse_writer_touch touches[] = {{4001, 5}, {17, 9}, {4000, 11}, {1001, 20}};
	struct rouse_writer *writer = begin_image(fixture->path, PAGES, NULL, touches, 4);

	for (uint64_t page = 0; page < PAGES; page++)
		put_seed(writer, page, seed_of(page));
	assert_int_equal(
		rouse_writer_set_section(writer, ROUSE_SECTION_METADATA, "{\"x\":1}", 7), 0);
	assert_int_equal(rouse_writer_set_section(writer, ROUSE_SECTION_DEVICES, "devices", 7), 0);
	(void)end_image(writer);
}

static struct rouse_image *open_public(const char *path)
{
	struct rouse_image *image = NULL;
	struct rouse_error error = {0};

	if (rouse_image_open(path, &image, &error) != 0)
		fail_msg("%s", error.message);
	return image;
}

static void an_image_describes_itself(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_image_info info;
	struct rouse_block_info block;
	struct rouse_image *image;

	write_image(fixture);
	image = open_public(fixture->path);
	rouse_image_get_info(image, &info);
	assert_int_equal(info.version, 1);
	assert_int_equal(info.pages, PAGES);
	assert_int_equal(info.zero_pages, PAGES / 4);
	assert_int_equal(info.ram_bytes, PAGES * PAGE);
	assert_int_equal(info.wset_pages, 4);
	assert_int_equal(info.device_bytes, 7);
	assert_string_equal(info.metadata, "{\"x\":1}");
	assert_true(info.wset_stored_bytes > 0 && info.wset_stored_bytes < 4 * PAGE);
	assert_int_equal(rouse_image_get_block(image, 0, &block), 0);
	assert_string_equal(block.name, "pc.ram");
	assert_int_equal(rouse_image_get_block(image, 1, &block), -ERANGE);
	rouse_image_close(image);
}

/* ---- Verifying ---- */

struct damages {
	unsigned int count;
	char what[256];
	uint64_t offset, length;
};

static void note_damage(void *user, const char *what, uint64_t offset, uint64_t length)
{
	struct damages *damages = user;

	damages->count++;
	(void)snprintf(damages->what, sizeof(damages->what), "%s", what);
	damages->offset = offset;
	damages->length = length;
}

static struct damages verify(struct rouse_image *image)
{
	struct damages damages = {0};
	struct rouse_error error = {0};
	int code = rouse_image_verify(image, note_damage, &damages, NULL, &error);

	assert_int_equal(code, damages.count > 0 ? -EUCLEAN : 0);
	return damages;
}

static void flip(const char *path, uint64_t offset)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	unsigned char byte;

	assert_true(fd >= 0);
	assert_int_equal(rouse_io_pread(fd, &byte, 1, offset), 0);
	byte ^= 0x10;
	assert_int_equal(rouse_io_pwrite(fd, &byte, 1, offset), 0);
	(void)close(fd);
}

static void a_whole_image_verifies(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_image *image;

	write_image(fixture);
	image = open_public(fixture->path);
	assert_int_equal(verify(image).count, 0);
	rouse_image_close(image);
}

static void a_broken_chunk_is_named_with_its_place(void **state)
{
	const struct fixture *fixture = *state;
	struct open_image internal;
	struct rouse_image *image;
	struct rouse_chunk chunk;
	struct damages damages;

	write_image(fixture);
	internal = open_image(fixture->path);
	assert_int_equal(rouse_reader_chunk(internal.reader, 7, ROUSE_READ_BULK, &chunk), 0);
	close_image(&internal);
	flip(fixture->path, chunk.offset + 100);
	image = open_public(fixture->path);
	damages = verify(image);
	assert_int_equal(damages.count, 1);
	assert_non_null(strstr(damages.what, "chunk 7"));
	assert_int_equal(damages.offset, chunk.offset);
	assert_int_equal(damages.length, chunk.stored_bytes);
	rouse_image_close(image);
}

static void broken_tables_are_named_and_the_rest_is_still_checked(void **state)
{
	const struct fixture *fixture = *state;
	struct open_image internal;
	struct rouse_image *image;
	struct rouse_chunk chunk;
	uint64_t page_table, length;

	write_image(fixture);
	internal = open_image(fixture->path);
	rouse_reader_page_table_place(internal.reader, 1, &page_table, &length);
	assert_int_equal(rouse_reader_chunk(internal.reader, 20, ROUSE_READ_BULK, &chunk), 0);
	close_image(&internal);
	flip(fixture->path, page_table + 5);
	flip(fixture->path, chunk.offset);
	image = open_public(fixture->path);
	/* The chunk, the table, and the pages of the working set that the table leads to: no. */
	assert_int_equal(verify(image).count, 2);
	rouse_image_close(image);
}

/* Every byte of the file that is not in a hole between the parts is covered by some checksum. */
static void any_flipped_byte_is_noticed(void **state)
{
	const struct fixture *fixture = *state;
	const struct rouse_disk_superblock *superblock;
	struct open_image internal;
	uint64_t front, end, first;
	struct rouse_chunk chunk;

	write_image(fixture);
	internal = open_image(fixture->path);
	superblock = rouse_reader_superblock(internal.reader);
	front = le64_get(superblock->front_bytes);
	end = le64_get(superblock->file_bytes);
	assert_int_equal(
		rouse_reader_chunk(internal.reader, rouse_reader_wset(internal.reader)->chunk_count,
			ROUSE_READ_BULK, &chunk),
		0);
	first = chunk.offset;
	close_image(&internal);
	for (uint64_t at = 0; at < end; at += at < 6000 ? 41 : 40009) {
		struct rouse_image *image = NULL;
		unsigned int count = 1;

		if (at >= front && at < first)
			at = first;
		flip(fixture->path, at);
		if (rouse_image_open(fixture->path, &image, NULL) == 0)
			count = verify(image).count;
		rouse_image_close(image);
		if (count == 0)
			fail_msg("a flipped byte at %llu goes unnoticed", (unsigned long long)at);
		flip(fixture->path, at);
	}
}

/* ---- Packing ---- */

static void write_wset(const char *path, uint64_t pages)
{
	struct rouse_wset_block block = {.name = "pc.ram", .used_bytes = pages * PAGE};
	struct rouse_wset_page touched[] = {{.page = 1001, .time_us = 3, .flags = 1},
		{.page = 4, .time_us = 7, .vcpu = 1, .flags = 1},
		{.page = 4002, .time_us = 8, .flags = 1}};
	struct rouse_wset wset = {
		.blocks = &block, .block_count = 1, .pages = touched, .page_count = 3};

	assert_int_equal(rouse_wset_write(&wset, path, NULL), 0);
}

static void pack_lays_out_for_another_working_set(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_layout layout = {.codec = ROUSE_CODEC_ZSTD, .chunk_pages = 64};
	char out[128], wset_path[128];
	struct rouse_write_report report;
	struct rouse_error error = {0};
	struct open_image image;
	size_t size;

	write_image(fixture);
	(void)snprintf(out, sizeof(out), "%s/out.rouse", fixture->directory);
	(void)snprintf(wset_path, sizeof(wset_path), "%s/vm.wset", fixture->directory);
	write_wset(wset_path, PAGES);
	if (rouse_pack(fixture->path, wset_path, out, &layout, &report, NULL, &error) != 0)
		fail_msg("%s", error.message);
	assert_int_equal(report.pages, PAGES);
	assert_int_equal(report.wset_pages, 3);
	image = open_image(out);
	assert_int_equal(rouse_reader_wset(image.reader)->page_count, 3);
	assert_int_equal(rouse_reader_wset(image.reader)->pages[0].page, 1001);
	assert_memory_equal(
		rouse_reader_section(image.reader, ROUSE_SECTION_DEVICES, &size), "devices", 7);
	for (uint64_t page = 0; page < PAGES; page++)
		assert_page_is(&image, page, seed_of(page));
	close_image(&image);
}

/* A set of two pages, and pages that it remembers, all over the image. */
static void write_learned_wset(const char *path)
{
	struct rouse_wset_block block = {.name = "pc.ram", .used_bytes = PAGES * PAGE};
	struct rouse_wset_page set[] = {
		{.page = 1003, .time_us = 3, .last = 2, .count = 2, .looks = 2, .weight = 900},
		{.page = 4003, .time_us = 7, .last = 2, .count = 2, .looks = 2, .weight = 900}};
	static struct rouse_wset_page waiting[REMEMBERED];
	struct rouse_wset wset = {.blocks = &block,
		.block_count = 1,
		.pages = set,
		.page_count = 2,
		.runs = 2,
		.waiting = waiting,
		.waiting_count = REMEMBERED};

	for (uint32_t i = 0; i < REMEMBERED; i++)
		waiting[i] = (struct rouse_wset_page){.page = remembered(i),
			.time_us = 1000 * (REMEMBERED - i),
			.last = 1,
			.weight = 9,
			.count = 1,
			.looks = 2};
	assert_int_equal(rouse_wset_write(&wset, path, NULL), 0);
}

static uint64_t chunk_of(struct open_image *image, uint64_t page)
{
	uint64_t locator;

	assert_int_equal(rouse_reader_locate(image->reader, page, ROUSE_READ_BULK, &locator), 0);
	return rouse_locator_chunk(locator);
}

static void pack_lays_what_a_learned_set_remembers_in_locality_blocks(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_layout layout = {.chunk_pages = 16};
	char out[128], wset_path[128];
	struct rouse_error error = {0};
	struct open_image image;

	write_image(fixture);
	(void)snprintf(out, sizeof(out), "%s/out.rouse", fixture->directory);
	(void)snprintf(wset_path, sizeof(wset_path), "%s/vm.wset", fixture->directory);
	write_learned_wset(wset_path);
	if (rouse_pack(fixture->path, wset_path, out, &layout, NULL, NULL, &error) != 0)
		fail_msg("%s", error.message);
	image = open_image(out);
	/* The last one is the first in time: 16 to a chunk from it on, before everything else. */
	for (uint32_t i = 0; i < REMEMBERED; i++)
		assert_int_equal(chunk_of(&image, remembered(i)),
			chunk_of(&image, remembered(REMEMBERED - 1)) + (REMEMBERED - 1 - i) / 16);
	assert_true(chunk_of(&image, remembered(0)) <= chunk_of(&image, 1));
	for (uint64_t page = 0; page < PAGES; page++)
		assert_page_is(&image, page, seed_of(page));
	close_image(&image);
}

/* 4003 is neither at the end of its 16 pages nor at their beginning; 1007 is at the end, and 1008
 * begins the neighbours'. */
static void pack_lays_what_is_beside_the_set_in_front_of_the_rest(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_layout layout = {.chunk_pages = 16};
	struct rouse_wset_block block = {.name = "pc.ram", .used_bytes = PAGES * PAGE};
	struct rouse_wset_page set[] = {{.page = 1007, .time_us = 3}, {.page = 4003, .time_us = 7}};
	struct rouse_wset wset = {
		.blocks = &block, .block_count = 1, .pages = set, .page_count = 2};
	static const uint64_t near[] = {993, 1006, 1009, 1023, 4001, 4014};
	static const uint64_t far[] = {1, 991, 1026, 3999, 4017, PAGES - 1};
	char out[128], wset_path[128];
	struct open_image image;

	write_image(fixture);
	(void)snprintf(out, sizeof(out), "%s/out.rouse", fixture->directory);
	(void)snprintf(wset_path, sizeof(wset_path), "%s/vm.wset", fixture->directory);
	assert_int_equal(rouse_wset_write(&wset, wset_path, NULL), 0);
	assert_int_equal(rouse_pack(fixture->path, wset_path, out, &layout, NULL, NULL, NULL), 0);
	image = open_image(out);
	for (size_t i = 0; i < sizeof(near) / sizeof(near[0]); i++) {
		for (size_t k = 0; k < sizeof(far) / sizeof(far[0]); k++)
			assert_true(chunk_of(&image, near[i]) <= chunk_of(&image, far[k]));
	}
	assert_true(chunk_of(&image, 4014) < chunk_of(&image, 991));
	for (uint64_t page = 0; page < PAGES; page++)
		assert_page_is(&image, page, seed_of(page));
	close_image(&image);
}

static void pack_without_a_set_over_itself_is_safe(void **state)
{
	const struct fixture *fixture = *state;
	struct open_image image;

	write_image(fixture);
	assert_int_equal(rouse_pack(fixture->path, NULL, fixture->path, NULL, NULL, NULL, NULL), 0);
	image = open_image(fixture->path);
	assert_int_equal(rouse_reader_wset(image.reader)->page_count, 0);
	for (uint64_t page = 0; page < PAGES; page++)
		assert_page_is(&image, page, seed_of(page));
	close_image(&image);
	assert_int_equal(fixture_count_files(fixture), 1);
}

static void pack_refuses_the_working_set_of_another_vm(void **state)
{
	const struct fixture *fixture = *state;
	char out[128], wset_path[128];
	struct rouse_error error = {0};

	write_image(fixture);
	(void)snprintf(out, sizeof(out), "%s/out.rouse", fixture->directory);
	(void)snprintf(wset_path, sizeof(wset_path), "%s/vm.wset", fixture->directory);
	write_wset(wset_path, PAGES + 1);
	assert_int_equal(
		rouse_pack(fixture->path, wset_path, out, NULL, NULL, NULL, &error), -EINVAL);
	assert_int_equal(error.kind, ROUSE_ERROR_MISMATCH);
	assert_int_equal(fixture_count_files(fixture), 2);
}

static void pack_of_a_damaged_image_leaves_no_file(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_error error = {0};
	struct open_image internal;
	struct rouse_chunk chunk;
	char out[128];

	write_image(fixture);
	internal = open_image(fixture->path);
	assert_int_equal(rouse_reader_chunk(internal.reader, 30, ROUSE_READ_BULK, &chunk), 0);
	close_image(&internal);
	flip(fixture->path, chunk.offset + 3);
	(void)snprintf(out, sizeof(out), "%s/out.rouse", fixture->directory);
	assert_int_equal(rouse_pack(fixture->path, NULL, out, NULL, NULL, NULL, &error), -EUCLEAN);
	assert_non_null(strstr(error.message, "chunk 30"));
	assert_int_equal(fixture_count_files(fixture), 1);
}

/* ---- Copying ---- */

static void copy_gives_the_same_bytes(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_throttle throttle = {.bytes_per_s = UINT64_C(1) << 30};
	char out[128], *a, *b;
	size_t a_size, b_size;
	int fd;

	write_image(fixture);
	(void)snprintf(out, sizeof(out), "%s/copy", fixture->directory);
	fd = open(out, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(rouse_copy(fixture->path, fd, &throttle, NULL, NULL), 0);
	(void)close(fd);
	assert_int_equal(rouse_io_read_file(fixture->path, 256u << 20, &a, &a_size), 0);
	assert_int_equal(rouse_io_read_file(out, 256u << 20, &b, &b_size), 0);
	assert_int_equal(a_size, b_size);
	assert_memory_equal(a, b, a_size);
	free(a);
	free(b);
}

static void copy_to_a_reader_that_is_gone_ends_with_an_error(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_error error = {0};
	int ends[2];

	write_image(fixture);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	(void)close(ends[0]);
	(void)signal(SIGPIPE, SIG_IGN);
	assert_int_equal(rouse_copy(fixture->path, ends[1], NULL, NULL, &error), -EPIPE);
	(void)signal(SIGPIPE, SIG_DFL);
	(void)close(ends[1]);
}

static void copy_can_be_cancelled(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_observer observer = {0};
	struct rouse_error error = {0};
	int ends[2];

	write_image(fixture);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_int_equal(rouse_cancel_new(&observer.cancel), 0);
	rouse_cancel_fire(observer.cancel);
	assert_int_equal(rouse_copy(fixture->path, ends[1], NULL, &observer, &error), -ECANCELED);
	assert_int_equal(error.kind, ROUSE_ERROR_CANCELLED);
	rouse_cancel_free(observer.cancel);
	(void)close(ends[0]);
	(void)close(ends[1]);
}

int main(void)
{
#define image_test(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		image_test(an_image_describes_itself),
		image_test(a_whole_image_verifies),
		image_test(a_broken_chunk_is_named_with_its_place),
		image_test(broken_tables_are_named_and_the_rest_is_still_checked),
		image_test(any_flipped_byte_is_noticed),
		image_test(pack_lays_out_for_another_working_set),
		image_test(pack_lays_what_a_learned_set_remembers_in_locality_blocks),
		image_test(pack_lays_what_is_beside_the_set_in_front_of_the_rest),
		image_test(pack_without_a_set_over_itself_is_safe),
		image_test(pack_refuses_the_working_set_of_another_vm),
		image_test(pack_of_a_damaged_image_leaves_no_file),
		image_test(copy_gives_the_same_bytes),
		image_test(copy_to_a_reader_that_is_gone_ends_with_an_error),
		image_test(copy_can_be_cancelled),
	};

	return cmocka_run_group_tests_name("image_api", tests, NULL, NULL);
}
