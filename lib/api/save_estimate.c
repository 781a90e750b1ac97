/* SPDX-License-Identifier: MIT */
#include "api/save_estimate.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"

#include <inttypes.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#define DEFAULT_US UINT64_C(10000000)
#define DEFAULT_PERIOD_US UINT64_C(1000000)
#define DEFAULT_SCANS 10u

static void give_up(struct save_estimate *estimate, const struct rouse_error *why)
{
	rouse_log(estimate->observer, ROUSE_LOG_WARNING, "the image will have no working set: %s",
		why->message);
	trace_session_free(estimate->session);
	estimate->session = NULL;
	scan_session_free(estimate->scan);
	estimate->scan = NULL;
	estimate->armed = false;
	qemu_tcg_end(&estimate->tcg, estimate->observer);
}

/* -ECANCELED ends the save; everything else only the estimate. */
static int judge(struct save_estimate *estimate, int code, const struct rouse_error *why,
	struct rouse_error *error)
{
	if (code == -ECANCELED && rouse_cancelled(estimate->observer)) {
		if (error != NULL)
			*error = *why;
		return code;
	}
	if (code < 0)
		give_up(estimate, why);
	return 0;
}

/* Every page that any scan sees: what is needed after a restore is not known better. */
static int prepare_scan(struct save_estimate *estimate, const struct rouse_save_options *options,
	struct qmp *qmp, struct rouse_error *error)
{
	struct scan_session_config config = {
		.pid = qmp_peer_pid(qmp),
		.qmp = qmp,
		.period_us =
			options->scan_period_us > 0 ? options->scan_period_us : DEFAULT_PERIOD_US,
		.count = options->scan_count > 0 ? options->scan_count : DEFAULT_SCANS,
		.source = options->scan_source,
		.observer = estimate->observer,
	};

	(void)scan_rule_set(&config.rule, 1, 0);
	return scan_session_new(&config, &estimate->scan, error);
}

void save_estimate_prepare(struct save_estimate *estimate, const struct rouse_save_options *options,
	struct qmp *qmp, const struct rouse_observer *observer)
{
	const struct trace_session_config config = {
		.pid = qmp_peer_pid(qmp), .qmp = qmp, .observer = observer};
	struct rouse_error why = {0};
	int code = 0;

	estimate->kind = options->estimate;
	estimate->us = options->estimate_us > 0 ? options->estimate_us : DEFAULT_US;
	estimate->observer = observer;
	estimate->qmp = qmp;
	if (estimate->kind == ROUSE_ESTIMATE_TRACE || estimate->kind == ROUSE_ESTIMATE_TRACE_BEFORE)
		code = trace_session_new(&config, &estimate->session, &why);
	else if (estimate->kind == ROUSE_ESTIMATE_SCAN ||
		 estimate->kind == ROUSE_ESTIMATE_SCAN_BEFORE)
		code = prepare_scan(estimate, options, qmp, &why);
	else if (estimate->kind == ROUSE_ESTIMATE_SNAPSHOT_ORDER)
		code = page_order_new(&estimate->order);
	if (code == -ENOMEM)
		(void)rouse_error_errno(&why, code, "cannot estimate");
	if (code < 0)
		give_up(estimate, &why);
}

/* Begins a trace or a scan. */
static int start(struct save_estimate *estimate, struct rouse_error *error)
{
	struct rouse_error why = {0};
	int code = estimate->scan != NULL
			   ? scan_session_start(estimate->scan, &why)
			   : trace_session_start(estimate->session, estimate->us, &why);

	estimate->armed = code == 0;
	/* What is read again counts only while it is watched: so after the beginning. */
	if (code == 0)
		estimate->retranslated =
			qemu_tcg_begin(&estimate->tcg, estimate->qmp, estimate->observer);
	return judge(estimate, code, &why, error);
}

/* Waits until it is time, ends the trace, and takes the working set. */
static int finish_trace(struct save_estimate *estimate, struct rouse_error *error)
{
	struct rouse_error why = {0}, ignored;
	int waited = trace_session_wait(estimate->session, estimate->us, &why);
	int code = trace_session_stop(estimate->session, waited < 0 ? &ignored : &why);

	estimate->armed = false;
	qemu_tcg_end(&estimate->tcg, estimate->observer);
	if (waited < 0)
		code = waited;
	if (code == 0)
		code = trace_session_wset(
			estimate->session, estimate->began_ns, &estimate->wset, &why);
	if (code == 0)
		trace_session_get_report(estimate->session, &estimate->report);
	estimate->report.retranslated = estimate->retranslated;
	return judge(estimate, code, &why, error);
}

/* Scans, takes the working set, and takes the scan out of QEMU: its stream may come now. */
static int finish_scan(struct save_estimate *estimate, struct rouse_error *error)
{
	struct rouse_error why = {0};
	int code;

	qemu_tcg_end_soon(&estimate->tcg, estimate->observer);
	code = scan_session_run(estimate->scan, &why);
	if (code == 0)
		code = scan_session_wset(estimate->scan, &estimate->wset, &why);
	if (code == 0)
		scan_session_get_report(estimate->scan, &estimate->scan_report);
	estimate->scan_report.retranslated = estimate->retranslated;
	estimate->armed = false;
	scan_session_free(take_ptr(&estimate->scan));
	return judge(estimate, code, &why, error);
}

static int finish(struct save_estimate *estimate, struct rouse_error *error)
{
	if (!estimate->armed)
		return 0;
	return estimate->scan != NULL ? finish_scan(estimate, error)
				      : finish_trace(estimate, error);
}

/* Whether there is something to begin, before the checkpoint or after it. */
static bool is_to_start(
	const struct save_estimate *estimate, enum rouse_estimate trace, enum rouse_estimate scan)
{
	return (estimate->kind == trace && estimate->session != NULL) ||
	       (estimate->kind == scan && estimate->scan != NULL);
}

int save_estimate_before(struct save_estimate *estimate, struct rouse_error *error)
{
	int code;

	if (!is_to_start(estimate, ROUSE_ESTIMATE_TRACE_BEFORE, ROUSE_ESTIMATE_SCAN_BEFORE))
		return 0;
	code = start(estimate, error);
	return code == 0 ? finish(estimate, error) : code;
}

int save_estimate_arm(struct save_estimate *estimate, struct rouse_error *error)
{
	int code;

	if (!is_to_start(estimate, ROUSE_ESTIMATE_TRACE, ROUSE_ESTIMATE_SCAN))
		return 0;
	code = start(estimate, error);
	estimate->began_ns = rouse_clock_ns();
	return code;
}

int save_estimate_watch(struct save_estimate *estimate, struct rouse_error *error)
{
	return finish(estimate, error);
}

/* A name beside @path that nothing has. NULL: no memory. */
static char *name_beside(const char *path)
{
	uint32_t number = 0;

	(void)getrandom(&number, sizeof(number), 0);
	for (;; number++) {
		struct stat status;
		char *name;

		if (asprintf(&name, "%s.%08" PRIx32 ".wset", path, number) < 0)
			return NULL;
		if (lstat(name, &status) < 0)
			return name;
		free(name);
	}
}

/* The file of the working set, beside the image; it is removed. */
static int pack(const struct save_estimate *estimate, const char *path,
	const struct rouse_layout *layout, struct rouse_write_report *written,
	struct rouse_error *error)
{
	cleanup_free char *file = name_beside(path);
	int code;

	if (file == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot write the working set");
	code = rouse_wset_write(estimate->wset, file, error);
	if (code < 0)
		return code;
	code = rouse_pack(path, file, path, layout, written, estimate->observer, error);
	(void)unlink(file);
	return code;
}

int64_t save_estimate_apply(struct save_estimate *estimate, const char *path,
	const struct rouse_layout *layout, struct rouse_write_report *written,
	struct rouse_error *error)
{
	struct rouse_error why = {0};
	int code = 0;

	if (estimate->order != NULL)
		code = page_order_wset(estimate->order, &estimate->wset);
	if (code < 0)
		(void)rouse_error_errno(&why, code, "cannot estimate");
	if (code == 0 && estimate->wset == NULL)
		return 0;
	if (code == 0 && estimate->wset->page_count == 0) {
		rouse_log(estimate->observer, ROUSE_LOG_WARNING,
			"the image will have no working set: no page was touched while the VM was "
			"watched");
		return 0;
	}
	if (code == 0)
		code = pack(estimate, path, layout, written, &why);
	if (code == 0)
		return estimate->wset->page_count;
	return judge(estimate, code, &why, error);
}

void save_estimate_finish(struct save_estimate *estimate)
{
	struct rouse_error ignored;

	if (estimate->armed && estimate->session != NULL)
		(void)trace_session_stop(estimate->session, &ignored);
	qemu_tcg_end(&estimate->tcg, estimate->observer);
	trace_session_free(estimate->session);
	scan_session_free(estimate->scan);
	page_order_free(estimate->order);
	rouse_wset_close(estimate->wset);
	*estimate = (struct save_estimate){0};
}
