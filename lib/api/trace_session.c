/* SPDX-License-Identifier: MIT */
#include "api/trace_session.h"

#include "api/trace_blocks.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "wset/trace_record.h"

#include <string.h>

struct trace_session {
	struct target *target;
	struct trace_blocks blocks;
	const struct rouse_observer *observer;
	struct trace *trace;
	struct trace_report report;
	size_t touch_count;
	unsigned int threads; /* that touched something */
};

int trace_session_new(const struct trace_session_config *config, struct trace_session **session,
	struct rouse_error *error)
{
	struct trace_session *s = calloc(1, sizeof(*s));
	int code;

	if (s == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot trace");
	s->observer = config->observer;
	code = target_open(config->pid, &s->target, error);
	if (code == 0)
		code = trace_blocks_find(s->target, config->qmp, config->min_bytes,
			config->observer, &s->blocks, error);
	if (code < 0) {
		trace_session_free(s);
		return code;
	}
	*session = s;
	return 0;
}

/* Whether some of its memory is pinned, for as long as a ring of buffers, say, has it. */
static bool has_pinned_memory(const struct target *target)
{
	char value[64];
	int code = target_status(target, "VmPin", value, sizeof(value));

	/* What cannot be seen may be pinned. */
	return code == 0 ? strcmp(value, "0 kB") != 0 : code != -ENOENT;
}

/*
 * Pages that are taken away from a device are not only lost time: VFIO pins what QEMU maps for it
 * later, at a reset, say, and such a pin does not wait for the agent to answer. It fails with
 * EFAULT, and QEMU ends itself ("vfio: DMA mapping failed").
 */
static bool has_devices_of_vfio(const struct target *target)
{
	/* The second way, by iommufd, is one of files. */
	return target_find_fd(target, "anon_inode:[vfio-device]", 0) != -ENOENT ||
	       target_find_fd_below(target, "/dev/vfio/devices/") != -ENOENT;
}

/*
 * Private memory is traced by moving it. Some kernels do not come back from moving a page that they
 * would have to take out of a larger one that is pinned, and nobody can tell which those are: the
 * agent sees a part of them only. Shared memory is not moved.
 */
static int leave_out_pinned(struct trace_session *session, struct rouse_error *error)
{
	struct trace_blocks *blocks = &session->blocks;
	uint64_t left_out = 0;
	uint32_t kept = 0;

	if (has_devices_of_vfio(session->target))
		return rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, -ENOTSUP,
			"process %d has devices of the machine (VFIO), or nobody can tell: a page "
			"that they need while it is traced would end QEMU. A scan can watch it",
			target_pid(session->target));
	if (!has_pinned_memory(session->target))
		return 0;
	for (uint32_t i = 0; i < blocks->range_count; i++) {
		if (!blocks->ranges[i].shared) {
			left_out += blocks->ranges[i].bytes;
			continue;
		}
		blocks->ranges[kept] = blocks->ranges[i];
		blocks->places[kept++] = blocks->places[i];
	}
	blocks->range_count = kept;
	blocks->traced_bytes -= left_out;
	blocks->untraced_bytes += left_out;
	if (kept == 0)
		return rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, -ENOTSUP,
			"process %d has pinned memory (io_uring, say): then private memory cannot "
			"be moved safely, and is not traced. A scan can watch it",
			target_pid(session->target));
	if (left_out > 0)
		rouse_log(session->observer, ROUSE_LOG_WARNING,
			"%llu KiB of private memory are not traced: some memory of the process is "
			"pinned (io_uring, say)",
			(unsigned long long)left_out / 1024);
	return 0;
}

int trace_session_start(struct trace_session *session, uint64_t limit_us, struct rouse_error *error)
{
	int code = leave_out_pinned(session, error);

	if (code < 0)
		return code;
	return trace_start(session->target, session->blocks.ranges, session->blocks.range_count,
		limit_us, session->observer, &session->trace, error);
}

int trace_session_wait(struct trace_session *session, uint64_t us, struct rouse_error *error)
{
	return trace_wait(session->trace, us, error);
}

/* How many threads touched something, up to what matters. */
static unsigned int count_threads(const struct trace_touch *touches, size_t count)
{
	uint32_t seen[256];
	unsigned int threads = 0;

	for (size_t i = 0; i < count; i++) {
		unsigned int j = 0;

		while (j < threads && seen[j] != touches[i].tid)
			j++;
		if (j == threads && threads < sizeof(seen) / sizeof(seen[0]))
			seen[threads++] = touches[i].tid;
	}
	return threads;
}

int trace_session_stop(struct trace_session *session, struct rouse_error *error)
{
	const struct trace_touch *touches;
	int code = trace_stop(session->trace, error);

	if (code < 0)
		return code;
	trace_get_report(session->trace, &session->report);
	touches = trace_touches(session->trace, &session->touch_count);
	session->threads = count_threads(touches, session->touch_count);
	return 0;
}

static uint16_t vcpu_of(const struct trace_blocks *blocks, uint32_t tid)
{
	for (size_t i = 0; i < blocks->vcpu_count; i++) {
		if (blocks->vcpus[i] == tid)
			return (uint16_t)i;
	}
	return ROUSE_WSET_VCPU_UNKNOWN;
}

/* The page number over all blocks of the @page-th page over all ranges. */
static uint32_t number_of(const struct trace_blocks *blocks, uint64_t page)
{
	uint32_t i = 0;

	while (page >= blocks->ranges[i].bytes / TRACE_PAGE)
		page -= blocks->ranges[i++].bytes / TRACE_PAGE;
	return blocks->places[i].first_page + (uint32_t)page;
}

static uint32_t time_of(uint64_t ns, uint64_t from_ns)
{
	const uint64_t us = ns > from_ns ? (ns - from_ns) / 1000 : 0;

	return us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
}

/* Whether a page that the set lacks was not touched: all memory of its blocks was watched. */
static bool is_complete(const struct trace_session *session)
{
	return session->report.lost == 0 && session->report.skipped == 0 &&
	       session->blocks.untraced_bytes == 0;
}

int trace_session_wset(const struct trace_session *session, uint64_t from_ns,
	struct rouse_wset **wset, struct rouse_error *error)
{
	const struct trace_blocks *blocks = &session->blocks;
	const struct trace_touch *touches;
	struct rouse_wset *w = calloc(1, sizeof(*w));
	size_t count;

	touches = trace_touches(session->trace, &count);
	if (w != NULL) {
		w->blocks = calloc(blocks->block_count, sizeof(*w->blocks));
		w->pages = calloc(count + 1, sizeof(*w->pages));
	}
	if (w == NULL || w->blocks == NULL || w->pages == NULL) {
		rouse_wset_close(w);
		return rouse_error_errno(error, -ENOMEM, "cannot make a working set");
	}
	if (from_ns == 0)
		from_ns = session->report.armed_at_ns;
	w->flags = is_complete(session) ? ROUSE_WSET_FLAG_COMPLETE : 0;
	w->block_count = (uint32_t)blocks->block_count;
	for (size_t i = 0; i < blocks->block_count; i++) {
		memcpy(w->blocks[i].name, blocks->blocks[i].name, sizeof(w->blocks[i].name));
		w->blocks[i].used_bytes = blocks->blocks[i].used_bytes;
	}
	w->page_count = (uint32_t)count;
	for (size_t i = 0; i < count; i++)
		w->pages[i] = (struct rouse_wset_page){
			.page = number_of(blocks, touches[i].page),
			.time_us = time_of(touches[i].ns, from_ns),
			.vcpu = vcpu_of(blocks, touches[i].tid),
			.flags = ROUSE_WSET_PAGE_FAULTED,
		};
	*wset = w;
	return 0;
}

void trace_session_get_report(
	const struct trace_session *session, struct rouse_trace_report *report)
{
	const struct trace_report *from = &session->report;
	const uint64_t span_ns =
		from->ended_at_ns > from->armed_at_ns ? from->ended_at_ns - from->armed_at_ns : 0;

	*report = (struct rouse_trace_report){
		.traced_us = span_ns / 1000,
		.pages = session->touch_count,
		.traced_bytes = session->blocks.traced_bytes,
		.untraced_bytes = session->blocks.untraced_bytes,
		.stop_us = from->stop_ns / 1000,
		.arm_us = from->arm_ns / 1000,
		.arm_pause_us = from->arm_pause_ns / 1000,
		.disarm_us = from->disarm_ns / 1000,
		.disarm_pause_us = from->disarm_pause_ns / 1000,
		.faults = from->faults,
		.stalled_us = from->service_ns / 1000,
		.threads = session->threads,
		.skipped_pages = from->skipped,
		.copied_pages = from->copied,
		.removed_pages = from->removed,
		.forks = from->forks,
		.lost_pages = from->lost,
	};
	if (from->faults > 0)
		report->service_us = (double)from->service_ns / 1000 / (double)from->faults;
	if (span_ns > 0 && session->threads > 0)
		report->slowdown =
			(double)from->service_ns / (double)span_ns / (double)session->threads;
}

void trace_session_free(struct trace_session *session)
{
	if (session == NULL)
		return;
	trace_free(session->trace);
	trace_blocks_finish(&session->blocks);
	target_close(session->target);
	free(session);
}
