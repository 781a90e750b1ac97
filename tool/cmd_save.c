/* SPDX-License-Identifier: MIT */
/* rouse save: a running VM into an image. */
#include "tool.h"

#include <stdlib.h>
#include <string.h>

#define MAX_SECONDS 86400.0

struct save {
	struct rouse_save_options library;
	bool json, quiet, verbose;
};

static const struct option_value disks_values[] = {
	{"refuse", ROUSE_DISKS_REFUSE},
	{"snapshot", ROUSE_DISKS_SNAPSHOT},
	{"ignore", ROUSE_DISKS_IGNORE},
	{NULL, 0},
};

static bool parse_source(const char *text, struct rouse_save_options *library)
{
	for (const struct option_value *value = scan_source_values; value->word != NULL; value++) {
		if (strcmp(value->word, text) == 0) {
			library->scan_source = (enum rouse_scan_source)value->value;
			return true;
		}
	}
	return false;
}

/* PERIOD,COUNT[,SOURCE] */
static bool parse_scans(const char *text, struct rouse_save_options *library)
{
	char words[96], *rest = words, *period, *number;
	uint64_t count;
	double ms;

	if (strlen(text) >= sizeof(words))
		return false;
	(void)stpcpy(words, text);
	period = strsep(&rest, ",");
	number = strsep(&rest, ",");
	if (number == NULL || (rest != NULL && !parse_source(rest, library)))
		return false;
	if (!parse_fraction(period, &ms) || ms < 0.001 || ms > MAX_SECONDS * 1e3 ||
		!parse_count(number, UINT16_MAX, &count) || count == 0)
		return false;
	library->scan_period_us = (uint64_t)(ms * 1e3);
	library->scan_count = (uint32_t)count;
	return true;
}

/* KIND, KIND:SECONDS or KIND:PERIOD,COUNT[,SOURCE] */
static bool parse_estimate(const char *text, void *options)
{
	static const struct option_value kinds[] = {
		{"trace", ROUSE_ESTIMATE_TRACE},
		{"trace-before", ROUSE_ESTIMATE_TRACE_BEFORE},
		{"snapshot-order", ROUSE_ESTIMATE_SNAPSHOT_ORDER},
		{"scan", ROUSE_ESTIMATE_SCAN},
		{"scan-before", ROUSE_ESTIMATE_SCAN_BEFORE},
		{NULL, 0},
	};
	struct rouse_save_options *library = &((struct save *)options)->library;
	const size_t length = strcspn(text, ":");
	double seconds;

	for (const struct option_value *kind = kinds; kind->word != NULL; kind++) {
		if (strlen(kind->word) != length || strncmp(kind->word, text, length) != 0)
			continue;
		library->estimate = (enum rouse_estimate)kind->value;
		if (text[length] == '\0')
			return true;
		if (kind->value == ROUSE_ESTIMATE_SCAN || kind->value == ROUSE_ESTIMATE_SCAN_BEFORE)
			return parse_scans(text + length + 1, library);
		if (kind->value == ROUSE_ESTIMATE_SNAPSHOT_ORDER ||
			!parse_fraction(text + length + 1, &seconds) || seconds <= 0 ||
			seconds > MAX_SECONDS)
			return false;
		library->estimate_us = (uint64_t)(seconds * 1e6);
		return true;
	}
	return false;
}

static const struct option_spec options[] = {
	STRING_OPTION(struct save, library.qmp_socket, 0, "qmp", "SOCKET",
		"the VM's QMP socket (required)"),
	FLAG_OPTION(struct save, library.keep_running, 'k', "keep-running",
		"the VM goes on after the checkpoint (default: QEMU quits)"),
	{.name = "disks",
		.kind = OPTION_ENUM,
		.offset = offsetof(struct save, library.disks),
		.argument = "refuse|snapshot|ignore",
		.values = disks_values,
		.help = "writable disks of a VM that goes on: an error (default),\n"
			"an overlay for each at the same point in time, or left alone"},
	FLAG_OPTION(struct save, library.no_background_snapshot, 0, "no-background-snapshot",
		"keep running by stop, stream and continue"),
	STRING_OPTION(struct save, library.wset, 'w', "working-set", "FILE",
		"lay the image out for this working set"),
	{.name = "estimate",
		.letter = 'e',
		.kind = OPTION_CUSTOM,
		.argument = "KIND[:PARAMETERS]",
		.parse = parse_estimate,
		.help = "lay it out for what the VM touches after the checkpoint:\n"
			"trace[:SECONDS] (default: 10), or scan[:MS,N[,SOURCE]], by N scans,\n"
			"one each MS (default: 1000,10; SOURCE as rouse scan --source);\n"
			"before it: trace-before, scan-before; or for\n"
			"what it writes while a background snapshot is taken: snapshot-order"},
	LAYOUT_OPTIONS(offsetof(struct save, library.layout)),
	FLAG_OPTION(struct save, json, 'j', "json", "print the report as JSON"),
	FLAG_OPTION(struct save, quiet, 'q', "quiet",
		"no progress, no report; errors and warnings only"),
	FLAG_OPTION(struct save, verbose, 'v', "verbose", "say more about what happens"),
	OPTIONS_END,
};

static int save(const struct save *save)
{
	struct watch *watch = watch_begin(save->quiet, save->verbose);
	struct rouse_save_report report = {0};
	struct rouse_error error = {0};
	int code;

	if (watch == NULL)
		return EXIT_FAILURE;
	code = rouse_save(&save->library, &report, watch_observer(watch), &error);
	watch_end(watch);
	if (code < 0)
		return report_error(&error, code);
	if (save->json)
		return print_json(save_report_json(&report));
	if (!save->quiet)
		save_report_print(&report, save->library.image);
	return EXIT_SUCCESS;
}

static int run(const struct command *command, int argc, char **argv)
{
	struct save args = {0};
	struct arguments arguments;
	int exit_code;

	rouse_save_options_init(&args.library);
	exit_code = options_parse(command, argc, argv, &args, &arguments);
	if (exit_code >= 0)
		return exit_code;
	if (args.library.qmp_socket == NULL) {
		message(MESSAGE_ERROR, "which VM? --qmp SOCKET is missing");
		return EXIT_USAGE;
	}
	args.library.image = arguments.words[0];
	return save(&args);
}

const struct command command_save = {
	.name = "save",
	.synopsis = "--qmp SOCKET [OPTION]... IMAGE",
	.summary = "Save the running VM behind a QMP socket as an image",
	.text = "By default the VM stops, is written to IMAGE, and QEMU quits. With "
		"--keep-running\n"
		"the VM goes on after the checkpoint. If anything fails there is no new IMAGE, "
		"and\n"
		"the VM runs if it ran before.",
	.options = options,
	.run = run,
	.min_arguments = 1,
	.max_arguments = 1,
};
