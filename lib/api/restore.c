/* SPDX-License-Identifier: MIT */
/*
 * rouse_restore(): opens the image, gets hold of a QEMU, lets the engine work, writes the report.
 *
 *   image front -> engine begins to read ahead -> QEMU starts meanwhile -> sink -> engine runs
 */
#include "api/metadata.h"
#include "api/restore_learn.h"
#include "api/restore_map.h"
#include "api/restore_options.h"
#include "api/restore_policy.h"
#include "api/restore_qemu.h"
#include "api/restore_record.h"
#include "api/restore_report.h"
#include "api/restore_uffd.h"
#include "api/wset_apply.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/observer.h"
#include "engine/policy_traits.h"
#include "image/image_tables.h"
#include "vmm/qemu_incoming.h"

#include <string.h>

/* All that one restore holds. */
struct restore {
	struct rouse_restore_options options;
	const struct rouse_observer *observer;
	uint64_t requested_ns;
	struct rouse_source *source;
	struct rouse_reader *reader;
	struct rouse_metadata metadata;
	struct rouse_wset *wset; /* that was given, or NULL */
	struct restore_learn learn;
	const struct rouse_bitmap *left_out; /* of the working set; or NULL */
	struct rouse_engine *engine;
	struct restore_qemu qemu;
	enum rouse_policy policy;
	struct restore_policy_choice choice;
};

static enum rouse_backend choose_backend(const struct rouse_restore_options *options)
{
	if (options->backend != ROUSE_BACKEND_AUTO)
		return options->backend;
	return options->flat != NULL ? ROUSE_BACKEND_MAP : ROUSE_BACKEND_POSTCOPY;
}

/* What was asked for and is not to be had is worth a warning; what was chosen is not. */
static void log_io(const struct rouse_observer *observer,
	const struct rouse_restore_options *options, struct rouse_source *source)
{
	const bool asked = options->io == ROUSE_IO_DIRECT;
	const enum rouse_log_level level = asked ? ROUSE_LOG_WARNING : ROUSE_LOG_DEBUG;
	struct rouse_source_stats stats;

	rouse_source_get_stats(source, &stats);
	if (asked && stats.io != ROUSE_IO_DIRECT)
		rouse_log(observer, level,
			"reading through the page cache: direct I/O is refused for %s",
			options->image);
	else if (stats.io == ROUSE_IO_DIRECT && !stats.io_uring)
		rouse_log(
			observer, level, "reading one block at a time: io_uring is forbidden here");
}

static int open_image(struct restore *r, struct rouse_error *error)
{
	const struct rouse_restore_options *options = &r->options;
	const struct rouse_block *blocks;
	const void *text;
	uint32_t block_count;
	size_t size;
	struct rouse_source *source = NULL;
	int code =
		rouse_source_open(options->image, options->io, &options->throttle, &source, error);

	if (code < 0)
		return code;
	r->source = source;
	log_io(r->observer, options, source);
	code = rouse_reader_open(r->source, &r->reader, error);
	if (code < 0)
		return code;
	text = rouse_reader_section(r->reader, ROUSE_SECTION_METADATA, &size);
	code = rouse_metadata_parse(text, size, &r->metadata, error);
	if (code < 0)
		return rouse_error_prefix(error, "%s", options->image);
	if (options->learn != NULL)
		code = restore_learn_begin(&r->learn, options, r->reader, r->observer, error);
	if (code < 0 || options->wset == NULL)
		return code;
	code = rouse_wset_open(options->wset, &r->wset, error);
	if (code < 0)
		return code;
	blocks = rouse_reader_blocks(r->reader, &block_count);
	return rouse_wset_check_blocks(r->wset, blocks, block_count, options->wset, error);
}

/* The set to prefetch: the one that was given, or the learned one; NULL: the image's own. */
static const struct rouse_wset *chosen_set(const struct restore *r)
{
	return r->wset != NULL ? r->wset : restore_learn_set(&r->learn);
}

static void choose_policy(struct restore *r)
{
	const struct restore_policy_question question = {
		.options = &r->options,
		.reader = r->reader,
		.source = r->source,
		.set = chosen_set(r),
		.observer = r->observer,
	};

	restore_policy_choose(&question, &r->choice);
	r->policy = r->choice.policy;
}

static uint64_t choose_background(const struct restore *r)
{
	return r->options.background == ROUSE_BACKGROUND_AUTO &&
			       rouse_policy_traits(r->policy)->unpaced
		       ? ROUSE_BACKGROUND_MAX
		       : r->options.background;
}

/* For so long nothing is delivered unasked: for the one that wants it longer. */
static uint64_t watch_us(const struct rouse_restore_options *options)
{
	const uint64_t record_us = options->record != NULL ? options->record_us : 0;
	const uint64_t learn_us = options->learn != NULL ? options->learn_us : 0;

	return record_us > learn_us ? record_us : learn_us;
}

static uint64_t choose_quiet(const struct restore *r)
{
	const uint64_t watched_us = watch_us(&r->options);
	const uint64_t quiet_us = rouse_policy_traits(r->policy)->quiet_us;

	return watched_us > quiet_us ? watched_us : quiet_us;
}

static enum restore_way choose_way(const struct restore *r)
{
	const bool eager = r->policy == ROUSE_POLICY_EAGER;

	/* Eager as a way out of userfaultfd being forbidden is not eager by it. */
	if (r->options.backend == ROUSE_BACKEND_UFFD &&
		(!eager || r->options.policy == ROUSE_POLICY_EAGER ||
			qemu_incoming_may_postcopy(NULL) == 0))
		return RESTORE_UFFD;
	return eager ? RESTORE_PRECOPY : RESTORE_POSTCOPY;
}

/* By userfaultfd the small blocks go through QEMU's stream. */
static int send_first(void *user, struct rouse_error *error)
{
	struct restore *r = user;

	return r->qemu.way != RESTORE_UFFD
		       ? 0
		       : restore_uffd_send_small(r->qemu.sink, r->reader, r->source, error);
}

static void look_at_reads(struct restore *r)
{
	struct rouse_reader_opening opening;

	rouse_reader_get_opening(r->reader, &opening);
	if (opening.first_ns < ROUSE_QUICK_READ_NS)
		rouse_reader_expect_quick_reads(r->reader);
}

/* Opens everything up to a running engine. */
static int prepare(struct restore *r, struct rouse_error *error)
{
	struct rouse_engine_config config;
	int code = open_image(r, error);

	if (code < 0)
		return code;
	look_at_reads(r);
	choose_policy(r);
	if (r->options.learn != NULL)
		code = restore_learn_choose(&r->learn, r->policy, r->wset, &r->left_out, error);
	if (code < 0)
		return code;
	config = (struct rouse_engine_config){
		.reader = r->reader,
		.source = r->source,
		.observer = r->observer,
		.policy = r->policy,
		.wset = chosen_set(r),
		.leave_out = r->left_out,
		.late_is_cheap = r->choice.late_is_cheap,
		.slow_reads = r->choice.slow_reads,
		.paused = !r->options.resume && !restore_qemu_shall_run(&r->options, &r->metadata),
		.resume = r->options.resume,
		.background = choose_background(r),
		.quiet_us = choose_quiet(r),
		.record = r->options.record != NULL || r->options.learn != NULL,
		.first = send_first,
		.first_user = r,
	};
	code = rouse_engine_new(&config, &r->engine, error);
	if (code < 0)
		return code;
	return restore_qemu_open(
		&r->qemu, &r->options, choose_way(r), &r->metadata, r->reader, r->observer, error);
}

static void report_image(struct restore *r, struct rouse_restore_report *report)
{
	struct rouse_source_stats stats;

	rouse_source_get_stats(r->source, &stats);
	report->policy = r->policy;
	memcpy(report->policy_reason, r->choice.reason, sizeof(report->policy_reason));
	memcpy(report->predicted_ttr_us, r->choice.predicted_us, sizeof(r->choice.predicted_us));
	report->backend = r->qemu.way == RESTORE_UFFD ? ROUSE_BACKEND_UFFD : ROUSE_BACKEND_POSTCOPY;
	report->read_bytes = stats.bytes;
	report->reads = stats.reads;
	report->io = stats.io;
	report->io_uring = stats.io_uring;
	report->image_bytes = rouse_source_size(r->source);
	report->ram_bytes = rouse_reader_page_count(r->reader) * ROUSE_IMAGE_PAGE_BYTES;
	report->qemu_pid = (int)r->qemu.process.pid;
	if (r->qemu.process.pid > 0)
		memcpy(report->monitor, r->qemu.monitor, sizeof(report->monitor));
}

static void stalls_cleanup(struct rouse_stalls **stalls)
{
	rouse_stalls_free(*stalls);
}

/*
 * Over half of the time: prefetched, the VM gets more than twice as far in it, to pages that a
 * trace of it alone lacks. @record_us: UINT64_MAX if all of the restore was recorded.
 */
static void look_at_recorded(const struct restore *r, uint64_t waited_us, uint64_t record_us)
{
	if (record_us < UINT64_MAX && waited_us > record_us / 2)
		rouse_log(r->observer, ROUSE_LOG_WARNING,
			"the VM waited for pages for %.1f of the %.1f s that were recorded: once "
			"they are prefetched it gets further in that time, to pages that this "
			"record lacks; record for longer",
			(double)waited_us / 1e6, (double)record_us / 1e6);
}

static int write_record(
	struct restore *r, struct rouse_restore_report *report, struct rouse_error *error)
{
	struct rouse_engine_stats stats;
	uint64_t waited_ns = 0;
	int code;
	struct restore_record record = {.engine = r->engine,
		.reader = r->reader,
		.policy = r->policy,
		.prefetched = chosen_set(r),
		.left_out = r->left_out,
		.transport_ns = (uint64_t)(report->transport_us * 1000)};

	rouse_engine_get_stats(r->engine, &stats);
	report->record_incomplete =
		r->policy != ROUSE_POLICY_LAZY ||
		(stats.background_pages > 0 && watch_us(&r->options) == 0) ||
		!restore_qemu_shall_run(&r->options, &r->metadata) ||
		(stats.complete_ns == 0 &&
			rouse_clock_ns() - stats.started_ns < watch_us(&r->options) * 1000);
	record.complete = !report->record_incomplete;
	/* What is touched while pages come unasked is not all that is touched. */
	record.until_us = stats.background_pages > 0 && watch_us(&r->options) > 0
				  ? watch_us(&r->options)
				  : UINT64_MAX;
	code = restore_record_write(&record, r->options.record, &waited_ns, error);
	report->record_waited_us = waited_ns / 1000 / (report->vcpus > 0 ? report->vcpus : 1);
	if (code == 0)
		look_at_recorded(r, report->record_waited_us, record.until_us);
	return code;
}

static int write_learned(
	struct restore *r, struct rouse_restore_report *report, struct rouse_error *error)
{
	if (r->metadata.vmm == NULL || r->metadata.was_running)
		return restore_learn_end(&r->learn, r->engine,
			(uint64_t)(report->transport_us * 1000), &report->learn, error);
	rouse_log(r->observer, ROUSE_LOG_WARNING,
		"nothing was learned: the VM was paused when it was saved, and still is");
	return 0;
}

/* The first of two results stays; a further error is told. */
static int first_error(struct restore *r, int code, int next, const struct rouse_error *why,
	struct rouse_error *error)
{
	if (next == 0)
		return code;
	if (code < 0)
		rouse_log(r->observer, ROUSE_LOG_ERROR, "%s", why->message);
	else if (error != NULL)
		*error = *why;
	return code < 0 ? code : next;
}

/* After the guest ran, whether all went well or not. */
static int write_results(struct restore *r, struct rouse_restore_report *report, bool complete,
	struct rouse_error *error)
{
	cleanup_with(stalls_cleanup) struct rouse_stalls *stalls = NULL;
	const struct rouse_restore_options *options = &r->options;
	const struct restore_report_context context = {
		.requested_ns = r->requested_ns,
		.vcpus = r->qemu.vcpus,
		.threads = r->qemu.threads,
		.thread_count = r->qemu.thread_count,
	};
	struct rouse_error next = {0};
	int code;

	/* A VM that was taken over has waited for that, too: its block time says nothing. */
	if (complete && r->policy != ROUSE_POLICY_EAGER && !options->resume &&
		r->qemu.way == RESTORE_POSTCOPY)
		report->blocktime_us = qemu_incoming_blocktime(r->qemu.qmp);
	code = restore_report_fill(report, r->engine, &context, &options->ttr, &stalls);
	if (code < 0)
		return rouse_error_errno(error, code, "cannot make the report");
	/* One that cannot be written takes none of the others along. */
	if (options->stall_log != NULL)
		code = restore_report_write_stalls(stalls, options->stall_log, error);
	if (options->record != NULL)
		code = first_error(r, code, write_record(r, report, &next), &next, error);
	if (options->learn != NULL)
		code = first_error(r, code, write_learned(r, report, &next), &next, error);
	return code;
}

/*
 * A QEMU that Rouse started is ended. Another one ends by itself, unless it has got all of the VM
 * and stands still: then it may let the VM run once it goes on.
 */
static void tell_of_the_rest(struct rouse_error *error)
{
	const size_t used = strlen(error->message);

	(void)snprintf(error->message + used, sizeof(error->message) - used,
		"; see that the QEMU ends that was to get it, before you restore the image again");
}

static int run(struct restore *r, struct rouse_restore_report *report, struct rouse_error *error)
{
	struct rouse_error why = {0}, lost = {0};
	struct rouse_engine_stats stats;
	int code, written;

	if (r->qemu.process.pid > 0)
		rouse_event(r->observer, ROUSE_EVENT_QEMU_STARTED, r->qemu.monitor);
	code = rouse_engine_run(r->engine, r->qemu.sink, &why);
	if (code == 0)
		restore_qemu_complete(&r->qemu);
	else if (why.kind == ROUSE_ERROR_VMM)
		code = restore_qemu_explain(&r->qemu, code, &why);
	rouse_engine_get_stats(r->engine, &stats);
	if (stats.started_ns == 0) {
		if (code == -ECANCELED && r->qemu.process.pid <= 0)
			tell_of_the_rest(&why);
		if (error != NULL)
			*error = why;
		return code;
	}
	/* A trace is worth keeping although the restore broke off. */
	written = write_results(r, report, code == 0, code == 0 ? error : &lost);
	if (code < 0 && written < 0)
		rouse_log(r->observer, ROUSE_LOG_WARNING,
			"what was recorded until then is lost: %s", lost.message);
	if (code < 0 && error != NULL)
		*error = why;
	return code < 0 ? code : written;
}

static void finish(struct restore *r)
{
	struct rouse_engine_stats stats = {0};

	if (r->engine != NULL)
		rouse_engine_get_stats(r->engine, &stats);
	rouse_engine_free(r->engine);
	restore_qemu_finish(&r->qemu, stats.started_ns != 0);
	rouse_metadata_finish(&r->metadata);
	restore_learn_finish(&r->learn);
	rouse_wset_close(r->wset);
	rouse_reader_close(r->reader);
	rouse_source_destroy(r->source);
}

/* ---- Backends ------------------------------------------------------------------------------- */

static int engine_check(const struct rouse_restore_options *options, struct rouse_error *error)
{
	return options->flat == NULL ? 0
				     : rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
					       "a flat file (--flat) is for --backend map");
}

/* Pages come by the engine, through QEMU or past it. */
static int engine_restore(
	struct restore *r, struct rouse_restore_report *report, struct rouse_error *error)
{
	int code = prepare(r, error);

	if (code == 0)
		code = run(r, report, error);
	if (r->engine != NULL)
		report_image(r, report);
	return code;
}

static int map_restore(
	struct restore *r, struct rouse_restore_report *report, struct rouse_error *error)
{
	struct restore_map_config config = {.options = &r->options,
		.observer = r->observer,
		.metadata = &r->metadata,
		.requested_ns = r->requested_ns};
	const int code = open_image(r, error);

	if (code < 0)
		return code;
	config.reader = r->reader;
	config.wset = r->wset;
	return restore_map(&config, report, error);
}

static const struct {
	int (*check)(const struct rouse_restore_options *options, struct rouse_error *error);
	int (*restore)(
		struct restore *r, struct rouse_restore_report *report, struct rouse_error *error);
} backends[] = {
	[ROUSE_BACKEND_POSTCOPY] = {engine_check, engine_restore},
	[ROUSE_BACKEND_MAP] = {restore_map_check, map_restore},
	[ROUSE_BACKEND_UFFD] = {engine_check, engine_restore},
};

int rouse_restore(const struct rouse_restore_options *options, struct rouse_restore_report *report,
	const struct rouse_observer *observer, struct rouse_error *error)
{
	struct rouse_restore_report ignored;
	struct restore r = {
		.observer = observer,
		.requested_ns = rouse_clock_ns(),
		.qemu = RESTORE_QEMU_INIT,
	};
	enum rouse_backend backend;
	int code;

	/* An older caller's structure is shorter: what it does not know keeps its default. */
	rouse_restore_options_init(&r.options);
	memcpy(&r.options, options,
		options->size < sizeof(r.options) ? options->size : sizeof(r.options));
	if (report == NULL)
		report = &ignored;
	*report = (struct rouse_restore_report){.blocktime_us = -1,
		.vcpu_wait_us = -1,
		.learn = {.hit_rate = -1, .hit_high = 1, .coverage = -1}};
	backend = choose_backend(&r.options);
	code = restore_options_check(&r.options, error);
	if (code == 0)
		code = backends[backend].check(&r.options, error);
	if (code < 0)
		return code;
	report->backend = backend;
	code = backends[backend].restore(&r, report, error);
	finish(&r);
	return code;
}
