/* SPDX-License-Identifier: MIT */
/* What Rouse writes to QEMU, read back by the decoder; what QEMU answers; the command line. */
#include "base/cleanup.h"
#include "base/endian.h"
#include "vmm/qemu_process.h"
#include "vmm/qemu_return_path.h"
#include "vmm/qemu_sink.h"
#include "vmm/qemu_writer.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

static const struct qemu_block blocks[] = {
	{.name = "pc.ram", .used_bytes = 300 * 4096, .first_page = 0},
	{.name = "empty", .used_bytes = 0, .first_page = 300},
	{.name = "/rom@etc/acpi/tables", .used_bytes = 2 * 4096, .first_page = 300},
	{.name = "vga.vram", .used_bytes = 16 * 4096, .first_page = 302},
};
#define BLOCK_COUNT 4u
#define PAGE_COUNT 318u

/* What the decoder said: for each page how often it came, and its first byte. */
struct seen {
	unsigned int count[PAGE_COUNT];
	int content[PAGE_COUNT]; /* -1: zeros */
	uint32_t blocks;
};

static int see_blocks(void *user, const struct qemu_block *list, uint32_t count)
{
	struct seen *seen = user;

	seen->blocks = count;
	for (uint32_t i = 0; i < count; i++) {
		assert_string_equal(list[i].name, blocks[i].name);
		assert_int_equal(list[i].used_bytes, blocks[i].used_bytes);
		assert_int_equal(list[i].first_page, blocks[i].first_page);
	}
	return 0;
}

static int see_page(void *user, uint64_t page, const void *data)
{
	struct seen *seen = user;

	assert_true(page < PAGE_COUNT);
	seen->count[page]++;
	seen->content[page] = data != NULL ? *(const unsigned char *)data : -1;
	return 0;
}

/* Sends on a thread: the socket does not hold it all. */
static void *send_stream(void *argument)
{
	static unsigned char data[PAGE_COUNT][4096];
	struct rouse_sink_page pages[PAGE_COUNT];
	const int *fd = argument;
	const uint8_t device[] = {QEMU_VM_SECTION_FULL, 0, 0, 0, 9, 3, 'd', 'e', 'v', 0, 0, 0, 0, 0,
		0, 0, 1, 42, QEMU_VM_SECTION_FOOTER, 0, 0, 0, 9, QEMU_VM_EOF};
	struct qemu_writer writer;

	qemu_writer_init(&writer, *fd, -1, blocks, BLOCK_COUNT);
	for (uint64_t i = 0; i < PAGE_COUNT; i++) {
		memset(data[i], (int)(i % 251), sizeof(data[i]));
		/* Back and forth between blocks, so that names come often. */
		pages[i].page = i % 2 == 0 ? i : PAGE_COUNT - i;
		pages[i].data = i % 3 == 0 ? NULL : data[i];
	}
	assert_int_equal(qemu_writer_header(&writer, NULL, 0), 0);
	assert_int_equal(qemu_writer_ram_start(&writer), 0);
	assert_int_equal(qemu_writer_part_begin(&writer), 0);
	for (size_t i = 0; i < PAGE_COUNT; i += QEMU_WRITER_BATCH) {
		size_t n = PAGE_COUNT - i < QEMU_WRITER_BATCH ? PAGE_COUNT - i : QEMU_WRITER_BATCH;

		assert_int_equal(qemu_writer_pages(&writer, pages + i, n), 0);
	}
	assert_int_equal(qemu_writer_part_end(&writer), 0);
	assert_int_equal(qemu_writer_ram_end(&writer), 0);
	assert_int_equal(qemu_writer_raw(&writer, device, sizeof(device)), 0);
	(void)shutdown(*fd, SHUT_WR);
	return NULL;
}

static void what_is_written_is_read_back_by_the_decoder(void **state)
{
	const struct qemu_stream_ops ops = {.blocks = see_blocks, .page = see_page};
	struct rouse_error error = {0};
	struct qemu_stream *stream;
	struct seen seen = {0};
	unsigned char bytes[1000];
	pthread_t thread;
	ssize_t n;
	int fds[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	assert_int_equal(pthread_create(&thread, NULL, send_stream, &fds[0]), 0);
	assert_int_equal(qemu_stream_new(&ops, &seen, &stream), 0);
	while ((n = read(fds[1], bytes, sizeof(bytes))) > 0) {
		if (qemu_stream_feed(stream, bytes, (size_t)n, &error) != 0)
			fail_msg("%s", error.message);
	}
	assert_int_equal(qemu_stream_end(stream, &error), 0);
	(void)pthread_join(thread, NULL);
	assert_int_equal(seen.blocks, BLOCK_COUNT);
	for (uint64_t i = 0; i < PAGE_COUNT; i++) {
		uint64_t page = i % 2 == 0 ? i : PAGE_COUNT - i;

		assert_int_equal(seen.count[page], 1);
		assert_int_equal(seen.content[page], i % 3 == 0 ? -1 : (int)(i % 251));
	}
	qemu_stream_free(stream);
	(void)close(fds[0]);
	(void)close(fds[1]);
}

static void a_page_of_no_block_is_refused(void **state)
{
	const struct rouse_sink_page page = {.page = PAGE_COUNT};
	struct qemu_writer writer;

	(void)state;
	qemu_writer_init(&writer, -1, -1, blocks, BLOCK_COUNT);
	assert_int_equal(qemu_writer_pages(&writer, &page, 1), -ERANGE);
}

static void a_page_number_leads_to_its_block(void **state)
{
	(void)state;
	assert_int_equal(qemu_block_of(blocks, BLOCK_COUNT, 0), 0);
	assert_int_equal(qemu_block_of(blocks, BLOCK_COUNT, 299), 0);
	assert_int_equal(qemu_block_of(blocks, BLOCK_COUNT, 300), 2);
	assert_int_equal(qemu_block_of(blocks, BLOCK_COUNT, 302), 3);
	assert_int_equal(qemu_block_of(blocks, BLOCK_COUNT, 317), 3);
	assert_int_equal(qemu_block_of(blocks, BLOCK_COUNT, 318), BLOCK_COUNT);
}

/* ---- The return path ------------------------------------------------------------------------ */

static size_t put_request(uint8_t *out, uint64_t start, uint32_t length, const char *name)
{
	size_t n = name != NULL ? strlen(name) : 0;
	uint16_t size = (uint16_t)(12 + (name != NULL ? 1 + n : 0));

	be16_store(out, name != NULL ? QEMU_REPLY_REQ_PAGES_ID : QEMU_REPLY_REQ_PAGES);
	be16_store(out + 2, size);
	be64_store(out + 4, start);
	be32_store(out + 12, length);
	if (name != NULL) {
		out[16] = (uint8_t)n;
		memcpy(out + 17, name, n);
	}
	return 4 + (size_t)size;
}

static int parse(const uint8_t *bytes, size_t size, uint32_t *last,
	struct qemu_return_message *message, size_t *used)
{
	return qemu_return_parse(bytes, size, blocks, BLOCK_COUNT, last, message, used);
}

static void a_request_without_a_name_is_of_the_block_named_last(void **state)
{
	struct qemu_return_message message;
	uint32_t last = UINT32_MAX;
	uint8_t bytes[300];
	size_t size, used;

	(void)state;
	size = put_request(bytes, 0x1000, 0x1000, NULL);
	assert_int_equal(parse(bytes, size, &last, &message, &used), 1);
	assert_int_equal(message.block, UINT32_MAX);
	assert_int_equal(message.start, 1);
	size = put_request(bytes, 0x1000, 0x1000, "vga.vram");
	assert_int_equal(parse(bytes, size, &last, &message, &used), 1);
	assert_int_equal(used, size);
	assert_int_equal(message.page, 303);
	assert_int_equal(message.page_count, 1);
	size = put_request(bytes, 0x3000, 0x2000, NULL);
	assert_int_equal(parse(bytes, size, &last, &message, &used), 1);
	assert_int_equal(message.page, 305);
	assert_int_equal(message.page_count, 2);
}

static void every_cut_of_a_message_waits_for_the_rest(void **state)
{
	struct qemu_return_message message;
	uint32_t last = UINT32_MAX;
	uint8_t bytes[300];
	size_t size = put_request(bytes, 0, 0x1000, "pc.ram"), used;

	(void)state;
	for (size_t i = 0; i < size; i++)
		assert_int_equal(parse(bytes, i, &last, &message, &used), 0);
	assert_int_equal(parse(bytes, size, &last, &message, &used), 1);
}

static void a_request_for_memory_that_does_not_exist_is_refused(void **state)
{
	static const struct {
		uint64_t start;
		uint32_t length;
		const char *name;
	} bad[] = {{300 * 4096, 4096, "pc.ram"}, {299 * 4096, 8192, "pc.ram"}, {1, 4096, "pc.ram"},
		{0, 0, "pc.ram"}, {0, 100, "pc.ram"}, {0, 4096, "nowhere"}, {0, 4096, "empty"},
		{UINT64_MAX - 4095, 4096, "pc.ram"}};
	struct qemu_return_message message;
	uint8_t bytes[300];
	size_t used;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		uint32_t last = UINT32_MAX;
		size_t size = put_request(bytes, bad[i].start, bad[i].length, bad[i].name);

		assert_int_equal(parse(bytes, size, &last, &message, &used), -EPROTO);
	}
}

static void an_unknown_or_oversized_message_is_refused(void **state)
{
	const uint8_t unknown[] = {0, 99, 0, 0}, large[] = {0, 2, 0xff, 0xff};
	struct qemu_return_message message;
	uint32_t last = UINT32_MAX;
	size_t used;

	(void)state;
	assert_int_equal(parse(unknown, sizeof(unknown), &last, &message, &used), -EPROTO);
	assert_int_equal(parse(large, sizeof(large), &last, &message, &used), -EPROTO);
}

/* ---- The command line ----------------------------------------------------------------------- */

static void a_command_line_is_rid_of_an_earlier_restore(void **state)
{
	const char *const argv[] = {"qemu", "-S", "-m", "1G", "-incoming", "fd:9", "-daemonize",
		"-chardev", "socket,id=rouse-control,fd=7", "-mon",
		"chardev=rouse-control,mode=control", "-chardev", "socket,id=mine,path=/x",
		"--global", "migration.x-postcopy-ram=on", "-display", "none", NULL};
	const struct qemu_process_config config = {
		.argv = argv, .monitor = "/run/x.qmp", .postcopy = true};
	const char *const expected[] = {"qemu", "-m", "1G", "-chardev", "socket,id=mine,path=/x",
		"-display", "none", "-incoming", "fd:5", "-chardev", "socket,id=rouse-control,fd=6",
		"-mon", "chardev=rouse-control,mode=control", "-chardev",
		"socket,id=rouse-monitor,server=on,wait=off,path=/run/x.qmp", "-mon",
		"chardev=rouse-monitor,mode=control", "-global", "migration.x-postcopy-ram=on",
		NULL};
	cleanup_free char **made = qemu_process_argv(&config, 5, 6);

	(void)state;
	assert_non_null(made);
	for (size_t i = 0; expected[i] != NULL || made[i] != NULL; i++) {
		assert_non_null(expected[i]);
		assert_non_null(made[i]);
		assert_string_equal(made[i], expected[i]);
	}
}

static void a_program_that_does_not_exist_is_an_error_of_the_start(void **state)
{
	const char *const argv[] = {"/nonexistent/qemu", NULL};
	const struct qemu_process_config config = {.argv = argv, .monitor = "/run/x.qmp"};
	struct rouse_error error = {0};
	struct qemu_process process;

	(void)state;
	assert_int_equal(qemu_process_start(&config, &process, &error), -ENOENT);
	assert_non_null(strstr(error.message, "/nonexistent/qemu"));
}

static void the_last_words_are_what_it_printed(void **state)
{
	const char *const argv[] = {"/bin/sh", "-c", "echo one; echo two >&2", NULL};
	const struct qemu_process_config config = {.argv = argv, .monitor = "/run/x.qmp"};
	struct rouse_error error = {0};
	struct qemu_process process;
	char words[64], byte;

	(void)state;
	assert_int_equal(qemu_process_start(&config, &process, &error), 0);
	/* The shell closes its end when it ends. */
	assert_int_equal(read(process.control, &byte, 1), 0);
	qemu_process_last_words(&process, words, sizeof(words));
	assert_string_equal(words, "one two");
	qemu_process_kill(&process);
	qemu_process_finish(&process);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_written_is_read_back_by_the_decoder),
		cmocka_unit_test(a_page_of_no_block_is_refused),
		cmocka_unit_test(a_page_number_leads_to_its_block),
		cmocka_unit_test(a_request_without_a_name_is_of_the_block_named_last),
		cmocka_unit_test(every_cut_of_a_message_waits_for_the_rest),
		cmocka_unit_test(a_request_for_memory_that_does_not_exist_is_refused),
		cmocka_unit_test(an_unknown_or_oversized_message_is_refused),
		cmocka_unit_test(a_command_line_is_rid_of_an_earlier_restore),
		cmocka_unit_test(a_program_that_does_not_exist_is_an_error_of_the_start),
		cmocka_unit_test(the_last_words_are_what_it_printed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
