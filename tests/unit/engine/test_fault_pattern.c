/* SPDX-License-Identifier: MIT */
/* What is foretold from the faults of a guest. */
#include "engine/fault_pattern.h"

#include "../unit.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define REACH ((struct fault_reach){15, 15}) /* that come with a fault: the rest of its chunk */
#define CHUNK 16u
#define FAR (UINT64_C(1) << 30)

static uint32_t steps_of(struct fault_pattern *pattern, uint64_t page)
{
	return fault_pattern_note(pattern, page, REACH).steps;
}

static void a_sequence_is_foretold_once_it_is_confirmed_and_doubles(void **state)
{
	/* Each fault is behind what came with the last one. */
	static const struct {
		uint64_t page;
		uint32_t steps;
	} faults[] = {{1000, 0}, {1016, 0}, {1032, 0}, {1048, 16}, {1080, 32}, {1128, 64},
		{1208, 128}, {1352, 128}, {1496, 128}};
	struct fault_pattern pattern = {0};

	(void)state;
	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
		struct fault_forecast forecast =
			fault_pattern_note(&pattern, faults[i].page, REACH);

		assert_int_equal(forecast.steps, faults[i].steps);
		if (i > 0)
			assert_int_equal(forecast.stride, 1);
	}
}

/* A guest that touches @count pages, each @stride from the last: how many faults it takes. */
static unsigned int scan(struct fault_pattern *pattern, uint64_t from, int64_t stride,
	unsigned int count, unsigned int *foretold)
{
	enum { ROOM = 1 << 20 };
	static bool placed[ROOM];
	unsigned int faults = 0;

	memset(placed, 0, sizeof(placed));
	*foretold = 0;
	for (unsigned int i = 0; i < count; i++) {
		const uint64_t page = from + (uint64_t)((int64_t)i * stride);
		struct fault_forecast forecast;

		assert_in_range(page, 0, ROOM - 1);
		if (placed[page])
			continue;
		faults++;
		forecast = fault_pattern_note(pattern, page, REACH);
		*foretold += forecast.steps;
		for (uint32_t k = 0; k <= forecast.steps; k++) {
			const uint64_t chunk =
				(page + (uint64_t)((int64_t)k * forecast.stride)) / CHUNK * CHUNK;

			for (uint64_t p = chunk; p < chunk + CHUNK && p < ROOM; p++)
				placed[p] = true;
		}
	}
	return faults;
}

static void a_scan_takes_few_faults_upwards_and_downwards(void **state)
{
	struct fault_pattern up = {0}, down = {0};
	unsigned int foretold;

	(void)state;
	/* Without a forecast these are 1000 faults. */
	assert_in_range(scan(&up, 5, 1, 16000, &foretold), 50, 130);
	assert_in_range(scan(&down, 20000, -1, 16000, &foretold), 50, 130);
}

static void every_stride_is_foretold(void **state)
{
	(void)state;
	for (int64_t stride = -FAULT_PATTERN_MAX_STRIDE; stride <= FAULT_PATTERN_MAX_STRIDE;
		stride++) {
		struct fault_pattern pattern = {0};
		unsigned int foretold, faults;

		if (llabs(stride) < CHUNK)
			continue;
		faults = scan(&pattern, UINT64_C(1) << 19, stride, 100, &foretold);
		/* Short ones look like a sequence, in which some chunks have two of its pages. */
		if (faults > (llabs(stride) <= 2 * (int64_t)CHUNK ? 50 : 20))
			fail_msg("stride %lld: %u faults", (long long)stride, faults);
	}
}

static void the_next_step_of_a_stride_is_what_is_foretold(void **state)
{
	static const uint32_t steps[] = {0, 0, 0, 1, 2, 4, 8, 8};
	struct fault_pattern pattern = {0};
	uint64_t page = FAR;

	(void)state;
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		struct fault_forecast forecast = fault_pattern_note(&pattern, page, REACH);

		assert_int_equal(forecast.steps, steps[i]);
		if (i > 0)
			assert_int_equal(forecast.stride, -700);
		page -= 700 * (forecast.steps + 1);
	}
}

static void longer_strides_are_chance(void **state)
{
	struct fault_pattern pattern = {0};

	(void)state;
	for (uint64_t i = 0; i < 100; i++)
		assert_int_equal(steps_of(&pattern, i * (FAULT_PATTERN_MAX_STRIDE + 1)), 0);
}

static void several_scans_at_once_are_told_apart(void **state)
{
	enum { SCANS = FAULT_PATTERN_STREAMS };
	struct fault_pattern pattern = {0};
	uint64_t next[SCANS];

	(void)state;
	for (uint64_t i = 0; i < SCANS; i++)
		next[i] = i * FAR;
	for (unsigned int round = 0; round < 20; round++) {
		for (unsigned int i = 0; i < SCANS; i++) {
			const uint32_t steps = steps_of(&pattern, next[i]);

			if (round > 8)
				assert_int_equal(steps, 128);
			next[i] += CHUNK + steps;
		}
	}
}

/* A pattern in which a sequence is foretold as far as can be. *next: its next fault. */
static struct fault_pattern full_sequence(uint64_t *next)
{
	struct fault_pattern pattern = {0};
	uint32_t steps;

	*next = FAR;
	do {
		steps = steps_of(&pattern, *next);
		*next += CHUNK + steps;
	} while (steps < 128);
	return pattern;
}

static void a_miss_halves_what_is_foretold(void **state)
{
	static const uint32_t expected[] = {128, 64, 32, 16, 16, 16};
	uint64_t next;

	(void)state;
	for (unsigned int misses = 0; misses < 6; misses++) {
		struct fault_pattern pattern = full_sequence(&next);

		for (unsigned int i = 0; i < misses; i++)
			assert_int_equal(steps_of(&pattern, (i + 7) * 5000), 0);
		/* The hit doubles it again; from nothing it is the first step. */
		assert_int_equal(
			steps_of(&pattern, next), misses == 0 ? 128 : expected[misses - 1]);
	}
}

static void pages_that_are_not_asked_for_do_not_end_a_sequence(void **state)
{
	uint64_t next;
	struct fault_pattern pattern = full_sequence(&next);

	(void)state;
	/* Zeros, or pages that came otherwise. */
	assert_int_equal(steps_of(&pattern, next + 16), 128);
	assert_int_equal(steps_of(&pattern, next + 16 + 1000), 0);
}

static void what_a_wide_read_brought_is_part_of_the_track(void **state)
{
	struct fault_pattern pattern = {0};
	uint32_t steps = 0;

	(void)state;
	for (uint64_t i = 0; i < 5; i++)
		steps = fault_pattern_note(&pattern, i * 200, (struct fault_reach){199, 15}).steps;
	assert_int_equal(steps, 32);
}

static void what_a_wide_read_brought_in_front_is_part_of_the_track_downwards(void **state)
{
	struct fault_pattern pattern = {0};
	struct fault_forecast forecast = {0};

	(void)state;
	for (uint64_t i = 0; i < 5; i++)
		forecast = fault_pattern_note(
			&pattern, 10000 - i * 180, (struct fault_reach){199, 175});
	assert_int_equal(forecast.stride, -1);
	assert_int_equal(forecast.steps, 32);
}

/* xorshift64 */
static uint64_t draw(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static void random_faults_foretell_next_to_nothing(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct fault_pattern pattern = {0};
		uint64_t random = seed * UINT64_C(0x9e3779b97f4a7c15);
		uint64_t foretold = 0;

		for (unsigned int i = 0; i < 10000; i++)
			foretold += steps_of(&pattern, draw(&random) % (1 << 18));
		/* Pages in 160000 that come with the faults anyway. */
		assert_in_range(foretold, 0, 160);
	}
}

static void a_scan_beside_random_faults_is_still_foretold(void **state)
{
	struct fault_pattern pattern = {0};
	uint64_t random = 99, next = FAR;
	unsigned int foretold = 0;

	(void)state;
	for (unsigned int i = 0; i < 1000; i++) {
		const uint32_t steps = steps_of(&pattern, next);

		foretold += steps > 0;
		next += CHUNK + steps;
		(void)steps_of(&pattern, draw(&random) % (1 << 20));
	}
	assert_true(foretold > 900);
}

static void any_page_number_is_taken(void **state)
{
	static const uint64_t pages[] = {0, UINT64_MAX, 1, UINT64_MAX - 1, UINT64_C(1) << 63,
		(UINT64_C(1) << 63) - 1, 0, 0, UINT64_MAX, UINT64_MAX};
	struct fault_pattern pattern = {0};

	(void)state;
	for (unsigned int round = 0; round < 3; round++) {
		for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++)
			assert_in_range(fault_pattern_note(&pattern, pages[i],
						(struct fault_reach){UINT32_MAX, UINT32_MAX})
						.steps,
				0, 128);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_sequence_is_foretold_once_it_is_confirmed_and_doubles),
		cmocka_unit_test(a_scan_takes_few_faults_upwards_and_downwards),
		cmocka_unit_test(every_stride_is_foretold),
		cmocka_unit_test(the_next_step_of_a_stride_is_what_is_foretold),
		cmocka_unit_test(longer_strides_are_chance),
		cmocka_unit_test(several_scans_at_once_are_told_apart),
		cmocka_unit_test(a_miss_halves_what_is_foretold),
		cmocka_unit_test(pages_that_are_not_asked_for_do_not_end_a_sequence),
		cmocka_unit_test(what_a_wide_read_brought_is_part_of_the_track),
		cmocka_unit_test(what_a_wide_read_brought_in_front_is_part_of_the_track_downwards),
		cmocka_unit_test(random_faults_foretell_next_to_nothing),
		cmocka_unit_test(a_scan_beside_random_faults_is_still_foretold),
		cmocka_unit_test(any_page_number_is_taken),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
