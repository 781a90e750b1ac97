/* SPDX-License-Identifier: MIT */
/* By what the areas of a scan are scanned, and what that needs. */
#include "base/cleanup.h"
#include "base/error.h"
#include "wset/scan_private.h"

#include <fcntl.h>

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

void scan_count_stop(struct scan_report *report, uint64_t ns)
{
	report->stops++;
	report->stop_ns += ns;
	if (ns > report->stop_max_ns)
		report->stop_max_ns = ns;
}

/* The kernel for page_idle, or why there is none. */
static int open_idle(struct scan *scan, struct scan_idle_kernel *kernel, struct rouse_error *error)
{
	int code;

	if (scan->config.kernel != NULL) {
		*kernel = *scan->config.kernel;
		return 0;
	}
	code = scan_idle_probe(NULL, error);
	if (code == 0)
		code = scan_idle_files_open(
			target_pid(scan->target), NULL, &scan->idle_files, error);
	if (code == 0)
		*kernel = scan_idle_files_kernel(&scan->idle_files);
	return code;
}

static void close_page_tables(struct scan *scan)
{
	/*
	 * By closing, not by UFFDIO_UNREGISTER: that would also end what another descriptor has
	 * registered, if the memory was replaced meanwhile.
	 */
	if (scan->uffd >= 0)
		(void)close(take_fd(&scan->uffd));
	if (scan->pagemap >= 0)
		(void)close(take_fd(&scan->pagemap));
}

/* For the areas whose source is of page tables, if there are any. */
static int open_page_tables(struct scan *scan, struct rouse_error *error)
{
	uint64_t stop_ns = 0;
	bool any = false;
	int code;

	for (uint32_t i = 0; i < scan->areas.count; i++)
		any = any || scan->areas.list[i].source != ROUSE_SCAN_PAGE_IDLE;
	if (!any)
		return 0;
	code = open_pagemap(scan, error);
	if (code == 0)
		code = scan_uffd_open(scan->target, &scan->uffd, &stop_ns, error);
	if (stop_ns > 0)
		scan_count_stop(&scan->report, stop_ns);
	for (uint32_t i = 0; i < scan->areas.count && code == 0; i++) {
		if (scan->areas.list[i].source != ROUSE_SCAN_PAGE_IDLE)
			code = scan_uffd_register(scan->uffd, &scan->areas.list[i], error);
	}
	return code;
}

static int choose_sources(struct scan *scan, bool page_idle, bool page_tables)
{
	int code = 0;

	for (uint32_t i = 0; i < scan->areas.count && code == 0; i++) {
		struct scan_area *area = &scan->areas.list[i];

		code = scan_area_source(
			scan->config.source, area->shared, page_idle, page_tables, &area->source);
	}
	return code;
}

/*
 * Decides on the source of each area and opens what they need. That a process's page tables cannot
 * be had (a sandbox, an old kernel) is found out by trying.
 */
static int open_all(struct scan *scan, struct scan_idle_kernel *kernel, struct rouse_error *error)
{
	struct rouse_error why = {0};
	int idle = open_idle(scan, kernel, &why);
	int code = idle;

	/* Two scans of one process, of whatever sources, would be in each other's way. */
	if (idle != -EBUSY)
		code = choose_sources(scan, idle == 0, true);
	if (code < 0) {
		*error = why;
		return idle;
	}
	code = open_page_tables(scan, error);
	if ((code != -EPERM && code != -ENOTSUP) || choose_sources(scan, idle == 0, false) < 0)
		return code;
	rouse_log(scan->config.observer, ROUSE_LOG_INFO, "scanning by page_idle alone: %s",
		error->message);
	close_page_tables(scan);
	return 0;
}

/* How much is scanned by what. */
static uint64_t count_sources(struct scan *scan)
{
	for (uint32_t i = 0; i < scan->areas.count; i++) {
		const struct scan_area *area = &scan->areas.list[i];
		uint64_t *pages =
			area->source == ROUSE_SCAN_PAGE_IDLE  ? &scan->report.page_idle_pages
			: area->source == ROUSE_SCAN_PRESENCE ? &scan->report.presence_pages
							      : &scan->report.written_pages;

		*pages += area->bytes / SCAN_PAGE;
	}
	return scan->report.page_idle_pages;
}

int scan_sources_open(struct scan *scan, struct rouse_error *error)
{
	struct scan_idle_kernel kernel = {0};
	int code = open_all(scan, &kernel, error);

	if (code < 0 || count_sources(scan) == 0)
		return code;
	code = scan_idle_new(&kernel, scan->areas.pages, scan->config.observer, &scan->idle);
	return code == 0 ? 0 : rouse_error_errno(error, code, "cannot scan");
}

void scan_sources_close(struct scan *scan)
{
	close_page_tables(scan);
	scan_idle_free(take_ptr(&scan->idle));
	scan_idle_files_close(&scan->idle_files);
}
