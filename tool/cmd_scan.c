/* SPDX-License-Identifier: MIT */
/* rouse scan: which pages a live process accesses, by scanning. */
#include "tool.h"

#include <stdlib.h>

struct scan {
	struct rouse_scan_options library;
	uint32_t pid;
	bool json, quiet, verbose;
};

#define MAX_PERIOD_MS 86400000.0

static bool parse_period(const char *text, void *options)
{
	double ms;

	if (!parse_fraction(text, &ms) || ms <= 0 || ms > MAX_PERIOD_MS)
		return false;
	((struct scan *)options)->library.period_us = (uint64_t)(ms * 1e3);
	return true;
}

static bool parse_decay(const char *text, void *options)
{
	double *decay = &((struct scan *)options)->library.decay;

	return parse_fraction(text, decay) && *decay <= 1;
}

static bool parse_threshold(const char *text, void *options)
{
	return parse_fraction(text, &((struct scan *)options)->library.threshold);
}

static const struct option_spec options[] = {
	{.name = "pid",
		.letter = 'p',
		.kind = OPTION_COUNT,
		.offset = offsetof(struct scan, pid),
		.argument = "PID",
		.help = "scan this process: its larger mappings"},
	STRING_OPTION(struct scan, library.qmp_socket, 0, "qmp", "SOCKET",
		"scan the VM behind this QMP socket: its RAM blocks"),
	{.name = "period",
		.kind = OPTION_CUSTOM,
		.argument = "MS",
		.parse = parse_period,
		.help = "from one scan to the next (default: 1000)"},
	{.name = "count",
		.letter = 'n',
		.kind = OPTION_COUNT,
		.offset = offsetof(struct scan, library.count),
		.argument = "N",
		.help = "scan so often (default: 10)"},
	{.name = "last",
		.kind = OPTION_COUNT,
		.offset = offsetof(struct scan, library.last),
		.argument = "K",
		.help = "take the pages that one of the last K scans saw, 1 to 32\n"
			"(default: those that any scan saw)"},
	{.name = "decay",
		.kind = OPTION_CUSTOM,
		.argument = "D",
		.parse = parse_decay,
		.help = "what an access is worth one scan later, 0 to 1 (default: 1)"},
	{.name = "threshold",
		.kind = OPTION_CUSTOM,
		.argument = "SCORE",
		.parse = parse_threshold,
		.help = "take the pages whose accesses are worth so much (default: 0)"},
	{.name = "source",
		.kind = OPTION_ENUM,
		.offset = offsetof(struct scan, library.source),
		.argument = "auto|page-idle|presence|writes",
		.values = scan_source_values,
		.help = "by what accesses are seen: the processor's accessed bits (page-idle),\n"
			"page-table entries of shared memory (presence), writes of private\n"
			"memory (writes); what it cannot watch, and auto: what is there"},
	STRING_OPTION(
		struct scan, library.out, 'o', "out", "WSET", "write the working set to this file"),
	{.name = "min-size",
		.kind = OPTION_SIZE,
		.offset = offsetof(struct scan, library.min_bytes),
		.argument = "SIZE",
		.help = "with --pid: leave smaller mappings out (default: 16M)"},
	FLAG_OPTION(struct scan, json, 'j', "json", "print the report as JSON"),
	FLAG_OPTION(struct scan, quiet, 'q', "quiet",
		"no progress, no report; errors and warnings only"),
	FLAG_OPTION(struct scan, verbose, 'v', "verbose", "say more about what happens"),
	OPTIONS_END,
};

static int scan(const struct scan *scan)
{
	struct watch *watch = watch_begin(scan->quiet, scan->verbose);
	struct rouse_scan_report report = {0};
	struct rouse_error error = {0};
	int code;

	if (watch == NULL)
		return EXIT_FAILURE;
	code = rouse_scan(&scan->library, &report, watch_observer(watch), &error);
	watch_end(watch);
	if (code < 0)
		return report_error(&error, code);
	if (scan->json)
		return print_json(scan_report_json(&report));
	if (!scan->quiet)
		scan_report_print(&report, scan->library.out);
	return EXIT_SUCCESS;
}

static int run(const struct command *command, int argc, char **argv)
{
	struct scan args = {0};
	struct arguments arguments;
	int exit_code;

	rouse_scan_options_init(&args.library);
	exit_code = options_parse(command, argc, argv, &args, &arguments);
	if (exit_code >= 0)
		return exit_code;
	args.library.pid = (int)args.pid;
	if ((args.pid != 0) == (args.library.qmp_socket != NULL)) {
		message(MESSAGE_ERROR, "scan what? give --pid PID or --qmp SOCKET");
		return EXIT_USAGE;
	}
	return scan(&args);
}

const struct command command_scan = {
	.name = "scan",
	.synopsis = "--pid PID | --qmp SOCKET [OPTION]... [-o WSET]",
	.summary = "Find the pages that a live VM or process accesses, by scanning",
	.text = "It runs on meanwhile, needs no preparation and loses nothing, also if Rouse is\n"
		"killed. Of private memory (QEMU's default) only writes are seen, where the "
		"kernel\n"
		"has no page_idle; shared memory (memory-backend-memfd) is scanned for reads and\n"
		"writes. Linux 6.7 or later, or page_idle: see rouse doctor.",
	.options = options,
	.run = run,
	.min_arguments = 0,
	.max_arguments = 0,
};
