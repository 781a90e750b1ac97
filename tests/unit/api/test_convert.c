/* SPDX-License-Identifier: MIT */
/* Between images and plain migration files: real streams of QEMU, cut small, are the corpus. */
#include "base/cleanup.h"
#include "base/io.h"
#include "image/format.h"
#include "vmm/qemu_stream.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define CORPUS "fuzz/corpus/qemu_stream/"

static char directory[] = "/tmp/rouse-test-XXXXXX";
static char image_path[64], stream_path[64];

static int make_directory(void **state)
{
	(void)state;
	if (mkdtemp(directory) == NULL)
		return -1;
	(void)snprintf(image_path, sizeof(image_path), "%s/image", directory);
	(void)snprintf(stream_path, sizeof(stream_path), "%s/stream", directory);
	return 0;
}

static int remove_directory(void **state)
{
	(void)state;
	(void)unlink(image_path);
	(void)unlink(stream_path);
	return rmdir(directory);
}

/* A stream, decoded: its pages' content as one number that depends on content and place. */
struct sum {
	uint64_t pages, content, blocks, bytes;
	size_t devices_size;
	uint64_t devices;
};

static uint64_t mix(uint64_t sum, const uint8_t *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++)
		sum = sum * 1099511628211u + bytes[i];
	return sum;
}

static int sum_blocks(void *user, const struct qemu_block *blocks, uint32_t count)
{
	struct sum *sum = user;

	for (uint32_t i = 0; i < count; i++) {
		sum->blocks = mix(
			sum->blocks, (const uint8_t *)blocks[i].name, strlen(blocks[i].name) + 1);
		sum->bytes += blocks[i].used_bytes;
	}
	return 0;
}

static bool is_zero(const uint8_t *page)
{
	for (size_t i = 0; i < QEMU_PAGE_BYTES; i++) {
		if (page[i] != 0)
			return false;
	}
	return true;
}

static int sum_page(void *user, uint64_t page, const void *data)
{
	struct sum *sum = user;

	/* In whatever order they come, and zero pages whether they are sent or not. */
	if (data == NULL || is_zero(data))
		return 0;
	sum->pages++;
	sum->content += mix(page + 1, data, QEMU_PAGE_BYTES);
	return 0;
}

static void decode(const char *path, struct sum *sum)
{
	static const struct qemu_stream_ops ops = {.blocks = sum_blocks, .page = sum_page};
	cleanup_free char *data = NULL;
	struct qemu_stream *stream;
	const void *devices;
	size_t size;

	memset(sum, 0, sizeof(*sum));
	assert_int_equal(rouse_io_read_file(path, 64u << 20, &data, &size), 0);
	assert_int_equal(qemu_stream_new(&ops, sum, &stream), 0);
	assert_int_equal(qemu_stream_feed(stream, data, size, NULL), 0);
	assert_int_equal(qemu_stream_end(stream, NULL), 0);
	devices = qemu_stream_devices(stream, &sum->devices_size);
	sum->devices = mix(0, devices, sum->devices_size);
	qemu_stream_free(stream);
}

static void there_and_back(const char *corpus)
{
	struct rouse_write_report report;
	struct sum before, after;

	assert_int_equal(rouse_convert(corpus, NULL, image_path, NULL, &report, NULL, NULL), 0);
	assert_int_equal(
		rouse_convert(image_path, NULL, stream_path, NULL, &report, NULL, NULL), 0);
	decode(corpus, &before);
	decode(stream_path, &after);
	assert_true(before.pages > 0);
	assert_memory_equal(&before, &after, sizeof(before));
	assert_int_equal(report.pages, before.bytes / QEMU_PAGE_BYTES);
	assert_int_equal(report.pages - report.zero_pages, before.pages);
}

static void a_stopped_pc_comes_back_the_same(void **state)
{
	(void)state;
	there_and_back(CORPUS "pc7.bin");
	there_and_back(CORPUS "pc10.bin");
}

static void a_background_snapshot_comes_back_the_same(void **state)
{
	(void)state;
	there_and_back(CORPUS "pc7bg.bin");
	there_and_back(CORPUS "q35_10bg.bin");
}

static void a_microvm_comes_back_the_same(void **state)
{
	(void)state;
	there_and_back(CORPUS "micro7.bin");
}

static void the_image_names_the_machine(void **state)
{
	struct rouse_image_info info;
	struct rouse_image *image;

	(void)state;
	assert_int_equal(
		rouse_convert(CORPUS "pc7.bin", NULL, image_path, NULL, NULL, NULL, NULL), 0);
	assert_int_equal(rouse_image_open(image_path, &image, NULL), 0);
	rouse_image_get_info(image, &info);
	assert_non_null(strstr(info.metadata, "pc-i440fx-7.2"));
	assert_int_equal(rouse_image_verify(image, NULL, NULL, NULL, NULL), 0);
	rouse_image_close(image);
}

static void a_stream_that_is_cut_off_leaves_no_image(void **state)
{
	struct rouse_error error;

	(void)state;
	(void)unlink(image_path);
	assert_int_equal(
		rouse_convert(CORPUS "cut.bin", NULL, image_path, NULL, NULL, NULL, &error),
		-EUCLEAN);
	assert_int_equal(error.kind, ROUSE_ERROR_DAMAGED);
	assert_int_equal(access(image_path, F_OK), -1);
}

static void a_file_that_is_not_there_is_told(void **state)
{
	struct rouse_error error;

	(void)state;
	assert_int_equal(
		rouse_convert("/nonexistent", NULL, image_path, NULL, NULL, NULL, &error), -ENOENT);
	assert_non_null(strstr(error.message, "/nonexistent"));
}

static void a_working_set_has_no_place_in_a_stream(void **state)
{
	struct rouse_error error;

	(void)state;
	assert_int_equal(
		rouse_convert(CORPUS "pc7.bin", NULL, image_path, NULL, NULL, NULL, NULL), 0);
	assert_int_equal(rouse_convert(image_path, "x.wset", stream_path, NULL, NULL, NULL, &error),
		-EINVAL);
	assert_int_equal(error.kind, ROUSE_ERROR_USAGE);
}

static void a_fired_cancel_ends_it_without_an_image(void **state)
{
	struct rouse_observer observer = {0};

	(void)state;
	(void)unlink(image_path);
	assert_int_equal(rouse_cancel_new(&observer.cancel), 0);
	rouse_cancel_fire(observer.cancel);
	assert_int_equal(
		rouse_convert(CORPUS "pc7.bin", NULL, image_path, NULL, NULL, &observer, NULL),
		-ECANCELED);
	assert_int_equal(access(image_path, F_OK), -1);
	rouse_cancel_free(observer.cancel);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_stopped_pc_comes_back_the_same),
		cmocka_unit_test(a_background_snapshot_comes_back_the_same),
		cmocka_unit_test(a_microvm_comes_back_the_same),
		cmocka_unit_test(the_image_names_the_machine),
		cmocka_unit_test(a_stream_that_is_cut_off_leaves_no_image),
		cmocka_unit_test(a_file_that_is_not_there_is_told),
		cmocka_unit_test(a_working_set_has_no_place_in_a_stream),
		cmocka_unit_test(a_fired_cancel_ends_it_without_an_image),
	};

	return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
