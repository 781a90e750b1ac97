/* SPDX-License-Identifier: MIT */
/* The reader's side of the feeder: which window is read next, and where. */
#include "engine/feeder_private.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "engine/pending.h"

#include <errno.h>

static void put_read(struct rouse_feeder *f, struct feed_window *window)
{
	pthread_mutex_lock(&f->lock);
	window_line_put(&f->line, window);
	pthread_cond_signal(&f->is_read);
	pthread_mutex_unlock(&f->lock);
}

/* Far ahead only while nobody takes anything. */
static bool may_allocate(const struct rouse_feeder *f)
{
	return f->allocated < f->config.windows &&
	       (!f->taken || f->allocated < ROUSE_FEEDER_WARM_WINDOWS);
}

/* A window to fill: an idle one, or a new one while there are not too many. NULL: stop. */
static struct feed_window *take_idle(struct rouse_feeder *f)
{
	struct feed_window *window = NULL;
	uint64_t begun_ns;

	pthread_mutex_lock(&f->lock);
	while (!f->stopping && f->code == 0) {
		window = feeder_pop_idle(f);
		if (window != NULL)
			break;
		if (may_allocate(f)) {
			f->allocated++;
			pthread_mutex_unlock(&f->lock);
			window = feed_window_new(f->window_reader.chunk_pages);
			if (window == NULL)
				feeder_fail(f, -ENOMEM, 0);
			return window;
		}
		begun_ns = rouse_clock_ns();
		pthread_cond_wait(&f->is_idle, &f->lock);
		stage_clock_add(
			f->config.stages, ROUSE_STAGE_WAIT_ROOM, rouse_clock_ns() - begun_ns, 0);
	}
	pthread_mutex_unlock(&f->lock);
	return window;
}

/* The first of @pages that is stored behind the chunk of @locator. */
static size_t find_behind(const struct rouse_feed_page *pages, size_t count, uint64_t locator)
{
	const uint64_t chunk = locator >> 16;
	size_t low = 0, high = count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (pages[middle].locator >> 16 <= chunk)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Goes on where a fault was served, if one was. */
static void follow(struct rouse_feeder *f, struct rouse_pending *pending,
	const struct rouse_feed_page *pages, size_t count)
{
	uint64_t locator;

	if (f->config.follow == NULL)
		return;
	locator = f->config.follow(f->config.follow_user);
	/* A place in front of this region or behind it would only take the reading to its end. */
	if (locator >= pages[0].locator && locator <= pages[count - 1].locator)
		rouse_pending_jump(pending, find_behind(pages, count, locator));
}

/* Fills one window from what is pending. */
static int read_window(struct rouse_feeder *f, struct rouse_pending *pending,
	const struct rouse_feed_page *pages, size_t count)
{
	struct feed_window *window = take_idle(f);
	struct rouse_pending_range next;
	uint64_t chunk = 0;
	int code;

	if (window == NULL)
		return -ECANCELED;
	follow(f, pending, pages, count);
	next = rouse_pending_next(pending);
	rouse_pending_take(pending,
		feed_window_cut(window, pages + next.from, next.to - next.from, &f->config));
	code = window_reader_fill(&f->window_reader, window, &chunk);
	stage_clock_add(f->config.stages, ROUSE_STAGE_READ_BULK, f->window_reader.read_ns,
		feed_window_chunk_pages(window));
	if (code < 0) {
		feeder_fail(f, code, chunk);
		feed_window_free(window);
		return code;
	}
	stage_clock_add(f->config.stages, ROUSE_STAGE_WAIT_ROOM, 0, window->count);
	if (window->count > 0)
		put_read(f, window);
	else
		feeder_put_idle(f, window);
	return 0;
}

/* The pages of a region that are still wanted, window by window. */
static int read_region(struct rouse_feeder *f, const struct rouse_feed_page *pages, size_t count)
{
	cleanup_with(rouse_pending_finish) struct rouse_pending pending = {0};
	int code = rouse_pending_init(&pending, count);

	if (code < 0)
		feeder_fail(f, code, 0);
	while (code == 0 && pending.count > 0)
		code = read_window(f, &pending, pages, count);
	return code;
}

void *feeder_read_main(void *argument)
{
	struct rouse_feeder *f = argument;
	int code;

	feeder_set_priority(f);
	do {
		const struct rouse_feed_page *pages = NULL;
		size_t count = 0;

		code = f->config.plan(f->config.plan_user, &pages, &count);
		if (code < 0)
			feeder_fail(f, code, ROUSE_FEEDER_NO_CHUNK);
		if (code < 0 || count == 0)
			break;
		code = read_region(f, pages, count);
	} while (code == 0);
	pthread_mutex_lock(&f->lock);
	f->read_done = true;
	feeder_wake_all(f);
	pthread_mutex_unlock(&f->lock);
	return NULL;
}
