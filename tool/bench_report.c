/* SPDX-License-Identifier: MIT */
#include "bench.h"
#include "page.h"
#include "replace_file.h"

#include <stdlib.h>
#include <string.h>

json_t *bench_report_new(json_t *facts)
{
	return json_pack("{s:i, s:o, s:[], s:[], s:[]}", "format", 1, "environment", facts, "runs",
		"skipped", "failed");
}

static void set(json_t *object, const char *name, json_t *value)
{
	(void)json_object_set_new(object, name, value);
}

/* What a restore says of itself, under the same names. */
static void copy_measured(json_t *run, const json_t *report)
{
	static const char *const names[] = {"start_ms", "ttr_ms", "ttr_table", "complete_ms",
		"faults", "fault_us", "prefetched_pages", "image_bytes", "read_bytes", "ram_bytes",
		"backend", "io"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		(void)json_object_set(run, names[i], json_object_get(report, names[i]));
	(void)json_object_set(run, "chosen_policy", json_object_get(report, "policy"));
}

static json_t *describe(const struct bench_run *run, const char *name, uint64_t memory_bytes)
{
	char workload[PAGE_MAX_TEXT + 1];
	json_t *json;

	(void)snprintf(workload, sizeof(workload), "%s", name);
	json = json_pack("{s:o, s:s, s:s, s:i}", "workload", page_text(workload), "storage",
		run->way.storage->name, "policy", run->way.policy, "round", (int)run->round);

	copy_measured(json, run->report);
	set(json, "ram_gib", json_real((double)memory_bytes / ((uint64_t)1 << 30)));
	set(json, "clones", json_integer(1));
	set(json, "cached_bytes", json_integer((json_int_t)run->cached_bytes));
	/* Nobody in the guest measures, or checks its memory. */
	set(json, "guest_ttr_ms", json_null());
	set(json, "integrity_errors", json_null());
	return json;
}

static void add_pair(json_t *report, const char *list, const char *name, const char *reason)
{
	json_t *pair = json_pack("{s:s, s:o}", "name", name, "reason", page_text(reason));

	(void)json_array_append_new(json_object_get(report, list), pair);
}

void bench_report_skip(json_t *report, const char *name, const char *reason)
{
	add_pair(report, "skipped", name, reason);
}

/* What QEMU has told at the end of the first run. */
static void add_qemu(json_t *report, const struct bench_qemu_facts *qemu)
{
	json_t *facts = json_object_get(report, "environment");

	if (qemu->version[0] != '\0')
		set(facts, "qemu", json_string(qemu->version));
	if (qemu->accel[0] != '\0')
		set(facts, "accel", json_string(qemu->accel));
}

void bench_report_add(
	json_t *report, const struct bench_run *run, const char *name, uint64_t memory_bytes)
{
	char what[128];

	if (run->outcome == BENCH_MEASURED) {
		add_qemu(report, &run->qemu);
		(void)json_array_append_new(
			json_object_get(report, "runs"), describe(run, name, memory_bytes));
	} else if (run->outcome == BENCH_FAILED) {
		(void)snprintf(what, sizeof(what), "%s, %s, round %u", run->way.storage->name,
			run->way.policy, run->round);
		add_pair(report, "failed", what, run->reason);
	}
}

bool bench_report_is_replaced(const char *path)
{
	/* Not a pipe, or /dev/stdout. */
	return replace_is_possible(path);
}

int bench_report_write(const json_t *report, const char *path)
{
	return replace_by_json(report, path, JSON_INDENT(1) | JSON_REAL_PRECISION(12));
}
