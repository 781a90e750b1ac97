/* SPDX-License-Identifier: MIT */
/* Reports as JSON, checked member by member and brought into the form of a page. */
#include "page.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum member_kind {
	MEMBER_TEXT,
	MEMBER_AMOUNT, /* a number that is not negative: a time, bytes, a count, a share */
	MEMBER_NUMBER,
	MEMBER_TABLE,  /* [{"utilization", "window_ms", "ttr_ms"}] */
	MEMBER_FAULTS, /* {"p50", "p90", "p99", "max"} */
};

struct member {
	const char *name;
	enum member_kind kind;
	bool required; /* others may be absent or null */
};

/* A table ends with a NULL name. */
static const struct member run_members[] = {
	{"workload", MEMBER_TEXT, true},
	{"storage", MEMBER_TEXT, true},
	{"policy", MEMBER_TEXT, true},
	{"ttr_ms", MEMBER_AMOUNT, true},
	{"round", MEMBER_AMOUNT, false},
	{"start_ms", MEMBER_AMOUNT, false},
	{"guest_ttr_ms", MEMBER_AMOUNT, false},
	{"limit_ms", MEMBER_AMOUNT, false},
	{"complete_ms", MEMBER_AMOUNT, false},
	{"ttr_table", MEMBER_TABLE, false},
	{"faults", MEMBER_AMOUNT, false},
	{"fault_us", MEMBER_FAULTS, false},
	{"prefetched_pages", MEMBER_AMOUNT, false},
	{"image_bytes", MEMBER_AMOUNT, false},
	{"read_bytes", MEMBER_AMOUNT, false},
	{"ram_bytes", MEMBER_AMOUNT, false},
	{"integrity_errors", MEMBER_AMOUNT, false},
	{NULL, MEMBER_TEXT, false},
};
static const struct member estimator_members[] = {
	{"workload", MEMBER_TEXT, true},
	{"ram", MEMBER_TEXT, true},
	{"estimator", MEMBER_TEXT, true},
	{"precision", MEMBER_AMOUNT, true},
	{"recall", MEMBER_AMOUNT, true},
	{"round", MEMBER_AMOUNT, false},
	{"order_correlation", MEMBER_NUMBER, false},
	{"set_bytes", MEMBER_AMOUNT, false},
	{"truth_bytes", MEMBER_AMOUNT, false},
	{"arm_pause_ms", MEMBER_AMOUNT, false},
	{"slowdown", MEMBER_NUMBER, false},
	{"ttr_ms", MEMBER_AMOUNT, false},
	{"ttr_disk_ms", MEMBER_AMOUNT, false},
	{"integrity_errors", MEMBER_AMOUNT, false},
	{NULL, MEMBER_TEXT, false},
};
static const struct member table_members[] = {
	{"utilization", MEMBER_AMOUNT, true},
	{"window_ms", MEMBER_AMOUNT, true},
	{"ttr_ms", MEMBER_AMOUNT, true},
	{NULL, MEMBER_TEXT, false},
};
static const struct member fault_members[] = {
	{"p50", MEMBER_AMOUNT, true},
	{"p90", MEMBER_AMOUNT, true},
	{"p99", MEMBER_AMOUNT, true},
	{"max", MEMBER_AMOUNT, true},
	{NULL, MEMBER_TEXT, false},
};

/* Where in a file something is: for messages. */
struct place {
	const char *path;
	char text[96]; /* "runs[3]" */
};

static bool wrong(const struct place *place, const char *member, const char *what)
{
	message(MESSAGE_ERROR, "%s: %s%s\"%s\" %s", place->path, place->text,
		place->text[0] != '\0' ? ": " : "", member, what);
	return false;
}

static bool copy_members(
	const json_t *from, const struct member *members, json_t *to, const struct place *place);

static bool copy_table(
	const json_t *from, const struct member *member, json_t *to, const struct place *place)
{
	json_t *list = json_array();
	size_t index;
	json_t *row;

	(void)json_object_set_new(to, member->name, list);
	if (!json_is_array(from) || json_array_size(from) > 100)
		return wrong(place, member->name, "is not a table of TTR");
	json_array_foreach(from, index, row)
	{
		json_t *copy = json_object();

		(void)json_array_append_new(list, copy);
		if (!copy_members(row, table_members, copy, place))
			return false;
	}
	return true;
}

static bool copy_number(
	const json_t *from, const struct member *member, json_t *to, const struct place *place)
{
	double value = json_number_value(from);

	if (!json_is_number(from))
		return wrong(place, member->name, "is not a number");
	if (member->kind == MEMBER_AMOUNT && value < 0)
		return wrong(place, member->name, "is negative");
	(void)json_object_set_new(to, member->name, json_real(value));
	return true;
}

static bool copy_member(
	const json_t *from, const struct member *member, json_t *to, const struct place *place)
{
	json_t *inner;

	switch (member->kind) {
	case MEMBER_TEXT:
		if (!json_is_string(from) || json_string_length(from) > PAGE_MAX_TEXT)
			return wrong(place, member->name, "is not a text, or a very long one");
		(void)json_object_set_new(to, member->name, json_string(json_string_value(from)));
		return true;
	case MEMBER_AMOUNT:
	case MEMBER_NUMBER:
		return copy_number(from, member, to, place);
	case MEMBER_TABLE:
		return copy_table(from, member, to, place);
	case MEMBER_FAULTS:
		inner = json_object();
		(void)json_object_set_new(to, member->name, inner);
		return copy_members(from, fault_members, inner, place);
	}
	return false;
}

static bool copy_members(
	const json_t *from, const struct member *members, json_t *to, const struct place *place)
{
	if (!json_is_object(from))
		return wrong(place, members->name, "is missing: this is no object");
	for (; members->name != NULL; members++) {
		const json_t *value = json_object_get(from, members->name);

		if (value == NULL || json_is_null(value)) {
			if (members->required)
				return wrong(place, members->name, "is missing");
			continue;
		}
		if (!copy_member(value, members, to, place))
			return false;
	}
	return true;
}

/* Each of a list of objects, after the one before. */
static bool copy_list(const json_t *from, const char *name, const struct member *members,
	json_t *to, const char *path)
{
	size_t index;
	json_t *each;

	if (json_array_size(to) + json_array_size(from) > PAGE_MAX_RUNS) {
		message(MESSAGE_ERROR, "%s: more than %u runs are no page to look at", path,
			PAGE_MAX_RUNS);
		return false;
	}
	json_array_foreach(from, index, each)
	{
		struct place place = {.path = path};
		json_t *copy = json_object();

		(void)snprintf(place.text, sizeof(place.text), "%s[%zu]", name, index);
		(void)json_array_append_new(to, copy);
		if (!copy_members(each, members, copy, &place))
			return false;
	}
	return true;
}

/* ---- What stands beside the runs: shown as it is, left out if it is something else -------------
 */

static void copy_scalar(json_t *to, const char *prefix, const char *name, const json_t *value)
{
	char *text = NULL, *full = NULL;

	if (json_is_string(value))
		text = strdup(json_string_value(value));
	else if (json_is_number(value) || json_is_boolean(value))
		text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
	if (text != NULL && strlen(text) <= PAGE_MAX_TEXT && strlen(name) <= PAGE_MAX_TEXT &&
		asprintf(&full, "%s%s", prefix, name) >= 0)
		(void)json_object_set_new(to, full, json_string(text));
	free(full);
	free(text);
}

/* {"kernel": ..., "disk": {"filesystem": ...}} becomes {"kernel": ..., "disk filesystem": ...}. */
static json_t *copy_environment(json_t *from)
{
	json_t *to = json_object(), *value, *inner;
	const char *name, *inner_name;

	json_object_foreach(from, name, value)
	{
		char prefix[64];

		copy_scalar(to, "", name, value);
		if (snprintf(prefix, sizeof(prefix), "%s ", name) >= (int)sizeof(prefix))
			continue;
		json_object_foreach(value, inner_name, inner)
			copy_scalar(to, prefix, inner_name, inner);
	}
	return to;
}

/*
 * Of a list of objects those that have two such members; the first is a text or a truth value, or
 * null: nobody knows.
 */
static json_t *copy_pairs(const json_t *from, const char *first, const char *second)
{
	json_t *to = json_array(), *each;
	size_t index;

	json_array_foreach(from, index, each)
	{
		json_t *a = json_object_get(each, first), *b = json_object_get(each, second);
		json_t *copy;

		if (!(json_is_string(a) || json_is_boolean(a) || json_is_null(a)) ||
			!json_is_string(b))
			continue;
		copy = json_object();
		(void)json_object_set(copy, first, a);
		(void)json_object_set(copy, second, b);
		(void)json_array_append_new(to, copy);
	}
	return to;
}

static void add_source(
	json_t *data, const struct page_file *file, const char *kind, const json_t *root)
{
	const char *slash = strrchr(file->path, '/');
	json_t *source = json_object();

	(void)json_object_set_new(
		source, "file", page_text(slash != NULL ? slash + 1 : file->path));
	(void)json_object_set_new(source, "kind", json_string(kind));
	(void)json_object_set_new(
		source, "environment", copy_environment(json_object_get(root, "environment")));
	(void)json_object_set_new(
		source, "targets", copy_pairs(json_object_get(root, "targets"), "met", "text"));
	(void)json_object_set_new(
		source, "skipped", copy_pairs(json_object_get(root, "skipped"), "name", "reason"));
	(void)json_object_set_new(
		source, "failed", copy_pairs(json_object_get(root, "failed"), "name", "reason"));
	(void)json_array_append_new(json_object_get(data, "sources"), source);
}

/* ---- The kinds of reports ---------------------------------------------------------------------
 */

/* The report of one restore knows no workload and no storage: its file's name stands for them. */
static bool add_restore(json_t *data, const struct page_file *file, json_t *root)
{
	json_t *list = json_array();
	bool good;

	(void)json_object_set_new(root, "workload", page_text(file->named ? file->name : ""));
	(void)json_object_set_new(root, "storage", json_string(""));
	(void)json_array_append(list, root);
	good = copy_list(list, "restore", run_members, json_object_get(data, "runs"), file->path);
	json_decref(list);
	return good;
}

static bool add_root(json_t *data, const struct page_file *file, json_t *root)
{
	json_t *runs = json_object_get(root, "runs");

	if (json_is_array(runs)) {
		bool sets = json_object_get(json_array_get(runs, 0), "estimator") != NULL;
		const char *kind = sets ? "estimators" : "runs";

		add_source(data, file, kind, root);
		return copy_list(runs, "runs", sets ? estimator_members : run_members,
			json_object_get(data, kind), file->path);
	}
	if (json_is_string(json_object_get(root, "policy")) &&
		json_object_get(root, "ttr_ms") != NULL) {
		add_source(data, file, "restore", root);
		return add_restore(data, file, root);
	}
	message(MESSAGE_ERROR,
		"%s is no report of a restore, of the demo, of a benchmark or of estimators: it "
		"has neither \"runs\" nor \"policy\" and \"ttr_ms\"",
		file->path);
	return false;
}

int page_add_report_text(json_t *data, const struct page_file *file, const char *text, size_t size)
{
	json_error_t why;
	json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &why);
	bool good;

	if (root == NULL) {
		message(MESSAGE_ERROR, "%s is not JSON: line %d: %s", file->path, why.line,
			why.text);
		return EXIT_FILE;
	}
	good = add_root(data, file, root);
	json_decref(root);
	return good ? EXIT_SUCCESS : EXIT_FILE;
}

int page_add_report(json_t *data, const struct page_file *file)
{
	size_t size;
	char *text = page_read_file(file->path, PAGE_MAX_FILE_BYTES, &size);
	int exit_code;

	if (text == NULL)
		return EXIT_FAILURE;
	exit_code = page_add_report_text(data, file, text, size);
	free(text);
	return exit_code;
}

/* ---- Beginning ------------------------------------------------------------------------------ */

json_t *page_text(const char *text)
{
	json_t *json = json_string(text);

	return json != NULL ? json : json_string("(not UTF-8)");
}

json_t *page_data_new(const char *title)
{
	return json_pack("{s:o, s:s, s:[], s:[], s:[], s:[], s:n}", "title", page_text(title),
		"rouse", rouse_version(), "sources", "runs", "estimators", "stalls", "memory");
}

bool page_file_parse(const char *argument, struct page_file *file)
{
	const char *equals = strchr(argument, '='), *slash = strrchr(argument, '/'), *name, *end;

	*file = (struct page_file){.path = argument};
	if (equals != NULL && equals != argument && (slash == NULL || slash > equals) &&
		access(argument, F_OK) < 0) {
		file->path = equals + 1;
		file->named = true;
		return *file->path != '\0' &&
		       snprintf(file->name, sizeof(file->name), "%.*s", (int)(equals - argument),
			       argument) < (int)sizeof(file->name);
	}
	name = slash != NULL ? slash + 1 : argument;
	end = strrchr(name, '.');
	(void)snprintf(file->name, sizeof(file->name), "%.*s",
		end != NULL && end != name ? (int)(end - name) : 63, name);
	return *argument != '\0';
}
