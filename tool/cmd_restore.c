/* SPDX-License-Identifier: MIT */
/* rouse restore: an image into a running VM. */
#include "tool.h"

#include "detach.h"
#include "replace_file.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* More than anybody watches a restore. */
#define MAX_WATCH_US 1000000000000u

struct restore {
	struct rouse_restore_options library;
	char *record_path, *learn_path;
	const char *report, *log;
	bool json, quiet, verbose, detached;
	/* While it runs. */
	struct detach detach;
	char monitor[sizeof(((struct rouse_restore_report *)0)->monitor)];
};

static const struct option_value backend_values[] = {
	{"auto", ROUSE_BACKEND_AUTO},
	{"postcopy", ROUSE_BACKEND_POSTCOPY},
	{"map", ROUSE_BACKEND_MAP},
	{"uffd", ROUSE_BACKEND_UFFD},
	{NULL, 0},
};

static const struct option_value io_values[] = {
	{"auto", ROUSE_IO_AUTO},
	{"cached", ROUSE_IO_CACHED},
	{"direct", ROUSE_IO_DIRECT},
	{NULL, 0},
};

static bool parse_throttle_option(const char *text, void *options)
{
	return parse_throttle(text, &((struct restore *)options)->library.throttle);
}

static bool parse_ttr_option(const char *text, void *options)
{
	return parse_ttr_point(text, &((struct restore *)options)->library.ttr);
}

/* Seconds, which may have a fraction, or a duration with its unit. */
static bool parse_seconds(const char *text, uint64_t *us)
{
	double seconds;

	if (!parse_fraction(text, &seconds))
		return parse_duration(text, us) && *us <= MAX_WATCH_US;
	if (seconds * 1e6 > MAX_WATCH_US)
		return false;
	*us = (uint64_t)(seconds * 1e6);
	return true;
}

/* FILE or FILE:SECONDS. *path is the caller's to free. */
static bool parse_file_seconds(const char *text, char **path, uint64_t *us)
{
	const char *colon = strrchr(text, ':');

	free(*path);
	*path = NULL;
	/* What looks like a time is one: a file with that name would be a surprise. */
	if (colon != NULL && strchr(colon, '/') == NULL &&
		(colon[1] == '\0' || isdigit((unsigned char)colon[1]))) {
		if (!parse_seconds(colon + 1, us))
			return false;
		*path = strndup(text, (size_t)(colon - text));
	} else {
		*path = strdup(text);
	}
	return *path != NULL && **path != '\0';
}

static bool parse_record_option(const char *text, void *options)
{
	struct restore *restore = options;
	struct rouse_restore_options *library = &restore->library;
	bool valid;

	library->record_us = 0;
	valid = parse_file_seconds(text, &restore->record_path, &library->record_us);
	library->record = restore->record_path;
	return valid;
}

static bool parse_learn_option(const char *text, void *options)
{
	struct restore *restore = options;
	struct rouse_restore_options *library = &restore->library;
	bool valid = parse_file_seconds(text, &restore->learn_path, &library->learn_us);

	library->learn = restore->learn_path;
	return valid && library->learn_us > 0;
}

/* One page in N, or off. */
static bool parse_sample_option(const char *text, void *options)
{
	struct rouse_restore_options *library = &((struct restore *)options)->library;
	uint64_t one_in;

	if (strcmp(text, "off") == 0) {
		library->learn_sample = ROUSE_LEARN_NO_SAMPLE;
		return true;
	}
	if (!parse_count(text, UINT32_MAX - 1, &one_in) || one_in == 0)
		return false;
	library->learn_sample = (uint32_t)one_in;
	return true;
}

static bool parse_stale_option(const char *text, void *options)
{
	double percent;

	if (!parse_percent(text, &percent))
		return false;
	((struct restore *)options)->library.learn_stale = percent / 100;
	return true;
}

static bool parse_decay_option(const char *text, void *options)
{
	return parse_share(text, &((struct restore *)options)->library.learn_rules.decay);
}

static const struct option_spec options[] = {
	{.name = "policy",
		.letter = 'p',
		.kind = OPTION_ENUM,
		.offset = offsetof(struct restore, library.policy),
		.argument = "POLICY",
		.values = policy_values,
		.help = "what comes before the start: everything (eager), nothing\n"
			"(lazy), the working set (ws), or as much of it as must be there\n"
			"for the rest to come in time (paced); auto, the default, takes\n"
			"the one that is predicted to be responsive soonest; and how\n"
			"others restore, to compare: reap, faasnap, lazy-background"},
	{.name = "backend",
		.kind = OPTION_ENUM,
		.offset = offsetof(struct restore, library.backend),
		.argument = "auto|postcopy|map|uffd",
		.values = backend_values,
		.help = "how the VM gets its memory: through QEMU's migration (postcopy),\n"
			"as a private mapping of a flat file (map, and auto with --flat),\n"
			"or past QEMU, by a userfaultfd on its memory (uffd)"},
	STRING_OPTION(struct restore, library.flat, 0, "flat", "FILE",
		"the flat file to map, made by rouse convert --flat"),
	STRING_OPTION(struct restore, library.qmp_socket, 0, "qmp", "SOCKET",
		"a QEMU that waits with -incoming defer (default: start one)"),
	STRING_OPTION(struct restore, library.wset, 'w', "working-set", "FILE",
		"use this working set instead of the image's own"),
	{.name = "record",
		.kind = OPTION_CUSTOM,
		.argument = "FILE[:SECONDS]",
		.parse = parse_record_option,
		.help = "write the pages in order of first touch as a working set;\n"
			"for SECONDS nothing is delivered unasked, so that none is missed"},
	{.name = "learn",
		.kind = OPTION_CUSTOM,
		.argument = "FILE[:SECONDS]",
		.parse = parse_learn_option,
		.help = "use this working set, and improve it by what is touched in the\n"
			"first SECONDS (default: 5), in which nothing is delivered unasked"},
	{.name = "learn-budget",
		.kind = OPTION_SIZE,
		.offset = offsetof(struct restore, library.learn_rules.budget_bytes),
		.argument = "SIZE",
		.help = "the most that the learned set may have (default: half of the RAM)"},
	{.name = "learn-decay",
		.kind = OPTION_CUSTOM,
		.argument = "D",
		.parse = parse_decay_option,
		.help = "what a restore counts when the next one comes (default: 0.75)"},
	{.name = "learn-sample",
		.kind = OPTION_CUSTOM,
		.argument = "N|off",
		.parse = parse_sample_option,
		.help = "leave out one page in N to see whether the set is used (default:\n"
			"64, but 32 to 256 pages)"},
	{.name = "learn-stale",
		.kind = OPTION_CUSTOM,
		.argument = "PERCENT",
		.parse = parse_stale_option,
		.help = "warn if less than this of the set is used (default: 50)"},
	{.name = "background",
		.kind = OPTION_RATE,
		.offset = offsetof(struct restore, library.background),
		.argument = "auto|off|RATE|max",
		.help = "how fast pages come that nobody asked for (default: auto,\n"
			"as fast as the VM does not feel)"},
	{.name = "io",
		.kind = OPTION_ENUM,
		.offset = offsetof(struct restore, library.io),
		.argument = "auto|cached|direct",
		.values = io_values,
		.help = "read the image through the page cache, or past it (default: auto,\n"
			"past it unless the image is there, or is being read)"},
	{.name = "throttle",
		.kind = OPTION_CUSTOM,
		.argument = "RATE[,READS[,LATENCY]]",
		.parse = parse_throttle_option,
		.help = "read as slowly as another disk: bytes and random reads a second (0:\n"
			"no limit), time for a read elsewhere, as 100MB,100 or 125MB,0,20ms"},
	{.name = "ttr",
		.kind = OPTION_CUSTOM,
		.argument = "U,W",
		.parse = parse_ttr_option,
		.help = "percent and window for the reported TTR (default: 90,100ms)"},
	FLAG_OPTION(struct restore, library.resume, 0, "resume",
		"take over a restore whose Rouse died (needs --qmp)"),
	FLAG_OPTION(struct restore, library.paused, 0, "paused", "leave the VM paused"),
	FLAG_OPTION(struct restore, detached, 'd', "detach",
		"return as soon as the VM runs; the rest is delivered behind it"),
	STRING_OPTION(struct restore, log, 0, "log", "FILE",
		"messages of a detached restore (default: the system's log)"),
	STRING_OPTION(struct restore, library.monitor, 0, "monitor", "PATH",
		"QMP socket of the QEMU that is started (default: chosen)"),
	STRING_OPTION(struct restore, library.stall_log, 0, "stall-log", "FILE",
		"write the stalls, for rouse ttr"),
	STRING_OPTION(struct restore, report, 0, "report", "FILE",
		"write the report as JSON to this file, too"),
	FLAG_OPTION(struct restore, json, 'j', "json", "print the report as JSON"),
	FLAG_OPTION(struct restore, quiet, 'q', "quiet",
		"no progress, no report; errors and warnings only"),
	FLAG_OPTION(struct restore, verbose, 'v', "verbose", "say more about what happens"),
	OPTIONS_END,
};

static void on_event(void *user, enum rouse_event event, const char *text)
{
	/* The observer's user is the watch; the restore is found behind it. */
	struct restore *restore = watch_context(user);

	if (event == ROUSE_EVENT_QEMU_STARTED && text != NULL)
		(void)snprintf(restore->monitor, sizeof(restore->monitor), "%s", text);
	if (event != ROUSE_EVENT_RUNNING)
		return;
	if (restore->detached)
		detach_running(&restore->detach, restore->monitor);
	else if (!restore->quiet)
		message(MESSAGE_NOTE, "the VM %s; its monitor is %s",
			restore->library.resume ? "gets its pages again"
			: text != NULL          ? "is there, paused"
						: "runs",
			restore->monitor);
}

static int write_report(const struct restore *restore, const struct rouse_restore_report *report)
{
	json_t *json;
	int code;

	if (restore->report == NULL)
		return EXIT_SUCCESS;
	json = restore_report_json(report, &restore->library.ttr);
	code = json != NULL ? replace_by_json(json, restore->report,
				      JSON_INDENT(2) | JSON_REAL_PRECISION(12))
			    : -ENOMEM;
	json_decref(json);
	if (code == 0)
		return EXIT_SUCCESS;
	message(MESSAGE_ERROR, "cannot write %s: %s", restore->report, strerror(-code));
	return EXIT_FAILURE;
}

/* Whether @out is none of these files; @would says what becomes of one that it is. */
static bool has_place(const char *out, const char *would, const char *const *kept, size_t count)
{
	struct stat status;

	/* /dev/null, or a pipe, may have several. */
	if (out != NULL && stat(out, &status) == 0 &&
		(S_ISCHR(status.st_mode) || S_ISFIFO(status.st_mode)))
		return true;
	for (size_t i = 0; out != NULL && i < count; i++) {
		if (kept[i] != NULL && replace_is_same_file(out, kept[i])) {
			message(MESSAGE_ERROR, "%s %s: name another file", would, kept[i]);
			return false;
		}
	}
	return true;
}

/* Before anything is started: a report in the place of an image would be the end of it. */
static bool outputs_have_places(const struct restore *restore)
{
	const struct rouse_restore_options *library = &restore->library;
	const char *const kept[] = {library->image, library->flat, library->wset, library->learn,
		library->record, library->stall_log, restore->log};
	const size_t count = sizeof(kept) / sizeof(kept[0]);

	return has_place(restore->report, "the report would take the place of", kept, count) &&
	       has_place(restore->log, "the log would be appended to", kept, count - 1) &&
	       (restore->report == NULL || replace_check_text(restore->report));
}

static int first_failure(int exit_code, int next)
{
	return exit_code != EXIT_SUCCESS ? exit_code : next;
}

static int restore_now(struct restore *restore)
{
	struct watch *watch = watch_begin(restore->quiet || restore->detached, restore->verbose);
	struct rouse_restore_report report = {0};
	struct rouse_error error = {0};
	int code, exit_code = EXIT_SUCCESS;

	if (watch == NULL)
		return EXIT_FAILURE;
	watch_observer(watch)->event = on_event;
	watch_set_context(watch, restore);
	code = rouse_restore(&restore->library, &report, watch_observer(watch), &error);
	watch_end(watch);
	if (code < 0)
		exit_code = report_error(&error, code);
	/* A log or a set that could not be written takes nothing from what was measured. */
	if (code < 0 && report.complete_us == 0)
		return exit_code;
	exit_code = first_failure(exit_code, write_report(restore, &report));
	if (restore->detached)
		return exit_code;
	if (restore->json)
		return first_failure(
			exit_code, print_json(restore_report_json(&report, &restore->library.ttr)));
	if (!restore->quiet)
		restore_report_print(&report, &restore->library.ttr);
	if (!restore->quiet && restore->verbose)
		stages_print(report.stages);
	return exit_code;
}

static int restore_detached(struct restore *restore)
{
	char monitor[sizeof(restore->monitor)] = "";
	pid_t child;
	int exit_code =
		detach_begin(restore->log, &restore->detach, &child, monitor, sizeof(monitor));

	if (exit_code == DETACH_CHILD)
		return restore_now(restore);
	if (exit_code != EXIT_SUCCESS)
		return exit_code;
	if (restore->json)
		return print_json(json_pack("{s:s, s:i}", "monitor", monitor, "rouse_pid", child));
	if (!restore->quiet)
		printf("%s\n", monitor);
	return EXIT_SUCCESS;
}

/* What the library cannot know, or says in other words than the options'. */
static bool check(const struct restore *restore)
{
	const struct rouse_restore_options *library = &restore->library;

	if (library->qmp_socket != NULL && (library->argv != NULL || library->monitor != NULL)) {
		message(MESSAGE_ERROR, "--qmp takes a QEMU that is there; a command or --monitor "
				       "is for a new one");
		return false;
	}
	if (library->argv != NULL && library->argv[0] == NULL) {
		message(MESSAGE_ERROR, "there is no command behind --");
		return false;
	}
	if (library->resume && library->qmp_socket == NULL) {
		message(MESSAGE_ERROR, "--resume needs --qmp SOCKET, the VM that waits");
		return false;
	}
	if (restore->log != NULL && !restore->detached) {
		message(MESSAGE_ERROR, "--log is for --detach");
		return false;
	}
	return outputs_have_places(restore);
}

static int run(const struct command *command, int argc, char **argv)
{
	struct restore args = {.detach = {.status = -1}};
	struct arguments arguments;
	int exit_code;

	rouse_restore_options_init(&args.library);
	exit_code = options_parse(command, argc, argv, &args, &arguments);
	if (exit_code < 0) {
		args.library.image = arguments.words[0];
		args.library.argv = (const char *const *)arguments.rest;
		if (args.library.qmp_socket != NULL)
			(void)snprintf(
				args.monitor, sizeof(args.monitor), "%s", args.library.qmp_socket);
		if (!check(&args))
			exit_code = EXIT_USAGE;
		else
			exit_code = args.detached ? restore_detached(&args) : restore_now(&args);
	}
	free(args.record_path);
	free(args.learn_path);
	return exit_code;
}

const struct command command_restore = {
	.name = "restore",
	.synopsis = "[OPTION]... IMAGE [-- QEMU [ARGUMENT]...]",
	.summary = "Restore a VM from an image and serve it until its last page is there",
	.text = "Starts QEMU as it was when the VM was saved, or with the command behind --, or\n"
		"takes one that waits with -incoming defer. If Rouse dies the VM pauses and loses\n"
		"nothing: rouse restore --resume --qmp SOCKET IMAGE takes over.",
	.options = options,
	.run = run,
	.min_arguments = 1,
	.max_arguments = 1,
};
