/* SPDX-License-Identifier: MIT */
/* The report of a restore that serves no faults: its stalls are samples. */
#include "api/restore_report.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "ttr/ttr.h"

static void stalls_cleanup(struct rouse_stalls **stalls)
{
	rouse_stalls_free(*stalls);
}

static uint64_t since_us(uint64_t when_ns, uint64_t base_ns)
{
	return when_ns > base_ns ? (when_ns - base_ns) / 1000 : 0;
}

/* All vCPUs until the first instruction, and what was sampled behind it. */
static int add_stalls(struct rouse_stalls *stalls, const struct restore_report_map *times,
	uint64_t start_us, const struct vcpu_stall *sampled, size_t count)
{
	int code = 0;

	for (unsigned int i = 0; code == 0 && i < times->vcpus; i++)
		code = rouse_stalls_add(stalls, 0, start_us);
	for (size_t i = 0; code == 0 && i < count; i++) {
		uint64_t from = since_us(sampled[i].from_ns, times->requested_ns);
		uint64_t to = since_us(sampled[i].to_ns, times->requested_ns);

		if (from < start_us)
			from = start_us;
		if (to > from)
			code = rouse_stalls_add(stalls, from, to);
	}
	return code;
}

static void take_samples(struct rouse_restore_report *report, const struct vcpu_stalls *sampled,
	const struct vcpu_stall **list, size_t *count)
{
	bool complete = false;

	report->stall_method = ROUSE_STALLS_NONE;
	if (sampled == NULL)
		return;
	*list = vcpu_stalls_list(sampled, count, &complete);
	report->faults = vcpu_stalls_major_faults(sampled);
	if (!complete)
		return;
	report->stall_method = ROUSE_STALLS_SAMPLES;
	report->stall_resolution_us = VCPU_STALLS_PERIOD_US;
}

int restore_report_fill_map(struct rouse_restore_report *report,
	const struct restore_report_map *times, const struct vcpu_stalls *sampled,
	const struct rouse_restore_options *options, struct rouse_error *error)
{
	cleanup_with(stalls_cleanup) struct rouse_stalls *stalls = NULL;
	const struct vcpu_stall *list = NULL;
	size_t count = 0;
	int code;

	report->vcpus = times->vcpus;
	report->start_us = since_us(times->started_ns, times->requested_ns);
	report->complete_us = since_us(times->complete_ns, times->requested_ns);
	take_samples(report, sampled, &list, &count);
	code = rouse_stalls_new(times->vcpus, &stalls);
	if (code == 0)
		code = add_stalls(stalls, times, report->start_us, list, count);
	if (code < 0)
		return rouse_error_errno(error, code, "cannot make the report");
	report->ttr_us = rouse_stalls_ttr(stalls, &options->ttr);
	rouse_stalls_table(stalls, report->ttr_table_us);
	report->stalled_us = rouse_stalls_stalled_us(stalls, report->start_us, UINT64_MAX);
	if (options->stall_log == NULL)
		return 0;
	return restore_report_write_stalls(stalls, options->stall_log, error);
}
