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

/* What only has to begin like an image to be one that may be replaced. */
#define OLD "ROUSEIMG, an old one"

/* What fails. */
static struct {
	bool directory;  /* its fsync, with EIO */
	bool hard_links; /* there are none here, EPERM */
	bool unnamed;    /* neither are files without a name */
	bool undo;       /* nothing can be changed after the EIO */
	bool late;       /* a renaming is done, and its answer is lost */
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
	if (syscall(SYS_renameat2, from_fd, from, to_fd, to, 0) < 0)
		return -1;
	return broken.late ? failure(EIO) : 0;
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

	write_text(fixture->path, OLD);
	broken.directory = true;
	for (int unnamed = 0; unnamed < 2; unnamed++) {
		broken.unnamed = unnamed == 1;
		assert_int_equal(commit(fixture, &error), -EIO);
		assert_null(strstr(error.message, "all the same"));
		assert_text(fixture->path, OLD);
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
	write_text(target, OLD);
	assert_int_equal(symlink("target", fixture->path), 0);
	broken.directory = true;
	assert_int_equal(commit(fixture, &error), -EIO);
	assert_int_equal(lstat(fixture->path, &status), 0);
	assert_true(S_ISLNK(status.st_mode));
	assert_text(fixture->path, OLD);
	assert_int_equal(fixture_count_files(fixture), 2);
}

static void a_file_that_was_replaced_leaves_no_second_name(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_error error;

	for (int unnamed = 0; unnamed < 2; unnamed++) {
		write_text(fixture->path, OLD);
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
	write_text(fixture->path, OLD);
	assert_int_equal(commit(fixture, &error), 0);
	assert_text(fixture->path, "new");
	/* And then the error has to say that it was. */
	write_text(fixture->path, OLD);
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

	write_text(fixture->path, OLD);
	broken.directory = broken.undo = true;
	assert_int_equal(commit(fixture, &error), -EIO);
	name = strstr(error.message, ".vm.rouse.");
	assert_non_null(name);
	(void)snprintf(old, sizeof(old), "%s/%s", fixture->directory, name);
	assert_text(old, OLD);
	assert_text(fixture->path, "new");
}

/* As on NFS: the server has renamed, and did not know it any more when it was asked again. */
static void a_renaming_that_is_said_to_have_failed_leaves_no_new_file(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_error error = {0};

	broken.unnamed = broken.late = true;
	assert_int_equal(commit(fixture, &error), -EIO);
	assert_int_equal(fixture_count_files(fixture), 0);
	/* The one that had the name has it again. */
	write_text(fixture->path, OLD);
	assert_int_equal(commit(fixture, &error), -EIO);
	assert_text(fixture->path, OLD);
	assert_int_equal(fixture_count_files(fixture), 1);
}

static void a_file_of_another_kind_is_not_replaced(void **state)
{
	static const char *const texts[] = {"#!/bin/sh", "QFI\xfb, a disk", "R", "ROUSEIM"};
	const struct fixture *fixture = *state;

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct rouse_temp_file file;
		struct rouse_error error;

		write_text(fixture->path, texts[i]);
		assert_int_equal(rouse_temp_file_open(fixture->path, &file, &error), -EEXIST);
		assert_int_equal(error.kind, ROUSE_ERROR_USAGE);
		assert_text(fixture->path, texts[i]);
	}
	write_text(fixture->path, "");
	assert_int_equal(commit(fixture, NULL), 0);
}

/* Lays a file out anew in its place, while @meanwhile gets its name; NULL: it loses that. */
static int commit_in_place(const struct fixture *fixture, const char *meanwhile)
{
	struct rouse_temp_file file;
	struct stat status;
	int code;

	(void)unlink(fixture->path);
	write_text(fixture->path, OLD);
	assert_int_equal(stat(fixture->path, &status), 0);
	assert_int_equal(rouse_temp_file_open(fixture->path, &file, NULL), 0);
	rouse_temp_file_replaces(&file, &status);
	assert_int_equal(rouse_io_write(file.fd, "new", 3), 0);
	if (meanwhile == NULL || strcmp(meanwhile, OLD) != 0) {
		/* Kept by another name, so that nobody else gets its number. */
		char kept[128];

		(void)snprintf(kept, sizeof(kept), "%s/kept", fixture->directory);
		assert_int_equal(rename(fixture->path, kept), 0);
		if (meanwhile != NULL)
			write_text(fixture->path, meanwhile);
	}
	code = rouse_temp_file_commit(&file, NULL);
	rouse_temp_file_discard(&file);
	return code;
}

static void a_newer_file_is_not_replaced_by_the_old_one_laid_out_anew(void **state)
{
	const struct fixture *fixture = *state;

	for (int unnamed = 0; unnamed < 2; unnamed++) {
		broken.unnamed = unnamed == 1;
		assert_int_equal(commit_in_place(fixture, OLD), 0);
		assert_text(fixture->path, "new");
		assert_int_equal(fixture_count_files(fixture), 1 + (unnamed ? 1 : 0));
		assert_int_equal(commit_in_place(fixture, "ROUSEIMG, newer"), -EBUSY);
		assert_text(fixture->path, "ROUSEIMG, newer");
		assert_int_equal(fixture_count_files(fixture), 2);
		assert_int_equal(commit_in_place(fixture, NULL), -EBUSY);
		assert_int_equal(fixture_count_files(fixture), 1);
	}
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
		TEST(a_renaming_that_is_said_to_have_failed_leaves_no_new_file),
		TEST(a_file_of_another_kind_is_not_replaced),
		TEST(a_newer_file_is_not_replaced_by_the_old_one_laid_out_anew),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
