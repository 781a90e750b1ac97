/* SPDX-License-Identifier: MIT */
/* A file that several improve at once. */
#include "sets.h"

#include "base/error.h"
#include "wset/wset_merge.h"
#include "wset/wset_store.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

struct place {
	char directory[32], path[64], temporary[80];
};

static int make_place(void **state)
{
	struct place *place = calloc(1, sizeof(*place));

	if (place == NULL)
		return -1;
	memcpy(place->directory, "/tmp/rouse-test-XXXXXX", 23);
	if (mkdtemp(place->directory) == NULL)
		return -1;
	(void)snprintf(place->path, sizeof(place->path), "%s/set", place->directory);
	(void)snprintf(place->temporary, sizeof(place->temporary), "%s.learn.tmp", place->path);
	*state = place;
	return 0;
}

static int remove_place(void **state)
{
	struct place *place = *state;
	int left;

	(void)unlink(place->path);
	left = rmdir(place->directory); /* fails if anything else was left */
	free(place);
	return left;
}

/* Adds one more set to the file; 0 or -errno. */
static int learn(const char *path, uint32_t first)
{
	struct rouse_wset_store store = ROUSE_WSET_STORE_INIT;
	struct rouse_wset_rules rules = {.confirm = 1};
	struct rouse_wset *current = NULL, *merged = NULL, *next = make_set(first, 50, 1);
	int code = rouse_wset_store_lock(&store, path, 20000, NULL);

	assert_int_equal(rouse_wset_rules_complete(&rules, VM_PAGES, NULL), 0);
	next->flags = 0; /* no evidence against the pages of others */
	if (code == 0)
		code = rouse_wset_store_read(&store, &current, NULL);
	if (code == 0)
		code = rouse_wset_combine(current, next, NULL, &rules, &merged);
	if (code == 0)
		code = rouse_wset_store_write(&store, merged, NULL);
	rouse_wset_store_unlock(&store);
	rouse_wset_close(current);
	rouse_wset_close(merged);
	rouse_wset_close(next);
	return code;
}

static void file_that_is_not_there_is_no_error(void **state)
{
	const struct place *place = *state;
	const struct rouse_wset_store store = {.path = place->path, .directory = -1};
	struct rouse_wset *wset = NULL;

	assert_int_equal(rouse_wset_store_read(&store, &wset, NULL), 0);
	assert_null(wset);
}

static void learners_at_once_lose_nothing(void **state)
{
	const struct place *place = *state;
	const int learners = 6, rounds = 10;
	struct rouse_wset *wset = NULL;

	for (int i = 0; i < learners; i++) {
		if (fork() == 0) {
			int code = 0;

			for (int j = 0; code == 0 && j < rounds; j++)
				code = learn(place->path, (uint32_t)i * 100);
			_exit(code == 0 ? 0 : 1);
		}
	}
	for (int i = 0; i < learners; i++) {
		int status;

		assert_true(wait(&status) > 0);
		assert_int_equal(status, 0);
	}
	assert_int_equal(rouse_wset_open(place->path, &wset, NULL), 0);
	assert_int_equal(wset->runs, learners * rounds);
	assert_int_equal(wset->page_count + wset->waiting_count, learners * 50);
	rouse_wset_close(wset);
}

static void lock_that_somebody_keeps_is_named(void **state)
{
	const struct place *place = *state;
	struct rouse_wset_store one = ROUSE_WSET_STORE_INIT, two = ROUSE_WSET_STORE_INIT;
	struct rouse_error error = {0};

	assert_int_equal(rouse_wset_store_lock(&one, place->path, 0, NULL), 0);
	assert_int_equal(rouse_wset_store_lock(&two, place->path, 20, &error), -ETIMEDOUT);
	assert_non_null(strstr(error.message, place->path));
	rouse_wset_store_unlock(&one);
	assert_int_equal(rouse_wset_store_lock(&two, place->path, 0, NULL), 0);
	rouse_wset_store_unlock(&two);
	rouse_wset_store_unlock(&two);
}

/* The kernel kills the writer in the middle of the file: RLIMIT_FSIZE. */
static void killed_while_writing_leaves_the_old_file(void **state)
{
	const struct place *place = *state;
	struct rouse_wset *wset = NULL;
	int status;

	assert_int_equal(learn(place->path, 0), 0);
	if (fork() == 0) {
		const struct rlimit limit = {.rlim_cur = 600, .rlim_max = 600};

		(void)signal(SIGXFSZ, SIG_DFL);
		(void)setrlimit(RLIMIT_FSIZE, &limit);
		_exit(learn(place->path, 100) == 0 ? 0 : 1);
	}
	assert_true(wait(&status) > 0);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ);
	assert_int_equal(access(place->temporary, F_OK), 0);
	assert_int_equal(rouse_wset_open(place->path, &wset, NULL), 0);
	assert_int_equal(wset->page_count, 50);
	rouse_wset_close(wset);
	/* The next one uses up what was left. */
	assert_int_equal(learn(place->path, 100), 0);
	assert_int_equal(access(place->temporary, F_OK), -1);
	assert_int_equal(rouse_wset_open(place->path, &wset, NULL), 0);
	assert_int_equal(wset->page_count, 100);
	rouse_wset_close(wset);
}

static void damaged_file_is_not_replaced(void **state)
{
	const struct place *place = *state;
	int fd = open(place->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	char bytes[8] = {0};

	assert_true(fd >= 0);
	assert_int_equal(write(fd, "precious", 8), 8);
	(void)close(fd);
	assert_int_equal(learn(place->path, 0), -EUCLEAN);
	fd = open(place->path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(read(fd, bytes, 8), 8);
	(void)close(fd);
	assert_memory_equal(bytes, "precious", 8);
}

int main(void)
{
#define IN_PLACE(test) cmocka_unit_test_setup_teardown(test, make_place, remove_place)
	const struct CMUnitTest tests[] = {
		IN_PLACE(file_that_is_not_there_is_no_error),
		IN_PLACE(learners_at_once_lose_nothing),
		IN_PLACE(lock_that_somebody_keeps_is_named),
		IN_PLACE(killed_while_writing_leaves_the_old_file),
		IN_PLACE(damaged_file_is_not_replaced),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
