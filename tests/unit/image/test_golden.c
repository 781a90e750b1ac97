/* SPDX-License-Identifier: MIT */
/*
 * The golden images: good ones of this version of the format must read as they always did, each bad
 * one must be told for what it is. Run in the source directory.
 */
#include "../../golden/golden.h"

#include "base/io.h"

#include <dirent.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define GOOD "tests/golden/good"
#define BAD "tests/golden/bad"

typedef void each_fn(const char *directory, const char *name);

/* Calls @each with the name, without .rouse, of every image in a directory. */
static unsigned int each_image(const char *path, each_fn *each)
{
	DIR *directory = opendir(path);
	const struct dirent *entry;
	unsigned int count = 0;

	assert_non_null(directory);
	while ((entry = readdir(directory)) != NULL) {
		const char *suffix = strstr(entry->d_name, ".rouse");
		char name[NAME_MAX + 1];

		if (suffix == NULL)
			continue;
		(void)snprintf(
			name, sizeof(name), "%.*s", (int)(suffix - entry->d_name), entry->d_name);
		each(path, name);
		count++;
	}
	(void)closedir(directory);
	return count;
}

static char *read_text(const char *directory, const char *name, const char *suffix)
{
	char path[PATH_MAX], *text;
	size_t size;

	(void)snprintf(path, sizeof(path), "%s/%s.%s", directory, name, suffix);
	assert_int_equal(rouse_io_read_file(path, 4096, &text, &size), 0);
	text[strcspn(text, "\n")] = '\0';
	return text;
}

static void check_hash(const char *directory, const char *name)
{
	char path[PATH_MAX], found[32], *expected = read_text(directory, name, "hash");

	(void)snprintf(path, sizeof(path), "%s/%s.rouse", directory, name);
	(void)snprintf(found, sizeof(found), "%016llx", (unsigned long long)golden_hash(path));
	if (strcmp(found, expected) != 0)
		fail_msg("%s: content %s, expected %s", path, found, expected);
	free(expected);
}

static void good_images_have_the_content_they_always_had(void **state)
{
	(void)state;
	assert_true(each_image(GOOD, check_hash) >= 6);
}

static void good_images_have_the_pages_that_were_put_in(void **state)
{
	struct rouse_source *source = NULL;
	struct rouse_reader *reader = NULL;
	unsigned char expected[GOLDEN_PAGE], found[GOLDEN_PAGE];

	(void)state;
	assert_int_equal(rouse_file_source_open(GOOD "/zstd_wset.rouse", NULL, &source, NULL), 0);
	assert_int_equal(rouse_reader_open(source, &reader, NULL), 0);
	assert_int_equal(rouse_reader_page_count(reader), GOLDEN_PAGES);
	assert_int_equal(rouse_reader_wset(reader)->page_count, 6);
	for (uint64_t i = 0; i < GOLDEN_PAGES; i++) {
		golden_fill(expected, i);
		assert_int_equal(golden_read_page(source, reader, i, found), 0);
		assert_memory_equal(found, expected, GOLDEN_PAGE);
	}
	rouse_reader_close(reader);
	rouse_source_destroy(source);
}

static void no_damage(void *user, const char *what, uint64_t offset, uint64_t length)
{
	(void)user;
	(void)offset;
	(void)length;
	fail_msg("%s", what);
}

static void check_whole(const char *directory, const char *name)
{
	struct rouse_image *image = NULL;
	char path[PATH_MAX];

	(void)snprintf(path, sizeof(path), "%s/%s.rouse", directory, name);
	assert_int_equal(rouse_image_open(path, &image, NULL), 0);
	assert_int_equal(rouse_image_verify(image, no_damage, NULL, NULL, NULL), 0);
	rouse_image_close(image);
}

static void good_images_verify(void **state)
{
	(void)state;
	(void)each_image(GOOD, check_whole);
}

struct expectation {
	const char *words;
	bool met;
	char last[512];
};

static void look_at_damage(void *user, const char *what, uint64_t offset, uint64_t length)
{
	struct expectation *expectation = user;

	(void)offset;
	(void)length;
	expectation->met = expectation->met || strstr(what, expectation->words) != NULL;
	(void)snprintf(expectation->last, sizeof(expectation->last), "%s", what);
}

static void check_bad(const char *directory, const char *name)
{
	char *words = read_text(directory, name, "error");
	struct expectation expectation = {.words = words};
	struct rouse_image *image = NULL;
	struct rouse_error error = {0};
	char path[PATH_MAX];

	(void)snprintf(path, sizeof(path), "%s/%s.rouse", directory, name);
	if (rouse_image_open(path, &image, &error) < 0)
		look_at_damage(&expectation, error.message, 0, 0);
	else if (rouse_image_verify(image, look_at_damage, &expectation, NULL, &error) == 0)
		fail_msg("%s is bad and verifies", path);
	if (!expectation.met)
		fail_msg("%s: the message should say \"%s\": %s", path, words, expectation.last);
	assert_true(error.code == -EUCLEAN || error.code == -EPROTONOSUPPORT);
	rouse_image_close(image);
	free(words);
}

static void bad_images_are_told_for_what_they_are(void **state)
{
	(void)state;
	assert_true(each_image(BAD, check_bad) >= 40);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_images_have_the_content_they_always_had),
		cmocka_unit_test(good_images_have_the_pages_that_were_put_in),
		cmocka_unit_test(good_images_verify),
		cmocka_unit_test(bad_images_are_told_for_what_they_are),
	};

	return cmocka_run_group_tests_name("golden", tests, NULL, NULL);
}
