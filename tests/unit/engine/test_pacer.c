/* SPDX-License-Identifier: MIT */
/* The pace of the background, with a guest and a clock that are numbers. */
#include "engine/pacer.h"

#include "../unit.h"

#include <rouse.h>

#define MS UINT64_C(1000000)
#define PIECE (UINT64_C(16) * 4096)

/* A host with two processors and a guest with two vCPUs. */
struct world {
	struct rouse_pacer pacer;
	uint64_t now_ns, wait_ns, bytes;
	double share_at_gb; /* at 1 GB/s the vCPUs wait for this share of their time */
	double source;      /* bytes/s that the image can be read at */
	double machine;     /* bytes/s that can be placed; 0: in no time */
	int processors;
};

static void world_init(struct world *w, uint64_t background)
{
	*w = (struct world){.source = 2e9, .processors = 2, .now_ns = 5 * MS};
	rouse_pacer_init(&w->pacer, background, 0, w->now_ns);
}

/* Delivers for @ms; returns the mean rate, bytes/s. */
static double deliver(struct world *w, uint64_t ms)
{
	const uint64_t from_ns = w->now_ns, from_bytes = w->bytes;

	while (w->now_ns < from_ns + ms * MS) {
		uint64_t before_ns = w->now_ns, placing_ns = 0, due_ns;
		double rate;

		w->now_ns += (uint64_t)((double)PIECE * 1e9 / w->source);
		if (w->machine > 0)
			placing_ns = (uint64_t)((double)PIECE * 1e9 / w->machine);
		w->now_ns += placing_ns;
		if (rouse_pacer_wants_sample(&w->pacer, w->now_ns))
			rouse_pacer_sample(&w->pacer, w->now_ns, w->wait_ns, w->processors);
		due_ns = rouse_pacer_placed(&w->pacer, w->now_ns, PIECE, placing_ns);
		if (due_ns > w->now_ns)
			w->now_ns = due_ns;
		w->bytes += PIECE;
		/* The busier the background, the longer the vCPUs wait. */
		rate = (double)PIECE * 1e9 / (double)(w->now_ns - before_ns);
		w->wait_ns += (uint64_t)((double)(w->now_ns - before_ns) * 2 * w->share_at_gb *
					 rate / 1e9);
	}
	return (double)(w->bytes - from_bytes) * 1e9 / (double)(w->now_ns - from_ns);
}

static void a_guest_that_waits_for_nobody_gets_full_speed(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, ROUSE_BACKGROUND_AUTO);
	(void)deliver(&w, 500);
	assert_true(deliver(&w, 500) > 1.9e9);
}

static void it_begins_gently(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, ROUSE_BACKGROUND_AUTO);
	assert_true(deliver(&w, 20) < 400e6);
}

static void the_guests_wait_is_held_to_its_budget(void **state)
{
	uint64_t waited;
	struct world w;
	double rate, share;

	(void)state;
	world_init(&w, ROUSE_BACKGROUND_AUTO);
	w.share_at_gb = 0.2; /* a tenth at 500 MB/s */
	(void)deliver(&w, 1000);
	waited = w.wait_ns;
	rate = deliver(&w, 1000);
	share = (double)(w.wait_ns - waited) / (2 * 1000.0 * MS);
	if (share > 0.11 || rate < 400e6 || rate > 550e6)
		fail_msg("share %g, rate %g", share, rate);
}

static void a_guest_that_begins_to_wait_is_given_way_to_at_once(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, ROUSE_BACKGROUND_AUTO);
	(void)deliver(&w, 1000);
	w.share_at_gb = 2;
	(void)deliver(&w, 60);
	assert_true(deliver(&w, 100) < 350e6);
}

static void however_long_the_guest_waits_the_restore_ends(void **state)
{
	struct world w;
	double rate;

	(void)state;
	world_init(&w, ROUSE_BACKGROUND_AUTO);
	w.share_at_gb = 1000;
	(void)deliver(&w, 1000);
	rate = deliver(&w, 1000);
	assert_true(rate > 290e6 && rate < 310e6);
}

/* Or the guest would have what the background leaves of it: nothing. */
static void a_machine_that_cannot_place_the_least_rate_keeps_half_of_its_time(void **state)
{
	struct world w;
	double rate;

	(void)state;
	world_init(&w, ROUSE_BACKGROUND_AUTO);
	w.share_at_gb = 1000;
	w.machine = 100e6;
	(void)deliver(&w, 1000);
	rate = deliver(&w, 1000);
	if (rate < 40e6 || rate > 60e6)
		fail_msg("rate %g", rate);
}

static void a_machine_that_can_place_twice_the_least_rate_keeps_to_it(void **state)
{
	struct world w;
	double rate;

	(void)state;
	world_init(&w, ROUSE_BACKGROUND_AUTO);
	w.share_at_gb = 1000;
	w.machine = 700e6;
	(void)deliver(&w, 1000);
	rate = deliver(&w, 1000);
	if (rate < 290e6 || rate > 310e6)
		fail_msg("rate %g", rate);
}

static void a_slow_machine_whose_guest_waits_for_nobody_is_used_whole(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, ROUSE_BACKGROUND_AUTO);
	w.machine = 100e6;
	(void)deliver(&w, 500);
	assert_true(deliver(&w, 1000) > 90e6);
}

/* Each page that is missing costs it more than processors. */
static void a_slow_machine_whose_guest_misses_pages_is_used_whole(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, ROUSE_BACKGROUND_AUTO);
	w.share_at_gb = 1000;
	w.machine = 200e6;
	for (int i = 0; i < 10; i++) {
		rouse_pacer_missed(&w.pacer, w.now_ns);
		(void)deliver(&w, 100);
	}
	rouse_pacer_missed(&w.pacer, w.now_ns);
	assert_true(deliver(&w, 900) > 180e6);
	/* That is over soon. */
	(void)deliver(&w, 1000);
	assert_true(deliver(&w, 1000) < 130e6);
}

/* What is slow there is not the machine: little of it would be taken. */
static void a_slow_source_does_not_lower_the_least_rate(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, ROUSE_BACKGROUND_AUTO);
	w.share_at_gb = 1000;
	w.machine = 2e9;
	w.source = 50e6;
	(void)deliver(&w, 1000);
	assert_true(deliver(&w, 1000) > 45e6);
}

static void a_machine_that_gets_faster_gets_the_least_rate_back(void **state)
{
	struct world w;
	double rate;

	(void)state;
	world_init(&w, ROUSE_BACKGROUND_AUTO);
	w.share_at_gb = 1000;
	w.machine = 50e6;
	(void)deliver(&w, 1000);
	w.machine = 2e9;
	(void)deliver(&w, 60000);
	rate = deliver(&w, 1000);
	if (rate < 290e6 || rate > 310e6)
		fail_msg("rate %g", rate);
}

/* QEMU stands still, and place() waits for it: that says nothing of the machine. */
static void a_qemu_that_stood_still_does_not_slow_the_background_down(void **state)
{
	struct world w;
	uint64_t due_ns;

	(void)state;
	world_init(&w, ROUSE_BACKGROUND_AUTO);
	w.processors = -1;
	rouse_pacer_sample(&w.pacer, w.now_ns, 0, w.processors);
	(void)rouse_pacer_placed(&w.pacer, w.now_ns, PIECE, 60000 * MS);
	w.now_ns += 10 * MS;
	(void)rouse_pacer_placed(&w.pacer, w.now_ns, 1 << 20, 5 * MS);
	rouse_pacer_sample(&w.pacer, w.now_ns, 0, w.processors);
	due_ns = rouse_pacer_placed(&w.pacer, w.now_ns, PIECE, 0);
	assert_true(due_ns < w.now_ns + 100 * MS);
	(void)deliver(&w, 60000);
	assert_true(deliver(&w, 1000) > 290e6);
}

/* Twice, one piece after the other. */
static void a_sample_of_a_minute_says_nothing_of_the_machine(void **state)
{
	uint64_t now_ns = 5 * MS;
	struct rouse_pacer pacer;

	(void)state;
	rouse_pacer_init(&pacer, ROUSE_BACKGROUND_AUTO, 0, now_ns);
	rouse_pacer_sample(&pacer, now_ns, 0, 0);
	for (int i = 0; i < 2; i++) {
		now_ns += 60001 * MS;
		rouse_pacer_sample(&pacer, now_ns, 0, 0);
		(void)rouse_pacer_placed(&pacer, now_ns, PIECE, 60000 * MS);
	}
	rouse_pacer_sample(&pacer, now_ns + 10 * MS, 0, 0);
	assert_true(pacer.rate > 290e6);
}

static void what_is_known_of_the_speed_grows_old_however_few_samples_there_are(void **state)
{
	(void)state;
	for (uint64_t period_ms = 10; period_ms <= 10000; period_ms *= 10) {
		struct rouse_pacer pacer;

		rouse_pacer_init(&pacer, ROUSE_BACKGROUND_AUTO, 100e6, MS);
		for (uint64_t ms = 0; ms <= 10000; ms += period_ms)
			rouse_pacer_sample(&pacer, (1 + ms) * MS, 0, 0);
		/* Half of what the machine can do, which is believed to have doubled. */
		if (pacer.rate < 99e6 || pacer.rate > 101e6)
			fail_msg("rate %g", pacer.rate);
	}
}

static void however_slow_the_machine_is_believed_to_be_the_restore_ends(void **state)
{
	struct rouse_pacer pacer;
	uint64_t due_ns;

	(void)state;
	rouse_pacer_init(&pacer, ROUSE_BACKGROUND_AUTO, 1, MS);
	due_ns = rouse_pacer_placed(&pacer, MS, 16000000, 0);
	assert_in_range(due_ns, 1000 * MS, 1002 * MS);
}

static void without_the_signal_a_slow_machine_keeps_half_of_its_time(void **state)
{
	struct world w;
	double rate;

	(void)state;
	world_init(&w, ROUSE_BACKGROUND_AUTO);
	w.processors = 0;
	w.machine = 100e6;
	(void)deliver(&w, 1000);
	rate = deliver(&w, 1000);
	if (rate < 40e6 || rate > 60e6)
		fail_msg("rate %g", rate);
}

static void it_begins_more_gently_where_the_working_set_went_slowly(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, ROUSE_BACKGROUND_AUTO);
	rouse_pacer_init(&w.pacer, ROUSE_BACKGROUND_AUTO, 200e6, w.now_ns);
	assert_true(deliver(&w, 20) < 130e6);
}

/* Otherwise the rate would grow meanwhile, and then the pages come in bursts. */
static void a_slow_source_does_not_raise_the_rate(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, ROUSE_BACKGROUND_AUTO);
	w.source = 50e6;
	(void)deliver(&w, 2000);
	w.source = 2e9;
	assert_true(deliver(&w, 20) < 400e6);
}

static void without_the_signal_the_rate_is_fixed(void **state)
{
	struct world w;
	double rate;

	(void)state;
	world_init(&w, ROUSE_BACKGROUND_AUTO);
	w.processors = -95; /* -ENOTSUP */
	rate = deliver(&w, 1000);
	assert_true(rate > 290e6 && rate < 310e6);
}

static void a_signal_that_goes_away_leaves_a_fixed_rate(void **state)
{
	struct world w;
	double rate;

	(void)state;
	world_init(&w, ROUSE_BACKGROUND_AUTO);
	(void)deliver(&w, 1000);
	w.processors = 0;
	(void)deliver(&w, 20);
	rate = deliver(&w, 1000);
	assert_true(rate > 290e6 && rate < 310e6);
}

static void a_wait_that_goes_backwards_counts_as_none(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, ROUSE_BACKGROUND_AUTO);
	w.wait_ns = UINT64_MAX / 2;
	(void)deliver(&w, 20);
	w.wait_ns = 0;
	(void)deliver(&w, 500);
	assert_true(deliver(&w, 100) > 1.9e9);
}

static void a_fixed_rate_is_kept_whatever_the_guest_feels(void **state)
{
	struct world w;
	double rate;

	(void)state;
	world_init(&w, 32000000);
	w.share_at_gb = 1000;
	rate = deliver(&w, 2000);
	assert_true(rate > 31e6 && rate < 33e6);
}

static void the_least_rate_does_not_overflow(void **state)
{
	struct rouse_pacer pacer;

	(void)state;
	rouse_pacer_init(&pacer, 1, 0, MS);
	assert_true(rouse_pacer_placed(&pacer, MS, PIECE, 0) > 60000 * 1000 * MS);
}

static void max_never_waits(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, ROUSE_BACKGROUND_MAX);
	w.share_at_gb = 1000;
	assert_false(rouse_pacer_wants_sample(&w.pacer, w.now_ns));
	assert_true(deliver(&w, 100) > 1.9e9);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_guest_that_waits_for_nobody_gets_full_speed),
		cmocka_unit_test(it_begins_gently),
		cmocka_unit_test(the_guests_wait_is_held_to_its_budget),
		cmocka_unit_test(a_guest_that_begins_to_wait_is_given_way_to_at_once),
		cmocka_unit_test(however_long_the_guest_waits_the_restore_ends),
		cmocka_unit_test(a_machine_that_cannot_place_the_least_rate_keeps_half_of_its_time),
		cmocka_unit_test(a_machine_that_can_place_twice_the_least_rate_keeps_to_it),
		cmocka_unit_test(a_slow_machine_whose_guest_waits_for_nobody_is_used_whole),
		cmocka_unit_test(a_slow_machine_whose_guest_misses_pages_is_used_whole),
		cmocka_unit_test(a_slow_source_does_not_lower_the_least_rate),
		cmocka_unit_test(a_machine_that_gets_faster_gets_the_least_rate_back),
		cmocka_unit_test(a_qemu_that_stood_still_does_not_slow_the_background_down),
		cmocka_unit_test(a_sample_of_a_minute_says_nothing_of_the_machine),
		cmocka_unit_test(
			what_is_known_of_the_speed_grows_old_however_few_samples_there_are),
		cmocka_unit_test(however_slow_the_machine_is_believed_to_be_the_restore_ends),
		cmocka_unit_test(without_the_signal_a_slow_machine_keeps_half_of_its_time),
		cmocka_unit_test(it_begins_more_gently_where_the_working_set_went_slowly),
		cmocka_unit_test(a_slow_source_does_not_raise_the_rate),
		cmocka_unit_test(without_the_signal_the_rate_is_fixed),
		cmocka_unit_test(a_signal_that_goes_away_leaves_a_fixed_rate),
		cmocka_unit_test(a_wait_that_goes_backwards_counts_as_none),
		cmocka_unit_test(a_fixed_rate_is_kept_whatever_the_guest_feels),
		cmocka_unit_test(the_least_rate_does_not_overflow),
		cmocka_unit_test(max_never_waits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
