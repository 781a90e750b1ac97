/* SPDX-License-Identifier: MIT */
/*
 * A trace of a process, in terms of a VM: which mappings are its RAM blocks, and a working set with
 * page numbers as images have them. wset/trace.h does the tracing.
 */
#ifndef ROUSE_API_TRACE_SESSION_H
#define ROUSE_API_TRACE_SESSION_H

#include "vmm/qmp.h"
#include "wset/wset.h"

struct trace_session;

struct trace_session_config {
	int pid;
	struct qmp *qmp;    /**< of the QEMU that @pid is; NULL: an ordinary process */
	uint64_t min_bytes; /**< of an ordinary process: smaller mappings are left out */
	const struct rouse_observer *observer;
};

/**
 * Looks at the process and decides what will be traced. Nothing is changed in it; @qmp is not used
 * afterwards. -ENOTSUP: nothing in it can be traced; errors of target_open() and qmp_execute().
 */
int trace_session_new(const struct trace_session_config *config, struct trace_session **session,
	struct rouse_error *error);
/**
 * As trace_start(), for @limit_us at most. Private memory of a process that has pinned memory is
 * left out; -ENOTSUP: then there is none.
 */
int trace_session_start(
	struct trace_session *session, uint64_t limit_us, struct rouse_error *error);
/** As trace_wait(). */
int trace_session_wait(struct trace_session *session, uint64_t us, struct rouse_error *error);
/** As trace_stop(). */
int trace_session_stop(struct trace_session *session, struct rouse_error *error);
/**
 * After trace_session_stop(): the working set, the caller's. Its times begin at @from_ns
 * (CLOCK_MONOTONIC), which 0 makes the moment when all memory was watched. -ENOMEM.
 */
int trace_session_wset(const struct trace_session *session, uint64_t from_ns,
	struct rouse_wset **wset, struct rouse_error *error);
void trace_session_get_report(
	const struct trace_session *session, struct rouse_trace_report *report);
/** Frees it. A trace that was not stopped ends as if we had died. NULL is fine. */
void trace_session_free(struct trace_session *session);

#endif
