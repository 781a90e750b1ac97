/* SPDX-License-Identifier: MIT */
#include "api/scan_session.h"

#include "api/trace_blocks.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "wset/trace_record.h"

#include <poll.h>
#include <string.h>
#include <unistd.h>

#define PROGRESS_MS 200

struct scan_session {
	struct target *target;
	struct trace_blocks blocks;
	struct scan_session_config config;
	struct scan *scan;
	uint32_t *times_us; /* of each scan, since the beginning */
	uint64_t seen_pages, set_pages;
};

int scan_session_new(const struct scan_session_config *config, struct scan_session **session,
	struct rouse_error *error)
{
	struct scan_session *s = calloc(1, sizeof(*s));
	int code;

	if (s == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot scan");
	s->config = *config;
	s->config.qmp = NULL;
	s->times_us = calloc(config->count, sizeof(*s->times_us));
	code = s->times_us != NULL ? target_open(config->pid, &s->target, error)
				   : rouse_error_errno(error, -ENOMEM, "cannot scan");
	if (code == 0)
		code = trace_blocks_find(s->target, config->qmp, config->min_bytes,
			config->observer, &s->blocks, error);
	if (code < 0) {
		scan_session_free(s);
		return code;
	}
	*session = s;
	return 0;
}

int scan_session_start(struct scan_session *session, struct rouse_error *error)
{
	const struct scan_config config = {.rule = session->config.rule,
		.source = session->config.source,
		.observer = session->config.observer};

	return scan_start(session->target, session->blocks.ranges, session->blocks.range_count,
		&config, &session->scan, error);
}

/* Until it is time for the next scan. -ECANCELED, -ESRCH. */
static int wait_until(const struct scan_session *session, uint64_t when_us, uint32_t scan,
	struct rouse_error *error)
{
	const struct rouse_observer *observer = session->config.observer;

	for (;;) {
		struct pollfd fds[] = {
			{.fd = target_pidfd(session->target), .events = POLLIN},
			{.fd = rouse_observer_cancel_fd(observer), .events = POLLIN},
		};
		const uint64_t now_us = rouse_clock_us();
		const uint64_t left_ms = when_us > now_us ? (when_us - now_us + 999) / 1000 : 0;

		rouse_progress_in(
			observer, ROUSE_PROGRESS_SCANS, "scanning", scan, session->config.count);
		if (rouse_cancelled(observer))
			return rouse_error_set(
				error, ROUSE_ERROR_CANCELLED, -ECANCELED, "the scan was cancelled");
		if (!target_alive(session->target))
			return rouse_error_set(error, ROUSE_ERROR_SYSTEM, -ESRCH,
				"process %d has ended", target_pid(session->target));
		if (left_ms == 0)
			return 0;
		if (poll(fds, 2, left_ms < PROGRESS_MS ? (int)left_ms : PROGRESS_MS) < 0 &&
			errno != EINTR)
			return rouse_error_errno(error, -errno, "cannot wait");
	}
}

static void count_pages(struct scan_session *session)
{
	const struct scan_page *pages;
	size_t count;

	pages = scan_pages(session->scan, &count);
	for (size_t i = 0; i < count; i++) {
		session->seen_pages += pages[i].first != 0;
		session->set_pages += scan_rule_holds(&session->config.rule, &pages[i]);
	}
}

int scan_session_run(struct scan_session *session, struct rouse_error *error)
{
	const uint32_t count = session->config.count;
	struct scan_report report;
	int code = 0;

	scan_get_report(session->scan, &report);
	for (uint32_t i = 0; i < count && code == 0; i++) {
		const uint64_t began_us = report.began_ns / 1000;
		uint64_t us;

		code = wait_until(
			session, began_us + session->config.period_us * (i + 1), i, error);
		us = rouse_clock_us() - began_us;
		session->times_us[i] = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
		if (code == 0)
			code = scan_take(session->scan, i + 1 == count, error);
	}
	if (code == 0)
		count_pages(session);
	return code;
}

static int compare_pages(const void *left, const void *right)
{
	const struct rouse_wset_page *a = left, *b = right;

	if (a->time_us != b->time_us)
		return a->time_us < b->time_us ? -1 : 1;
	return a->page < b->page ? -1 : a->page > b->page;
}

/* The pages that belong to the set; their times are those of the scans that saw them first. */
static void fill_pages(const struct scan_session *session, struct rouse_wset *wset)
{
	const struct trace_blocks *blocks = &session->blocks;
	const struct scan_page *pages;
	size_t count;

	pages = scan_pages(session->scan, &count);
	for (uint32_t i = 0; i < blocks->range_count; i++) {
		for (uint64_t j = 0; j < blocks->ranges[i].bytes / TRACE_PAGE; j++, pages++) {
			if (!scan_rule_holds(&session->config.rule, pages))
				continue;
			wset->pages[wset->page_count++] = (struct rouse_wset_page){
				.page = blocks->places[i].first_page + (uint32_t)j,
				.time_us = session->times_us[pages->first - 1],
				.vcpu = ROUSE_WSET_VCPU_UNKNOWN,
			};
		}
	}
	qsort(wset->pages, wset->page_count, sizeof(*wset->pages), compare_pages);
}

/*
 * Whether an access to any page of the set's blocks would have been seen. page_idle may miss one
 * that is made by way of a translation that the processor has kept.
 */
static bool is_complete(const struct scan_session *session)
{
	struct scan_report report;

	scan_get_report(session->scan, &report);
	return report.written_pages == 0 && report.page_idle_pages == 0 &&
	       report.skipped_pages == 0 && session->blocks.untraced_bytes == 0;
}

int scan_session_wset(
	const struct scan_session *session, struct rouse_wset **wset, struct rouse_error *error)
{
	const struct trace_blocks *blocks = &session->blocks;
	struct rouse_wset *w = calloc(1, sizeof(*w));

	if (w != NULL) {
		w->blocks = calloc(blocks->block_count, sizeof(*w->blocks));
		w->pages = calloc(session->set_pages + 1, sizeof(*w->pages));
	}
	if (w == NULL || w->blocks == NULL || w->pages == NULL) {
		rouse_wset_close(w);
		return rouse_error_errno(error, -ENOMEM, "cannot make a working set");
	}
	w->flags = is_complete(session) ? ROUSE_WSET_FLAG_COMPLETE : 0;
	w->block_count = (uint32_t)blocks->block_count;
	for (size_t i = 0; i < blocks->block_count; i++) {
		memcpy(w->blocks[i].name, blocks->blocks[i].name, sizeof(w->blocks[i].name));
		w->blocks[i].used_bytes = blocks->blocks[i].used_bytes;
	}
	fill_pages(session, w);
	*wset = w;
	return 0;
}

void scan_session_get_report(const struct scan_session *session, struct rouse_scan_report *report)
{
	const double gib = (double)session->blocks.traced_bytes / (1u << 30);
	struct scan_report from;

	scan_get_report(session->scan, &from);
	*report = (struct rouse_scan_report){
		.scanned_us = from.scans > 0 ? session->times_us[from.scans - 1] : 0,
		.scans = from.scans,
		.pages = session->set_pages,
		.seen_pages = session->seen_pages,
		.presence_bytes = from.presence_pages * TRACE_PAGE,
		.writes_only_bytes = from.written_pages * TRACE_PAGE,
		.unscanned_bytes = session->blocks.untraced_bytes,
		.skipped_pages = from.skipped_pages,
		.begin_us = from.reset_ns / 1000,
		.scan_us = from.scan_ns / 1000,
		.stops = from.stops,
		.stop_us = from.stop_ns / 1000,
		.stop_max_us = from.stop_max_ns / 1000,
		.page_idle = scan_idle_probe(NULL, NULL) == 0,
		.page_idle_bytes = from.page_idle_pages * TRACE_PAGE,
		.huge_bytes = from.huge_pages * TRACE_PAGE,
		.unwatched_pages = from.unwatched_pages,
	};
	if (from.scans > 0)
		report->scan_us_per_gib = (double)from.scan_ns / 1000 / from.scans / gib;
}

void scan_session_free(struct scan_session *session)
{
	if (session == NULL)
		return;
	scan_free(session->scan);
	trace_blocks_finish(&session->blocks);
	target_close(session->target);
	free(session->times_us);
	free(session);
}
