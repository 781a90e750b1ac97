/* SPDX-License-Identifier: MIT */
/* What goes into the page of rouse report: nothing that could be more than data. */
#include "../../../tool/page.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define RUN "\"workload\": \"idle\", \"storage\": \"slow\", \"policy\": \"ws\""

static int add(json_t *data, const char *text)
{
	struct page_file file;

	assert_true(page_file_parse("x.json", &file));
	return page_add_report_text(data, &file, text, strlen(text));
}

/* An exit code; a message is expected with it. */
static int exit_code_of(const char *text)
{
	json_t *data = page_data_new("t");
	int exit_code = add(data, text);

	json_decref(data);
	return exit_code;
}

static void assert_run_is_bad(const char *members)
{
	char text[1000];

	(void)snprintf(text, sizeof(text), "{\"runs\": [{%s}]}", members);
	assert_int_equal(exit_code_of(text), EXIT_FILE);
}

static void runs_are_copied_without_what_the_page_does_not_know(void **state)
{
	json_t *data = page_data_new("t"), *run;

	(void)state;
	assert_int_equal(add(data, "{\"format\": 1, \"runs\": [{" RUN
				   ", \"ttr_ms\": 41, \"monitor\": \"/run/secret\","
				   "\"guest_ttr_ms\": null}]}"),
		EXIT_SUCCESS);
	run = json_array_get(json_object_get(data, "runs"), 0);
	assert_string_equal(json_string_value(json_object_get(run, "policy")), "ws");
	assert_true(json_real_value(json_object_get(run, "ttr_ms")) > 40.9);
	assert_null(json_object_get(run, "monitor"));
	assert_null(json_object_get(run, "guest_ttr_ms"));
	json_decref(data);
}

static void a_restore_is_a_run(void **state)
{
	json_t *data = page_data_new("t"), *run;

	(void)state;
	assert_int_equal(add(data, "{\"policy\": \"lazy\", \"ttr_ms\": 5, \"fault_us\": "
				   "{\"p50\": 1, \"p90\": 2, \"p99\": 3, \"max\": 4}}"),
		EXIT_SUCCESS);
	run = json_array_get(json_object_get(data, "runs"), 0);
	assert_string_equal(json_string_value(json_object_get(run, "policy")), "lazy");
	assert_int_equal(json_object_size(json_object_get(run, "fault_us")), 4);
	json_decref(data);
}

static void estimators_are_told_from_runs(void **state)
{
	json_t *data = page_data_new("t");

	(void)state;
	assert_int_equal(add(data, "{\"runs\": [{\"workload\": \"kv\", \"ram\": \"anon\", "
				   "\"estimator\": \"scan\", \"precision\": 1, \"recall\": 0.5, "
				   "\"slowdown\": -0.01}]}"),
		EXIT_SUCCESS);
	assert_int_equal(json_array_size(json_object_get(data, "estimators")), 1);
	assert_int_equal(json_array_size(json_object_get(data, "runs")), 0);
	json_decref(data);
}

static void what_is_no_report_is_refused(void **state)
{
	(void)state;
	assert_int_equal(exit_code_of(""), EXIT_FILE);
	assert_int_equal(exit_code_of("[1, 2"), EXIT_FILE);
	assert_int_equal(exit_code_of("[]"), EXIT_FILE);
	assert_int_equal(exit_code_of("{}"), EXIT_FILE);
	assert_int_equal(exit_code_of("{\"runs\": {}}"), EXIT_FILE);
	assert_int_equal(exit_code_of("{\"runs\": [], \"runs\": []}"), EXIT_FILE);
	assert_int_equal(exit_code_of("{\"elapsed_ms\": 5}"), EXIT_FILE);
	assert_int_equal(exit_code_of("{\"policy\": 1, \"ttr_ms\": 5}"), EXIT_FILE);
}

static void wrong_members_are_refused(void **state)
{
	(void)state;
	assert_run_is_bad("");
	assert_run_is_bad(RUN);
	assert_run_is_bad(RUN ", \"ttr_ms\": null");
	assert_run_is_bad(RUN ", \"ttr_ms\": \"41\"");
	assert_run_is_bad(RUN ", \"ttr_ms\": -1");
	assert_run_is_bad(RUN ", \"ttr_ms\": 1e999");
	assert_run_is_bad(RUN ", \"ttr_ms\": 1, \"faults\": []");
	assert_run_is_bad(RUN ", \"ttr_ms\": 1, \"fault_us\": {\"p50\": 1}");
	assert_run_is_bad(RUN ", \"ttr_ms\": 1, \"ttr_table\": [{\"utilization\": 1}]");
	assert_run_is_bad(RUN ", \"ttr_ms\": 1, \"ttr_table\": {}");
	assert_int_equal(exit_code_of("{\"runs\": [5]}"), EXIT_FILE);
}

static void very_long_texts_are_refused(void **state)
{
	char text[2000];

	(void)state;
	(void)snprintf(text, sizeof(text),
		"{\"runs\": [{\"workload\": \"%0*d\", \"storage\": \"\", \"policy\": \"\", "
		"\"ttr_ms\": 1}]}",
		(int)PAGE_MAX_TEXT + 1, 0);
	assert_int_equal(exit_code_of(text), EXIT_FILE);
}

static void deep_nesting_is_refused(void **state)
{
	char *text = malloc(200002);

	(void)state;
	assert_non_null(text);
	memset(text, '[', 100000);
	memset(text + 100000, ']', 100000);
	text[200000] = '\0';
	assert_int_equal(exit_code_of(text), EXIT_FILE);
	free(text);
}

static void too_many_runs_are_refused(void **state)
{
	static const char run[] = "{" RUN ", \"ttr_ms\": 1},";
	size_t count = PAGE_MAX_RUNS + 1, used = 0;
	char *text = malloc(count * sizeof(run) + 64);

	(void)state;
	assert_non_null(text);
	used += (size_t)sprintf(text, "{\"runs\": [");
	for (size_t i = 0; i < count; i++)
		used += (size_t)sprintf(text + used, "%s", run);
	(void)sprintf(text + used - 1, "]}");
	assert_int_equal(exit_code_of(text), EXIT_FILE);
	free(text);
}

static void environments_are_flat_texts(void **state)
{
	json_t *data = page_data_new("t"), *environment;

	(void)state;
	assert_int_equal(
		add(data, "{\"runs\": [], \"environment\": {\"cpus\": 2, \"disk\": "
			  "{\"device\": \"vda\", \"deeper\": {\"x\": 1}}, \"list\": [1]}}"),
		EXIT_SUCCESS);
	environment =
		json_object_get(json_array_get(json_object_get(data, "sources"), 0), "environment");
	assert_int_equal(json_object_size(environment), 2);
	assert_string_equal(json_string_value(json_object_get(environment, "cpus")), "2");
	assert_string_equal(json_string_value(json_object_get(environment, "disk device")), "vda");
	json_decref(data);
}

static void failed_and_skipped_restores_are_listed(void **state)
{
	json_t *data = page_data_new("t"), *source, *failed;

	(void)state;
	assert_int_equal(
		add(data,
			"{\"runs\": [], \"skipped\": [{\"name\": \"ws\", \"reason\": \"no set\"}], "
			"\"failed\": [{\"name\": \"lazy\", \"reason\": \"it died\", \"pid\": 3}, "
			"7]}"),
		EXIT_SUCCESS);
	source = json_array_get(json_object_get(data, "sources"), 0);
	assert_int_equal(json_array_size(json_object_get(source, "skipped")), 1);
	failed = json_object_get(source, "failed");
	assert_int_equal(json_array_size(failed), 1);
	assert_string_equal(
		json_string_value(json_object_get(json_array_get(failed, 0), "reason")), "it died");
	assert_null(json_object_get(json_array_get(failed, 0), "pid"));
	json_decref(data);
}

static void a_target_that_is_neither_met_nor_missed_is_kept(void **state)
{
	json_t *data = page_data_new("t"), *targets;

	(void)state;
	assert_int_equal(
		add(data, "{\"runs\": [], \"targets\": [{\"met\": null, \"text\": \"UNSURE x\"}, "
			  "{\"text\": \"met y\"}, {\"met\": true, \"text\": \"met z\"}]}"),
		EXIT_SUCCESS);
	targets = json_object_get(json_array_get(json_object_get(data, "sources"), 0), "targets");
	assert_int_equal(json_array_size(targets), 2);
	assert_true(json_is_null(json_object_get(json_array_get(targets, 0), "met")));
	json_decref(data);
}

static void data_cannot_end_its_script(void **state)
{
	json_t *data =
		json_pack("{s:s}", "x", "</script><!-- & \xe2\x80\xa8 \xe2\x80\xa9 \xc3\xa9");
	char *text = page_data_text(data);
	json_t *again;

	(void)state;
	assert_non_null(text);
	assert_null(strpbrk(text, "<>&"));
	for (const char *c = text; *c != '\0'; c++)
		assert_in_range(*c, 0x20, 0x7e);
	/* And nothing is lost. */
	again = json_loads(text, 0, NULL);
	assert_true(json_equal(data, again));
	json_decref(again);
	json_decref(data);
	free(text);
}

static void titles_that_are_not_utf8_do_no_harm(void **state)
{
	json_t *data = page_data_new("\xff");

	(void)state;
	assert_non_null(data);
	assert_non_null(json_string_value(json_object_get(data, "title")));
	json_decref(data);
}

static void names_stand_before_an_equals_sign(void **state)
{
	struct page_file file;

	(void)state;
	assert_true(page_file_parse("dir/ws.stalls", &file));
	assert_string_equal(file.name, "ws");
	assert_false(file.named);
	assert_true(page_file_parse("lazy=dir/a.b=c", &file));
	assert_string_equal(file.name, "lazy");
	assert_string_equal(file.path, "dir/a.b=c");
	assert_true(page_file_parse("dir/a=b", &file));
	assert_string_equal(file.path, "dir/a=b");
	assert_false(page_file_parse("", &file));
	assert_false(page_file_parse("lazy=", &file));
}

static void a_template_without_the_mark_is_refused(void **state)
{
	char path[] = "/tmp/rouse-test-page-XXXXXX";
	int fd = mkstemp(path);
	json_t *data = page_data_new("t");

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "<html>", 6), 6);
	assert_int_equal(page_write(data, path, "/nonexistent/out.html"), EXIT_FILE);
	(void)close(fd);
	(void)unlink(path);
	json_decref(data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(runs_are_copied_without_what_the_page_does_not_know),
		cmocka_unit_test(a_restore_is_a_run),
		cmocka_unit_test(estimators_are_told_from_runs),
		cmocka_unit_test(what_is_no_report_is_refused),
		cmocka_unit_test(wrong_members_are_refused),
		cmocka_unit_test(very_long_texts_are_refused),
		cmocka_unit_test(deep_nesting_is_refused),
		cmocka_unit_test(too_many_runs_are_refused),
		cmocka_unit_test(environments_are_flat_texts),
		cmocka_unit_test(failed_and_skipped_restores_are_listed),
		cmocka_unit_test(a_target_that_is_neither_met_nor_missed_is_kept),
		cmocka_unit_test(data_cannot_end_its_script),
		cmocka_unit_test(titles_that_are_not_utf8_do_no_harm),
		cmocka_unit_test(names_stand_before_an_equals_sign),
		cmocka_unit_test(a_template_without_the_mark_is_refused),
	};

	message_set_command("report");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
