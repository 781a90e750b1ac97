/* SPDX-License-Identifier: MIT */
/* What rouse bench makes of its runs: the report, and the table. */
#include "../unit.h"

#include "../../../tool/bench.h"
#include "../../../tool/page.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Some of what rouse restore --json prints. */
#define RESTORED                                                                                  \
	"{\"policy\": \"ws\", \"backend\": \"postcopy\", \"start_ms\": 40.5, \"ttr_ms\": 33,"     \
	" \"ttr_table\": [{\"utilization\": 0.9, \"window_ms\": 100, \"ttr_ms\": 33}],"           \
	" \"complete_ms\": 700, \"faults\": 2, \"fault_us\": {\"p50\": 10, \"p90\": 20, \"p99\":" \
	" 30, \"max\": 40}, \"prefetched_pages\": 2656, \"image_bytes\": 1000, \"read_bytes\":"   \
	" 2000, \"ram_bytes\": 4096, \"io\": \"direct\", \"qemu_pid\": 77}"

static const struct bench_storage disk = {.name = "disk"};

static struct bench_plan plan_of(const char *policies)
{
	struct bench_plan plan = {.rounds = 3};
	char wrong[32];

	assert_true(bench_plan_storages(&plan, "disk", NULL, 0, wrong));
	assert_true(bench_plan_policies(&plan, policies, wrong));
	return plan;
}

static void add(json_t *report, const char *policy, unsigned int round, const char *restored)
{
	struct bench_run run = {.way = {.storage = &disk, .policy = policy}, .round = round};

	run.report = json_loads(restored, 0, NULL);
	assert_non_null(run.report);
	bench_report_add(report, &run, "vm.rouse", (uint64_t)1 << 29);
	bench_run_finish(&run);
}

static void add_ttr(json_t *report, const char *policy, unsigned int round, int ttr_ms)
{
	char text[160];

	(void)snprintf(text, sizeof(text),
		"{\"policy\": \"%s\", \"start_ms\": 5, \"ttr_ms\": %d, \"faults\": 1, "
		"\"read_bytes\": 1048576}",
		policy, ttr_ms);
	add(report, policy, round, text);
}

static void add_failure(json_t *report, const char *reason)
{
	struct bench_run run = {
		.way = {.storage = &disk, .policy = "lazy"}, .round = 2, .outcome = BENCH_FAILED};

	(void)snprintf(run.reason, sizeof(run.reason), "%s", reason);
	bench_report_add(report, &run, "vm.rouse", 4096);
}

/* The table as text, to be freed. */
static char *table_of(const json_t *report, const char *policies)
{
	struct bench_plan plan = plan_of(policies);
	char *text = NULL;
	size_t size;
	FILE *file = open_memstream(&text, &size);

	assert_non_null(file);
	bench_table_print(file, report, &plan);
	assert_int_equal(fclose(file), 0);
	return text;
}

static void expect(const char *text, const char *part)
{
	if (strstr(text, part) == NULL)
		fail_msg("'%s' is not in:\n%s", part, text);
}

static void expect_not(const char *text, const char *part)
{
	if (strstr(text, part) != NULL)
		fail_msg("'%s' is in:\n%s", part, text);
}

/* ---- The report ------------------------------------------------------------------------------ */

static void run_has_what_the_demo_writes(void **state)
{
	static const char *const names[] = {"workload", "storage", "policy", "round", "start_ms",
		"ttr_ms", "ttr_table", "guest_ttr_ms", "faults", "fault_us", "prefetched_pages",
		"image_bytes", "read_bytes", "ram_bytes", "integrity_errors", "backend",
		"chosen_policy", "ram_gib", "clones"};
	json_t *report = bench_report_new(json_object());
	const json_t *run;

	(void)state;
	add(report, "auto", 2, RESTORED);
	run = json_array_get(json_object_get(report, "runs"), 0);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (json_object_get(run, names[i]) == NULL)
			fail_msg("a run has no %s", names[i]);
	}
	assert_string_equal(json_string_value(json_object_get(run, "policy")), "auto");
	assert_string_equal(json_string_value(json_object_get(run, "chosen_policy")), "ws");
	assert_int_equal(json_integer_value(json_object_get(run, "round")), 2);
	assert_int_equal((int)(json_real_value(json_object_get(run, "ram_gib")) * 100), 50);
	assert_true(json_is_null(json_object_get(run, "guest_ttr_ms")));
	json_decref(report);
}

static void page_takes_the_report(void **state)
{
	const struct page_file file = {.path = "bench.json"};
	json_t *report = bench_report_new(json_object());
	json_t *data = page_data_new("Test");
	const json_t *source;
	char *text;

	(void)state;
	add(report, "ws", 1, RESTORED);
	bench_report_skip(report, "paced", "no set");
	add_failure(report, "QEMU died");
	text = json_dumps(report, 0);
	assert_int_equal(page_add_report_text(data, &file, text, strlen(text)), EXIT_SUCCESS);
	assert_int_equal(json_array_size(json_object_get(data, "runs")), 1);
	source = json_array_get(json_object_get(data, "sources"), 0);
	assert_int_equal(json_array_size(json_object_get(source, "skipped")), 1);
	assert_int_equal(json_array_size(json_object_get(source, "failed")), 1);
	free(text);
	json_decref(data);
	json_decref(report);
}

static void failure_is_kept_with_its_reason(void **state)
{
	json_t *report = bench_report_new(json_object());
	const json_t *failed;

	(void)state;
	add_failure(report, "QEMU died");
	add_failure(report, "no such file: \xff");
	assert_int_equal(json_array_size(json_object_get(report, "runs")), 0);
	failed = json_object_get(report, "failed");
	assert_int_equal(json_array_size(failed), 2);
	assert_string_equal(json_string_value(json_object_get(json_array_get(failed, 0), "name")),
		"disk, lazy, round 2");
	assert_string_equal(json_string_value(json_object_get(json_array_get(failed, 0), "reason")),
		"QEMU died");
	json_decref(report);
}

static void interrupted_run_is_neither_measured_nor_failed(void **state)
{
	json_t *report = bench_report_new(json_object());
	struct bench_run run = {
		.way = {.storage = &disk, .policy = "lazy"}, .outcome = BENCH_INTERRUPTED};

	(void)state;
	bench_report_add(report, &run, "vm.rouse", 4096);
	assert_int_equal(json_array_size(json_object_get(report, "runs")), 0);
	assert_int_equal(json_array_size(json_object_get(report, "failed")), 0);
	json_decref(report);
}

static void a_link_to_an_open_file_is_written_through(void **state)
{
	char path[] = "/tmp/rouse-test-XXXXXX", link[40], target[40];
	int fd = mkstemp(path);
	json_t *report = bench_report_new(json_object());
	struct stat status;

	(void)state;
	assert_true(fd >= 0);
	(void)snprintf(link, sizeof(link), "%s.link", path);
	(void)snprintf(target, sizeof(target), "/proc/self/fd/%d", fd);
	assert_int_equal(symlink(target, link), 0);
	assert_false(bench_report_is_replaced(link));
	assert_int_equal(bench_report_write(report, link), 0);
	assert_int_equal(lstat(link, &status), 0);
	assert_true(S_ISLNK(status.st_mode));
	assert_int_equal(fstat(fd, &status), 0);
	assert_true(status.st_size > 0);
	(void)close(fd);
	assert_int_equal(unlink(link), 0);
	assert_int_equal(unlink(path), 0);
	json_decref(report);
}

static void file_is_replaced_whole(void **state)
{
	char path[] = "/tmp/rouse-test-XXXXXX", beside[40];
	int fd = mkstemp(path);
	json_t *report = bench_report_new(json_object()), *read;

	(void)state;
	assert_true(fd >= 0);
	(void)close(fd);
	assert_int_equal(bench_report_write(report, path), 0);
	read = json_load_file(path, 0, NULL);
	assert_true(json_equal(read, report));
	(void)snprintf(beside, sizeof(beside), "%s.new", path);
	assert_int_not_equal(access(beside, F_OK), 0);
	assert_int_equal(bench_report_write(report, "/nonexistent/report.json"), -ENOENT);
	(void)unlink(path);
	json_decref(read);
	json_decref(report);
}

static void qemu_tells_its_version_and_accelerator(void **state)
{
	struct bench_qemu_facts facts = {0}, nothing = {0};

	(void)state;
	bench_qemu_read_facts(
		"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, "
		"\"package\": \"\"}, \"capabilities\": []}}\r\n{\"return\": {}}\r\n"
		"{\"return\": {\"enabled\": false, \"present\": true}}\r\n{\"return\": {}}\r\n",
		&facts);
	assert_string_equal(facts.version, "7.2.22");
	assert_string_equal(facts.accel, "tcg");
	bench_qemu_read_facts("{\"QMP\": 3}\r\n[\nnonsense", &nothing);
	assert_string_equal(nothing.version, "");
	assert_string_equal(nothing.accel, "");
}

/* ---- The table ------------------------------------------------------------------------------- */

static void table_has_medians_and_their_relation_to_the_best(void **state)
{
	json_t *report = bench_report_new(json_object());
	char *text;

	(void)state;
	for (unsigned int round = 1; round <= 3; round++) {
		add_ttr(report, "ws", round, 40 + (int)round);
		add_ttr(report, "lazy", round, 83 + (int)round);
	}
	text = table_of(report, "lazy,ws");
	expect(text, "42 ms (41 to 43)");
	expect(text, "85 ms (84 to 86)");
	expect(text, "    2.02\n");
	expect(text, "    1.00\n");
	expect(text, "1.0 MiB");
	expect(text, "disk: ws is responsive soonest, after 42 ms\n");
	expect_not(text, "NOT COLD");
	free(text);
	json_decref(report);
}

static void policies_whose_rounds_overlap_are_not_told_apart(void **state)
{
	static const int ws[] = {40, 50, 60}, paced[] = {59, 61, 63}, lazy[] = {61, 70, 80};
	json_t *report = bench_report_new(json_object());
	char *text;

	(void)state;
	for (unsigned int i = 0; i < 3; i++) {
		add_ttr(report, "ws", i + 1, ws[i]);
		add_ttr(report, "paced", i + 1, paced[i]);
		add_ttr(report, "lazy", i + 1, lazy[i]);
	}
	text = table_of(report, "lazy,paced,ws");
	expect(text, "ws is responsive soonest, after 50 ms; not told apart from it by these "
		     "rounds: paced\n");
	free(text);
	json_decref(report);
}

static void one_round_is_called_a_hint(void **state)
{
	json_t *report = bench_report_new(json_object());
	char *text;

	(void)state;
	add_ttr(report, "ws", 1, 40);
	add_ttr(report, "lazy", 1, 90);
	text = table_of(report, "lazy,ws");
	expect(text, " 40 ms ");
	expect(text, "ws is responsive soonest, after 40 ms (one round: a hint, no more)\n");
	free(text);
	json_decref(report);
}

static void table_names_what_auto_chose(void **state)
{
	json_t *report = bench_report_new(json_object());
	char *text;

	(void)state;
	add(report, "auto", 1, RESTORED);
	add(report, "auto", 2, "{\"policy\": \"paced\", \"ttr_ms\": 1}");
	add(report, "auto", 3, RESTORED);
	text = table_of(report, "auto");
	expect(text, " ws/paced ");
	free(text);
	json_decref(report);
}

static void table_tells_what_was_skipped_and_what_failed(void **state)
{
	json_t *report = bench_report_new(json_object());
	char *text;

	(void)state;
	bench_report_skip(report, "ws", "there is no set");
	add_failure(report, "QEMU died");
	text = table_of(report, "lazy");
	expect(text, "skipped: ws: there is no set\n");
	expect(text, "failed: disk, lazy, round 2: QEMU died\n");
	expect_not(text, "soonest");
	free(text);
	json_decref(report);
}

static void table_tells_of_restores_that_were_not_cold(void **state)
{
	struct bench_run run = {
		.way = {.storage = &disk, .policy = "ws"}, .round = 1, .cached_bytes = 4096};
	json_t *report = bench_report_new(json_object());
	char *text;

	(void)state;
	run.report = json_loads(RESTORED, 0, NULL);
	bench_report_add(report, &run, "vm.rouse", 4096);
	bench_run_finish(&run);
	add(report, "ws", 2, RESTORED);
	text = table_of(report, "ws");
	expect(text, "NOT COLD: 1 of 2 restores");
	free(text);
	json_decref(report);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(run_has_what_the_demo_writes),
		cmocka_unit_test(page_takes_the_report),
		cmocka_unit_test(failure_is_kept_with_its_reason),
		cmocka_unit_test(interrupted_run_is_neither_measured_nor_failed),
		cmocka_unit_test(file_is_replaced_whole),
		cmocka_unit_test(a_link_to_an_open_file_is_written_through),
		cmocka_unit_test(qemu_tells_its_version_and_accelerator),
		cmocka_unit_test(table_has_medians_and_their_relation_to_the_best),
		cmocka_unit_test(policies_whose_rounds_overlap_are_not_told_apart),
		cmocka_unit_test(one_round_is_called_a_hint),
		cmocka_unit_test(table_names_what_auto_chose),
		cmocka_unit_test(table_tells_what_was_skipped_and_what_failed),
		cmocka_unit_test(table_tells_of_restores_that_were_not_cold),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
