/* SPDX-License-Identifier: MIT */
/*
 * The engine over images with a damaged chunk: nothing of it reaches the guest. Only what has the
 * checksum of its maker, and is shorter than he says, may: up to the page that is asked for.
 */
#include "paced_fixture.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

/* Overwrites a few stored bytes of the chunk that holds a page. */
/* Returns where in the image. */
static uint64_t damage_chunk_of(const char *path, uint64_t page)
{
	struct run run;
	struct rouse_chunk chunk;
	uint64_t locator;
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	run_open(&run, path);
	assert_int_equal(rouse_reader_locate(run.reader, page, ROUSE_READ_BULK, &locator), 0);
	assert_int_equal(rouse_reader_chunk(
				 run.reader, rouse_locator_chunk(locator), ROUSE_READ_BULK, &chunk),
		0);
	assert_int_equal(pwrite(fd, "damage", 6, (off_t)chunk.offset + 100), 6);
	(void)close(fd);
	rouse_reader_close(run.reader);
	rouse_source_destroy(run.source);
	return chunk.offset + 100;
}

static void damage_met_before_the_start_starts_nothing(void **state)
{
	const struct fixture *fixture = *state;
	struct run run;

	make_image(fixture->path, NULL, 0);
	(void)damage_chunk_of(fixture->path, 7003);
	run_open(&run, fixture->path);
	assert_int_equal(
		run_engine(
			&run, (struct rouse_engine_config){.policy = ROUSE_POLICY_EAGER}, NULL, 0),
		-EUCLEAN);
	assert_int_equal(run.error.kind, ROUSE_ERROR_DAMAGED);
	assert_false(run.fake->started);
	run_close(&run);
}

static void damage_met_by_the_background_stops_the_guest(void **state)
{
	const struct fixture *fixture = *state;
	struct run run;

	make_image(fixture->path, NULL, 0);
	(void)damage_chunk_of(fixture->path, 7003);
	run_open(&run, fixture->path);
	assert_int_equal(run_engine(&run,
				 (struct rouse_engine_config){.policy = ROUSE_POLICY_LAZY,
					 .background = ROUSE_BACKGROUND_MAX},
				 NULL, 0),
		-EUCLEAN);
	assert_true(run.fake->stopped);
	assert_int_equal(run.fake->state[7003], 0);
	run_close(&run);
}

/*
 * A source whose reads of one chunk wait until the guest has started. The readers are ahead of what
 * is placed: without it chance would decide whether they meet the damage before the start.
 */
struct gated_source {
	struct rouse_source source;
	struct rouse_source *inner;
	uint64_t gated; /* an offset */
	const struct run *run;
};

static int gated_read(struct rouse_source *source, uint64_t offset, void *buffer, size_t size,
	enum rouse_read_priority priority)
{
	const struct gated_source *gate = (const struct gated_source *)source;
	const struct timespec pause = {.tv_nsec = 1000000};

	/* Ten seconds: then the test fails instead of hanging. */
	for (int i = 0; i < 10000 && offset <= gate->gated && gate->gated - offset < size; i++) {
		if (fake_has_started(gate->run->fake))
			break;
		(void)nanosleep(&pause, NULL);
	}
	return rouse_source_read(gate->inner, offset, buffer, size, priority);
}

static uint64_t gated_size(const struct rouse_source *source)
{
	return rouse_source_size(((const struct gated_source *)source)->inner);
}

static const struct rouse_source_ops gated_ops = {.read = gated_read, .size = gated_size};

static void damage_in_what_a_paced_start_has_left_stops_the_guest(void **state)
{
	const struct fixture *fixture = *state;
	enum { LATE = FIRST + COUNT - 2 }; /* the last one of the set that is not zero */
	struct gated_source gate = {.source.ops = &gated_ops};
	struct rouse_source *plain;
	struct run run;

	make_paced_image(fixture->path, 1000000);
	gate.gated = damage_chunk_of(fixture->path, LATE);
	run_open(&run, fixture->path);
	gate.inner = plain = run.source;
	gate.run = &run;
	run.source = &gate.source;
	assert_int_equal(run_engine(&run,
				 (struct rouse_engine_config){.policy = ROUSE_POLICY_PACED,
					 .background = ROUSE_BACKGROUND_MAX},
				 NULL, 0),
		-EUCLEAN);
	assert_int_equal(run.error.kind, ROUSE_ERROR_DAMAGED);
	assert_true(run.fake->started && run.fake->stopped);
	assert_int_equal(run.fake->state[LATE], 0);
	run.source = plain;
	run_close(&run);
}

/* The readers are ahead: no VM is started from an image that is known to be damaged. */
static void damage_met_before_a_paced_start_starts_nothing(void **state)
{
	const struct fixture *fixture = *state;
	struct run run;

	make_paced_image(fixture->path, 1000000);
	(void)damage_chunk_of(fixture->path, FIRST + 1);
	run_open(&run, fixture->path);
	assert_int_equal(
		run_engine(
			&run, (struct rouse_engine_config){.policy = ROUSE_POLICY_PACED}, NULL, 0),
		-EUCLEAN);
	assert_int_equal(run.error.kind, ROUSE_ERROR_DAMAGED);
	assert_false(run.fake->started);
	run_close(&run);
}

static void a_fault_on_a_damaged_chunk_is_never_answered(void **state)
{
	const uint64_t wanted[] = {3, 7003};
	const struct fixture *fixture = *state;
	struct run run;

	make_image(fixture->path, NULL, 0);
	(void)damage_chunk_of(fixture->path, 7003);
	run_open(&run, fixture->path);
	assert_int_equal(run_engine(&run, (struct rouse_engine_config){.policy = ROUSE_POLICY_LAZY},
				 wanted, 2),
		-EUCLEAN);
	assert_int_equal(run.error.kind, ROUSE_ERROR_DAMAGED);
	assert_int_equal(run.fake->state[3], 2);
	assert_int_equal(run.fake->state[7003], 0);
	run_close(&run);
}

/*
 * As of a maker who lies about the length of a chunk: all checksums are right. Returns the page
 * that the chunk begins with, behind @page.
 */
static uint64_t shorten_a_chunk(const char *path, uint64_t page)
{
	struct rouse_disk_chunk chunks[ROUSE_CHUNK_TABLE_CHUNKS], *chunk;
	struct rouse_disk_superblock superblock;
	struct rouse_disk_section *section = &superblock.sections[ROUSE_SECTION_CHUNK_DIR];
	struct rouse_disk_table table;
	uint64_t locator = ROUSE_LOCATOR_ZERO;
	size_t size;
	struct run run;
	int fd = open(path, O_RDWR | O_CLOEXEC);

	run_open(&run, path);
	while (locator == ROUSE_LOCATOR_ZERO || rouse_locator_slot(locator) != 0)
		assert_int_equal(
			rouse_reader_locate(run.reader, ++page, ROUSE_READ_BULK, &locator), 0);
	rouse_reader_close(run.reader);
	rouse_source_destroy(run.source);
	assert_int_equal(pread(fd, &superblock, sizeof(superblock), 0), sizeof(superblock));
	/* Of so few pages there is one table. */
	assert_int_equal(le64_get(section->length), sizeof(table));
	assert_int_equal(
		pread(fd, &table, sizeof(table), (off_t)le64_get(section->offset)), sizeof(table));
	size = le32_get(table.entries) * sizeof(*chunks);
	assert_int_equal(pread(fd, chunks, size, (off_t)le64_get(table.offset)), size);
	chunk = &chunks[rouse_locator_chunk(locator)];
	chunk->pages = le16_make((uint16_t)(le16_get(chunk->pages) - 1));
	table.checksum = le64_make(XXH3_64bits(chunks, size));
	section->checksum = le64_make(XXH3_64bits(&table, sizeof(table)));
	superblock.checksum = le64_make(
		XXH3_64bits(&superblock, offsetof(struct rouse_disk_superblock, checksum)));
	assert_int_equal(pwrite(fd, chunks, size, (off_t)le64_get(table.offset)), size);
	assert_int_equal(
		pwrite(fd, &table, sizeof(table), (off_t)le64_get(section->offset)), sizeof(table));
	assert_int_equal(pwrite(fd, &superblock, sizeof(superblock), 0), sizeof(superblock));
	(void)close(fd);
	return page;
}

/* It comes out when the page is answered, which is as it was saved. */
static void a_chunk_that_is_shorter_than_it_says_is_found_behind_the_answer(void **state)
{
	const struct fixture *fixture = *state;
	unsigned char expected[PAGE];
	struct run run;
	uint64_t page;

	make_image(fixture->path, NULL, 0);
	page = shorten_a_chunk(fixture->path, 7000);
	run_open(&run, fixture->path);
	/* The background waits for much longer than this takes. */
	assert_int_equal(run_engine(&run,
				 (struct rouse_engine_config){.policy = ROUSE_POLICY_LAZY,
					 .background = ROUSE_BACKGROUND_MAX,
					 .quiet_us = 10000000},
				 &page, 1),
		-EUCLEAN);
	assert_int_equal(run.error.kind, ROUSE_ERROR_DAMAGED);
	fill_page(expected, seed_of(page));
	assert_memory_equal(run.fake->memory + page * PAGE, expected, PAGE);
	for (uint64_t i = page + 1; i < page + 8; i++)
		assert_int_equal(run.fake->state[i], 0);
	run_close(&run);
}

/* QEMU's main loop waits for it, and says nothing: without an end of the sink nobody would know. */
static void a_damaged_page_that_loading_needs_is_an_error(void **state)
{
	const uint64_t wanted[] = {7003};
	const struct fixture *fixture = *state;
	struct rouse_engine_config config = {.policy = ROUSE_POLICY_LAZY};
	struct run run;

	make_image(fixture->path, NULL, 0);
	(void)damage_chunk_of(fixture->path, 7003);
	run_open(&run, fixture->path);
	config.reader = run.reader;
	config.source = run.source;
	run.fake = fake_new(PAGES, wanted, 1);
	run.fake->loads = true;
	assert_int_equal(rouse_engine_new(&config, &run.engine, &run.error), 0);
	assert_int_equal(rouse_engine_run(run.engine, &run.fake->sink, &run.error), -EUCLEAN);
	assert_int_equal(run.error.kind, ROUSE_ERROR_DAMAGED);
	assert_non_null(strstr(run.error.message, "not started"));
	run_close(&run);
}

static void after_the_run_nobody_logs_faults_any_more(void **state)
{
	const uint64_t wanted[] = {3};
	const struct fixture *fixture = *state;
	struct run run;

	make_image(fixture->path, NULL, 0);
	(void)damage_chunk_of(fixture->path, 7003);
	run_open(&run, fixture->path);
	/* It breaks off in the background, with a guest that goes on asking. */
	assert_int_equal(run_engine(&run,
				 (struct rouse_engine_config){.policy = ROUSE_POLICY_LAZY,
					 .background = ROUSE_BACKGROUND_MAX},
				 wanted, 1),
		-EUCLEAN);
	assert_true(run.fake->interrupted);
	assert_true(run.fake->ended);
	run_close(&run);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
		T(damage_in_what_a_paced_start_has_left_stops_the_guest),
		T(damage_met_before_a_paced_start_starts_nothing),
		T(damage_met_before_the_start_starts_nothing),
		T(damage_met_by_the_background_stops_the_guest),
		T(a_damaged_page_that_loading_needs_is_an_error),
		T(after_the_run_nobody_logs_faults_any_more),
		T(a_fault_on_a_damaged_chunk_is_never_answered),
		T(a_chunk_that_is_shorter_than_it_says_is_found_behind_the_answer),
#undef T
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
