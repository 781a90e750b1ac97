/* SPDX-License-Identifier: MIT */
/* The file source and its throttle. Times are only bounded from below: a loaded machine is slow. */
#include "base/clock.h"
#include "base/io.h"
#include "source/source.h"
#include "source/throttle.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define FILE_BYTES (1u << 20)

struct fixture {
	char path[64];
	unsigned char *content;
};

static int make_file(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));
	int fd;

	assert_non_null(fixture);
	(void)strcpy(fixture->path, "/tmp/rouse-test-source-XXXXXX");
	fd = mkstemp(fixture->path);
	assert_true(fd >= 0);
	fixture->content = malloc(FILE_BYTES);
	assert_non_null(fixture->content);
	for (size_t i = 0; i < FILE_BYTES; i++)
		fixture->content[i] = (unsigned char)(i * 31 + i / 251);
	assert_int_equal(rouse_io_pwrite(fd, fixture->content, FILE_BYTES, 0), 0);
	(void)close(fd);
	*state = fixture;
	return 0;
}

static int remove_file(void **state)
{
	struct fixture *fixture = *state;

	(void)unlink(fixture->path);
	free(fixture->content);
	free(fixture);
	return 0;
}

static struct rouse_source *open_source(
	const struct fixture *fixture, uint64_t bytes_per_s, uint64_t random_reads_per_s)
{
	struct rouse_throttle throttle = {bytes_per_s, random_reads_per_s, 0};
	struct rouse_source *source = NULL;

	assert_int_equal(rouse_file_source_open(fixture->path, &throttle, &source, NULL), 0);
	return source;
}

static void reads_what_is_in_the_file(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_source *source = open_source(fixture, 0, 0);
	unsigned char buffer[5000];

	assert_int_equal(rouse_source_size(source), FILE_BYTES);
	assert_int_equal(
		rouse_source_read(source, 777, buffer, sizeof(buffer), ROUSE_READ_URGENT), 0);
	assert_memory_equal(buffer, fixture->content + 777, sizeof(buffer));
	rouse_source_destroy(source);
}

static void a_throttled_bulk_read_in_pieces_gives_the_same_bytes(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_source *source = open_source(fixture, UINT64_C(1) << 33, 100000);
	unsigned char *buffer = malloc(FILE_BYTES);
	struct rouse_source_stats stats;

	assert_non_null(buffer);
	assert_int_equal(rouse_source_read(source, 0, buffer, FILE_BYTES, ROUSE_READ_BULK), 0);
	assert_memory_equal(buffer, fixture->content, FILE_BYTES);
	rouse_source_get_stats(source, &stats);
	assert_int_equal(stats.bytes, FILE_BYTES);
	assert_int_equal(stats.reads, FILE_BYTES / ROUSE_SOURCE_BULK);
	free(buffer);
	rouse_source_destroy(source);
}

static void a_read_beyond_the_end_is_enodata(void **state)
{
	struct rouse_source *source = open_source(*state, 0, 0);
	char buffer[16];

	assert_int_equal(
		rouse_source_read(source, FILE_BYTES - 8, buffer, 16, ROUSE_READ_BULK), -ENODATA);
	assert_int_equal(
		rouse_source_read(source, UINT64_MAX - 4, buffer, 16, ROUSE_READ_BULK), -ENODATA);
	rouse_source_destroy(source);
}

static void a_missing_file_and_a_directory_are_errors(void **state)
{
	struct rouse_source *source = NULL;
	struct rouse_error error;

	(void)state;
	assert_int_equal(rouse_file_source_open("/nonexistent/x", NULL, &source, &error), -ENOENT);
	assert_non_null(strstr(error.message, "/nonexistent/x"));
	assert_int_equal(rouse_file_source_open("/tmp", NULL, &source, &error), -EINVAL);
	assert_int_equal(error.kind, ROUSE_ERROR_USAGE);
}

static void bytes_take_their_time_from_the_first_read_on(void **state)
{
	struct rouse_source *source = open_source(*state, 4u << 20, 0);
	uint64_t begin = rouse_clock_us(), took;
	char *buffer = malloc(512u << 10);

	assert_non_null(buffer);
	assert_int_equal(rouse_source_read(source, 0, buffer, 512u << 10, ROUSE_READ_BULK), 0);
	took = rouse_clock_us() - begin;
	/* 512 KiB at 4 MiB/s: 125 ms, less the burst of 64 KiB. */
	assert_true(took >= 109000);
	free(buffer);
	rouse_source_destroy(source);
}

static void a_long_pause_saves_little_up(void **state)
{
	struct rouse_source *source = open_source(*state, 4u << 20, 0);
	struct timespec pause = {.tv_nsec = 200000000};
	char *buffer = malloc(256u << 10);
	uint64_t begin, took;

	assert_non_null(buffer);
	assert_int_equal(rouse_source_read(source, 0, buffer, 4096, ROUSE_READ_BULK), 0);
	(void)nanosleep(&pause, NULL);
	begin = rouse_clock_us();
	assert_int_equal(rouse_source_read(source, 4096, buffer, 256u << 10, ROUSE_READ_BULK), 0);
	took = rouse_clock_us() - begin;
	/* 256 KiB: 62.5 ms, less the burst of 64 KiB and 20 ms of reading ahead. */
	assert_true(took >= 26000);
	free(buffer);
	rouse_source_destroy(source);
}

static void random_reads_wait_for_tokens_and_sequential_ones_do_not(void **state)
{
	struct rouse_source *source = open_source(*state, 0, 50);
	uint64_t begin = rouse_clock_us(), sequential, random;
	char buffer[4096];

	for (unsigned int i = 0; i < 32; i++)
		assert_int_equal(rouse_source_read(source, UINT64_C(4096) * i, buffer, 4096,
					 ROUSE_READ_URGENT),
			0);
	sequential = rouse_clock_us() - begin;
	begin = rouse_clock_us();
	for (unsigned int i = 0; i < 4; i++)
		assert_int_equal(rouse_source_read(source, UINT64_C(8192) * i, buffer, 4096,
					 ROUSE_READ_URGENT),
			0);
	random = rouse_clock_us() - begin;
	assert_true(sequential < 31 * 20000); /* each a token would be 620 ms */
	assert_true(random >= 59000);         /* three waits of 20 ms at least */
	rouse_source_destroy(source);
}

struct bulk_reader {
	struct rouse_source *source;
	_Atomic bool begun;
	_Atomic uint64_t ended_us;
};

static void *read_much(void *argument)
{
	struct bulk_reader *reader = argument;
	char *buffer = malloc(FILE_BYTES);

	reader->begun = true;
	if (buffer != NULL)
		(void)rouse_source_read(reader->source, 0, buffer, FILE_BYTES, ROUSE_READ_BULK);
	reader->ended_us = rouse_clock_us();
	free(buffer);
	return NULL;
}

static void an_urgent_read_passes_a_bulk_read_that_came_before(void **state)
{
	struct bulk_reader reader = {.source = open_source(*state, 2u << 20, 0)};
	struct timespec pause = {.tv_nsec = 20000000};
	pthread_t thread;
	char buffer[4096];
	uint64_t ended;

	/* The bulk read needs 500 ms in four pieces; the urgent one comes in the first of them. */
	assert_int_equal(pthread_create(&thread, NULL, read_much, &reader), 0);
	while (!reader.begun)
		(void)nanosleep(&pause, NULL);
	(void)nanosleep(&pause, NULL);
	assert_int_equal(
		rouse_source_read(reader.source, 900000, buffer, sizeof(buffer), ROUSE_READ_URGENT),
		0);
	ended = rouse_clock_us();
	(void)pthread_join(thread, NULL);
	assert_true(ended < reader.ended_us);
	rouse_source_destroy(reader.source);
}

struct bulk_seeker {
	struct rouse_throttler *throttler;
	_Atomic bool begun, served;
	struct rouse_throttle_turn turn;
};

static void *seek_in_bulk(void *argument)
{
	struct bulk_seeker *seeker = argument;

	seeker->begun = true;
	rouse_throttler_begin(seeker->throttler, 1 << 20, 4096, ROUSE_READ_BULK, &seeker->turn);
	seeker->served = true;
	rouse_throttler_end(seeker->throttler, ROUSE_READ_BULK, &seeker->turn);
	return NULL;
}

static void a_bulk_read_that_waits_for_a_seek_gives_it_to_an_urgent_one(void **state)
{
	struct rouse_throttle limits = {.random_reads_per_s = 5};
	struct timespec pause = {.tv_nsec = 20000000};
	struct bulk_seeker seeker = {0};
	struct rouse_throttle_turn first, second;
	pthread_t thread;

	(void)state;
	assert_int_equal(rouse_throttler_new(&limits, &seeker.throttler), 0);
	rouse_throttler_begin(seeker.throttler, 0, 4096, ROUSE_READ_URGENT, &first);
	rouse_throttler_end(seeker.throttler, ROUSE_READ_URGENT, &first);
	assert_int_equal(pthread_create(&thread, NULL, seek_in_bulk, &seeker), 0);
	while (!seeker.begun)
		(void)nanosleep(&pause, NULL);
	(void)nanosleep(&pause, NULL);
	rouse_throttler_begin(seeker.throttler, 65536, 4096, ROUSE_READ_URGENT, &second);
	rouse_throttler_end(seeker.throttler, ROUSE_READ_URGENT, &second);
	(void)pthread_join(thread, NULL);
	assert_true(second.due_ns - first.due_ns >= 200000000); /* the bucket holds one token */
	assert_true(seeker.turn.due_ns - second.due_ns >= 200000000);
	rouse_throttler_free(seeker.throttler);
}

/* A guest that faults without a pause: what else is read would never come. */
static void a_bulk_read_is_passed_by_so_many_urgent_ones_and_no_more(void **state)
{
	struct rouse_throttle limits = {.random_reads_per_s = 20};
	struct timespec pause = {.tv_nsec = 10000000};
	struct bulk_seeker seeker = {0};
	struct rouse_throttle_turn urgent[8];
	unsigned int passed = 0;
	pthread_t thread;

	(void)state;
	assert_int_equal(rouse_throttler_new(&limits, &seeker.throttler), 0);
	rouse_throttler_begin(seeker.throttler, 0, 4096, ROUSE_READ_URGENT, &urgent[0]);
	rouse_throttler_end(seeker.throttler, ROUSE_READ_URGENT, &urgent[0]);
	assert_int_equal(pthread_create(&thread, NULL, seek_in_bulk, &seeker), 0);
	while (!seeker.begun)
		(void)nanosleep(&pause, NULL);
	for (unsigned int i = 1; i < 8; i++) {
		rouse_throttler_begin(
			seeker.throttler, i * UINT64_C(65536), 4096, ROUSE_READ_URGENT, &urgent[i]);
		rouse_throttler_end(seeker.throttler, ROUSE_READ_URGENT, &urgent[i]);
	}
	(void)pthread_join(thread, NULL);
	for (unsigned int i = 1; i < 8; i++)
		passed += urgent[i].paid_ns < seeker.turn.paid_ns;
	/* One of them may have come before the bulk read, which its thread says too early. */
	assert_true(passed <= ROUSE_THROTTLE_PATIENCE + 1);
	/* Its token is one of its own. */
	for (unsigned int i = 1; i < 8; i++)
		assert_true(urgent[i].paid_ns - urgent[i - 1].paid_ns >= 50000000);
	rouse_throttler_free(seeker.throttler);
}

static void a_bulk_read_does_not_begin_while_an_urgent_one_is_under_way(void **state)
{
	struct rouse_throttle limits = {.bytes_per_s = UINT64_C(1) << 30};
	struct timespec pause = {.tv_nsec = 50000000};
	struct bulk_seeker seeker = {0};
	pthread_t thread;
	struct rouse_throttle_turn turn;

	(void)state;
	assert_int_equal(rouse_throttler_new(&limits, &seeker.throttler), 0);
	rouse_throttler_begin(seeker.throttler, 0, 4096, ROUSE_READ_URGENT, &turn);
	assert_int_equal(pthread_create(&thread, NULL, seek_in_bulk, &seeker), 0);
	while (!seeker.begun)
		(void)nanosleep(&pause, NULL);
	(void)nanosleep(&pause, NULL);
	assert_false(seeker.served);
	rouse_throttler_end(seeker.throttler, ROUSE_READ_URGENT, &turn);
	(void)pthread_join(thread, NULL);
	assert_true(seeker.served);
	rouse_throttler_free(seeker.throttler);
}

/* A read that takes its turn and does not wait for it: what it would have waited for. */
static struct rouse_throttle_turn turn_of(
	struct rouse_throttler *throttler, uint64_t offset, enum rouse_read_priority priority)
{
	struct rouse_throttle_turn turn;

	rouse_throttler_begin(throttler, offset, 4096, priority, &turn);
	rouse_throttler_end(
		throttler, priority, &(struct rouse_throttle_turn){turn.paid_ns, turn.paid_ns});
	return turn;
}

static uint64_t latency_of(
	struct rouse_throttler *throttler, uint64_t offset, enum rouse_read_priority priority)
{
	struct rouse_throttle_turn turn = turn_of(throttler, offset, priority);

	return (turn.due_ns - turn.paid_ns) / 1000;
}

static void a_read_elsewhere_has_latency_and_a_stream_only_once(void **state)
{
	struct rouse_throttle limits = {.latency_us = 7000};
	struct rouse_throttler *throttler;

	(void)state;
	assert_int_equal(rouse_throttler_new(&limits, &throttler), 0);
	assert_int_equal(latency_of(throttler, 0, ROUSE_READ_URGENT), 7000);
	assert_int_equal(latency_of(throttler, 8192, ROUSE_READ_URGENT), 7000);
	assert_int_equal(latency_of(throttler, 65536, ROUSE_READ_BULK), 7000);
	assert_int_equal(latency_of(throttler, 65536 + 4096, ROUSE_READ_BULK), 0);
	assert_int_equal(latency_of(throttler, 65536 + 8192, ROUSE_READ_BULK), 0);
	rouse_throttler_free(throttler);
}

static void an_urgent_read_elsewhere_does_not_end_a_stream(void **state)
{
	struct rouse_throttle limits = {.latency_us = 7000};
	struct rouse_throttler *throttler;

	(void)state;
	assert_int_equal(rouse_throttler_new(&limits, &throttler), 0);
	assert_int_equal(latency_of(throttler, 0, ROUSE_READ_BULK), 7000);
	assert_int_equal(latency_of(throttler, 65536, ROUSE_READ_URGENT), 7000);
	assert_int_equal(latency_of(throttler, 4096, ROUSE_READ_BULK), 0);
	rouse_throttler_free(throttler);
}

static void latency_takes_no_bandwidth(void **state)
{
	/* A page takes 1 s, and a burst of 16 is saved up. */
	struct rouse_throttle limits = {.bytes_per_s = 4096, .latency_us = 10000000};
	struct rouse_throttle_turn first, last = {0};
	struct rouse_throttler *throttler;

	(void)state;
	assert_int_equal(rouse_throttler_new(&limits, &throttler), 0);
	first = turn_of(throttler, 0, ROUSE_READ_URGENT);
	for (unsigned int i = 1; i <= 16; i++)
		last = turn_of(throttler, i * UINT64_C(65536), ROUSE_READ_URGENT);
	assert_true(last.paid_ns - first.paid_ns <= 2000000000);
	assert_int_equal(last.due_ns - last.paid_ns, 10000000000);
	rouse_throttler_free(throttler);
}

static void latency_of_an_urgent_read_does_not_hold_a_bulk_read_back(void **state)
{
	struct rouse_throttle limits = {.latency_us = 500000};
	struct timespec pause = {.tv_nsec = 20000000};
	struct bulk_seeker seeker = {0};
	struct rouse_throttle_turn turn;
	pthread_t thread;

	(void)state;
	assert_int_equal(rouse_throttler_new(&limits, &seeker.throttler), 0);
	rouse_throttler_begin(seeker.throttler, 0, 4096, ROUSE_READ_URGENT, &turn);
	assert_int_equal(pthread_create(&thread, NULL, seek_in_bulk, &seeker), 0);
	while (!seeker.begun)
		(void)nanosleep(&pause, NULL);
	rouse_throttler_end(seeker.throttler, ROUSE_READ_URGENT, &turn);
	assert_true(rouse_clock_ns() >= turn.due_ns);
	(void)pthread_join(thread, NULL);
	assert_true(seeker.turn.paid_ns < turn.due_ns);
	rouse_throttler_free(seeker.throttler);
}

static void a_read_returns_after_its_latency(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_throttle throttle = {.latency_us = 30000};
	struct rouse_source *source = NULL;
	char buffer[4096];
	uint64_t begin;

	assert_int_equal(rouse_file_source_open(fixture->path, &throttle, &source, NULL), 0);
	begin = rouse_clock_us();
	assert_int_equal(
		rouse_source_read(source, 8192, buffer, sizeof(buffer), ROUSE_READ_URGENT), 0);
	assert_true(rouse_clock_us() - begin >= 30000);
	assert_memory_equal(buffer, fixture->content + 8192, sizeof(buffer));
	rouse_source_destroy(source);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_what_is_in_the_file),
		cmocka_unit_test(a_throttled_bulk_read_in_pieces_gives_the_same_bytes),
		cmocka_unit_test(a_read_beyond_the_end_is_enodata),
		cmocka_unit_test(a_missing_file_and_a_directory_are_errors),
		cmocka_unit_test(bytes_take_their_time_from_the_first_read_on),
		cmocka_unit_test(a_long_pause_saves_little_up),
		cmocka_unit_test(random_reads_wait_for_tokens_and_sequential_ones_do_not),
		cmocka_unit_test(an_urgent_read_passes_a_bulk_read_that_came_before),
		cmocka_unit_test(a_bulk_read_that_waits_for_a_seek_gives_it_to_an_urgent_one),
		cmocka_unit_test(a_bulk_read_is_passed_by_so_many_urgent_ones_and_no_more),
		cmocka_unit_test(a_bulk_read_does_not_begin_while_an_urgent_one_is_under_way),
		cmocka_unit_test(a_read_elsewhere_has_latency_and_a_stream_only_once),
		cmocka_unit_test(an_urgent_read_elsewhere_does_not_end_a_stream),
		cmocka_unit_test(latency_takes_no_bandwidth),
		cmocka_unit_test(latency_of_an_urgent_read_does_not_hold_a_bulk_read_back),
		cmocka_unit_test(a_read_returns_after_its_latency),
	};

	return cmocka_run_group_tests_name("source", tests, make_file, remove_file);
}
