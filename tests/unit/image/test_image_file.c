/* SPDX-License-Identifier: MIT */
/* Invariant 5: an image is complete or absent. */
#include "base/io.h"
#include "image/temp_file.h"
#include "image_fixture.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define PAGES 4096u

static void put_all(struct rouse_writer *writer)
{
	for (uint64_t page = 0; page < PAGES; page++)
		put_seed(writer, page, page + 1);
}

static void write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(rouse_io_write(fd, text, strlen(text)), 0);
	(void)close(fd);
}

static void assert_text(const char *path, const char *text)
{
	char *found;
	size_t size;

	assert_int_equal(rouse_io_read_file(path, 1u << 20, &found, &size), 0);
	assert_string_equal(found, text);
	free(found);
}

static void an_aborted_image_leaves_nothing(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_writer *writer = begin_image(fixture->path, PAGES, NULL, NULL, 0);

	put_all(writer);
	rouse_writer_abort(writer);
	assert_int_equal(fixture_count_files(fixture), 0);
}

static void an_aborted_image_leaves_the_file_that_was_there(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_writer *writer;

	write_text(fixture->path, "ROUSEIMG, precious");
	writer = begin_image(fixture->path, PAGES, NULL, NULL, 0);
	put_all(writer);
	rouse_writer_abort(writer);
	assert_text(fixture->path, "ROUSEIMG, precious");
	assert_int_equal(fixture_count_files(fixture), 1);
}

static void a_commit_replaces_the_file_that_was_there(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_writer *writer;
	struct open_image image;

	write_text(fixture->path, "ROUSEIMG, old");
	writer = begin_image(fixture->path, PAGES, NULL, NULL, 0);
	put_all(writer);
	assert_text(fixture->path, "ROUSEIMG, old");
	(void)end_image(writer);
	image = open_image(fixture->path);
	assert_page_is(&image, 77, 78);
	close_image(&image);
	assert_int_equal(fixture_count_files(fixture), 1);
}

static void an_image_is_private(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_writer *writer = begin_image(fixture->path, PAGES, NULL, NULL, 0);
	struct stat status;

	(void)end_image(writer);
	assert_int_equal(stat(fixture->path, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0600);
}

static void a_target_that_is_no_file_is_refused(void **state)
{
	struct rouse_writer *writer = NULL;
	struct rouse_error error = {0};

	(void)state;
	assert_int_equal(rouse_writer_create("/dev/null", NULL, &writer, &error), -EINVAL);
	assert_int_equal(error.kind, ROUSE_ERROR_USAGE);
	assert_int_equal(rouse_writer_create("/tmp/", NULL, &writer, &error), -EINVAL);
	assert_int_equal(
		rouse_writer_create("/nonexistent/vm.rouse", NULL, &writer, &error), -ENOENT);
	assert_non_null(strstr(error.message, "/nonexistent/vm.rouse"));
}

static void a_killed_writer_leaves_nothing(void **state)
{
	const struct fixture *fixture = *state;
	int status, unnamed = open(fixture->directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	pid_t child;

	/* Elsewhere a file with a temporary name is left. */
	if (unnamed < 0)
		skip();
	(void)close(unnamed);
	write_text(fixture->path, "ROUSEIMG, precious");
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		put_all(begin_image(fixture->path, PAGES, NULL, NULL, 0));
		(void)raise(SIGKILL);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_text(fixture->path, "ROUSEIMG, precious");
	assert_int_equal(fixture_count_files(fixture), 1);
}

/* ---- A file system that is full ---- */

static void mount_small(const struct fixture *fixture)
{
	if (geteuid() != 0 ||
		mount("tmpfs", fixture->directory, "tmpfs", 0, "size=4m,mode=0700") != 0)
		skip();
}

static void a_full_disk_is_enospc_and_leaves_nothing(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_writer *writer;
	struct rouse_error error = {0};
	int code = 0;

	mount_small(fixture);
	writer = begin_image(fixture->path, PAGES * 4, NULL, NULL, 0);
	for (uint64_t page = 0; page < PAGES * 4 && code == 0; page++) {
		unsigned char data[PAGE];

		fill_page(data, page + 1);
		code = rouse_writer_put_page(writer, page, data);
	}
	assert_int_equal(code, -ENOSPC);
	assert_int_equal(rouse_writer_commit(writer, NULL, &error), -ENOSPC);
	assert_non_null(strstr(error.message, "vm.rouse"));
	assert_int_equal(fixture_count_files(fixture), 0);
	assert_int_equal(umount(fixture->directory), 0);
}

static void a_disk_that_is_full_at_the_end_is_enospc(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_writer *writer;
	unsigned char *devices = calloc(1, 8u << 20);

	assert_non_null(devices);
	mount_small(fixture);
	writer = begin_image(fixture->path, PAGES, NULL, NULL, 0);
	put_seed(writer, 1, 1);
	assert_int_equal(
		rouse_writer_set_section(writer, ROUSE_SECTION_DEVICES, devices, 8u << 20), 0);
	assert_int_equal(rouse_writer_commit(writer, NULL, NULL), -ENOSPC);
	assert_int_equal(fixture_count_files(fixture), 0);
	assert_int_equal(umount(fixture->directory), 0);
	free(devices);
}

int main(void)
{
#define image_test(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		image_test(an_aborted_image_leaves_nothing),
		image_test(an_aborted_image_leaves_the_file_that_was_there),
		image_test(a_commit_replaces_the_file_that_was_there),
		image_test(an_image_is_private),
		image_test(a_target_that_is_no_file_is_refused),
		image_test(a_killed_writer_leaves_nothing),
		image_test(a_full_disk_is_enospc_and_leaves_nothing),
		image_test(a_disk_that_is_full_at_the_end_is_enospc),
	};

	return cmocka_run_group_tests_name("image_file", tests, NULL, NULL);
}
