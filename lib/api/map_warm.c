/* SPDX-License-Identifier: MIT */
#include "api/map_warm.h"

#include "base/bitmap.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/observer.h"
#include "engine/pacer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define PAGE ROUSE_IMAGE_PAGE_BYTES
/* Pages of one read: what a fault of the guest may have to wait for at the disk. */
#define RUN_PAGES 64u
/* Pages of the working set that are looked at together: sorted by place, in flight together. */
#define BATCH_PAGES 1024u
/* So many pages between two that are wanted are read as well: a seek costs more. */
#define GAP_PAGES 7u
#define PROGRESS_MS 100

struct run {
	uint64_t index;
	uint32_t pages;
};

struct map_warm {
	struct map_warm_config config;
	struct rouse_bitmap read; /* by place in the file */
	pthread_t thread;
	bool running;
	bool stop;   /* atomic */
	int done;    /* an eventfd: the thread has ended */
	uint64_t at; /* atomic: pages that the thread has come by */
	int code;    /* of the thread, valid after it has ended */
	struct rouse_error why;
	struct map_warm_stats stats;
	uint8_t *buffer; /* RUN_PAGES */
};

int map_warm_damaged(const struct rouse_flat_file *file, uint64_t index, struct rouse_error *error)
{
	return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
		"page %" PRIu64 " of the flat file is not what was written (at byte %" PRIu64
		"): make the file anew with rouse convert --flat",
		rouse_flat_page(&file->flat, index), index * PAGE);
}

static int read_run(struct map_warm *w, const struct run *run, struct rouse_error *error)
{
	uint64_t wrong = 0;
	int code = rouse_flat_read(w->config.file, run->index, run->pages, w->buffer, &wrong);

	if (code == -EUCLEAN)
		return map_warm_damaged(w->config.file, wrong, error);
	/* It has been cut, to be written anew as likely as not: what the VM reads there is wrong.
	 */
	if (code == -ENODATA)
		return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
			"the flat file has become shorter than it was (before byte %" PRIu64 ")",
			(run->index + run->pages) * PAGE);
	if (code < 0)
		return rouse_error_errno(error, code, "cannot read the flat file");
	w->stats.reads++;
	w->stats.bytes += (uint64_t)run->pages * PAGE;
	return 0;
}

static bool is_ended(const struct map_warm *w)
{
	return __atomic_load_n(&w->stop, __ATOMIC_RELAXED) || rouse_cancelled(w->config.observer);
}

static int cancelled(struct rouse_error *error)
{
	return rouse_error_set(
		error, ROUSE_ERROR_CANCELLED, -ECANCELED, "the restore was cancelled");
}

/* ---- The working set ----------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
	const uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return left < right ? -1 : left > right;
}

/*
 * The places of the next pages of the set that are to be read: sorted, and joined to runs where
 * they lie close together. Returns how many runs.
 */
static size_t make_runs(struct map_warm *w, uint64_t *next, struct run *runs)
{
	const struct map_warm_config *config = &w->config;
	uint64_t places[BATCH_PAGES];
	size_t count = 0, run_count = 0;

	for (; *next < config->page_count && count < BATCH_PAGES; (*next)++) {
		uint64_t index = rouse_flat_index(&config->file->flat, config->pages[*next]);

		/* A hole is read in no time when it is touched. */
		if (!rouse_flat_is_zero(config->file, index) &&
			!rouse_bitmap_test_and_set(&w->read, index))
			places[count++] = index;
	}
	w->stats.first_pages += count;
	qsort(places, count, sizeof(places[0]), compare);
	for (size_t i = 0; i < count; i++) {
		struct run *last = run_count > 0 ? &runs[run_count - 1] : NULL;

		if (last != NULL && places[i] - last->index < RUN_PAGES &&
			places[i] - (last->index + last->pages) <= GAP_PAGES)
			last->pages = (uint32_t)(places[i] - last->index + 1);
		else
			runs[run_count++] = (struct run){.index = places[i], .pages = 1};
	}
	return run_count;
}

/* The kernel begins to read them, all at once: the disk may choose their order. */
static void announce(const struct map_warm *w, const struct run *runs, size_t count)
{
	for (size_t i = 0; i < count; i++)
		(void)posix_fadvise(w->config.file->fd, (off_t)(runs[i].index * PAGE),
			(off_t)runs[i].pages * PAGE, POSIX_FADV_WILLNEED);
}

/* While a batch is read and checked the next one is under way. */
static int warm_set(struct map_warm *w)
{
	struct run batches[2][BATCH_PAGES];
	uint64_t next = 0, begun = 0;
	size_t count = make_runs(w, &next, batches[0]);

	announce(w, batches[0], count);
	for (unsigned int turn = 0; count > 0 || begun < next; turn++) {
		const struct run *runs = batches[turn % 2];
		struct run *ahead = batches[(turn + 1) % 2];
		size_t ahead_count;

		begun = next;
		ahead_count = make_runs(w, &next, ahead);
		announce(w, ahead, ahead_count);
		for (size_t i = 0; i < count; i++) {
			int code =
				is_ended(w) ? cancelled(&w->why) : read_run(w, &runs[i], &w->why);

			if (code < 0)
				return code;
		}
		__atomic_store_n(&w->at, begun, __ATOMIC_RELAXED);
		count = ahead_count;
	}
	return 0;
}

/* ---- All, in order -------------------------------------------------------------------------- */

/* The next pages of the file that are no hole: [from, to). */
struct data {
	uint64_t from, to;
};

/* What is known of the file at @index and behind it. Where nobody can tell, all of it is data. */
static void find_data(const struct map_warm *w, uint64_t index, struct data *data)
{
	const uint64_t end = w->config.file->flat.page_count;
	const off_t from = lseek(w->config.file->fd, (off_t)(index * PAGE), SEEK_DATA);
	off_t to;

	*data = (struct data){.from = from < 0 && errno == ENXIO ? end : index, .to = end};
	if (from < 0)
		return;
	data->from = (uint64_t)from / PAGE;
	to = lseek(w->config.file->fd, from, SEEK_HOLE);
	if (to >= 0)
		data->to = ((uint64_t)to + PAGE - 1) / PAGE;
}

/*
 * Whether the page is to be read: zero pages as well, unless they are holes, since what was written
 * there is found in no other way.
 */
static bool is_wanted(const struct map_warm *w, uint64_t index, struct data *data)
{
	if (rouse_bitmap_test(&w->read, index))
		return false;
	if (!rouse_flat_is_zero(w->config.file, index))
		return true;
	if (index >= data->to)
		find_data(w, index, data);
	return index >= data->from;
}

/* The next run that has something to read, from *at on. False: there is none below @end. */
static bool next_run(const struct map_warm *w, uint64_t *at, uint64_t end, uint32_t most,
	struct data *data, struct run *run)
{
	uint64_t index = *at;

	while (index < end && !is_wanted(w, index, data))
		index++;
	*run = (struct run){.index = index};
	while (index < end && run->pages < most && is_wanted(w, index, data)) {
		run->pages++;
		index++;
	}
	*at = index;
	return run->pages > 0;
}

static int warm_all(struct map_warm *w)
{
	const uint64_t end = w->config.file->flat.page_count;
	struct data data = {0};
	uint64_t at = 0;
	struct run run;

	(void)posix_fadvise(w->config.file->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	while (next_run(w, &at, end, RUN_PAGES, &data, &run)) {
		int code = is_ended(w) ? cancelled(&w->why) : read_run(w, &run, &w->why);

		if (code < 0)
			return code;
		for (uint32_t i = 0; i < run.pages; i++) {
			rouse_bitmap_set(&w->read, run.index + i);
			w->stats.first_pages += !rouse_flat_is_zero(w->config.file, run.index + i);
		}
		__atomic_store_n(&w->at, at, __ATOMIC_RELAXED);
	}
	(void)posix_fadvise(w->config.file->fd, 0, 0, POSIX_FADV_NORMAL);
	return 0;
}

static void *warm_first(void *user)
{
	struct map_warm *w = user;

	w->code = rouse_flat_load_table(w->config.file, &w->why);
	w->stats.bytes += w->config.file->flat.page_count * sizeof(le64_t);
	w->stats.reads++;
	if (w->code == 0)
		w->code = w->config.all ? warm_all(w) : warm_set(w);
	(void)eventfd_write(w->done, 1);
	return NULL;
}

/* ---- The caller's side ---------------------------------------------------------------------- */

int map_warm_begin(
	const struct map_warm_config *config, struct map_warm **warm, struct rouse_error *error)
{
	struct map_warm *w = calloc(1, sizeof(*w));
	int code = -ENOMEM;

	if (w != NULL) {
		w->config = *config;
		w->done = eventfd(0, EFD_CLOEXEC);
		w->buffer = malloc((size_t)RUN_PAGES * PAGE);
		code = rouse_bitmap_init(&w->read, config->file->flat.page_count);
	}
	if (code == 0 && (w->done < 0 || w->buffer == NULL))
		code = -ENOMEM;
	if (code == 0)
		code = -pthread_create(&w->thread, NULL, warm_first, w);
	if (code < 0) {
		map_warm_free(w);
		return rouse_error_errno(error, code, "cannot warm the flat file");
	}
	w->running = true;
	*warm = w;
	return 0;
}

static void join(struct map_warm *w)
{
	if (w->running)
		(void)pthread_join(w->thread, NULL);
	w->running = false;
}

int map_warm_wait(struct map_warm *w, struct rouse_error *error)
{
	const uint64_t total =
		w->config.all ? w->config.file->flat.page_count : w->config.page_count;
	struct pollfd done = {.fd = w->done, .events = POLLIN};

	/* It ends by itself soon after the restore is cancelled. */
	while (poll(&done, 1, PROGRESS_MS) <= 0)
		rouse_progress(w->config.observer, "warming",
			__atomic_load_n(&w->at, __ATOMIC_RELAXED) * PAGE, total * PAGE);
	join(w);
	if (w->code < 0 && error != NULL)
		*error = w->why;
	return w->code;
}

/* Holds back to the pace. */
static void hold_back(
	struct map_warm *w, struct rouse_pacer *pacer, const struct vcpu_wait *wait, uint64_t bytes)
{
	uint64_t now_ns = rouse_clock_ns(), due_ns, wait_ns = 0;
	struct pollfd cancel = {
		.fd = rouse_observer_cancel_fd(w->config.observer), .events = POLLIN};

	if (rouse_pacer_wants_sample(pacer, now_ns)) {
		int processors = wait != NULL ? vcpu_wait_read(wait, &wait_ns) : 0;

		rouse_pacer_sample(pacer, now_ns, wait_ns, processors);
	}
	/* A read into the page cache waits for the disk, and places nothing. */
	due_ns = rouse_pacer_placed(pacer, now_ns, bytes, 0);
	now_ns = rouse_clock_ns();
	if (due_ns > now_ns) {
		struct timespec pause = rouse_clock_timespec(due_ns - now_ns);

		(void)ppoll(&cancel, 1, &pause, NULL);
	}
}

int map_warm_rest(struct map_warm *w, uint64_t background, const struct vcpu_wait *wait,
	struct rouse_error *error)
{
	const uint64_t end = w->config.file->flat.main_pages, begun_ns = rouse_clock_ns();
	struct rouse_pacer pacer;
	struct data data = {0};
	uint64_t at = 0;
	struct run run;
	int code = 0;

	rouse_pacer_init(&pacer, background, 0, begun_ns);
	while (code == 0 &&
		next_run(w, &at, end, pacer.limited ? ROUSE_PACER_PIECE : RUN_PAGES, &data, &run)) {
		code = is_ended(w) ? cancelled(error) : read_run(w, &run, error);
		if (code < 0)
			break;
		for (uint32_t i = 0; i < run.pages; i++)
			w->stats.rest_pages += !rouse_flat_is_zero(w->config.file, run.index + i);
		rouse_progress(w->config.observer, "warming", at * PAGE, end * PAGE);
		hold_back(w, &pacer, wait, (uint64_t)run.pages * PAGE);
	}
	w->stats.rest_ns = rouse_clock_ns() - begun_ns;
	return code;
}

void map_warm_get_stats(const struct map_warm *w, struct map_warm_stats *stats)
{
	*stats = w->stats;
}

void map_warm_free(struct map_warm *w)
{
	if (w == NULL)
		return;
	__atomic_store_n(&w->stop, true, __ATOMIC_RELAXED);
	join(w);
	cleanup_close_fn(&w->done);
	rouse_bitmap_finish(&w->read);
	free(w->buffer);
	free(w);
}
