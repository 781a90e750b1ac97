/* SPDX-License-Identifier: MIT */
/* What a restore leaves behind: the report, the stall log, the recorded working set. */
#ifndef ROUSE_API_RESTORE_REPORT_H
#define ROUSE_API_RESTORE_REPORT_H

#include "engine/engine.h"
#include "image/image_reader.h"
#include "vmm/vcpu_stalls.h"
#include "wset/wset.h"

/** What the engine does not know. */
struct restore_report_context {
	uint64_t requested_ns; /* time 0, CLOCK_MONOTONIC */
	unsigned int vcpus;
	const uint32_t *threads; /* of the vCPUs, as vcpu_threads_list(); or NULL: not known */
	size_t thread_count;
};

/**
 * Fills in what the engine knows: times, faults, TTR. The stalls that it is computed from go to
 * *stalls, the caller's to free. -ENOMEM.
 *
 * Rouse sees a fault from the request's arrival to the page's departure. What passes before and
 * after (the kernel's and QEMU's hand-overs, placing the page, waking the vCPU) only QEMU sees: if
 * report->blocktime_us is known, the difference is shared out evenly among the faults and charged
 * as stall too.
 */
int restore_report_fill(struct rouse_restore_report *report, const struct rouse_engine *engine,
	const struct restore_report_context *context, const struct rouse_ttr_point *point,
	struct rouse_stalls **stalls);

/** Of a restore without an engine; CLOCK_MONOTONIC. */
struct restore_report_map {
	uint64_t requested_ns, started_ns;
	uint64_t complete_ns; /* 0: not reached */
	unsigned int vcpus;
};

/**
 * The same for a mapped flat file, and the stall log if @options want one. @sampled has ended; or
 * NULL: nobody saw the vCPUs, and the start is the only stall. -ENOMEM; errors of the file.
 */
int restore_report_fill_map(struct rouse_restore_report *report,
	const struct restore_report_map *times, const struct vcpu_stalls *sampled,
	const struct rouse_restore_options *options, struct rouse_error *error);

/** Writes a stall log. Errors of the file. */
int restore_report_write_stalls(
	const struct rouse_stalls *stalls, const char *path, struct rouse_error *error);

#endif
