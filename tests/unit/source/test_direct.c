/* SPDX-License-Identifier: MIT */
/*
 * The source past the page cache: the bytes of the file, whatever the kernel refuses. On a file
 * system that refuses direct I/O the tests that need it are skipped.
 */
#include "../unit.h"

#include "source/direct_source.h"
#include "source/page_cache.h"
#include "source_file.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <stdatomic.h>

/* Some streams long, with an end that is no multiple of anything. */
#define FILE_BYTES ((ROUSE_READ_AHEAD_BYTES * 2) + 777)

static int make_file(void **state)
{
	*state = source_file_new("/var/tmp", FILE_BYTES);
	return 0;
}

static int remove_file(void **state)
{
	source_file_remove(*state);
	return 0;
}

static struct rouse_source *open_direct(
	const struct source_file *file, const struct rouse_direct_kernel *kernel)
{
	struct rouse_source *source = NULL;
	int code = rouse_direct_source_open(file->path, kernel, &source, NULL);

	if (code == -EOPNOTSUPP) {
		print_message("/var/tmp refuses direct I/O\n");
		skip();
	}
	assert_int_equal(code, 0);
	return source;
}

/* ---- Kernels that refuse --------------------------------------------------------------------- */

static int forbidden(unsigned int entries, struct io_uring *ring, unsigned int flags)
{
	(void)entries;
	(void)ring;
	(void)flags;
	return -EPERM;
}

static int refuse_direct(const char *path, int flags)
{
	if ((flags & O_DIRECT) == 0)
		return open(path, flags);
	errno = EINVAL;
	return -1;
}

/* A queue that is broken from its first request on. */
static int half_a_queue(unsigned int entries, struct io_uring *ring, unsigned int flags)
{
	return io_uring_queue_init(entries, ring, flags | IORING_SETUP_R_DISABLED);
}

/* A kernel that is short of memory, now and then. */
static unsigned int submits;

static int refuse_now_and_then(struct io_uring *ring, unsigned int wait_for)
{
	static const int codes[] = {-EAGAIN, -EBUSY, -EINTR, 0};
	const int code = codes[submits++ % 4];

	return code < 0 ? code : io_uring_submit_and_wait(ring, wait_for);
}

/* ---- The same bytes -------------------------------------------------------------------------- */

static void check_read(struct rouse_source *source, const struct source_file *file,
	unsigned char *buffer, uint64_t offset, size_t size, enum rouse_read_priority priority)
{
	assert_int_equal(rouse_source_read(source, offset, buffer, size, priority), 0);
	assert_memory_equal(buffer, file->content + offset, size);
}

static void check_all(struct rouse_source *source, const struct source_file *file)
{
	static const size_t sizes[] = {1, 4095, 4096, 70000, 262144, 300001, 1500000};
	unsigned char *buffer = malloc(file->bytes);
	unsigned int x = 1;

	assert_non_null(buffer);
	assert_int_equal(rouse_source_size(source), file->bytes);
	for (unsigned int i = 0; i < 300; i++) {
		size_t size = sizes[i % (sizeof(sizes) / sizeof(sizes[0]))];
		uint64_t offset;

		x = x * 1664525 + 1013904223;
		offset = x % (file->bytes - size + 1);
		check_read(source, file, buffer, offset, size,
			x >> 16 & 1 ? ROUSE_READ_URGENT : ROUSE_READ_BULK);
	}
	/* In order, in pieces that are no blocks, over gaps and back. */
	for (uint64_t at = 0; at + 150000 <= file->bytes; at += 150000 + at % 3 * 30000)
		check_read(source, file, buffer, at, 150000, ROUSE_READ_BULK);
	check_read(source, file, buffer, 100, 200000, ROUSE_READ_BULK);
	check_read(source, file, buffer, 0, file->bytes, ROUSE_READ_BULK);
	check_read(source, file, buffer, file->bytes - 100, 100, ROUSE_READ_URGENT);
	check_read(source, file, buffer, file->bytes - 100, 100, ROUSE_READ_BULK);
	free(buffer);
}

static void reads_what_is_in_the_file(void **state)
{
	struct rouse_source *source = open_direct(*state, &rouse_direct_kernel);

	check_all(source, *state);
	rouse_source_destroy(source);
}

static void reads_the_same_where_io_uring_is_forbidden(void **state)
{
	struct rouse_direct_kernel refusing = rouse_direct_kernel;
	struct rouse_source_stats stats;
	struct rouse_source *source;

	refusing.queue_init = forbidden;
	source = open_direct(*state, &refusing);
	check_all(source, *state);
	rouse_source_get_stats(source, &stats);
	assert_int_equal(stats.io, ROUSE_IO_DIRECT);
	assert_false(stats.io_uring);
	rouse_source_destroy(source);
}

static void reads_the_same_when_the_queue_fails(void **state)
{
	struct rouse_direct_kernel broken = rouse_direct_kernel;
	struct rouse_source *source;

	broken.queue_init = half_a_queue;
	source = open_direct(*state, &broken);
	check_all(source, *state);
	rouse_source_destroy(source);
}

static void a_queue_that_is_full_for_a_moment_is_used_again(void **state)
{
	struct rouse_direct_kernel busy = rouse_direct_kernel;
	struct rouse_source *source;

	busy.queue_submit = refuse_now_and_then;
	submits = 0;
	source = open_direct(*state, &busy);
	check_all(source, *state);
	rouse_source_destroy(source);
	/* A queue that is given up is not asked again. */
	assert_true(submits > 40);
}

static void a_file_system_that_refuses_is_eopnotsupp(void **state)
{
	const struct source_file *file = *state;
	struct rouse_direct_kernel refusing = rouse_direct_kernel;
	struct rouse_source *source = NULL;

	refusing.open = refuse_direct;
	assert_int_equal(
		rouse_direct_source_open(file->path, &refusing, &source, NULL), -EOPNOTSUPP);
	assert_null(source);
}

static int last_opened = -1;

static int open_and_tell(const char *path, int flags)
{
	last_opened = open(path, flags);
	return last_opened;
}

static void reads_are_allowed_to_wait(void **state)
{
	struct rouse_direct_kernel telling = rouse_direct_kernel;
	struct rouse_source *source;

	telling.open = open_and_tell;
	source = open_direct(*state, &telling);
	assert_int_equal(fcntl(last_opened, F_GETFL) & (O_DIRECT | O_NONBLOCK), O_DIRECT);
	rouse_source_destroy(source);
}

static void short_files_are_read(void **state)
{
	static const size_t sizes[] = {1, 4096, 5000, ROUSE_SOURCE_BULK};

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct source_file *file = source_file_new("/var/tmp", sizes[i]);
		struct rouse_source *source = open_direct(file, &rouse_direct_kernel);
		unsigned char *buffer = malloc(sizes[i]);

		assert_non_null(buffer);
		check_read(source, file, buffer, 0, sizes[i], ROUSE_READ_BULK);
		check_read(source, file, buffer, 0, sizes[i], ROUSE_READ_URGENT);
		assert_int_equal(
			rouse_source_read(source, sizes[i], buffer, 1, ROUSE_READ_BULK), -ENODATA);
		assert_int_equal(
			rouse_source_read(source, sizes[i], buffer, 0, ROUSE_READ_BULK), 0);
		free(buffer);
		rouse_source_destroy(source);
		source_file_remove(file);
	}
}

/* ---- Errors ---------------------------------------------------------------------------------- */

static void a_file_that_became_shorter_is_enodata(void **state)
{
	struct source_file *file = source_file_new("/var/tmp", 3u << 20);
	struct rouse_source *source = open_direct(file, &rouse_direct_kernel);
	unsigned char *buffer = malloc(file->bytes);

	(void)state;
	assert_non_null(buffer);
	assert_int_equal(truncate(file->path, (1 << 20) + 100), 0);
	assert_int_equal(
		rouse_source_read(source, 2u << 20, buffer, 4096, ROUSE_READ_URGENT), -ENODATA);
	assert_int_equal(
		rouse_source_read(source, 0, buffer, file->bytes, ROUSE_READ_BULK), -ENODATA);
	/* What is there still comes, and nothing that was read ahead is taken for the rest. */
	check_read(source, file, buffer, 0, (1u << 20) + 100, ROUSE_READ_BULK);
	assert_int_equal(
		rouse_source_read(source, (1u << 20) + 100, buffer, 1, ROUSE_READ_BULK), -ENODATA);
	free(buffer);
	rouse_source_destroy(source);
	source_file_remove(file);
}

static void what_is_no_file_is_refused(void **state)
{
	struct rouse_source *source = NULL;
	struct rouse_error error;

	(void)state;
	assert_int_equal(
		rouse_source_open("/nonexistent/x", ROUSE_IO_DIRECT, NULL, &source, &error),
		-ENOENT);
	assert_int_equal(
		rouse_source_open("/tmp", ROUSE_IO_DIRECT, NULL, &source, &error), -EINVAL);
	assert_int_equal(error.kind, ROUSE_ERROR_USAGE);
	assert_int_equal(rouse_source_open("/tmp", ROUSE_IO_AUTO, NULL, &source, &error), -EINVAL);
}

/* ---- Reading ahead, and several at once ------------------------------------------------------ */

static void a_stream_is_read_once(void **state)
{
	const struct source_file *file = *state;
	struct rouse_source *source = open_direct(file, &rouse_direct_kernel);
	unsigned char *buffer = malloc(100000);
	struct rouse_source_stats stats;

	assert_non_null(buffer);
	for (uint64_t at = 0; at + 100000 <= file->bytes; at += 100000)
		check_read(source, file, buffer, at, 100000, ROUSE_READ_BULK);
	rouse_source_get_stats(source, &stats);
	/* The first read and a block of another time, until the stream is seen. */
	assert_in_range(stats.bytes, file->bytes - 100000, file->bytes + 2 * ROUSE_SOURCE_BULK);
	free(buffer);
	rouse_source_destroy(source);
}

static void scattered_reads_read_nothing_ahead(void **state)
{
	const struct source_file *file = *state;
	struct rouse_source *source = open_direct(file, &rouse_direct_kernel);
	struct rouse_source_stats before, stats;
	unsigned char buffer[8192];

	rouse_source_get_stats(source, &before);
	for (unsigned int i = 40; i > 0; i--)
		check_read(source, file, buffer, i * UINT64_C(200000), 8192, ROUSE_READ_BULK);
	rouse_source_get_stats(source, &stats);
	assert_in_range(stats.bytes - before.bytes, 40 * 8192, 40 * 3 * 4096);
	rouse_source_destroy(source);
}

struct reader {
	pthread_t thread;
	struct rouse_source *source;
	const struct source_file *file;
	enum rouse_read_priority priority;
	unsigned int seed;
	_Atomic bool wrong;
};

static void *read_here_and_there(void *argument)
{
	struct reader *reader = argument;
	unsigned char *buffer = malloc(1u << 20);
	unsigned int x = reader->seed;

	for (unsigned int i = 0; buffer != NULL && i < 100; i++) {
		size_t size;
		uint64_t offset;

		x = x * 1664525 + 1013904223;
		size = x % (1u << 20) + 1;
		x = x * 1664525 + 1013904223;
		offset = x % (reader->file->bytes - size);
		if (rouse_source_read(reader->source, offset, buffer, size, reader->priority) < 0 ||
			memcmp(buffer, reader->file->content + offset, size) != 0)
			reader->wrong = true;
	}
	free(buffer);
	return NULL;
}

static void any_number_of_threads_may_read(void **state)
{
	struct rouse_source *source = open_direct(*state, &rouse_direct_kernel);
	struct reader readers[8];

	for (unsigned int i = 0; i < 8; i++) {
		readers[i] = (struct reader){.source = source,
			.file = *state,
			.priority = i < 6 ? ROUSE_READ_URGENT : ROUSE_READ_BULK,
			.seed = i};
		assert_int_equal(
			pthread_create(&readers[i].thread, NULL, read_here_and_there, &readers[i]),
			0);
	}
	for (unsigned int i = 0; i < 8; i++) {
		(void)pthread_join(readers[i].thread, NULL);
		assert_false(readers[i].wrong);
	}
	rouse_source_destroy(source);
}

/* ---- Which way ------------------------------------------------------------------------------- */

static enum rouse_io io_of(const struct source_file *file, enum rouse_io wanted)
{
	struct rouse_throttle throttle = {.latency_us = 1};
	struct rouse_source *source = NULL;
	struct rouse_source_stats stats;
	unsigned char buffer[100];

	assert_int_equal(rouse_source_open(file->path, wanted, &throttle, &source, NULL), 0);
	check_read(source, file, buffer, 1000, 100, ROUSE_READ_URGENT);
	rouse_source_get_stats(source, &stats);
	rouse_source_destroy(source);
	return stats.io;
}

static void the_way_that_is_asked_for_is_taken(void **state)
{
	rouse_source_destroy(open_direct(*state, &rouse_direct_kernel)); /* or skipped */
	assert_int_equal(io_of(*state, ROUSE_IO_CACHED), ROUSE_IO_CACHED);
	assert_int_equal(io_of(*state, ROUSE_IO_DIRECT), ROUSE_IO_DIRECT);
}

static void auto_reads_what_is_cached_from_the_cache(void **state)
{
	const struct source_file *file = *state;
	int fd = open(file->path, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(rouse_io_pread(fd, file->content, file->bytes, 0), 0);
	(void)close(fd);
	assert_in_range(rouse_page_cache_percent(file->path), 90, 100);
	assert_int_equal(io_of(file, ROUSE_IO_AUTO), ROUSE_IO_CACHED);
}

/* As if it had just been copied here by somebody else: nothing of it is in memory. */
static void forget(const struct source_file *file)
{
	int fd = open(file->path, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	(void)close(fd);
	if (rouse_page_cache_percent(file->path) >= 50) {
		print_message("the page cache cannot be emptied here\n");
		skip();
	}
}

static void auto_reads_a_cold_file_past_the_cache(void **state)
{
	rouse_source_destroy(open_direct(*state, &rouse_direct_kernel)); /* or skipped */
	forget(*state);
	assert_int_equal(io_of(*state, ROUSE_IO_AUTO), ROUSE_IO_DIRECT);
}

static void auto_shares_what_somebody_else_reads(void **state)
{
	struct rouse_source *other = open_direct(*state, &rouse_direct_kernel);

	forget(*state);
	assert_int_equal(io_of(*state, ROUSE_IO_AUTO), ROUSE_IO_CACHED);
	assert_int_equal(io_of(*state, ROUSE_IO_DIRECT), ROUSE_IO_DIRECT);
	rouse_source_destroy(other);
	forget(*state);
	assert_int_equal(io_of(*state, ROUSE_IO_AUTO), ROUSE_IO_DIRECT);
}

/* The first of several restores of one image has begun alone. */
static void auto_goes_over_to_the_cache_when_another_begins(void **state)
{
	const struct source_file *file = *state;
	struct rouse_source *first = NULL, *second = NULL;
	const size_t part = file->bytes / 8;
	struct rouse_source_stats stats;
	unsigned char *buffer = malloc(part);

	rouse_source_destroy(open_direct(file, &rouse_direct_kernel)); /* or skipped */
	forget(file);
	assert_non_null(buffer);
	assert_int_equal(rouse_source_open(file->path, ROUSE_IO_AUTO, NULL, &first, NULL), 0);
	check_read(first, file, buffer, 0, part, ROUSE_READ_BULK);
	rouse_source_get_stats(first, &stats);
	assert_int_equal(stats.io, ROUSE_IO_DIRECT);
	assert_int_equal(rouse_source_open(file->path, ROUSE_IO_AUTO, NULL, &second, NULL), 0);
	/* It looks by the clock, not with each read. */
	for (size_t i = 0; i < 100000 && stats.io == ROUSE_IO_DIRECT; i++) {
		check_read(first, file, buffer, part, part, ROUSE_READ_BULK);
		rouse_source_get_stats(first, &stats);
	}
	assert_int_equal(stats.io, ROUSE_IO_CACHED);
	assert_true(stats.bytes >= 2 * part);
	check_read(first, file, buffer, 2 * part, part, ROUSE_READ_URGENT);
	rouse_source_destroy(second);
	rouse_source_destroy(first);
	free(buffer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_what_is_in_the_file),
		cmocka_unit_test(reads_the_same_where_io_uring_is_forbidden),
		cmocka_unit_test(reads_the_same_when_the_queue_fails),
		cmocka_unit_test(a_queue_that_is_full_for_a_moment_is_used_again),
		cmocka_unit_test(a_file_system_that_refuses_is_eopnotsupp),
		cmocka_unit_test(reads_are_allowed_to_wait),
		cmocka_unit_test(short_files_are_read),
		cmocka_unit_test(a_file_that_became_shorter_is_enodata),
		cmocka_unit_test(what_is_no_file_is_refused),
		cmocka_unit_test(a_stream_is_read_once),
		cmocka_unit_test(scattered_reads_read_nothing_ahead),
		cmocka_unit_test(any_number_of_threads_may_read),
		cmocka_unit_test(the_way_that_is_asked_for_is_taken),
		cmocka_unit_test(auto_reads_what_is_cached_from_the_cache),
		cmocka_unit_test(auto_reads_a_cold_file_past_the_cache),
		cmocka_unit_test(auto_shares_what_somebody_else_reads),
		cmocka_unit_test(auto_goes_over_to_the_cache_when_another_begins),
	};

	return cmocka_run_group_tests_name("direct", tests, make_file, remove_file);
}
