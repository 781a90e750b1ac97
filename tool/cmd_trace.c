/* SPDX-License-Identifier: MIT */
/* rouse trace: which pages a live process touches. */
#include "tool.h"

#include <stdlib.h>

struct trace {
	struct rouse_trace_options library;
	uint32_t pid;
	bool disarm, json, quiet, verbose;
};

#define MAX_SECONDS 86400.0

static bool parse_seconds(const char *text, void *options)
{
	double seconds;

	if (!parse_fraction(text, &seconds) || seconds > MAX_SECONDS)
		return false;
	((struct trace *)options)->library.duration_us = (uint64_t)(seconds * 1e6);
	return true;
}

static const struct option_spec options[] = {
	{.name = "pid",
		.letter = 'p',
		.kind = OPTION_COUNT,
		.offset = offsetof(struct trace, pid),
		.argument = "PID",
		.help = "trace this process: its larger mappings"},
	STRING_OPTION(struct trace, library.qmp_socket, 0, "qmp", "SOCKET",
		"trace the VM behind this QMP socket: its RAM blocks"),
	{.name = "seconds",
		.letter = 's',
		.kind = OPTION_CUSTOM,
		.argument = "N",
		.parse = parse_seconds,
		.help = "for so long (default: 10)"},
	STRING_OPTION(struct trace, library.out, 'o', "out", "WSET",
		"write the working set to this file"),
	{.name = "min-size",
		.kind = OPTION_SIZE,
		.offset = offsetof(struct trace, library.min_bytes),
		.argument = "SIZE",
		.help = "with --pid: leave smaller mappings out (default: 16M)"},
	FLAG_OPTION(struct trace, disarm, 0, "disarm",
		"end a trace of --pid, and take out what a killed one left"),
	FLAG_OPTION(struct trace, json, 'j', "json", "print the report as JSON"),
	FLAG_OPTION(struct trace, quiet, 'q', "quiet",
		"no progress, no report; errors and warnings only"),
	FLAG_OPTION(struct trace, verbose, 'v', "verbose", "say more about what happens"),
	OPTIONS_END,
};

static int trace(const struct trace *trace)
{
	struct watch *watch = watch_begin(trace->quiet, trace->verbose);
	struct rouse_trace_report report = {0};
	struct rouse_error error = {0};
	int code;

	if (watch == NULL)
		return EXIT_FAILURE;
	code = rouse_trace(&trace->library, &report, watch_observer(watch), &error);
	watch_end(watch);
	if (code < 0)
		return report_error(&error, code);
	if (trace->json)
		return print_json(trace_report_json(&report));
	if (!trace->quiet)
		trace_report_print(&report, trace->library.out);
	return EXIT_SUCCESS;
}

static int disarm(const struct trace *trace)
{
	struct watch *watch = watch_begin(trace->quiet, trace->verbose);
	struct rouse_error error = {0};
	bool found;
	int code;

	if (watch == NULL)
		return EXIT_FAILURE;
	code = rouse_trace_disarm(trace->library.pid, &found, watch_observer(watch), &error);
	watch_end(watch);
	if (code < 0)
		return report_error(&error, code);
	if (trace->json)
		return print_json(json_pack("{s:b}", "found", found));
	if (!trace->quiet)
		printf("process %d: %s\n", trace->library.pid,
			found ? "the trace has ended, nothing of it is left"
			      : "there is no trace of it");
	return EXIT_SUCCESS;
}

static int run(const struct command *command, int argc, char **argv)
{
	struct trace args = {0};
	struct arguments arguments;
	int exit_code;

	rouse_trace_options_init(&args.library);
	exit_code = options_parse(command, argc, argv, &args, &arguments);
	if (exit_code >= 0)
		return exit_code;
	args.library.pid = (int)args.pid;
	if ((args.pid != 0) == (args.library.qmp_socket != NULL)) {
		message(MESSAGE_ERROR, "trace what? give --pid PID or --qmp SOCKET");
		return EXIT_USAGE;
	}
	if (!args.disarm)
		return trace(&args);
	if (args.pid == 0 || args.library.out != NULL) {
		message(MESSAGE_ERROR, "--disarm goes with --pid PID only");
		return EXIT_USAGE;
	}
	return disarm(&args);
}

const struct command command_trace = {
	.name = "trace",
	.synopsis = "--pid PID | --qmp SOCKET [OPTION]... [-o WSET]",
	.summary = "Find the pages that a live VM or process touches, in order",
	.text = "The process runs on meanwhile, a little slower, and needs no preparation. It "
		"loses\n"
		"nothing, also if Rouse is killed. Linux 6.8 or later.",
	.options = options,
	.run = run,
	.min_arguments = 0,
	.max_arguments = 0,
};
