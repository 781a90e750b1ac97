/* SPDX-License-Identifier: MIT */
#include "api/restore_learn.h"

#include "api/restore_record.h"
#include "api/wset_apply.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/observer.h"
#include "wset/wset_store.h"

#include <sys/random.h>

#define LOCK_TIMEOUT_MS 30000
#define Z_95 1.959964

static void close_wset(struct rouse_wset **wset)
{
	rouse_wset_close(*wset);
}

static int check_blocks(
	const struct restore_learn *learn, const struct rouse_wset *wset, struct rouse_error *error)
{
	uint32_t count;
	const struct rouse_block *blocks = rouse_reader_blocks(learn->reader, &count);

	return rouse_wset_check_blocks(wset, blocks, count, learn->options->learn, error);
}

int restore_learn_begin(struct restore_learn *learn, const struct rouse_restore_options *options,
	const struct rouse_reader *reader, const struct rouse_observer *observer,
	struct rouse_error *error)
{
	const struct rouse_wset_store store = {.path = options->learn, .directory = -1};
	int code;

	*learn = (struct restore_learn){.options = options,
		.reader = reader,
		.observer = observer,
		.rules = options->learn_rules};
	code = rouse_wset_rules_complete(&learn->rules, rouse_reader_page_count(reader), error);
	/* Now, not when the VM has run and it is too late. */
	if (code == 0)
		code = rouse_wset_store_check(options->learn, error);
	if (code == 0)
		code = rouse_wset_store_read(&store, &learn->stored, error);
	if (code == 0 && learn->stored != NULL)
		code = check_blocks(learn, learn->stored, error);
	return code;
}

const struct rouse_wset *restore_learn_set(const struct restore_learn *learn)
{
	return learn->stored != NULL && learn->stored->page_count > 0 ? learn->stored : NULL;
}

static uint64_t choose_seed(const struct restore_learn *learn)
{
	uint64_t seed = learn->options->learn_seed;

	/* Any number will do: without the call, the time is one. */
	if (seed == 0 && getrandom(&seed, sizeof(seed), GRND_NONBLOCK) != sizeof(seed))
		seed = rouse_clock_ns();
	return seed;
}

int restore_learn_choose(struct restore_learn *learn, enum rouse_policy policy,
	const struct rouse_wset *given, const struct rouse_bitmap **leave_out,
	struct rouse_error *error)
{
	const struct rouse_wset_sample_config config = {
		.vm_pages = rouse_reader_page_count(learn->reader),
		.until_us = learn->options->learn_us,
		.one_in = learn->options->learn_sample,
		.seed = choose_seed(learn)};
	int code = 0;

	*leave_out = NULL;
	learn->prefetched = policy == ROUSE_POLICY_WS;
	learn->used = given != NULL ? given : restore_learn_set(learn);
	if (!learn->prefetched)
		return 0;
	if (learn->used == NULL) {
		code = restore_record_own(learn->reader, &learn->own);
		learn->used = learn->own;
	}
	if (code == 0)
		code = rouse_wset_sample_draw(
			&learn->sample, learn->used->pages, learn->used->page_count, &config);
	if (code < 0)
		return rouse_error_errno(error, code, "cannot learn the working set");
	*leave_out = &learn->sample.left_out;
	rouse_log(learn->observer, ROUSE_LOG_DEBUG,
		"whether a prefetched page is used is told by the sample alone: page_idle %s",
		access("/sys/kernel/mm/page_idle/bitmap", R_OK | W_OK) == 0
			? "is there, but not used for it yet"
			: "is not there");
	rouse_log(learn->observer, ROUSE_LOG_DEBUG,
		"learning leaves out %u of %u pages, %u of them at random (seed %llu)",
		learn->sample.left_out_count, learn->sample.count, learn->sample.drawn_count,
		(unsigned long long)config.seed);
	return 0;
}

/* ---- What the restore has seen --------------------------------------------------------------- */

/* All that is made of it. */
struct seen {
	struct rouse_wset *trace;
	struct rouse_bitmap touched, hidden;
	struct rouse_wset_group *groups;
	size_t group_count;
};

static void seen_finish(struct seen *seen)
{
	rouse_wset_close(seen->trace);
	rouse_bitmap_finish(&seen->touched);
	rouse_bitmap_finish(&seen->hidden);
	free(seen->groups);
}

static struct rouse_wset_look look_of(const struct restore_learn *learn, const struct seen *seen)
{
	const uint32_t count = learn->used != NULL ? learn->used->page_count : 0;
	struct rouse_wset_look look = {.missed = seen->trace->page_count};

	for (uint32_t i = 0; i < count; i++) {
		const struct rouse_wset_page *page = &learn->used->pages[i];
		const bool asked = rouse_bitmap_test(&seen->touched, page->page);

		look.missed -= asked;
		/* Nobody expects later ones in this time. */
		if (page->time_us > learn->options->learn_us)
			continue;
		look.prefetched++;
		look.used += asked;
	}
	/* Without a prefetch all pages tell of themselves: the sample is the set. */
	look.sampled = look.prefetched;
	if (learn->prefetched) {
		look.sampled = learn->sample.drawn_count;
		look.used = rouse_wset_sample_used(&learn->sample, &seen->touched);
	}
	return look;
}

static int look_at(struct restore_learn *learn, const struct rouse_engine *engine,
	uint64_t transport_ns, struct seen *seen)
{
	const uint64_t pages = rouse_reader_page_count(learn->reader);
	int code = restore_record_faults(
		engine, learn->reader, learn->options->learn_us, transport_ns, &seen->trace);

	if (code == 0)
		code = rouse_bitmap_init(&seen->touched, pages);
	if (code == 0)
		code = rouse_bitmap_init(&seen->hidden, pages);
	if (code < 0)
		return code;
	for (uint32_t i = 0; i < seen->trace->page_count; i++)
		rouse_bitmap_set(&seen->touched, seen->trace->pages[i].page);
	for (uint32_t i = 0; learn->prefetched && i < learn->used->page_count; i++) {
		const uint32_t page = learn->used->pages[i].page;

		if (!rouse_bitmap_test(&learn->sample.left_out, page))
			rouse_bitmap_set(&seen->hidden, page);
	}
	seen->trace->flags = ROUSE_WSET_FLAG_COMPLETE;
	seen->trace->look = look_of(learn, seen);
	if (!learn->prefetched)
		return 0;
	return rouse_wset_sample_groups(
		&learn->sample, &seen->touched, &seen->groups, &seen->group_count);
}

/* ---- The file -------------------------------------------------------------------------------- */

/* Others may have learned meanwhile: theirs is what this restore is added to. */
static int improve(struct restore_learn *learn, const struct seen *seen,
	struct rouse_wset **improved, struct rouse_error *error)
{
	cleanup_with(rouse_wset_store_unlock) struct rouse_wset_store store = ROUSE_WSET_STORE_INIT;
	cleanup_with(close_wset) struct rouse_wset *current = NULL;
	const uint64_t until_us = learn->options->learn_us;
	const struct rouse_wset_unseen unseen = {.whole = true,
		.until_us = until_us < UINT32_MAX ? (uint32_t)until_us : UINT32_MAX,
		.hidden = &seen->hidden,
		.groups = seen->groups,
		.group_count = seen->group_count};
	const struct rouse_wset *base;
	int code = rouse_wset_store_lock(&store, learn->options->learn, LOCK_TIMEOUT_MS, error);

	if (code == 0)
		code = rouse_wset_store_read(&store, &current, error);
	if (code == 0 && current != NULL)
		code = check_blocks(learn, current, error);
	if (code < 0)
		return code;
	/* A new file begins with the set that was prefetched: its pages cannot be seen. */
	base = current != NULL ? current : learn->prefetched ? learn->used : NULL;
	code = rouse_wset_combine(base, seen->trace, &unseen, &learn->rules, improved);
	if (code < 0)
		return rouse_error_errno(error, code, "cannot learn the working set");
	return rouse_wset_store_write(&store, *improved, error);
}

static void fill_report(const struct restore_learn *learn, const struct rouse_wset *improved,
	struct rouse_learn_report *report)
{
	const struct rouse_wset_look *look = &improved->look;
	const struct rouse_wset_share hits = rouse_wset_share_of(look->used, look->sampled, Z_95);
	const double threshold = learn->options->learn_stale, missed = look->missed;
	const double used = hits.value * look->prefetched, most = hits.high * look->prefetched;

	*report = (struct rouse_learn_report){.learned = true,
		.runs = improved->runs,
		.pages = improved->page_count,
		.waiting = improved->waiting_count,
		.prefetched = look->prefetched,
		.left_out = learn->sample.left_out_count,
		.sampled = look->sampled,
		.used = look->used,
		.missed = look->missed,
		.hit_rate = hits.value,
		.hit_low = hits.low,
		.hit_high = hits.high,
		.coverage = look->sampled > 0 && used + missed > 0 ? used / (used + missed) : -1};
	/* Only what even the upper end of the interval does not reach is called stale. */
	report->stale =
		look->sampled > 0 && (hits.high < threshold || most < threshold * (most + missed));
}

static void say(const struct restore_learn *learn, const struct rouse_learn_report *report)
{
	if (!report->stale)
		return;
	rouse_log(learn->observer, ROUSE_LOG_WARNING,
		"the working set %s is stale, unless this was an odd run: %.0f %% of it was used "
		"(%.0f to %.0f %%), and it had %.0f %% of what was touched; `--policy lazy "
		"--learn` once or twice learns it anew",
		learn->options->learn, report->hit_rate * 100, report->hit_low * 100,
		report->hit_high * 100, report->coverage * 100);
}

int restore_learn_end(struct restore_learn *learn, const struct rouse_engine *engine,
	uint64_t transport_ns, struct rouse_learn_report *report, struct rouse_error *error)
{
	cleanup_with(close_wset) struct rouse_wset *improved = NULL;
	cleanup_with(seen_finish) struct seen seen = {0};
	struct rouse_engine_stats stats;
	int code;

	rouse_engine_get_stats(engine, &stats);
	*report = (struct rouse_learn_report){.hit_rate = -1, .hit_high = 1, .coverage = -1};
	/* What was not touched until then says nothing. At the end of the restore it does. */
	if (stats.complete_ns == 0 &&
		rouse_clock_ns() < stats.started_ns + learn->options->learn_us * 1000) {
		rouse_log(learn->observer, ROUSE_LOG_WARNING,
			"nothing was learned: the VM did not run for %.1f s",
			(double)learn->options->learn_us / 1e6);
		return 0;
	}
	code = look_at(learn, engine, transport_ns, &seen);
	if (code < 0)
		return rouse_error_errno(error, code, "cannot learn the working set");
	code = improve(learn, &seen, &improved, error);
	if (code < 0)
		return code;
	fill_report(learn, improved, report);
	say(learn, report);
	return 0;
}

void restore_learn_finish(struct restore_learn *learn)
{
	rouse_wset_close(learn->stored);
	rouse_wset_close(learn->own);
	rouse_wset_sample_finish(&learn->sample);
	*learn = (struct restore_learn){0};
}
