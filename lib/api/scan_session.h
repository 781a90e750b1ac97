/* SPDX-License-Identifier: MIT */
/*
 * Scans of a process, in terms of a VM: its RAM blocks, and a working set with page numbers as
 * images have them. wset/scan.h does the scanning.
 */
#ifndef ROUSE_API_SCAN_SESSION_H
#define ROUSE_API_SCAN_SESSION_H

#include "vmm/qmp.h"
#include "wset/scan.h"
#include "wset/wset.h"

struct scan_session;

struct scan_session_config {
	int pid;
	struct qmp *qmp;    /**< of the QEMU that @pid is; NULL: an ordinary process */
	uint64_t min_bytes; /**< of an ordinary process: smaller mappings are left out */
	uint64_t period_us;
	uint32_t count; /**< of scans, 1 to SCAN_RULE_MAX_SCANS */
	struct scan_rule rule;
	enum rouse_scan_source source;
	const struct rouse_observer *observer;
};

/**
 * Looks at the process and decides what will be scanned. Nothing is changed in it; @config's qmp is
 * not used afterwards. -ENOTSUP: nothing in it can be scanned; errors of target_open() and
 * qmp_execute().
 */
int scan_session_new(const struct scan_session_config *config, struct scan_session **session,
	struct rouse_error *error);
/** As scan_start(): from now on accesses count. */
int scan_session_start(struct scan_session *session, struct rouse_error *error);
/** Scans as often as was said, and takes everything back. -ECANCELED, and those of scan_take(). */
int scan_session_run(struct scan_session *session, struct rouse_error *error);
/** After scan_session_run(): the working set, the caller's. -ENOMEM. */
int scan_session_wset(
	const struct scan_session *session, struct rouse_wset **wset, struct rouse_error *error);
void scan_session_get_report(const struct scan_session *session, struct rouse_scan_report *report);
/** Frees it, and ends a scan that is under way. NULL is fine. */
void scan_session_free(struct scan_session *session);

#endif
