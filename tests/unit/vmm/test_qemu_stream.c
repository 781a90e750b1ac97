/* SPDX-License-Identifier: MIT */
/* The decoder on streams that are put together here; streams of real QEMUs are in the corpus. */
#include "base/cleanup.h"
#include "base/endian.h"
#include "base/error.h"
#include "vmm/qemu_stream.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define PAGE QEMU_PAGE_BYTES
#define RAM_ID 2u

/* A stream under construction. */
struct bytes {
	uint8_t data[8 * PAGE];
	size_t size;
};

static void put(struct bytes *b, const void *data, size_t size)
{
	assert_true(size <= sizeof(b->data) - b->size);
	memcpy(b->data + b->size, data, size);
	b->size += size;
}

static void put8(struct bytes *b, uint8_t v)
{
	put(b, &v, 1);
}

static void put32(struct bytes *b, uint32_t v)
{
	uint8_t raw[4];

	be32_store(raw, v);
	put(b, raw, 4);
}

static void put64(struct bytes *b, uint64_t v)
{
	uint8_t raw[8];

	be64_store(raw, v);
	put(b, raw, 8);
}

static void put_name(struct bytes *b, const char *name)
{
	put8(b, (uint8_t)strlen(name));
	put(b, name, strlen(name));
}

static void put_header(struct bytes *b)
{
	put32(b, QEMU_VM_FILE_MAGIC);
	put32(b, QEMU_VM_FILE_VERSION);
	put8(b, QEMU_VM_CONFIGURATION);
	put32(b, 4);
	put(b, "pc-9", 4);
}

static void put_footer(struct bytes *b, uint32_t id)
{
	put8(b, QEMU_VM_SECTION_FOOTER);
	put32(b, id);
}

static void put_section(struct bytes *b, uint8_t type, uint32_t id, const char *name, uint32_t v)
{
	put8(b, type);
	put32(b, id);
	put_name(b, name);
	put32(b, 0);
	put32(b, v);
}

/* Two blocks: "a" of two pages, "b" of one. */
static void put_ram_list(struct bytes *b)
{
	put_section(b, QEMU_VM_SECTION_START, RAM_ID, "ram", QEMU_RAM_VERSION);
	put64(b, (uint64_t)3 * PAGE | QEMU_RAM_MEM_SIZE);
	put_name(b, "a");
	put64(b, (uint64_t)2 * PAGE);
	put_name(b, "b");
	put64(b, PAGE);
	put64(b, QEMU_RAM_EOS);
}

static void put_ram_start(struct bytes *b)
{
	put_ram_list(b);
	put_footer(b, RAM_ID);
}

static void put_part(struct bytes *b, uint8_t type)
{
	put8(b, type);
	put32(b, RAM_ID);
}

static void put_page(struct bytes *b, const char *block, uint64_t offset, uint8_t fill)
{
	uint8_t page[PAGE];

	memset(page, fill, sizeof(page));
	put64(b, offset | QEMU_RAM_PAGE | (block == NULL ? QEMU_RAM_CONTINUE : 0));
	if (block != NULL)
		put_name(b, block);
	put(b, page, sizeof(page));
}

static void put_zero(struct bytes *b, const char *block, uint64_t offset)
{
	put64(b, offset | QEMU_RAM_ZERO | (block == NULL ? QEMU_RAM_CONTINUE : 0));
	if (block != NULL)
		put_name(b, block);
	put8(b, 0);
}

static void put_end_of_part(struct bytes *b)
{
	put64(b, QEMU_RAM_EOS);
	put_footer(b, RAM_ID);
}

static const char device_body[] = "state\0of\0a\0device";

static void put_device(struct bytes *b)
{
	put_section(b, QEMU_VM_SECTION_FULL, 7, "rtc", 1);
	put(b, device_body, sizeof(device_body));
	put_footer(b, 7);
}

static void put_eof(struct bytes *b, const char *description)
{
	put8(b, QEMU_VM_EOF);
	if (description == NULL)
		return;
	put8(b, QEMU_VM_VMDESCRIPTION);
	put32(b, (uint32_t)strlen(description));
	put(b, description, strlen(description));
}

/* A whole stream with three pages; *devices_at: where its device state begins, *eof where it ends.
 */
static void put_stream(struct bytes *b, size_t *devices_at, size_t *eof)
{
	put_header(b);
	put_ram_start(b);
	put_part(b, QEMU_VM_SECTION_PART);
	put_page(b, "a", 0, 0x11);
	put_zero(b, NULL, PAGE);
	put_end_of_part(b);
	put_part(b, QEMU_VM_SECTION_END);
	put_page(b, "b", 0, 0x33);
	put_end_of_part(b);
	*devices_at = b->size;
	put_device(b);
	*eof = b->size;
	put_eof(b, "{\"page_size\": 4096}");
}

/* What the decoder said. */
struct heard {
	uint32_t block_count;
	char names[4][16];
	uint64_t first_page[4];
	unsigned int pages;
	uint64_t page[8];
	int fill[8]; /* of its bytes; 0: a zero page */
	int fail;    /* to return for a page */
};

static int hear_blocks(void *user, const struct qemu_block *blocks, uint32_t count)
{
	struct heard *heard = user;

	heard->block_count = count;
	for (uint32_t i = 0; i < count && i < 4; i++) {
		(void)snprintf(heard->names[i], sizeof(heard->names[i]), "%.15s", blocks[i].name);
		heard->first_page[i] = blocks[i].first_page;
	}
	return 0;
}

static int hear_page(void *user, uint64_t page, const void *data)
{
	struct heard *heard = user;
	const uint8_t *bytes = data;

	heard->page[heard->pages] = page;
	heard->fill[heard->pages] = bytes != NULL ? bytes[0] : 0;
	for (size_t i = 0; bytes != NULL && i < PAGE; i++)
		assert_int_equal(bytes[i], bytes[0]);
	heard->pages++;
	return heard->fail;
}

static const struct qemu_stream_ops ops = {.blocks = hear_blocks, .page = hear_page};

/* Feeds @b in pieces of @piece bytes; the code of the first call that failed. */
static int decode(const struct bytes *b, size_t piece, struct heard *heard,
	struct qemu_stream **stream, struct rouse_error *error)
{
	int code = 0;

	memset(error, 0, sizeof(*error));
	assert_int_equal(qemu_stream_new(&ops, heard, stream), 0);
	for (size_t at = 0; code == 0 && at < b->size; at += piece) {
		size_t size = b->size - at < piece ? b->size - at : piece;
		/* A copy of its own size: a read beyond it is seen by the address sanitizer. */
		cleanup_free uint8_t *copy = malloc(size);

		memcpy(copy, b->data + at, size);
		code = qemu_stream_feed(*stream, copy, size, error);
	}
	if (code == 0)
		code = qemu_stream_end(*stream, error);
	assert_int_equal(code, error->code);
	return code;
}

static int decode_code(const struct bytes *b, struct rouse_error *error)
{
	struct heard heard = {0};
	struct qemu_stream *stream;
	int code = decode(b, b->size, &heard, &stream, error);

	qemu_stream_free(stream);
	return code;
}

static void a_stream_is_understood_however_it_is_cut(void **state)
{
	struct bytes *b = calloc(1, sizeof(*b));
	size_t devices_at, eof, size;

	(void)state;
	put_stream(b, &devices_at, &eof);
	for (size_t piece = 1; piece <= b->size; piece += piece < 64 ? 1 : 509) {
		struct heard heard = {0};
		struct qemu_stream *stream;
		struct rouse_error error;
		const void *devices;

		assert_int_equal(decode(b, piece, &heard, &stream, &error), 0);
		assert_int_equal(heard.block_count, 2);
		assert_string_equal(heard.names[1], "b");
		assert_int_equal(heard.first_page[1], 2);
		assert_int_equal(heard.pages, 3);
		assert_int_equal(heard.fill[0], 0x11);
		assert_int_equal(heard.page[1], 1);
		assert_int_equal(heard.fill[1], 0);
		assert_int_equal(heard.page[2], 2);
		assert_int_equal(heard.fill[2], 0x33);
		assert_string_equal(qemu_stream_machine(stream), "pc-9");
		assert_memory_equal(qemu_stream_config(stream, &size), b->data + 8, 9);
		assert_int_equal(size, 9);
		devices = qemu_stream_devices(stream, &size);
		assert_int_equal(size, eof - devices_at);
		assert_memory_equal(devices, b->data + devices_at, size);
		qemu_stream_free(stream);
	}
	free(b);
}

static void every_cut_off_stream_is_refused(void **state)
{
	struct bytes *b = calloc(1, sizeof(*b));
	size_t devices_at, eof, whole;
	struct rouse_error error;

	(void)state;
	put_stream(b, &devices_at, &eof);
	whole = b->size;
	/* Cut right behind EOF it is a whole stream of a machine that suppresses VMDESC. */
	for (b->size = 0; b->size < whole; b->size++) {
		if (b->size != eof + 1 && decode_code(b, &error) != -EUCLEAN)
			fail_msg("accepted when cut at %zu of %zu", b->size, whole);
	}
	free(b);
}

static void a_stream_needs_no_vmdesc_and_no_end_of_ram(void **state)
{
	struct bytes *b = calloc(1, sizeof(*b));
	struct rouse_error error;

	(void)state;
	put_header(b);
	put_ram_start(b);
	put_part(b, QEMU_VM_SECTION_PART);
	put_page(b, "a", 0, 1);
	put_end_of_part(b);
	put_device(b);
	put_eof(b, NULL);
	assert_int_equal(decode_code(b, &error), 0);
	free(b);
}

static void a_command_between_the_parts_is_passed_over(void **state)
{
	struct bytes *b = calloc(1, sizeof(*b));
	struct rouse_error error;

	(void)state;
	put_header(b);
	put_ram_start(b);
	put(b, "\x08\x00\x0b\x00\x00", 5); /* SWITCHOVER_START */
	put_part(b, QEMU_VM_SECTION_END);
	put_end_of_part(b);
	put_device(b);
	put_eof(b, NULL);
	assert_int_equal(decode_code(b, &error), 0);
	free(b);
}

/* A stream up to an open part of RAM, for one bad record more. */
static struct bytes *open_part(void)
{
	struct bytes *b = calloc(1, sizeof(*b));

	put_header(b);
	put_ram_start(b);
	put_part(b, QEMU_VM_SECTION_PART);
	return b;
}

static void expect(struct bytes *b, int code, const char *words)
{
	struct rouse_error error;

	assert_int_equal(decode_code(b, &error), code);
	if (strstr(error.message, words) == NULL)
		fail_msg("'%s' is not in '%s'", words, error.message);
	free(b);
}

static void a_page_beyond_its_block_is_refused(void **state)
{
	struct bytes *b = open_part();

	(void)state;
	put_page(b, "a", 2 * PAGE, 1);
	expect(b, -EUCLEAN, "beyond");
}

static void a_page_of_an_unknown_block_is_refused(void **state)
{
	struct bytes *b = open_part();

	(void)state;
	put_zero(b, "c", 0);
	expect(b, -EUCLEAN, "unknown RAM block");
	b = open_part();
	put_zero(b, NULL, 0);
	expect(b, -EUCLEAN, "unknown RAM block");
}

static void capabilities_that_change_pages_are_named(void **state)
{
	static const struct {
		uint64_t flag;
		const char *name;
	} flags[] = {{0x40, "xbzrle"}, {0x80, "RDMA"}, {0x100, "compress"}, {0x200, "multifd"}};

	(void)state;
	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		struct bytes *b = open_part();

		put64(b, flags[i].flag);
		expect(b, -ENOTSUP, flags[i].name);
	}
}

static void another_live_device_is_named(void **state)
{
	struct bytes *b = calloc(1, sizeof(*b));

	(void)state;
	put_header(b);
	put_section(b, QEMU_VM_SECTION_START, 1, "vfio", 1);
	expect(b, -ENOTSUP, "'vfio'");
	b = calloc(1, sizeof(*b));
	put_header(b);
	put_section(b, QEMU_VM_SECTION_FULL, 1, "virtio-mem", 1);
	expect(b, -ENOTSUP, "'virtio-mem'");
}

static void postcopy_streams_are_refused(void **state)
{
	struct bytes *b = calloc(1, sizeof(*b));

	(void)state;
	put_header(b);
	put(b, "\x08\x00\x03\x00\x10", 5);
	expect(b, -ENOTSUP, "postcopy-ram");
}

static void a_configuration_with_capabilities_is_refused(void **state)
{
	struct bytes *b = calloc(1, sizeof(*b));

	(void)state;
	put_header(b);
	put8(b, QEMU_VM_SUBSECTION);
	put_name(b, "configuration/capabilities");
	put32(b, 1);
	expect(b, -ENOTSUP, "x-ignore-shared");
}

static void a_configuration_with_a_uuid_is_kept_whole(void **state)
{
	struct bytes *b = calloc(1, sizeof(*b)), *rest = calloc(1, sizeof(*b));
	struct heard heard = {0};
	struct qemu_stream *stream;
	struct rouse_error error;
	size_t size, end, unused;

	(void)state;
	put_header(b);
	put8(b, QEMU_VM_SUBSECTION);
	put_name(b, "configuration/uuid");
	put32(b, 1);
	put(b, "0123456789abcdef", 16);
	end = b->size;
	put_stream(rest, &unused, &unused);
	put(b, rest->data + 17, rest->size - 17);
	assert_int_equal(decode(b, 7, &heard, &stream, &error), 0);
	assert_memory_equal(qemu_stream_config(stream, &size), b->data + 8, end - 8);
	assert_int_equal(size, end - 8);
	qemu_stream_free(stream);
	free(rest);
	free(b);
}

static void what_is_no_stream_is_told(void **state)
{
	struct bytes *b = calloc(1, sizeof(*b));

	(void)state;
	put(b,
		"\x7f"
		"ELF\1\1\1\0",
		8);
	expect(b, -EUCLEAN, "not a QEMU migration stream");
	b = calloc(1, sizeof(*b));
	put(b, "LibvirtQemudSave", 16);
	expect(b, -ENOTSUP, "libvirt");
}

static void block_lists_that_do_not_add_up_are_refused(void **state)
{
	static const uint64_t sizes[] = {3 * PAGE, PAGE + 1, UINT64_MAX - PAGE + 1};

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct bytes *b = calloc(1, sizeof(*b));

		put_header(b);
		put_section(b, QEMU_VM_SECTION_START, RAM_ID, "ram", QEMU_RAM_VERSION);
		put64(b, (uint64_t)2 * PAGE | QEMU_RAM_MEM_SIZE);
		put_name(b, "a");
		put64(b, sizes[i]);
		expect(b, -EUCLEAN, "do not add up");
	}
}

static void a_block_twice_is_refused(void **state)
{
	struct bytes *b = calloc(1, sizeof(*b));

	(void)state;
	put_header(b);
	put_section(b, QEMU_VM_SECTION_START, RAM_ID, "ram", QEMU_RAM_VERSION);
	put64(b, (uint64_t)2 * PAGE | QEMU_RAM_MEM_SIZE);
	put_name(b, "a");
	put64(b, PAGE);
	put_name(b, "a");
	put64(b, PAGE);
	expect(b, -EUCLEAN, "twice");
}

static void a_stream_without_devices_is_refused(void **state)
{
	struct bytes *b = open_part();

	(void)state;
	put_end_of_part(b);
	put_eof(b, NULL);
	expect(b, -EUCLEAN, "no device state");
}

/* At its first section: while the VM is there, and before a page. */
static void a_stream_without_footers_is_refused_at_once(void **state)
{
	static const uint8_t types[] = {
		QEMU_VM_SECTION_PART, QEMU_VM_SECTION_END, QEMU_VM_SECTION_FULL, QEMU_VM_COMMAND};

	(void)state;
	for (size_t i = 0; i < sizeof(types); i++) {
		struct bytes *b = calloc(1, sizeof(*b));

		put_header(b);
		put_ram_list(b);
		put8(b, types[i]);
		expect(b, -ENOTSUP, "no section footers");
	}
}

static void a_footer_that_is_missing_among_others_is_damage(void **state)
{
	struct bytes *b = open_part();

	(void)state;
	put64(b, QEMU_RAM_EOS);
	put_part(b, QEMU_VM_SECTION_END);
	expect(b, -EUCLEAN, "no footer");
	b = calloc(1, sizeof(*b));
	put_header(b);
	put_ram_list(b);
	put8(b, 0x55);
	expect(b, -EUCLEAN, "no footer");
}

static void an_error_of_the_receiver_ends_it_for_good(void **state)
{
	struct bytes *b = calloc(1, sizeof(*b));
	struct heard heard = {.fail = -ENOSPC};
	struct qemu_stream *stream;
	struct rouse_error error;
	size_t unused;

	(void)state;
	put_stream(b, &unused, &unused);
	assert_int_equal(decode(b, 100, &heard, &stream, &error), -ENOSPC);
	assert_int_equal(heard.pages, 1);
	assert_int_equal(qemu_stream_feed(stream, b->data, 1, &error), -ENOSPC);
	assert_int_equal(qemu_stream_end(stream, &error), -ENOSPC);
	qemu_stream_free(stream);
	free(b);
}

static void device_state_beyond_the_limit_is_refused(void **state)
{
	const size_t piece = 16u << 20;
	cleanup_free uint8_t *zeros = calloc(1, piece);
	struct bytes *b = open_part();
	struct heard heard = {0};
	struct qemu_stream *stream;
	struct rouse_error error;
	int code = 0;

	(void)state;
	put_end_of_part(b);
	put_device(b);
	assert_int_equal(qemu_stream_new(&ops, &heard, &stream), 0);
	assert_int_equal(qemu_stream_feed(stream, b->data, b->size, &error), 0);
	for (size_t sent = 0; code == 0 && sent <= QEMU_STREAM_MAX_DEVICES; sent += piece)
		code = qemu_stream_feed(stream, zeros, piece, &error);
	assert_int_equal(code, -EFBIG);
	qemu_stream_free(stream);
	free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_stream_is_understood_however_it_is_cut),
		cmocka_unit_test(every_cut_off_stream_is_refused),
		cmocka_unit_test(a_stream_needs_no_vmdesc_and_no_end_of_ram),
		cmocka_unit_test(a_command_between_the_parts_is_passed_over),
		cmocka_unit_test(a_page_beyond_its_block_is_refused),
		cmocka_unit_test(a_page_of_an_unknown_block_is_refused),
		cmocka_unit_test(capabilities_that_change_pages_are_named),
		cmocka_unit_test(another_live_device_is_named),
		cmocka_unit_test(postcopy_streams_are_refused),
		cmocka_unit_test(a_configuration_with_capabilities_is_refused),
		cmocka_unit_test(a_configuration_with_a_uuid_is_kept_whole),
		cmocka_unit_test(what_is_no_stream_is_told),
		cmocka_unit_test(block_lists_that_do_not_add_up_are_refused),
		cmocka_unit_test(a_block_twice_is_refused),
		cmocka_unit_test(a_stream_without_devices_is_refused),
		cmocka_unit_test(a_stream_without_footers_is_refused_at_once),
		cmocka_unit_test(a_footer_that_is_missing_among_others_is_damage),
		cmocka_unit_test(an_error_of_the_receiver_ends_it_for_good),
		cmocka_unit_test(device_state_beyond_the_limit_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
