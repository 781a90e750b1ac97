/* SPDX-License-Identifier: MIT */
/* rouse report: one page to look at, from reports of restores and benchmarks. */
#include "page.h"
#include "replace_file.h"

#include <stdlib.h>

struct report {
	const char *out, *template, *title, *wset, *touched;
	struct page_file stalls[PAGE_MAX_STALLS];
	size_t stall_count;
};

static bool parse_stalls_option(const char *text, void *options)
{
	struct report *report = options;

	if (report->stall_count == PAGE_MAX_STALLS)
		return false;
	return page_file_parse(text, &report->stalls[report->stall_count++]);
}

static const struct option_spec options[] = {
	STRING_OPTION(struct report, out, 'o', "output", "OUT", "the page, an HTML file"),
	STRING_OPTION(
		struct report, title, 0, "title", "TEXT", "its title (default: Rouse report)"),
	{.name = "stalls",
		.kind = OPTION_CUSTOM,
		.argument = "[NAME=]FILE",
		.parse = parse_stalls_option,
		.help = "a log of stalls, from rouse restore --stall-log: shows utilization\n"
			"over time, by window, and all latencies; up to 16 times"},
	STRING_OPTION(struct report, wset, 'w', "working-set", "FILE",
		"the working set that was loaded: shows the map of the memory"),
	STRING_OPTION(struct report, touched, 0, "touched", "FILE",
		"what was touched, from rouse restore --policy lazy --record or\n"
		"rouse trace: shows on the map what was used"),
	STRING_OPTION(struct report, template, 0, "template", "FILE",
		"the page without data (default: the one that was installed)"),
	OPTIONS_END,
};

static int add_all(const struct report *report, const struct arguments *arguments, json_t *data)
{
	int exit_code = EXIT_SUCCESS;

	for (unsigned int i = 0; i < arguments->count && exit_code == EXIT_SUCCESS; i++) {
		struct page_file file;

		if (!page_file_parse(arguments->words[i], &file)) {
			message(MESSAGE_ERROR, "'%s' is not a file, or its NAME is too long",
				arguments->words[i]);
			return EXIT_USAGE;
		}
		exit_code = page_add_report(data, &file);
	}
	if (exit_code == EXIT_SUCCESS)
		exit_code = page_add_stalls(data, report->stalls, report->stall_count);
	if (exit_code == EXIT_SUCCESS && (report->wset != NULL || report->touched != NULL))
		exit_code = page_add_memory(data, report->wset, report->touched);
	return exit_code;
}

static int make_page(const struct report *report, const struct arguments *arguments)
{
	json_t *data = page_data_new(report->title != NULL ? report->title : "Rouse report");
	int exit_code = EXIT_FAILURE;

	if (data == NULL)
		message(MESSAGE_ERROR, "not enough memory");
	else
		exit_code = add_all(report, arguments, data);
	if (exit_code == EXIT_SUCCESS)
		exit_code = page_write(data, report->template, report->out);
	json_decref(data);
	return exit_code;
}

static int run(const struct command *command, int argc, char **argv)
{
	struct report args = {0};
	struct arguments arguments;
	int exit_code = options_parse(command, argc, argv, &args, &arguments);

	if (exit_code >= 0)
		return exit_code;
	if (args.out == NULL) {
		message(MESSAGE_ERROR, "--output OUT is missing: the page, an HTML file");
		return EXIT_USAGE;
	}
	if (arguments.count == 0 && args.stall_count == 0 && args.wset == NULL &&
		args.touched == NULL) {
		message(MESSAGE_ERROR, "there is nothing to show: name a report, --stalls, "
				       "--working-set or --touched");
		return EXIT_USAGE;
	}
	if (!replace_check_text(args.out))
		return EXIT_USAGE;
	return make_page(&args, &arguments);
}

const struct command command_report = {
	.name = "report",
	.synopsis = "[OPTION]... -o OUT [[NAME=]REPORT]...",
	.summary = "Make one HTML page of reports: figures, and the same as tables",
	.text = "REPORT is what rouse restore --json prints or --report writes, or what rouse "
		"bench,\n"
		"the demo and the benchmarks write (report.json, estimators.json). The page needs "
		"no\n"
		"network.",
	.options = options,
	.run = run,
	.max_arguments = PAGE_MAX_FILES,
};
