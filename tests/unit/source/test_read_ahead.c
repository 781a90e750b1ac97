/* SPDX-License-Identifier: MIT */
/*
 * What bulk reads past the page cache take from the disk, to the byte, and that it is the file's
 * bytes however the reader jumps. On a file system that refuses direct I/O, and where io_uring is
 * forbidden, the tests are skipped.
 */
#include "../unit.h"

#include "source/direct_source.h"
#include "source_file.h"

#include <errno.h>

#define PAGE UINT64_C(4096)
#define MIB (UINT64_C(1) << 20)
/* Three times the memory of the stream, with an end that is no multiple of anything. */
#define FILE_BYTES ((ROUSE_READ_AHEAD_BYTES * 3) + 777)

struct fixture {
	struct source_file *file;
	struct rouse_source *source;
	unsigned char *buffer;
	uint64_t before; /* bytes that opening read */
};

static uint64_t bytes_read(const struct fixture *fixture)
{
	struct rouse_source_stats stats;

	rouse_source_get_stats(fixture->source, &stats);
	return stats.bytes - fixture->before;
}

static int make_file(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	assert_non_null(fixture);
	fixture->file = source_file_new("/var/tmp", FILE_BYTES);
	fixture->buffer = malloc(FILE_BYTES);
	assert_non_null(fixture->buffer);
	*state = fixture;
	return 0;
}

static int remove_file(void **state)
{
	struct fixture *fixture = *state;

	source_file_remove(fixture->file);
	free(fixture->buffer);
	free(fixture);
	return 0;
}

static int close_source(void **state)
{
	struct fixture *fixture = *state;

	rouse_source_destroy(fixture->source);
	fixture->source = NULL;
	return 0;
}

static struct fixture *open_source(void **state)
{
	struct fixture *fixture = *state;
	struct rouse_source_stats stats;
	int code = rouse_direct_source_open(
		fixture->file->path, &rouse_direct_kernel, &fixture->source, NULL);

	if (code == -EOPNOTSUPP) {
		print_message("/var/tmp refuses direct I/O\n");
		skip();
	}
	assert_int_equal(code, 0);
	rouse_source_get_stats(fixture->source, &stats);
	if (!stats.io_uring) {
		print_message("io_uring is forbidden\n");
		skip();
	}
	fixture->before = stats.bytes;
	return fixture;
}

static void read_as(const struct fixture *fixture, uint64_t offset, size_t size,
	enum rouse_read_priority priority)
{
	memset(fixture->buffer, 0xee, size);
	assert_int_equal(
		rouse_source_read(fixture->source, offset, fixture->buffer, size, priority), 0);
	assert_memory_equal(fixture->buffer, fixture->file->content + offset, size);
}

static void read_bulk(const struct fixture *fixture, uint64_t offset, size_t size)
{
	read_as(fixture, offset, size, ROUSE_READ_BULK);
}

/* The pages that a read touches. */
static uint64_t pages_of(uint64_t offset, uint64_t size)
{
	return (offset + size + PAGE - 1) / PAGE * PAGE - offset / PAGE * PAGE;
}

/* ---- In order -------------------------------------------------------------------------------- */

static void a_file_in_order_is_read_once_in_pieces_of(const struct fixture *fixture, size_t size)
{
	for (uint64_t at = 0; at < FILE_BYTES; at += size)
		read_bulk(fixture, at, at + size < FILE_BYTES ? size : FILE_BYTES - at);
	assert_int_equal(bytes_read(fixture), pages_of(0, FILE_BYTES));
}

static void a_file_in_order_is_read_once(void **state)
{
	a_file_in_order_is_read_once_in_pieces_of(open_source(state), MIB);
}

static void a_file_in_order_in_odd_pieces_is_read_once(void **state)
{
	a_file_in_order_is_read_once_in_pieces_of(open_source(state), 300001);
}

static void a_file_in_one_piece_is_read_once(void **state)
{
	a_file_in_order_is_read_once_in_pieces_of(open_source(state), FILE_BYTES);
}

static void a_stream_has_all_its_depth_in_flight_after_some_mib(void **state)
{
	const struct fixture *fixture = open_source(state);
	uint64_t ahead = 0;

	/* However fast the disk is, the depth is 4 at least before the first urgent read. */
	for (uint64_t at = 0; at < 8 * MIB; at += MIB / 4) {
		read_bulk(fixture, at, MIB / 4);
		if (bytes_read(fixture) - at - MIB / 4 > ahead)
			ahead = bytes_read(fixture) - at - MIB / 4;
	}
	assert_in_range(ahead, 3 * ROUSE_SOURCE_BULK, 4 * MIB);
}

/* ---- With jumps ------------------------------------------------------------------------------ */

static void a_jump_costs_its_own_pages_and_no_more(void **state)
{
	const struct fixture *fixture = open_source(state);
	uint64_t pages = 0;

	/* Backwards, so that none goes on with the one before. */
	for (uint64_t at = FILE_BYTES - MIB; at > 2 * MIB; at -= 1234567) {
		read_bulk(fixture, at, 300001);
		pages += pages_of(at, 300001);
	}
	assert_int_equal(bytes_read(fixture), pages);
}

static void a_stream_that_jumps_reads_no_more_than_half_again(void **state)
{
	const struct fixture *fixture = open_source(state);
	uint64_t asked = 0;

	for (uint64_t stream = 1; stream <= 8; stream++) {
		/* Each one is longer than the one before, and ends at a random place of a piece. */
		const uint64_t from = FILE_BYTES - stream * 2500003;

		for (uint64_t i = 0; i < stream; i++) {
			read_bulk(fixture, from + i * 250001, 250001);
			asked += 250001;
			assert_true(bytes_read(fixture) <= asked + asked / 2 + stream * 2 * PAGE);
		}
	}
	assert_true(bytes_read(fixture) >= asked);
}

static void what_a_reader_leaves_out_counts_as_read_ahead(void **state)
{
	const struct fixture *fixture = open_source(state);
	uint64_t asked = 0;

	read_bulk(fixture, 0, MIB);
	asked += MIB;
	/* A page of each 64 KiB: it goes on with the stream, and most of what is ahead is lost. */
	for (uint64_t at = MIB; at < 16 * MIB; at += 65536) {
		read_bulk(fixture, at, PAGE);
		asked += PAGE;
		assert_true(bytes_read(fixture) <= asked + asked / 2);
	}
}

/* ---- What is there is used ------------------------------------------------------------------- */

static void going_back_to_what_is_there_reads_nothing(void **state)
{
	const struct fixture *fixture = open_source(state);
	uint64_t bytes;

	for (uint64_t at = 0; at < 4 * MIB; at += MIB)
		read_bulk(fixture, at, MIB);
	bytes = bytes_read(fixture);
	read_bulk(fixture, MIB + 5, MIB);
	read_bulk(fixture, 2 * MIB + 70000, 5000);
	read_as(fixture, 3 * MIB - 100, 200, ROUSE_READ_URGENT);
	assert_int_equal(bytes_read(fixture), bytes);
}

static void a_jump_within_what_is_read_ahead_uses_it(void **state)
{
	const struct fixture *fixture = open_source(state);
	uint64_t bytes;

	for (uint64_t at = 0; at < 4 * MIB; at += MIB)
		read_bulk(fixture, at, MIB);
	bytes = bytes_read(fixture);
	assert_true(bytes >= 4 * MIB + ROUSE_SOURCE_BULK);
	read_bulk(fixture, 4 * MIB + 100000, 100000);
	read_as(fixture, 4 * MIB + 150000, 5000, ROUSE_READ_URGENT);
	/* What is behind it may be read ahead now, and nothing of it again. */
	for (uint64_t at = 4 * MIB + 200000; at + MIB < FILE_BYTES; at += MIB)
		read_bulk(fixture, at, MIB);
	assert_true(bytes_read(fixture) <= pages_of(0, FILE_BYTES));
}

static void what_was_read_ahead_survives_a_short_excursion(void **state)
{
	const struct fixture *fixture = open_source(state);
	uint64_t bytes;

	for (uint64_t at = 0; at < 4 * MIB; at += MIB)
		read_bulk(fixture, at, MIB);
	bytes = bytes_read(fixture);
	assert_true(bytes >= 4 * MIB + ROUSE_SOURCE_BULK);
	read_bulk(fixture, 16 * MIB, 2 * MIB);
	assert_int_equal(bytes_read(fixture), bytes + 2 * MIB);
	read_bulk(fixture, 4 * MIB, ROUSE_SOURCE_BULK);
	assert_int_equal(bytes_read(fixture), bytes + 2 * MIB);
}

static void what_the_stream_has_taken_the_place_of_is_read_again(void **state)
{
	const struct fixture *fixture = open_source(state);
	uint64_t bytes;

	for (uint64_t at = 0; at < 2 * ROUSE_READ_AHEAD_BYTES; at += MIB)
		read_bulk(fixture, at, MIB);
	bytes = bytes_read(fixture);
	read_bulk(fixture, MIB, MIB);
	assert_int_equal(bytes_read(fixture), bytes + MIB);
}

/* ---- Whatever comes -------------------------------------------------------------------------- */

static uint32_t next_random(uint32_t *x)
{
	*x = *x * 1664525 + 1013904223;
	return *x >> 8;
}

/* As a restore that follows faults: runs of some reads, jumps, places that were left. */
static void read_at_random(const struct fixture *fixture, uint32_t seed)
{
	uint64_t asked = 0, reads = 0, at = 0, left = 0;
	uint32_t x = seed;

	for (; reads < 400; reads++) {
		uint64_t size = next_random(&x) % (next_random(&x) % 4 == 0 ? 1500000 : 300000) + 1;
		const uint32_t how = next_random(&x) % 8;
		uint64_t back = at;

		if (how == 0) {
			back = left;
			left = at;
		} else if (how == 1) {
			left = at;
			back = next_random(&x) % FILE_BYTES;
		} else if (how == 2) {
			back = at + next_random(&x) % 100000;
		}
		at = back < FILE_BYTES ? back : 0;
		size = size < FILE_BYTES - at ? size : FILE_BYTES - at;
		read_as(fixture, at, size,
			next_random(&x) % 8 == 0 ? ROUSE_READ_URGENT : ROUSE_READ_BULK);
		asked += size;
		at += size;
		assert_true(bytes_read(fixture) <= asked + asked / 2 + (reads + 1) * 2 * PAGE);
	}
}

static void random_reads_give_the_bytes_of_the_file_and_cost_at_most_half_again(void **state)
{
	for (uint32_t seed = 1; seed <= 5; seed++) {
		read_at_random(open_source(state), seed);
		(void)close_source(state);
	}
}

#define WITH_SOURCE(test) cmocka_unit_test_teardown(test, close_source)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_SOURCE(a_file_in_order_is_read_once),
		WITH_SOURCE(a_file_in_order_in_odd_pieces_is_read_once),
		WITH_SOURCE(a_file_in_one_piece_is_read_once),
		WITH_SOURCE(a_stream_has_all_its_depth_in_flight_after_some_mib),
		WITH_SOURCE(a_jump_costs_its_own_pages_and_no_more),
		WITH_SOURCE(a_stream_that_jumps_reads_no_more_than_half_again),
		WITH_SOURCE(what_a_reader_leaves_out_counts_as_read_ahead),
		WITH_SOURCE(going_back_to_what_is_there_reads_nothing),
		WITH_SOURCE(a_jump_within_what_is_read_ahead_uses_it),
		WITH_SOURCE(what_was_read_ahead_survives_a_short_excursion),
		WITH_SOURCE(what_the_stream_has_taken_the_place_of_is_read_again),
		WITH_SOURCE(random_reads_give_the_bytes_of_the_file_and_cost_at_most_half_again),
	};

	return cmocka_run_group_tests_name("read_ahead", tests, make_file, remove_file);
}
