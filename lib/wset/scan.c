/* SPDX-License-Identifier: MIT */
#include "wset/scan.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "wset/scan_private.h"
#include "wset/trace_record.h"

#include <fcntl.h>

#define DROP_BYTES (UINT64_C(64) << 20)  /* at once */
#define STOP_BUDGET_NS UINT64_C(3000000) /* then the thread may run on for a while */

struct scan {
	struct target *target;
	const struct rouse_observer *observer;
	struct scan_area *areas;
	uint32_t area_count;
	struct scan_rule rule;
	int uffd, pagemap;
	struct scan_page *pages;
	uint64_t page_count;
	uint64_t stopped_ns; /* a thread stands still since then; 0: none */
	struct scan_report report;
};

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

static void count_stop(struct scan_report *report, uint64_t ns)
{
	report->stops++;
	report->stop_ns += ns;
	if (ns > report->stop_max_ns)
		report->stop_max_ns = ns;
}

static int stop(struct scan *scan, struct rouse_error *error)
{
	int code;

	if (scan->stopped_ns != 0)
		return 0;
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
	count_stop(&scan->report, rouse_clock_ns() - scan->stopped_ns);
	scan->stopped_ns = 0;
}

static void give_area_up(struct scan *scan, struct scan_area *area)
{
	area->gone = true;
	scan->report.skipped_pages += area->bytes / SCAN_PAGE;
	rouse_log(scan->observer, ROUSE_LOG_WARNING,
		"%llu KiB at %llx are not scanned any more: what is mapped there has changed",
		(unsigned long long)area->bytes / 1024, (unsigned long long)area->address);
}

/* The mapping that the whole area lies in. */
static const struct target_map *map_of(
	const struct scan_area *area, const struct target_map *maps, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (maps[i].start <= area->address && area->address < maps[i].end)
			return area->address + area->bytes <= maps[i].end ? &maps[i] : NULL;
	}
	return NULL;
}

/*
 * Whether the area is still the shared mapping of the file that it was, and registered with our
 * userfaultfd: private memory would be lost by what is about to be done. 1, 0, or an error.
 */
static int is_still_shared(
	const struct scan *scan, const struct scan_area *area, struct rouse_error *error)
{
	cleanup_free struct target_map *maps = NULL;
	const struct target_map *map;
	size_t count;
	int code = target_maps(scan->target, &maps, &count, error);

	if (code < 0)
		return code;
	map = map_of(area, maps, count);
	return map != NULL && map->shared && map->inode == area->inode &&
	       map->offset + (area->address - map->start) == area->offset &&
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
		if (code == -ESRCH || code == -EIO) {
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

/* Goes over all memory. @reset: what was accessed until now counts as not accessed. */
static int sweep(struct scan *scan, bool reset, scan_found_fn *found, struct rouse_error *error)
{
	int code = check_alive(scan, error);

	for (uint32_t i = 0; i < scan->area_count && code == 0; i++) {
		struct scan_area *area = &scan->areas[i];
		struct note note = {.scan = scan, .area = area};

		if (area->gone)
			continue;
		if (area->shared)
			code = sweep_shared(scan, area, reset, found, error);
		else if (scan_pagemap_read(scan->pagemap, SCAN_WRITTEN, reset, area->address,
				 area->address + area->bytes, found, &note) < 0)
			give_area_up(scan, area);
	}
	go(scan);
	return code == 0 ? check_alive(scan, error) : code;
}

static int check_range(const struct trace_range *ranges, uint32_t i, struct rouse_error *error)
{
	const struct trace_range *range = &ranges[i];

	if (range->bytes == 0 || range->bytes % SCAN_PAGE != 0 || range->address % SCAN_PAGE != 0 ||
		range->address + range->bytes < range->address)
		return rouse_error_set(
			error, ROUSE_ERROR_USAGE, -EINVAL, "memory to scan must be in whole pages");
	for (uint32_t j = 0; j < i; j++) {
		if (range->address < ranges[j].address + ranges[j].bytes &&
			ranges[j].address < range->address + range->bytes)
			return rouse_error_set(
				error, ROUSE_ERROR_USAGE, -EINVAL, "memory to scan is named twice");
	}
	return 0;
}

static int add_area(struct scan *scan, const struct trace_range *range,
	const struct target_map *maps, size_t map_count, struct rouse_error *error)
{
	struct scan_area *area = &scan->areas[scan->area_count];
	const struct target_map *map;

	*area = (struct scan_area){.address = range->address,
		.bytes = range->bytes,
		.first_page = scan->page_count,
		.shared = range->shared};
	map = map_of(area, maps, map_count);
	if (map == NULL || map->shared != area->shared)
		return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
			"%llx is not memory of that kind", (unsigned long long)area->address);
	if (area->shared) {
		area->inode = map->inode;
		area->offset = map->offset + (area->address - map->start);
	}
	scan->area_count++;
	scan->page_count += area->bytes / SCAN_PAGE;
	*(area->shared ? &scan->report.presence_pages : &scan->report.written_pages) +=
		area->bytes / SCAN_PAGE;
	return 0;
}

static int add_areas(struct scan *scan, const struct trace_range *ranges, uint32_t count,
	struct rouse_error *error)
{
	cleanup_free struct target_map *maps = NULL;
	size_t map_count;
	int code = target_maps(scan->target, &maps, &map_count, error);

	for (uint32_t i = 0; i < count && code == 0; i++) {
		code = check_range(ranges, i, error);
		if (code == 0)
			code = add_area(scan, &ranges[i], maps, map_count, error);
	}
	if (code == 0 && scan->page_count > TRACE_MAX_PAGES)
		code = rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, -EINVAL,
			"more than 1 TiB cannot be scanned");
	return code;
}

/* An empty range does nothing, where the call is known. -ENOTSUP. */
static int try_pagemap(int pagemap)
{
	return scan_pagemap_read(pagemap, SCAN_PRESENT, false, 0, SCAN_PAGE, NULL, NULL);
}

int scan_probe(void)
{
	cleanup_close int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	if (pagemap < 0)
		return -errno;
	return try_pagemap(pagemap) == -ENOTSUP ? -ENOTSUP : scan_uffd_probe();
}

static int open_pagemap(struct scan *scan, struct rouse_error *error)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/%d/pagemap", target_pid(scan->target));
	scan->pagemap = open(path, O_RDONLY | O_CLOEXEC);
	if (scan->pagemap < 0)
		return rouse_error_errno(error, -errno, "cannot open %s", path);
	if (try_pagemap(scan->pagemap) == -ENOTSUP)
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -ENOTSUP,
			"this kernel has no PAGEMAP_SCAN: scanning needs Linux 6.7 or later");
	return 0;
}

static int begin(struct scan *scan, struct rouse_error *error)
{
	const uint64_t began_ns = rouse_clock_ns();
	uint64_t stop_ns = 0;
	int code = open_pagemap(scan, error);

	if (code == 0)
		code = scan_uffd_open(scan->target, &scan->uffd, &stop_ns, error);
	if (stop_ns > 0)
		count_stop(&scan->report, stop_ns);
	for (uint32_t i = 0; i < scan->area_count && code == 0; i++)
		code = scan_uffd_register(scan->uffd, &scan->areas[i], error);
	if (code == 0)
		code = sweep(scan, true, NULL, error);
	scan->report.began_ns = rouse_clock_ns();
	scan->report.reset_ns = scan->report.began_ns - began_ns;
	return code;
}

int scan_start(struct target *target, const struct trace_range *ranges, uint32_t count,
	const struct scan_rule *rule, const struct rouse_observer *observer, struct scan **scan,
	struct rouse_error *error)
{
	struct rouse_error local;
	struct scan *s;
	int code;

	if (error == NULL)
		error = &local;
	if (count == 0 || count > TRACE_MAX_AREAS)
		return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
			"%u mappings cannot be scanned: 1 to %u can", count, TRACE_MAX_AREAS);
	s = calloc(1, sizeof(*s));
	if (s == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot scan");
	*s = (struct scan){
		.target = target, .observer = observer, .rule = *rule, .uffd = -1, .pagemap = -1};
	s->areas = calloc(count, sizeof(*s->areas));
	code = s->areas != NULL ? add_areas(s, ranges, count, error)
				: rouse_error_errno(error, -ENOMEM, "cannot scan");
	if (code == 0) {
		s->pages = calloc(s->page_count + 1, sizeof(*s->pages));
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
	scan_rule_age(&scan->rule, scan->pages, scan->page_count);
	code = sweep(scan, !last, note_pages, error != NULL ? error : &local);
	scan->report.scan_ns += rouse_clock_ns() - began_ns;
	return code;
}

const struct scan_page *scan_pages(const struct scan *scan, size_t *count)
{
	*count = scan->page_count;
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
	/*
	 * By closing, not by UFFDIO_UNREGISTER: that would also end what another descriptor has
	 * registered, if the memory was replaced meanwhile.
	 */
	if (scan->uffd >= 0)
		(void)close(scan->uffd);
	if (scan->pagemap >= 0)
		(void)close(scan->pagemap);
	free(scan->areas);
	free(scan->pages);
	free(scan);
}
