/* SPDX-License-Identifier: MIT */
/* An image, and an engine that restores it into a fake guest (fake_sink.h). */
#ifndef ROUSE_TESTS_ENGINE_FIXTURE_H
#define ROUSE_TESTS_ENGINE_FIXTURE_H

#include "engine/engine.h"

#include "../image/image_fixture.h"
#include "fake_sink.h"

#define PAGES 9000u /* three page tables, the last one short */

/* Page i of the test image: every seventh is zero, every fifth like all others of its kind. */
static inline uint64_t seed_of(uint64_t page)
{
	if (page % 7 == 0)
		return 0;
	return page % 5 == 0 ? 12345 : page + 1;
}

static inline void make_image(
	const char *path, const struct rouse_writer_touch *wset, uint32_t count)
{
	struct rouse_writer *writer = begin_image(path, PAGES, NULL, wset, count);

	for (uint64_t i = 0; i < PAGES; i++) {
		if (seed_of(i) == 0)
			assert_int_equal(rouse_writer_put_zero(writer, i), 0);
		else
			put_seed(writer, i, seed_of(i));
	}
	(void)end_image(writer);
}

struct run {
	struct rouse_source *source;
	struct rouse_reader *reader;
	struct rouse_engine *engine;
	struct fake_sink *fake;
	struct rouse_error error;
};

static inline void run_open(struct run *run, const char *path)
{
	*run = (struct run){0};
	assert_int_equal(rouse_file_source_open(path, NULL, &run->source, &run->error), 0);
	if (rouse_reader_open(run->source, &run->reader, &run->error) != 0)
		fail_msg("%s", run->error.message);
}

static inline int run_engine(struct run *run, struct rouse_engine_config config,
	const uint64_t *wanted, size_t wanted_count)
{
	int code;

	config.reader = run->reader;
	config.source = run->source;
	run->fake = fake_new(PAGES, wanted, wanted_count);
	code = rouse_engine_new(&config, &run->engine, &run->error);
	if (code == 0)
		code = rouse_engine_run(run->engine, &run->fake->sink, &run->error);
	return code;
}

static inline void run_close(struct run *run)
{
	rouse_engine_free(run->engine);
	fake_destroy(&run->fake->sink);
	rouse_reader_close(run->reader);
	rouse_source_destroy(run->source);
}

/* Every page has its content; nothing that is not zero is missing; nothing was placed twice. */
static inline void check_memory(const struct run *run, bool eager)
{
	unsigned char expected[PAGE];

	for (uint64_t i = 0; i < PAGES; i++) {
		fill_page(expected, seed_of(i));
		if (memcmp(run->fake->memory + i * PAGE, expected, PAGE) != 0)
			fail_msg("page %llu is wrong", (unsigned long long)i);
		if ((seed_of(i) != 0 || eager) && run->fake->state[i] == 0)
			fail_msg("page %llu is missing", (unsigned long long)i);
	}
}

#endif
