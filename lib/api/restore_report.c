/* SPDX-License-Identifier: MIT */
#include "api/restore_report.h"

#include "api/fault_stalls.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "ttr/ttr.h"

#include <string.h>

static uint64_t since_us(uint64_t when_ns, uint64_t base_ns)
{
	return when_ns > base_ns ? (when_ns - base_ns) / 1000 : 0;
}

/* All vCPUs until the first instruction. */
static int add_start(struct rouse_stalls *stalls, const struct rouse_restore_report *report)
{
	int code = 0;

	for (unsigned int i = 0; code == 0 && i < report->vcpus; i++)
		code = rouse_stalls_add(stalls, 0, report->start_us);
	return code;
}

/* The faults of a restore: those that were answered, and those that the background overtook. */
struct fault_logs {
	const struct rouse_fault *served, *overtaken;
	uint64_t served_count, overtaken_count;
};

/* And those that a fault has stalled. */
static int add_faults(struct rouse_stalls *stalls, struct rouse_restore_report *report,
	const struct restore_report_context *context, const struct fault_logs *logs)
{
	struct fault_stalls_config config = {
		.faults = logs->served,
		.count = logs->served_count,
		.requested_ns = context->requested_ns,
		.transport_ns = (uint64_t)(report->transport_us * 1000),
		/* Another number of them than the VM had: vCPUs were plugged. */
		.threads = context->thread_count == report->vcpus ? context->threads : NULL,
		.thread_count = context->thread_count,
	};
	bool by_thread, overtaken_by_thread = true;
	uint64_t ignored;
	int code = fault_stalls_add(stalls, &config, &report->device_faults, &by_thread);

	/* Apart: a vCPU has one fault at a time, so that none of these overlaps one of the others.
	 */
	config.faults = logs->overtaken;
	config.count = logs->overtaken_count;
	if (code == 0)
		code = fault_stalls_add(stalls, &config, &ignored, &overtaken_by_thread);
	report->stall_method =
		by_thread && overtaken_by_thread ? ROUSE_STALLS_THREADS : ROUSE_STALLS_REQUESTS;
	return code;
}

/* What QEMU saw of its vCPUs' waiting beyond the service of the faults, for each of them. */
static double transport_us(const struct rouse_restore_report *report, const struct fault_logs *logs)
{
	const uint64_t count = logs->served_count + logs->overtaken_count;
	double service_us = 0;

	if (report->blocktime_us < 0 || count == 0)
		return 0;
	for (uint64_t i = 0; i < logs->served_count; i++)
		service_us += logs->served[i].service_ns / 1e3;
	for (uint64_t i = 0; i < logs->overtaken_count; i++)
		service_us += logs->overtaken[i].service_ns / 1e3;
	if ((double)report->blocktime_us <= service_us)
		return 0;
	return ((double)report->blocktime_us - service_us) / (double)count;
}

static int fill_percentiles(
	struct rouse_percentiles *out, const struct rouse_fault *faults, uint64_t count)
{
	cleanup_free uint32_t *values = malloc((count + 1) * sizeof(*values));

	if (values == NULL)
		return -ENOMEM;
	/* In tenths of a microsecond: whole ones would be too coarse for the median. */
	for (uint64_t i = 0; i < count; i++)
		values[i] = faults[i].service_ns / 100;
	rouse_percentiles_compute(values, count, out);
	out->p50 /= 10;
	out->p90 /= 10;
	out->p99 /= 10;
	out->max /= 10;
	return 0;
}

int restore_report_fill(struct rouse_restore_report *report, const struct rouse_engine *engine,
	const struct restore_report_context *context, const struct rouse_ttr_point *point,
	struct rouse_stalls **stalls)
{
	struct rouse_engine_stats stats;
	struct fault_logs logs;
	int code;

	rouse_engine_get_stats(engine, &stats);
	logs.served = rouse_engine_faults(engine, &logs.served_count);
	logs.overtaken = rouse_engine_overtaken(engine, &logs.overtaken_count);
	report->faults = logs.served_count;
	report->overtaken_faults = logs.overtaken_count;
	report->vcpus = context->vcpus;
	report->start_us = since_us(stats.started_ns, context->requested_ns);
	report->complete_us = since_us(stats.complete_ns, context->requested_ns);
	report->prefetched_pages = stats.prefetched_pages;
	report->prefetched_bytes = stats.prefetched_bytes;
	memcpy(report->stages, stats.stages, sizeof(report->stages));
	report->prefetch_place_us = stats.stages[ROUSE_STAGE_PLACE_PREFETCH].ns / 1000;
	report->background_pages = stats.background_pages;
	report->around_pages = stats.around_pages;
	report->ahead_pages = stats.ahead_pages;
	report->vcpu_wait_us = stats.guest_waited ? (int64_t)(stats.guest_wait_ns / 1000) : -1;
	if (stats.background_ns > 0)
		report->background_rate = (double)stats.background_pages * ROUSE_IMAGE_PAGE_BYTES *
					  1e9 / (double)stats.background_ns;
	report->transport_us = transport_us(report, &logs);
	code = rouse_stalls_new(context->vcpus, stalls);
	if (code == 0)
		code = add_start(*stalls, report);
	if (code == 0)
		code = add_faults(*stalls, report, context, &logs);
	if (code == 0)
		code = fill_percentiles(&report->fault_us, logs.served, report->faults);
	if (code < 0)
		return code;
	report->ttr_us = rouse_stalls_ttr(*stalls, point);
	rouse_stalls_table(*stalls, report->ttr_table_us);
	report->stalled_us = rouse_stalls_stalled_us(*stalls, report->start_us, UINT64_MAX);
	return 0;
}

int restore_report_write_stalls(
	const struct rouse_stalls *stalls, const char *path, struct rouse_error *error)
{
	FILE *file = fopen(path, "we");
	int code;

	if (file == NULL)
		return rouse_error_errno(error, -errno, "cannot write the stall log %s", path);
	code = rouse_stalls_write(stalls, file);
	if (fclose(file) != 0 && code == 0)
		code = -errno;
	return code == 0 ? 0
			 : rouse_error_errno(error, code, "cannot write the stall log %s", path);
}
