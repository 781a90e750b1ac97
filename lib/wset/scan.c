/* SPDX-License-Identifier: MIT */
#include "wset/scan.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "wset/scan_private.h"

#define DROP_BYTES (UINT64_C(64) << 20)  /* at once */
#define STOP_BUDGET_NS UINT64_C(3000000) /* then the thread may run on for a while: */
#define REST_NS UINT64_C(1000000)

/* What a reading of the page tables notes. */
struct note {
	struct scan *scan;
	const struct scan_area *area;
};

static void note_pages(void *user, uint64_t address, uint64_t bytes)
{
	const struct note *note = user;
	struct scan *scan = note->scan;
	const uint64_t end = note->area->address + note->area->bytes;
	uint64_t page;

	if (address < note->area->address || address >= end || bytes > end - address)
		return;
	page = note->area->first_page + (address - note->area->address) / SCAN_PAGE;
	for (uint64_t i = 0; i < bytes / SCAN_PAGE; i++)
		scan_rule_note(&scan->pages[page + i], scan->report.scans);
}

/* So that a thread which is stopped over and over gets something done in between. */
static void let_rest(const struct scan *scan)
{
	const uint64_t rested_ns = rouse_clock_ns() - scan->went_ns;

	if (scan->went_ns != 0 && rested_ns < REST_NS) {
		const struct timespec nap = {.tv_nsec = (long)(REST_NS - rested_ns)};

		(void)nanosleep(&nap, NULL);
	}
}

static int stop(struct scan *scan, struct rouse_error *error)
{
	int code;

	if (scan->stopped_ns != 0)
		return 0;
	let_rest(scan);
	code = target_stop(scan->target, error);
	if (code == 0)
		scan->stopped_ns = rouse_clock_ns();
	return code;
}

static void go(struct scan *scan)
{
	if (scan->stopped_ns == 0)
		return;
	target_go(scan->target);
	scan->went_ns = rouse_clock_ns();
	scan_count_stop(&scan->report, scan->went_ns - scan->stopped_ns);
	scan->stopped_ns = 0;
}

/* The log is written by a caller's function, which may take its time: nobody is stopped for it. */
static void give_area_up(struct scan *scan, struct scan_area *area)
{
	go(scan);
	area->gone = true;
	scan->report.skipped_pages += area->bytes / SCAN_PAGE;
	rouse_log(scan->config.observer, ROUSE_LOG_WARNING,
		"%llu KiB at %llx are not scanned any more: what is mapped there has changed",
		(unsigned long long)area->bytes / 1024, (unsigned long long)area->address);
}

/*
 * Whether the area is still the shared mapping of the file that it was, and registered with our
 * userfaultfd: private memory would be lost by what is about to be done. 1, 0, or an error.
 */
static int is_still_shared(
	const struct scan *scan, const struct scan_area *area, struct rouse_error *error)
{
	cleanup_free struct target_map *maps = NULL;
	size_t count;
	int code = target_maps(scan->target, &maps, &count, error);

	if (code < 0)
		return code;
	return area->shared && scan_area_is_same(area, maps, count) &&
	       scan_pagemap_read(scan->pagemap, SCAN_PRESENT, false, area->address,
		       area->address + SCAN_PAGE, NULL, NULL) == 0;
}

/* Reads a part of an area, and with @reset takes all of it as not accessed. */
static int sweep_shared_part(struct scan *scan, struct scan_area *area, uint64_t start,
	uint64_t end, bool reset, scan_found_fn *found, struct rouse_error *error)
{
	struct note note = {.scan = scan, .area = area};
	int code = reset ? stop(scan, error) : 0;

	if (code < 0)
		return code;
	code = scan_pagemap_read(scan->pagemap, SCAN_PRESENT, false, start, end, found, &note);
	if (code == 0 && reset) {
		struct rouse_error why = {0};

		code = is_still_shared(scan, area, error);
		if (code < 0)
			return code;
		code = code == 0 ? -EPERM : scan_drop(scan->target, start, end - start, &why);
		/* The call was not made, and others would not be either. */
		if (code == -ESRCH || code == -EIO || code == -EBUSY) {
			*error = why;
			return code;
		}
	}
	if (code < 0)
		give_area_up(scan, area);
	if (scan->stopped_ns != 0 && rouse_clock_ns() - scan->stopped_ns > STOP_BUDGET_NS)
		go(scan);
	return 0;
}

static int sweep_shared(struct scan *scan, struct scan_area *area, bool reset, scan_found_fn *found,
	struct rouse_error *error)
{
	const uint64_t end = area->address + area->bytes;
	int code = 0;

	for (uint64_t at = area->address; at < end && code == 0 && !area->gone; at += DROP_BYTES)
		code = sweep_shared_part(scan, area, at,
			end - at > DROP_BYTES ? at + DROP_BYTES : end, reset, found, error);
	return code;
}

static int check_alive(const struct scan *scan, struct rouse_error *error)
{
	if (target_alive(scan->target))
		return 0;
	return rouse_error_set(error, ROUSE_ERROR_SYSTEM, -ESRCH, "process %d has ended",
		target_pid(scan->target));
}

/* What is there now is looked at once: page_idle changes nothing, also where it looks wrongly. */
static int check_idle_areas(struct scan *scan, struct rouse_error *error)
{
	cleanup_free struct target_map *maps = NULL;
	size_t count;
	int code = target_maps(scan->target, &maps, &count, error);

	for (uint32_t i = 0; i < scan->areas.count && code == 0; i++) {
		struct scan_area *area = &scan->areas.list[i];

		if (area->source == ROUSE_SCAN_PAGE_IDLE && !area->gone &&
			!scan_area_is_same(area, maps, count))
			give_area_up(scan, area);
	}
	return code;
}

static void count_idle(struct scan *scan, const struct scan_idle_counts *counts)
{
	if (counts->huge > scan->report.huge_pages)
		scan->report.huge_pages = counts->huge;
	if (counts->unwatched > scan->report.unwatched_pages)
		scan->report.unwatched_pages = counts->unwatched;
}

static int read_idle(struct scan *scan, scan_found_fn *found, struct rouse_error *error)
{
	int code = 0;

	for (uint32_t i = 0; i < scan->areas.count && code == 0; i++) {
		const struct scan_area *area = &scan->areas.list[i];
		struct note note = {.scan = scan, .area = area};

		if (area->source == ROUSE_SCAN_PAGE_IDLE && !area->gone)
			code = scan_idle_read(scan->idle, area->first_page, area->address,
				area->bytes / SCAN_PAGE, found, &note, error);
	}
	return code;
}

static int mark_idle(struct scan *scan, struct rouse_error *error)
{
	struct scan_idle_counts counts = {0};
	int code = 0;

	for (uint32_t i = 0; i < scan->areas.count && code == 0; i++) {
		const struct scan_area *area = &scan->areas.list[i];
		const uint64_t pages = area->bytes / SCAN_PAGE;

		if (area->source != ROUSE_SCAN_PAGE_IDLE || area->gone)
			continue;
		code = scan_idle_mark(scan->idle, area->first_page, area->address, pages, error);
		scan_idle_count(scan->idle, area->first_page, pages, &counts);
	}
	count_idle(scan, &counts);
	return code;
}

/* All is read, then all is marked: a huge page may be on both sides of a border. */
static int sweep_idle(
	struct scan *scan, bool reset, scan_found_fn *found, struct rouse_error *error)
{
	int code = check_idle_areas(scan, error);

	if (code == 0 && found != NULL)
		code = read_idle(scan, found, error);
	return code == 0 && reset ? mark_idle(scan, error) : code;
}

/* Goes over all memory. @reset: what was accessed until now counts as not accessed. */
static int sweep(struct scan *scan, bool reset, scan_found_fn *found, struct rouse_error *error)
{
	int code = check_alive(scan, error);

	if (code == 0 && scan->idle != NULL)
		code = sweep_idle(scan, reset, found, error);
	for (uint32_t i = 0; i < scan->areas.count && code == 0; i++) {
		struct scan_area *area = &scan->areas.list[i];
		struct note note = {.scan = scan, .area = area};

		if (area->gone)
			continue;
		if (area->source == ROUSE_SCAN_PRESENCE)
			code = sweep_shared(scan, area, reset, found, error);
		else if (area->source == ROUSE_SCAN_WRITES &&
			 scan_pagemap_read(scan->pagemap, SCAN_WRITTEN, reset, area->address,
				 area->address + area->bytes, found, &note) < 0)
			give_area_up(scan, area);
	}
	go(scan);
	return code == 0 ? check_alive(scan, error) : code;
}

static int begin(struct scan *scan, struct rouse_error *error)
{
	const uint64_t began_ns = rouse_clock_ns();
	int code = scan_sources_open(scan, error);

	if (code == 0)
		code = sweep(scan, true, NULL, error);
	scan->report.began_ns = rouse_clock_ns();
	scan->report.reset_ns = scan->report.began_ns - began_ns;
	return code;
}

int scan_start(struct target *target, const struct trace_range *ranges, uint32_t count,
	const struct scan_config *config, struct scan **scan, struct rouse_error *error)
{
	struct rouse_error local;
	struct scan *s = calloc(1, sizeof(*s));
	int code;

	if (error == NULL)
		error = &local;
	if (s == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot scan");
	*s = (struct scan){.target = target, .config = *config, .uffd = -1, .pagemap = -1};
	scan_idle_files_init(&s->idle_files);
	code = scan_areas_init(&s->areas, target, ranges, count, error);
	if (code == 0) {
		s->pages = calloc(s->areas.pages + 1, sizeof(*s->pages));
		code = s->pages != NULL ? begin(s, error)
					: rouse_error_errno(error, -ENOMEM, "cannot scan");
	}
	if (code < 0) {
		scan_free(s);
		return code;
	}
	*scan = s;
	return 0;
}

int scan_take(struct scan *scan, bool last, struct rouse_error *error)
{
	const uint64_t began_ns = rouse_clock_ns();
	struct rouse_error local;
	int code;

	if (scan->report.scans == SCAN_RULE_MAX_SCANS)
		return rouse_error_set(
			error, ROUSE_ERROR_USAGE, -EINVAL, "there were too many scans");
	scan->report.scans++;
	scan_rule_age(&scan->config.rule, scan->pages, scan->areas.pages);
	code = sweep(scan, !last, note_pages, error != NULL ? error : &local);
	scan->report.scan_ns += rouse_clock_ns() - began_ns;
	return code;
}

const struct scan_page *scan_pages(const struct scan *scan, size_t *count)
{
	*count = scan->areas.pages;
	return scan->pages;
}

void scan_get_report(const struct scan *scan, struct scan_report *report)
{
	*report = scan->report;
}

void scan_free(struct scan *scan)
{
	if (scan == NULL)
		return;
	go(scan);
	scan_sources_close(scan);
	scan_areas_finish(&scan->areas);
	free(scan->pages);
	free(scan);
}
