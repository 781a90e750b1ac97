/* SPDX-License-Identifier: MIT */
/*
 * A commit whose last step fails: the directory cannot be written. The library's system calls end
 * in the functions of those names here.
 */
#include "base/io.h"
#include "image/temp_file.h"
#include "image_fixture.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* What fails. */
static struct {
	bool directory;  /* its fsync, with EIO */
	bool hard_links; /* there are none here, EPERM */
	bool unnamed;    /* neither are files without a name */
	bool undo;       /* nothing can be changed after the EIO */
	bool has_failed; /* there was one */
} broken;

static int failure(int error)
{
	errno = error;
	return -1;
}

int fsync(int fd)
{
	struct stat status;

	if (broken.directory && fstat(fd, &status) == 0 && S_ISDIR(status.st_mode)) {
		broken.has_failed = true;
		return failure(EIO);
	}
	return (int)syscall(SYS_fsync, fd);
}

int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
	if (broken.hard_links && (flags & AT_SYMLINK_FOLLOW) == 0)
		return failure(EPERM);
	return (int)syscall(SYS_linkat, from_fd, from, to_fd, to, flags);
}

int access(const char *path, int mode)
{
	if (broken.unnamed)
		return failure(ENOENT);
	return (int)syscall(SYS_faccessat, AT_FDCWD, path, mode);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
	if (broken.undo && broken.has_failed)
		return failure(EROFS);
	return (int)syscall(SYS_renameat2, from_fd, from, to_fd, to, 0);
}

int unlinkat(int fd, const char *path, int flags)
{
	if (broken.undo && broken.has_failed)
		return failure(EROFS);
	return (int)syscall(SYS_unlinkat, fd, path, flags);
}

static int teardown(void **state)
{
	memset(&broken, 0, sizeof(broken));
	return fixture_teardown(state);
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

	assert_int_equal(rouse_io_read_file(path, 4096, &found, &size), 0);
	assert_string_equal(found, text);
	free(found);
}

/* Writes "new" into the fixture's file, as an image is written. */
static int commit(const struct fixture *fixture, struct rouse_error *error)
{
	struct rouse_temp_file file;
	int code;

	assert_int_equal(rouse_temp_file_open(fixture->path, &file, error), 0);
	assert_int_equal(rouse_io_write(file.fd, "new", 3), 0);
	code = rouse_temp_file_commit(&file, error);
	rouse_temp_file_discard(&file);
	return code;
}

static void a_new_file_goes_again_if_its_directory_cannot_be_written(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_error error = {0};

	broken.directory = true;
	for (int unnamed = 0; unnamed < 2; unnamed++) {
		broken.unnamed = unnamed == 1;
		assert_int_equal(commit(fixture, &error), -EIO);
		assert_int_equal(error.kind, ROUSE_ERROR_SYSTEM);
		assert_null(strstr(error.message, "all the same"));
		assert_int_equal(fixture_count_files(fixture), 0);
	}
}

static void an_old_file_comes_back_if_its_directory_cannot_be_written(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_error error = {0};

	write_text(fixture->path, "old");
	broken.directory = true;
	for (int unnamed = 0; unnamed < 2; unnamed++) {
		broken.unnamed = unnamed == 1;
		assert_int_equal(commit(fixture, &error), -EIO);
		assert_null(strstr(error.message, "all the same"));
		assert_text(fixture->path, "old");
		assert_int_equal(fixture_count_files(fixture), 1);
	}
}

static void a_link_that_was_replaced_comes_back(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_error error = {0};
	char target[128];
	struct stat status;

	(void)snprintf(target, sizeof(target), "%s/target", fixture->directory);
	write_text(target, "old");
	assert_int_equal(symlink("target", fixture->path), 0);
	broken.directory = true;
	assert_int_equal(commit(fixture, &error), -EIO);
	assert_int_equal(lstat(fixture->path, &status), 0);
	assert_true(S_ISLNK(status.st_mode));
	assert_text(fixture->path, "old");
	assert_int_equal(fixture_count_files(fixture), 2);
}

static void a_file_that_was_replaced_leaves_no_second_name(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_error error;

	for (int unnamed = 0; unnamed < 2; unnamed++) {
		write_text(fixture->path, "old");
		broken.unnamed = unnamed == 1;
		assert_int_equal(commit(fixture, &error), 0);
		assert_text(fixture->path, "new");
		assert_int_equal(fixture_count_files(fixture), 1);
	}
}

static void without_hard_links_a_file_is_replaced_all_the_same(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_error error = {0};

	broken.hard_links = true;
	write_text(fixture->path, "old");
	assert_int_equal(commit(fixture, &error), 0);
	assert_text(fixture->path, "new");
	/* And then the error has to say that it was. */
	write_text(fixture->path, "old");
	broken.directory = true;
	assert_int_equal(commit(fixture, &error), -EIO);
	assert_non_null(strstr(error.message, "all the same"));
	assert_text(fixture->path, "new");
	assert_int_equal(fixture_count_files(fixture), 1);
}

static void what_cannot_be_taken_back_is_said(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_error error = {0};

	broken.directory = broken.undo = true;
	assert_int_equal(commit(fixture, &error), -EIO);
	assert_non_null(strstr(error.message, "all the same"));
	assert_text(fixture->path, "new");
}

static void the_old_file_that_cannot_be_put_back_is_named(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_error error = {0};
	const char *name;
	char old[256];

	write_text(fixture->path, "old");
	broken.directory = broken.undo = true;
	assert_int_equal(commit(fixture, &error), -EIO);
	name = strstr(error.message, ".vm.rouse.");
	assert_non_null(name);
	(void)snprintf(old, sizeof(old), "%s/%s", fixture->directory, name);
	assert_text(old, "old");
	assert_text(fixture->path, "new");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_new_file_goes_again_if_its_directory_cannot_be_written),
		TEST(an_old_file_comes_back_if_its_directory_cannot_be_written),
		TEST(a_link_that_was_replaced_comes_back),
		TEST(a_file_that_was_replaced_leaves_no_second_name),
		TEST(without_hard_links_a_file_is_replaced_all_the_same),
		TEST(what_cannot_be_taken_back_is_said),
		TEST(the_old_file_that_cannot_be_put_back_is_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
