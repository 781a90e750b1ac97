/* SPDX-License-Identifier: MIT */
/* Taking over: what is asked, and the answers, with requests of QEMU's fault thread among them. */
#include "base/cleanup.h"
#include "base/endian.h"
#include "base/io.h"
#include "vmm/qemu_return_path.h"
#include "vmm/qemu_sink.h"
#include "vmm/qemu_takeover.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

static const struct qemu_block blocks[] = {
	{.name = "pc.ram", .used_bytes = 70 * 4096, .first_page = 0},
	{.name = "empty", .used_bytes = 0, .first_page = 70},
	{.name = "vga.vram", .used_bytes = 16 * 4096, .first_page = 70},
};
#define BLOCK_COUNT 3u
#define PAGE_COUNT 86u

static void a_takeover_asks_for_every_bitmap_and_then_resumes(void **state)
{
	cleanup_free uint8_t *bytes = NULL;
	size_t size = 0, at = 0;

	(void)state;
	assert_int_equal(qemu_takeover_request(blocks, BLOCK_COUNT, &bytes, &size), 0);
	for (uint32_t i = 0; i < BLOCK_COUNT; i++) {
		size_t length = strlen(blocks[i].name);

		assert_true(at + 6 + length < size);
		assert_int_equal(bytes[at], 8); /* a command */
		assert_int_equal(be16_load(bytes + at + 1), QEMU_CMD_RECV_BITMAP);
		assert_int_equal(be16_load(bytes + at + 3), 1 + length);
		assert_int_equal(bytes[at + 5], length);
		assert_memory_equal(bytes + at + 6, blocks[i].name, length);
		at += 6 + length;
	}
	assert_int_equal(size, at + 5);
	assert_int_equal(bytes[at], 8);
	assert_int_equal(be16_load(bytes + at + 1), QEMU_CMD_POSTCOPY_RESUME);
	assert_int_equal(be16_load(bytes + at + 3), 0);
}

static void a_takeover_of_a_qemu_that_says_nothing_can_be_cancelled(void **state)
{
	struct rouse_observer observer = {0};
	struct qemu_sink_config config = {
		.blocks = blocks, .block_count = BLOCK_COUNT, .observer = &observer};
	struct rouse_sink *sink = NULL;
	struct rouse_error error;
	int fds[2];

	(void)state;
	assert_int_equal(rouse_cancel_new(&observer.cancel), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	config.fd = fds[0];
	rouse_cancel_fire(observer.cancel);
	assert_int_equal(qemu_postcopy_sink_resume(&config, &sink, &error), -ECANCELED);
	assert_int_equal(error.kind, ROUSE_ERROR_CANCELLED);
	assert_null(sink);
	(void)close(fds[1]);
	rouse_cancel_free(observer.cancel);
}

/* ---- Answers --------------------------------------------------------------------------------- */

struct answers {
	uint8_t bytes[2048];
	size_t size;
};

static void say(struct answers *answers, const void *bytes, size_t size)
{
	assert_true(size <= sizeof(answers->bytes) - answers->size);
	memcpy(answers->bytes + answers->size, bytes, size);
	answers->size += size;
}

static void say_message(
	struct answers *answers, enum qemu_reply type, const void *data, uint16_t size)
{
	uint8_t header[4];

	be16_store(header, (uint16_t)type);
	be16_store(header + 2, size);
	say(answers, header, sizeof(header));
	say(answers, data, size);
}

/* @name: NULL: of the block that was named last. */
static void say_request(struct answers *answers, uint64_t start, const char *name)
{
	size_t length = name != NULL ? strlen(name) : 0;
	uint8_t data[64];

	be64_store(data, start);
	be32_store(data + 8, QEMU_PAGE_BYTES);
	if (name != NULL) {
		data[12] = (uint8_t)length;
		memcpy(data + 13, name, length);
	}
	say_message(answers, name != NULL ? QEMU_REPLY_REQ_PAGES_ID : QEMU_REPLY_REQ_PAGES, data,
		(uint16_t)(name != NULL ? 13 + length : 12));
}

static void say_name(struct answers *answers, const char *name)
{
	uint8_t data[64] = {(uint8_t)strlen(name)};

	memcpy(data + 1, name, strlen(name));
	say_message(answers, QEMU_REPLY_RECV_BITMAP, data, (uint16_t)(1 + strlen(name)));
}

/* @bytes of bits, all of them 0x81. */
static void say_bits(struct answers *answers, uint64_t bytes)
{
	uint8_t number[8];

	be64_store(number, bytes);
	say(answers, number, sizeof(number));
	for (uint64_t i = 0; i < bytes; i++)
		say(answers, "\x81", 1);
	be64_store(number, QEMU_RECV_BITMAP_END);
	say(answers, number, sizeof(number));
}

static void say_resumed(struct answers *answers)
{
	const uint8_t one[] = {0, 0, 0, 1};

	say_message(answers, QEMU_REPLY_RESUME_ACK, one, sizeof(one));
}

/* All that a QEMU has to say which is asked for what it has. */
static void say_all(struct answers *answers)
{
	for (uint32_t i = 0; i < BLOCK_COUNT; i++) {
		say_name(answers, blocks[i].name);
		say_bits(answers, (blocks[i].used_bytes / 4096 + 63) / 64 * 8);
	}
	say_resumed(answers);
}

/* What comes of them, from a QEMU that says no more. */
static int take(
	const struct answers *answers, struct rouse_bitmap *placed, struct rouse_error *error)
{
	struct qemu_takeover takeover = {
		.cancel_fd = -1, .blocks = blocks, .block_count = BLOCK_COUNT};
	int fds[2], code;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(rouse_io_write(fds[1], answers->bytes, answers->size), 0);
	(void)close(fds[1]);
	takeover.fd = fds[0];
	code = qemu_takeover_read(&takeover, placed, error);
	(void)close(fds[0]);
	return code;
}

static void expect_placed(const struct rouse_bitmap *placed)
{
	for (uint64_t page = 0; page < PAGE_COUNT; page++) {
		uint64_t bit = (page < 70 ? page : page - 70) % 8;

		assert_int_equal(rouse_bitmap_test(placed, page), bit == 0 || bit == 7);
	}
}

static void the_pages_that_qemu_has_are_known(void **state)
{
	struct answers answers = {.size = 0};
	struct rouse_bitmap placed;

	(void)state;
	assert_int_equal(rouse_bitmap_init(&placed, PAGE_COUNT), 0);
	say_all(&answers);
	assert_int_equal(take(&answers, &placed, NULL), 0);
	expect_placed(&placed);
	rouse_bitmap_finish(&placed);
}

/*
 * A vCPU that misses a page while the connection is new: QEMU's fault thread asks at once. The
 * first request may be of the block that it named to the Rouse that died.
 */
static void a_request_may_stand_anywhere_among_the_answers(void **state)
{
	struct answers answers = {.size = 0};
	struct rouse_bitmap placed;

	(void)state;
	assert_int_equal(rouse_bitmap_init(&placed, PAGE_COUNT), 0);
	say_request(&answers, 0x3000, NULL);
	for (uint32_t i = 0; i < BLOCK_COUNT; i++) {
		say_request(&answers, 0x1000, "pc.ram");
		say_name(&answers, blocks[i].name);
		say_request(&answers, 0x2000, NULL);
		say_request(&answers, 0x3000, NULL);
		say_bits(&answers, (blocks[i].used_bytes / 4096 + 63) / 64 * 8);
	}
	say_request(&answers, 0x4000, "vga.vram");
	say_resumed(&answers);
	assert_int_equal(take(&answers, &placed, NULL), 0);
	expect_placed(&placed);
	rouse_bitmap_finish(&placed);
}

/* Which block it means cannot be told: lib/vmm/qemu_postcopy.c says why. */
static void a_request_without_a_name_is_one_for_every_block_after_a_takeover(void **state)
{
	static const uint64_t wanted[] = {3, 73, 40, 75};
	struct qemu_sink_config config = {.fd = -1, .blocks = blocks, .block_count = BLOCK_COUNT};
	struct answers answers = {.size = 0};
	struct rouse_sink *sink;
	int fds[2];

	(void)state;
	say_all(&answers);
	say_request(&answers, 0x3000, NULL);
	say_request(&answers, 40 * 0x1000, NULL); /* only pc.ram has it */
	say_request(&answers, 0x5000, "vga.vram");
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(rouse_io_write(fds[1], answers.bytes, answers.size), 0);
	config.fd = fds[0];
	assert_int_equal(qemu_postcopy_sink_resume(&config, &sink, NULL), 0);
	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		uint64_t page;

		assert_int_equal(sink->ops->wait_fault(sink, &page), 0);
		assert_int_equal(page, wanted[i]);
	}
	sink->ops->destroy(sink);
	(void)close(fds[1]);
}

static void memory_of_another_size_is_refused(void **state)
{
	static const uint64_t sizes[] = {0, 8, 24, UINT64_C(1) << 40, UINT64_MAX};

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct answers answers = {.size = 0};
		struct rouse_error error = {0};
		struct rouse_bitmap placed;
		uint8_t number[8];

		assert_int_equal(rouse_bitmap_init(&placed, PAGE_COUNT), 0);
		say_name(&answers, "pc.ram");
		be64_store(number, sizes[i]);
		say(&answers, number, sizeof(number));
		assert_int_equal(take(&answers, &placed, &error), -EPROTO);
		assert_non_null(strstr(error.message, "not that of this image"));
		rouse_bitmap_finish(&placed);
	}
}

static void answers_that_break_off_are_a_broken_recovery(void **state)
{
	struct answers whole = {.size = 0};

	(void)state;
	for (uint32_t i = 0; i < BLOCK_COUNT; i++) {
		say_name(&whole, blocks[i].name);
		say_request(&whole, 0x1000, "pc.ram");
		say_bits(&whole, (blocks[i].used_bytes / 4096 + 63) / 64 * 8);
	}
	say_resumed(&whole);
	for (size_t size = 0; size < whole.size; size++) {
		struct answers answers = whole;
		struct rouse_error error = {0};
		struct rouse_bitmap placed;

		answers.size = size;
		assert_int_equal(rouse_bitmap_init(&placed, PAGE_COUNT), 0);
		assert_int_equal(take(&answers, &placed, &error), -EPIPE);
		assert_non_null(strstr(error.message, "broke off"));
		rouse_bitmap_finish(&placed);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_takeover_asks_for_every_bitmap_and_then_resumes),
		cmocka_unit_test(a_takeover_of_a_qemu_that_says_nothing_can_be_cancelled),
		cmocka_unit_test(the_pages_that_qemu_has_are_known),
		cmocka_unit_test(a_request_may_stand_anywhere_among_the_answers),
		cmocka_unit_test(a_request_without_a_name_is_one_for_every_block_after_a_takeover),
		cmocka_unit_test(memory_of_another_size_is_refused),
		cmocka_unit_test(answers_that_break_off_are_a_broken_recovery),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
