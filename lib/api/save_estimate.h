/* SPDX-License-Identifier: MIT */
/*
 * The working set of a save, estimated while the VM is there: by a trace before or after the
 * checkpoint, by scans there, or by the page order of a background snapshot. An estimate that
 * fails costs the image nothing: it is then one without a working set, and the log says why.
 *
 *	trace-before, scan-before  _prepare _before | stream, commit                    | _apply
 *	trace, scan                _prepare | stream | _arm, VM goes on, _watch | commit | _apply
 *	snapshot-order             _prepare | stream, _note_page for each page | commit  | _apply
 */
#ifndef ROUSE_API_SAVE_ESTIMATE_H
#define ROUSE_API_SAVE_ESTIMATE_H

#include "api/page_order.h"
#include "api/scan_session.h"
#include "api/trace_session.h"
#include "vmm/qemu_tcg.h"

struct save_estimate {
	enum rouse_estimate kind;
	uint64_t us; /**< how long to trace */
	const struct rouse_observer *observer;
	struct qmp *qmp; /**< the save's */
	struct qemu_tcg tcg;
	bool retranslated;
	struct trace_session *session; /**< or NULL */
	struct scan_session *scan;     /**< or NULL */
	struct page_order *order;      /**< for snapshot-order, or NULL */
	struct rouse_wset *wset;       /**< the result, or NULL */
	bool armed;
	uint64_t began_ns; /**< the VM went on */
	struct rouse_trace_report report;
	struct rouse_scan_report scan_report;
};

/**
 * Finds out what will be traced. Nothing is changed. @options: estimate and what is for it. @qmp is
 * used until save_estimate_finish().
 */
void save_estimate_prepare(struct save_estimate *estimate, const struct rouse_save_options *options,
	struct qmp *qmp, const struct rouse_observer *observer);
/** trace-before, scan-before: traces or scans. -ECANCELED. */
int save_estimate_before(struct save_estimate *estimate, struct rouse_error *error);
/** trace, scan: begins, with the VM standing still. -ECANCELED. */
int save_estimate_arm(struct save_estimate *estimate, struct rouse_error *error);
/** trace, scan: the VM has gone on. Traces or scans to the end. -ECANCELED. */
int save_estimate_watch(struct save_estimate *estimate, struct rouse_error *error);
/**
 * The image at @path is complete: lays it out for the working set, if there is one. How many pages
 * of it there are; 0: the image is as it was. -ECANCELED.
 */
int64_t save_estimate_apply(struct save_estimate *estimate, const char *path,
	const struct rouse_layout *layout, struct rouse_write_report *written,
	struct rouse_error *error);
/** Ends a trace that is under way, and frees everything. */
void save_estimate_finish(struct save_estimate *estimate);

#endif
