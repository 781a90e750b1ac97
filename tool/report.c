/* SPDX-License-Identifier: MIT */
/* The library's reports, as JSON and for people. */
#include "tool.h"

#include <stdlib.h>

int print_json(json_t *json)
{
	int failed = json == NULL ||
		     json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(12)) < 0;

	json_decref(json);
	if (failed) {
		message(MESSAGE_ERROR, "cannot write the report");
		return EXIT_FAILURE;
	}
	(void)putchar('\n');
	return EXIT_SUCCESS;
}

json_t *json_ms(uint64_t us)
{
	return json_real((double)us / 1000);
}

static json_t *json_number(uint64_t number)
{
	return json_integer((json_int_t)number);
}

/* A share of the whole, in percent; 0 of nothing. */
static double percent(uint64_t part, uint64_t whole)
{
	return whole > 0 ? (double)part * 100 / (double)whole : 0;
}

json_t *save_report_json(const struct rouse_save_report *report)
{
	static const char *const kinds[] = {
		[ROUSE_ESTIMATE_TRACE] = "trace",
		[ROUSE_ESTIMATE_TRACE_BEFORE] = "trace-before",
		[ROUSE_ESTIMATE_SNAPSHOT_ORDER] = "snapshot-order",
		[ROUSE_ESTIMATE_SCAN] = "scan",
		[ROUSE_ESTIMATE_SCAN_BEFORE] = "scan-before",
	};
	json_t *json = json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:b}", "elapsed_ms",
		json_ms(report->elapsed_us), "downtime_ms", json_ms(report->downtime_us),
		"stream_ms", json_ms(report->stream_us), "ram_bytes",
		json_number(report->ram_bytes), "stored_bytes", json_number(report->stored_bytes),
		"image_bytes", json_number(report->image_bytes), "pages",
		json_number(report->pages), "zero_pages", json_number(report->zero_pages),
		"duplicate_pages", json_number(report->duplicate_pages), "background_snapshot",
		report->background_snapshot);

	if (report->estimate == ROUSE_ESTIMATE_NONE)
		return json;
	(void)json_object_set_new(json, "estimate", json_string(kinds[report->estimate]));
	(void)json_object_set_new(json, "wset_pages", json_number(report->wset_pages));
	if (report->trace.traced_bytes > 0)
		(void)json_object_set_new(json, "trace", trace_report_json(&report->trace));
	if (report->scan.scans > 0)
		(void)json_object_set_new(json, "scan", scan_report_json(&report->scan));
	return json;
}

void save_report_print(const struct rouse_save_report *report, const char *image)
{
	printf("%s: %s for %s of RAM, in %s\n", image, human_bytes(report->image_bytes).text,
		human_bytes(report->ram_bytes).text, human_us((double)report->elapsed_us).text);
	printf("the VM stood still for %s%s; its stream took %s\n",
		human_us((double)report->downtime_us).text,
		report->background_snapshot ? " (background snapshot)" : "",
		human_us((double)report->stream_us).text);
	printf("%llu pages: %.0f %% zero, %.0f %% stored for another page already\n",
		(unsigned long long)report->pages, percent(report->zero_pages, report->pages),
		percent(report->duplicate_pages, report->pages));
	if (report->estimate != ROUSE_ESTIMATE_NONE)
		printf("working set: %llu pages (%s)\n", (unsigned long long)report->wset_pages,
			human_bytes(report->wset_pages * 4096).text);
	if (report->trace.traced_bytes > 0)
		trace_report_print(&report->trace, NULL);
	if (report->scan.scans > 0)
		scan_report_print(&report->scan, NULL);
}

json_t *trace_report_json(const struct rouse_trace_report *report)
{
	json_t *json = json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "traced_ms",
		json_ms(report->traced_us), "pages", json_number(report->pages), "traced_bytes",
		json_number(report->traced_bytes), "untraced_bytes",
		json_number(report->untraced_bytes), "stop_ms", json_ms(report->stop_us), "arm_ms",
		json_ms(report->arm_us), "arm_pause_ms", json_ms(report->arm_pause_us), "disarm_ms",
		json_ms(report->disarm_us), "disarm_pause_ms", json_ms(report->disarm_pause_us));
	json_t *more = json_pack("{s:o, s:o, s:f, s:f, s:i, s:o, s:o, s:o, s:o, s:o, s:b}",
		"faults", json_number(report->faults), "stalled_ms", json_ms(report->stalled_us),
		"service_us", report->service_us, "slowdown", report->slowdown, "threads",
		(int)report->threads, "skipped_pages", json_number(report->skipped_pages),
		"copied_pages", json_number(report->copied_pages), "removed_pages",
		json_number(report->removed_pages), "forks", json_number(report->forks),
		"lost_pages", json_number(report->lost_pages), "retranslated",
		report->retranslated);

	(void)json_object_update(json, more);
	json_decref(more);
	return json;
}

void trace_report_print(const struct rouse_trace_report *report, const char *out)
{
	if (out != NULL)
		printf("%s: ", out);
	printf("%llu pages (%s) of %s touched in %s\n", (unsigned long long)report->pages,
		human_bytes(report->pages * 4096).text, human_bytes(report->traced_bytes).text,
		human_us((double)report->traced_us).text);
	printf("armed in %s, disarmed in %s; a touch waited at most %s and %s then\n",
		human_us((double)report->arm_us).text, human_us((double)report->disarm_us).text,
		human_us((double)report->arm_pause_us).text,
		human_us((double)report->disarm_pause_us).text);
	printf("%llu touches waited for %s each, %s in all: some %.1f %% of the time of %u "
	       "threads\n",
		(unsigned long long)report->faults, human_us(report->service_us).text,
		human_us((double)report->stalled_us).text, report->slowdown * 100, report->threads);
	printf("not watched: %s, and %llu pages that could not be moved\n",
		human_bytes(report->untraced_bytes).text,
		(unsigned long long)report->skipped_pages);
	if (report->lost_pages > 0)
		printf("%llu touches are missing: the log was full\n",
			(unsigned long long)report->lost_pages);
}

/* Which memory was scanned how: what a source does not see is said with it. */
static json_t *scan_sources_json(const struct rouse_scan_report *report)
{
	json_t *sources = json_array();

	if (report->presence_bytes > 0)
		(void)json_array_append_new(
			sources, json_pack("{s:s, s:o, s:b}", "source", "presence", "bytes",
					 json_number(report->presence_bytes), "writes_only", 0));
	if (report->writes_only_bytes > 0)
		(void)json_array_append_new(
			sources, json_pack("{s:s, s:o, s:b}", "source", "write-protection", "bytes",
					 json_number(report->writes_only_bytes), "writes_only", 1));
	if (report->page_idle_bytes > 0)
		(void)json_array_append_new(sources,
			json_pack("{s:s, s:o, s:b, s:o, s:o}", "source", "page-idle", "bytes",
				json_number(report->page_idle_bytes), "writes_only", 0,
				"huge_bytes", json_number(report->huge_bytes), "unwatched_pages",
				json_number(report->unwatched_pages)));
	return sources;
}

json_t *scan_report_json(const struct rouse_scan_report *report)
{
	json_t *json = json_pack("{s:o, s:b, s:o, s:i, s:o, s:o, s:o, s:o}", "sources",
		scan_sources_json(report), "page_idle", report->page_idle, "scanned_ms",
		json_ms(report->scanned_us), "scans", (int)report->scans, "pages",
		json_number(report->pages), "seen_pages", json_number(report->seen_pages),
		"unscanned_bytes", json_number(report->unscanned_bytes), "skipped_pages",
		json_number(report->skipped_pages));
	json_t *more = json_pack("{s:o, s:o, s:f, s:o, s:o, s:o, s:b}", "begin_ms",
		json_ms(report->begin_us), "scan_ms", json_ms(report->scan_us), "scan_ms_per_gib",
		report->scan_us_per_gib / 1000, "stops", json_number(report->stops), "stop_ms",
		json_ms(report->stop_us), "stop_max_ms", json_ms(report->stop_max_us),
		"retranslated", report->retranslated);

	(void)json_object_update(json, more);
	json_decref(more);
	return json;
}

void scan_report_print(const struct rouse_scan_report *report, const char *out)
{
	if (out != NULL)
		printf("%s: ", out);
	printf("%llu pages (%s), of %llu that %u scans in %s saw\n",
		(unsigned long long)report->pages, human_bytes(report->pages * 4096).text,
		(unsigned long long)report->seen_pages, report->scans,
		human_us((double)report->scanned_us).text);
	if (report->presence_bytes > 0)
		printf("%s scanned by page-table presence: reads and writes\n",
			human_bytes(report->presence_bytes).text);
	if (report->writes_only_bytes > 0)
		printf("%s scanned by write protection: writes only, no reads\n",
			human_bytes(report->writes_only_bytes).text);
	if (report->page_idle_bytes > 0)
		printf("%s scanned by page_idle: reads and writes; %s of it in huge pages, each "
		       "seen as a whole; %llu pages could not be watched\n",
			human_bytes(report->page_idle_bytes).text,
			human_bytes(report->huge_bytes).text,
			(unsigned long long)report->unwatched_pages);
	printf("a scan of 1 GiB took %s; %llu stops of one thread, %s in all, at most %s\n",
		human_us(report->scan_us_per_gib).text, (unsigned long long)report->stops,
		human_us((double)report->stop_us).text, human_us((double)report->stop_max_us).text);
	printf("not scanned: %s, and %llu pages of mappings that changed\n",
		human_bytes(report->unscanned_bytes).text,
		(unsigned long long)report->skipped_pages);
	if (report->writes_only_bytes > 0 && report->page_idle)
		printf("this machine has page_idle, which sees reads too: --source page-idle\n");
}

json_t *write_report_json(const struct rouse_write_report *report)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "elapsed_ms",
		json_ms(report->elapsed_us), "image_bytes", json_number(report->image_bytes),
		"stored_bytes", json_number(report->stored_bytes), "pages",
		json_number(report->pages), "zero_pages", json_number(report->zero_pages),
		"duplicate_pages", json_number(report->duplicate_pages), "wset_pages",
		json_number(report->wset_pages));
}

void write_report_print(const struct rouse_write_report *report, const char *out)
{
	printf("%s: %s, in %s\n", out, human_bytes(report->image_bytes).text,
		human_us((double)report->elapsed_us).text);
	printf("%llu pages: %.0f %% zero, %.0f %% stored for another page already; "
	       "%llu in the working set\n",
		(unsigned long long)report->pages, percent(report->zero_pages, report->pages),
		percent(report->duplicate_pages, report->pages),
		(unsigned long long)report->wset_pages);
}

/* ---- TTR --------------------------------------------------------------------------------------
 */

json_t *ttr_table_json(const uint64_t table_us[ROUSE_TTR_UTILIZATIONS][ROUSE_TTR_WINDOWS])
{
	json_t *list = json_array();

	for (size_t u = 0; u < ROUSE_TTR_UTILIZATIONS; u++) {
		for (size_t w = 0; w < ROUSE_TTR_WINDOWS; w++)
			(void)json_array_append_new(
				list, json_pack("{s:f, s:o, s:o}", "utilization",
					      rouse_ttr_utilizations[u], "window_ms",
					      json_ms(rouse_ttr_windows_us[w]), "ttr_ms",
					      json_ms(table_us[u][w])));
	}
	return list;
}

void ttr_table_print(const uint64_t table_us[ROUSE_TTR_UTILIZATIONS][ROUSE_TTR_WINDOWS])
{
	printf("%-16s", "TTR with windows");
	for (size_t w = 0; w < ROUSE_TTR_WINDOWS; w++)
		printf("%14s", human_us((double)rouse_ttr_windows_us[w]).text);
	printf("\n");
	for (size_t u = 0; u < ROUSE_TTR_UTILIZATIONS; u++) {
		printf("  at %2.0f %%%8s", rouse_ttr_utilizations[u] * 100, "");
		for (size_t w = 0; w < ROUSE_TTR_WINDOWS; w++)
			printf("%14s", human_us((double)table_us[u][w]).text);
		printf("\n");
	}
}

/* ---- Restoring ------------------------------------------------------------------------------ */

static const char *policy_name(enum rouse_policy policy)
{
	const struct option_value *value = policy_values;

	while (value->word != NULL && value->value != (int)policy)
		value++;
	return value->word != NULL ? value->word : "unknown";
}

static const char *backend_name(enum rouse_backend backend)
{
	switch (backend) {
	case ROUSE_BACKEND_MAP:
		return "map";
	case ROUSE_BACKEND_UFFD:
		return "uffd";
	case ROUSE_BACKEND_POSTCOPY:
	case ROUSE_BACKEND_AUTO:
		break;
	}
	return "postcopy";
}

static const char *stall_method_name(enum rouse_stall_method method)
{
	switch (method) {
	case ROUSE_STALLS_REQUESTS:
		return "requests";
	case ROUSE_STALLS_SAMPLES:
		return "samples";
	case ROUSE_STALLS_THREADS:
		return "threads";
	case ROUSE_STALLS_NONE:
		break;
	}
	return "none";
}

static void set(json_t *object, const char *name, json_t *value)
{
	(void)json_object_set_new(object, name, value);
}

static void add_times(json_t *json, const struct rouse_restore_report *report,
	const struct rouse_ttr_point *point)
{
	set(json, "start_ms", json_ms(report->start_us));
	set(json, "ttr_ms", json_ms(report->ttr_us));
	set(json, "ttr",
		json_pack("{s:f, s:o}", "utilization", point->utilization, "window_ms",
			json_ms(point->window_us)));
	set(json, "ttr_table", ttr_table_json(report->ttr_table_us));
	set(json, "complete_ms",
		report->complete_us > 0 ? json_ms(report->complete_us) : json_null());
	set(json, "stalled_ms", json_ms(report->stalled_us));
	set(json, "blocktime_ms",
		report->blocktime_us >= 0 ? json_ms((uint64_t)report->blocktime_us) : json_null());
	set(json, "stall_method", json_string(stall_method_name(report->stall_method)));
	set(json, "device_faults", json_number(report->device_faults));
	set(json, "overtaken_faults", json_number(report->overtaken_faults));
	set(json, "stall_resolution_us", json_number(report->stall_resolution_us));
	set(json, "transport_us", json_real(report->transport_us));
	set(json, "prefetch_place_ms", json_ms(report->prefetch_place_us));
}

/* By policy, those that there are. */
static json_t *predictions_json(const struct rouse_restore_report *report)
{
	json_t *json = json_object();

	for (int policy = 0; policy < ROUSE_POLICY_COUNT; policy++) {
		if (report->predicted_ttr_us[policy] > 0)
			set(json, policy_name((enum rouse_policy)policy),
				json_ms(report->predicted_ttr_us[policy]));
	}
	return json;
}

json_t *restore_report_json(
	const struct rouse_restore_report *report, const struct rouse_ttr_point *point)
{
	json_t *json = json_object();

	set(json, "policy", json_string(policy_name(report->policy)));
	set(json, "policy_reason",
		report->policy_reason[0] != '\0' ? json_string(report->policy_reason)
						 : json_null());
	set(json, "predicted_ttr_ms", predictions_json(report));
	set(json, "backend", json_string(backend_name(report->backend)));
	add_times(json, report, point);
	set(json, "faults", json_number(report->faults));
	set(json, "fault_us",
		json_pack("{s:f, s:f, s:f, s:f}", "p50", report->fault_us.p50, "p90",
			report->fault_us.p90, "p99", report->fault_us.p99, "max",
			report->fault_us.max));
	set(json, "prefetched_pages", json_number(report->prefetched_pages));
	set(json, "prefetched_bytes", json_number(report->prefetched_bytes));
	set(json, "around_pages", json_number(report->around_pages));
	set(json, "ahead_pages", json_number(report->ahead_pages));
	set(json, "background_pages", json_number(report->background_pages));
	set(json, "background_rate", json_real(report->background_rate));
	set(json, "vcpu_wait_ms",
		report->vcpu_wait_us >= 0 ? json_ms((uint64_t)report->vcpu_wait_us) : json_null());
	set(json, "image_bytes", json_number(report->image_bytes));
	set(json, "read_bytes", json_number(report->read_bytes));
	set(json, "reads", json_number(report->reads));
	set(json, "io", json_string(report->io == ROUSE_IO_DIRECT ? "direct" : "cached"));
	set(json, "io_uring", json_boolean(report->io_uring));
	set(json, "ram_bytes", json_number(report->ram_bytes));
	set(json, "vcpus", json_number(report->vcpus));
	set(json, "qemu_pid", report->qemu_pid > 0 ? json_integer(report->qemu_pid) : json_null());
	set(json, "monitor",
		report->monitor[0] != '\0' ? json_string(report->monitor) : json_null());
	set(json, "record_incomplete", json_boolean(report->record_incomplete));
	set(json, "record_waited_ms", json_ms(report->record_waited_us));
	set(json, "stages", stages_json(report->stages));
	set(json, "learn", learn_report_json(&report->learn));
	return json;
}

/* Nobody saw the faults one by one. */
static void print_sampled_stalls(const struct rouse_restore_report *report)
{
	printf("%llu faults for which something was read; ", (unsigned long long)report->faults);
	if (report->stall_method == ROUSE_STALLS_SAMPLES)
		printf("vCPUs stalled for some %s after the start, by samples each %s\n",
			human_us((double)report->stalled_us).text,
			human_us((double)report->stall_resolution_us).text);
	else
		printf("how long vCPUs stalled is not known: TTR counts the start alone\n");
}

static void print_stalls(const struct rouse_restore_report *report)
{
	if (report->stall_method != ROUSE_STALLS_REQUESTS &&
		report->stall_method != ROUSE_STALLS_THREADS) {
		print_sampled_stalls(report);
		return;
	}
	printf("%llu faults; their service: p50 %s, p90 %s, p99 %s, at most %s\n",
		(unsigned long long)report->faults, human_us(report->fault_us.p50).text,
		human_us(report->fault_us.p90).text, human_us(report->fault_us.p99).text,
		human_us(report->fault_us.max).text);
	if (report->device_faults > 0)
		printf("%llu of them were of devices or of QEMU itself\n",
			(unsigned long long)report->device_faults);
	printf("vCPUs stalled for %s after the start", human_us((double)report->stalled_us).text);
	if (report->blocktime_us >= 0)
		printf(" (QEMU says %s; the way to QEMU and back adds %s to each fault)",
			human_us((double)report->blocktime_us).text,
			human_us(report->transport_us).text);
	printf("\n");
}

static void print_choice(const struct rouse_restore_report *report)
{
	const char *before = " (";

	printf("  chosen: %s", report->policy_reason);
	for (int policy = 0; policy < ROUSE_POLICY_COUNT; policy++) {
		if (report->predicted_ttr_us[policy] == 0)
			continue;
		printf("%s%s %s", before, policy_name((enum rouse_policy)policy),
			human_us((double)report->predicted_ttr_us[policy]).text);
		before = ", ";
	}
	printf("%s\n", before[0] == ',' ? ")" : "");
}

void restore_report_print(
	const struct rouse_restore_report *report, const struct rouse_ttr_point *point)
{
	printf("policy %s, %u vCPUs, %s of RAM\n", policy_name(report->policy), report->vcpus,
		human_bytes(report->ram_bytes).text);
	if (report->policy_reason[0] != '\0')
		print_choice(report);
	printf("first instruction after %s, TTR(%g %%, %s) %s",
		human_us((double)report->start_us).text, point->utilization * 100,
		human_us((double)point->window_us).text, human_us((double)report->ttr_us).text);
	if (report->complete_us > 0)
		printf(", last page after %s", human_us((double)report->complete_us).text);
	printf("\n");
	print_stalls(report);
	printf("%llu pages (%s) before the start, placed in %s; %llu as neighbours of faults, "
	       "%llu ahead of them, %llu in the background",
		(unsigned long long)report->prefetched_pages,
		human_bytes(report->prefetched_bytes).text,
		human_us((double)report->prefetch_place_us).text,
		(unsigned long long)report->around_pages, (unsigned long long)report->ahead_pages,
		(unsigned long long)report->background_pages);
	if (report->background_rate > 0)
		printf(", %s/s", human_bytes((uint64_t)report->background_rate).text);
	printf("\n");
	if (report->vcpu_wait_us >= 0)
		printf("vCPUs that could run waited for a processor of the host for %s\n",
			human_us((double)report->vcpu_wait_us).text);
	printf("read %s of an image of %s, in %llu reads %s\n",
		human_bytes(report->read_bytes).text, human_bytes(report->image_bytes).text,
		(unsigned long long)report->reads,
		report->io != ROUSE_IO_DIRECT ? "through the page cache"
		: report->io_uring            ? "past the page cache, by io_uring"
					      : "past the page cache, one at a time");
	ttr_table_print(report->ttr_table_us);
	if (report->record_incomplete)
		printf("the trace is incomplete: pages came unasked, the VM stood still, or the "
		       "restore broke off before its end\n");
	learn_report_print(&report->learn);
	if (report->monitor[0] != '\0')
		printf("QEMU is process %d; its monitor is %s\n", report->qemu_pid,
			report->monitor);
}
