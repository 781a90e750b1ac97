/* SPDX-License-Identifier: MIT */
/* What an image says about its VM: written, read back, and refused when it makes no sense. */
#include "api/metadata.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "image/format.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int parse(const char *text, struct rouse_metadata *metadata)
{
	return rouse_metadata_parse(text, strlen(text), metadata, NULL);
}

static int parse_code(const char *text)
{
	struct rouse_metadata metadata;
	int code = parse(text, &metadata);

	rouse_metadata_finish(&metadata);
	return code;
}

static void a_full_record_comes_back_the_same(void **state)
{
	char program[] = "qemu", option[] = "-S", cwd[] = "/vm", file[] = "a.raw", over[] = "b";
	char *arguments[] = {program, option, NULL};
	struct rouse_metadata_disk disk = {.file = file, .overlay = over};
	struct rouse_metadata_disk medium = {.file = over};
	struct rouse_metadata in = {.cwd = cwd,
		.command_line = arguments,
		.argument_count = 2,
		.disks = &disk,
		.disk_count = 1,
		.media = &medium,
		.medium_count = 1,
		.vcpus = 3,
		.ram_bytes = UINT64_C(1) << 40,
		.was_running = true};
	struct rouse_metadata out;
	cleanup_free char *text = NULL;
	size_t size;

	(void)state;
	assert_int_equal(rouse_metadata_build(&in, &text, &size), 0);
	assert_int_equal(size, strlen(text));
	assert_int_equal(parse(text, &out), 0);
	assert_string_equal(out.cwd, "/vm");
	assert_int_equal(out.argument_count, 2);
	assert_string_equal(out.command_line[1], "-S");
	assert_null(out.command_line[2]);
	assert_int_equal(out.disk_count, 1);
	assert_string_equal(out.disks[0].file, "a.raw");
	assert_string_equal(out.disks[0].overlay, "b");
	assert_null(out.disks[0].node);
	assert_int_equal(out.medium_count, 1);
	assert_string_equal(out.media[0].file, "b");
	assert_int_equal(out.vcpus, 3);
	assert_int_equal(out.ram_bytes, UINT64_C(1) << 40);
	assert_true(out.was_running);
	assert_false(out.kept_running);
	assert_null(out.machine);
	rouse_metadata_finish(&out);
}

static void a_command_line_that_is_not_utf8_is_left_out(void **state)
{
	char program[] = "qemu\xff";
	char *arguments[] = {program, NULL};
	struct rouse_metadata in = {.command_line = arguments, .argument_count = 1};
	struct rouse_metadata out;
	cleanup_free char *text = NULL;
	size_t size;

	(void)state;
	assert_int_equal(rouse_metadata_build(&in, &text, &size), 0);
	assert_int_equal(parse(text, &out), 0);
	assert_null(out.command_line);
	assert_int_equal(out.argument_count, 0);
	rouse_metadata_finish(&out);
}

static void build_refuses_more_than_a_reader_takes(void **state)
{
	cleanup_free char *long_text = malloc(ROUSE_IMAGE_MAX_METADATA + 1);
	struct rouse_metadata in = {.machine = long_text};
	char *text;
	size_t size;

	(void)state;
	memset(long_text, 'x', ROUSE_IMAGE_MAX_METADATA);
	long_text[ROUSE_IMAGE_MAX_METADATA] = '\0';
	assert_int_equal(rouse_metadata_build(&in, &text, &size), -EFBIG);
}

static void only_the_format_is_needed(void **state)
{
	(void)state;
	assert_int_equal(parse_code("{\"format\": 1}"), 0);
	assert_int_equal(parse_code("{\"format\": 1, \"later\": [1, {}]}"), 0);
	assert_int_equal(parse_code("{}"), -EUCLEAN);
	assert_int_equal(parse_code("{\"format\": 0}"), -EUCLEAN);
}

static void a_newer_format_is_told_from_damage(void **state)
{
	struct rouse_metadata metadata;
	struct rouse_error error;
	const char *text = "{\"format\": 2}";

	(void)state;
	assert_int_equal(
		rouse_metadata_parse(text, strlen(text), &metadata, &error), -EPROTONOSUPPORT);
	assert_int_equal(error.kind, ROUSE_ERROR_UNSUPPORTED);
}

static void members_of_the_wrong_type_are_refused(void **state)
{
	static const char *const members[] = {"\"vcpus\": -1", "\"vcpus\": 65536", "\"vcpus\": 1.5",
		"\"machine\": 7", "\"was_running\": 1", "\"command_line\": \"qemu\"",
		"\"command_line\": []", "\"command_line\": [\"a\", 2]", "\"disks\": {}",
		"\"disks\": [1]", "\"disks\": [{\"file\": 1}]", "\"media\": 1",
		"\"media\": [{\"file\": 1}]", "\"ram_bytes\": -5", "\"cwd\": \"a\\u0000b\""};

	(void)state;
	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
		char text[128];

		(void)snprintf(text, sizeof(text), "{\"format\": 1, %s}", members[i]);
		if (parse_code(text) != -EUCLEAN)
			fail_msg("%s was accepted", text);
	}
}

static void what_is_not_an_object_is_refused(void **state)
{
	(void)state;
	assert_int_equal(parse_code(""), -EUCLEAN);
	assert_int_equal(parse_code("[]"), -EUCLEAN);
	assert_int_equal(parse_code("{\"format\": 1"), -EUCLEAN);
}

/* The disk that a VM with this disk, started by one command with this argument, has besides. */
static const char *unnamed(const char *argument, const char *file)
{
	char program[] = "qemu", option[] = "-drive", cwd[] = "/vm";
	char *value = strdup(argument), *name = strdup(file);
	char *arguments[] = {program, option, value, NULL};
	struct rouse_metadata_disk disk = {.file = name};
	const struct rouse_metadata metadata = {.cwd = cwd,
		.command_line = arguments,
		.argument_count = 3,
		.disks = &disk,
		.disk_count = 1};
	const struct rouse_metadata_disk *found = rouse_metadata_unnamed_disk(&metadata);

	assert_true(found == NULL || found == &disk);
	free(value);
	free(name);
	return found != NULL ? "unnamed" : "named";
}

static void a_disk_that_the_command_line_does_not_name_is_found(void **state)
{
	(void)state;
	assert_string_equal(unnamed("file=/d/a.qcow2,if=virtio", "/d/a.qcow2"), "named");
	assert_string_equal(unnamed("if=virtio,file=/d/a.qcow2", "file:/d/a.qcow2"), "named");
	assert_string_equal(unnamed("{\"filename\": \"/d/a.raw\"}", "/d/a.raw"), "named");
	assert_string_equal(unnamed("file=a.raw", "a.raw"), "named");
	assert_string_equal(unnamed("file=a.raw", "/vm/a.raw"), "named");
	assert_string_equal(unnamed("file=/d/a.qcow2", "/d/a.qcow2.rouse-1.qcow2"), "unnamed");
	assert_string_equal(unnamed("file=/d/a.qcow2.rouse-1.qcow2", "/d/a.qcow2"), "unnamed");
	assert_string_equal(unnamed("file=a.raw", "b.raw"), "unnamed");
	assert_string_equal(unnamed("file=a.raw", "/other/a.raw"), "unnamed");
	assert_string_equal(unnamed("file=/a", "json:{\"file\": {\"filename\": \"/a\"}}"), "named");
	assert_string_equal(
		unnamed("file=/a", "json:{\"file\": {\"filename\": \"/b\"}}"), "unnamed");
}

static void a_medium_that_was_changed_is_found(void **state)
{
	char program[] = "qemu", option[] = "-cdrom", first[] = "/iso/a", second[] = "/iso/b";
	char *arguments[] = {program, option, first, NULL};
	struct rouse_metadata_disk disk = {.file = first}, medium = {.file = first};
	const struct rouse_metadata metadata = {.command_line = arguments,
		.argument_count = 3,
		.disks = &disk,
		.disk_count = 1,
		.media = &medium,
		.medium_count = 1};

	(void)state;
	assert_null(rouse_metadata_unnamed_disk(&metadata));
	medium.file = second;
	assert_ptr_equal(rouse_metadata_unnamed_disk(&metadata), &medium);
}

/* It would be started with an older disk under newer memory. */
static void the_end_of_another_files_name_names_no_disk(void **state)
{
	(void)state;
	assert_string_equal(unnamed("file=/mnt/vm/a.img", "/vm/a.img"), "unnamed");
	assert_string_equal(unnamed("file=old-disk.img,if=virtio", "disk.img"), "unnamed");
	assert_string_equal(unnamed("file=sub/disk.img", "/vm/disk.img"), "unnamed");
	assert_string_equal(unnamed("/mnt/vm/a.img", "/vm/a.img"), "unnamed");
	assert_string_equal(unnamed("{\"filename\": \"/mnt/d/a\"}", "/d/a"), "unnamed");
	/* Named behind such an end all the same. */
	assert_string_equal(unnamed("file=/mnt/d/a,backing=/d/a", "/d/a"), "named");
}

static void a_disk_is_named_wherever_a_value_begins(void **state)
{
	(void)state;
	assert_string_equal(unnamed("/d/a", "/d/a"), "named"); /* -hda /d/a */
	assert_string_equal(unnamed("file=file:/d/a", "/d/a"), "named");
	assert_string_equal(unnamed("driver=raw,file.filename=/d/a", "/d/a"), "named");
	assert_string_equal(unnamed("file=json:{\"filename\":\"/d/a\"}", "/d/a"), "named");
}

static void a_disk_is_named_however_json_spells_it(void **state)
{
	(void)state;
	assert_string_equal(unnamed("{\"filename\": \"/d/\\u00e9\"}", "/d/\xc3\xa9"), "named");
	assert_string_equal(unnamed("{\"filename\": \"\\/d\\/a\"}", "/d/a"), "named");
	assert_string_equal(unnamed("{\"file\": {\"filename\": \"\\/d\\/a\"}}", "/d/a"), "named");
	/* Escapes somewhere say nothing of another file. */
	assert_string_equal(unnamed("{\"filename\": \"\\/d\\/a\"}", "/d/b"), "unnamed");
	assert_string_equal(unnamed("{\"filename\": \"\\u00e9\"}", "/d/a.overlay"), "unnamed");
}

static void a_disk_that_cannot_be_looked_for_counts_as_named(void **state)
{
	(void)state;
	assert_string_equal(unnamed("x", "nbd://host/a"), "named");
	assert_string_equal(unnamed("x", "json:{\"driver\": \"raw\"}"), "named");
	assert_string_equal(unnamed("x", "json:{\"file\": 3"), "named");
	assert_string_equal(unnamed("x", "/dev/fdset/3"), "named");
	assert_string_equal(unnamed("file=/d/a,,b", "/d/a,b"), "named");
	assert_string_equal(unnamed("x", ""), "named");
	assert_string_equal(unnamed("x", "/d/a\"b"), "named");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_full_record_comes_back_the_same),
		cmocka_unit_test(a_command_line_that_is_not_utf8_is_left_out),
		cmocka_unit_test(build_refuses_more_than_a_reader_takes),
		cmocka_unit_test(only_the_format_is_needed),
		cmocka_unit_test(a_newer_format_is_told_from_damage),
		cmocka_unit_test(members_of_the_wrong_type_are_refused),
		cmocka_unit_test(what_is_not_an_object_is_refused),
		cmocka_unit_test(a_medium_that_was_changed_is_found),
		cmocka_unit_test(a_disk_is_named_however_json_spells_it),
		cmocka_unit_test(a_disk_that_the_command_line_does_not_name_is_found),
		cmocka_unit_test(the_end_of_another_files_name_names_no_disk),
		cmocka_unit_test(a_disk_is_named_wherever_a_value_begins),
		cmocka_unit_test(a_disk_that_cannot_be_looked_for_counts_as_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
