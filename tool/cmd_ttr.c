/* SPDX-License-Identifier: MIT */
/* rouse ttr: the time-to-responsiveness of a log of stalls. */
#include "tool.h"

#include <stdlib.h>

struct ttr {
	struct rouse_ttr_point point;
	bool json;
};

static bool parse_ttr_option(const char *text, void *options)
{
	return parse_ttr_point(text, &((struct ttr *)options)->point);
}

static const struct option_spec options[] = {
	{.name = "ttr",
		.kind = OPTION_CUSTOM,
		.argument = "U,W",
		.parse = parse_ttr_option,
		.help = "percent and window (default: 90,100ms)"},
	FLAG_OPTION(struct ttr, json, 'j', "json", "print JSON"),
	OPTIONS_END,
};

static void fill_table(const struct rouse_stalls *stalls,
	uint64_t table_us[ROUSE_TTR_UTILIZATIONS][ROUSE_TTR_WINDOWS])
{
	for (size_t u = 0; u < ROUSE_TTR_UTILIZATIONS; u++) {
		for (size_t w = 0; w < ROUSE_TTR_WINDOWS; w++) {
			struct rouse_ttr_point point = {.utilization = rouse_ttr_utilizations[u],
				.window_us = rouse_ttr_windows_us[w]};

			table_us[u][w] = rouse_stalls_ttr(stalls, &point);
		}
	}
}

static int print_ttr(const struct ttr *ttr, const struct rouse_stalls *stalls)
{
	uint64_t table_us[ROUSE_TTR_UTILIZATIONS][ROUSE_TTR_WINDOWS];
	uint64_t ttr_us = rouse_stalls_ttr(stalls, &ttr->point);

	fill_table(stalls, table_us);
	if (ttr->json)
		return print_json(json_pack("{s:o, s:{s:f, s:o}, s:o}", "ttr_ms", json_ms(ttr_us),
			"ttr", "utilization", ttr->point.utilization, "window_ms",
			json_ms(ttr->point.window_us), "ttr_table", ttr_table_json(table_us)));
	printf("TTR(%g %%, %s) %s\n", ttr->point.utilization * 100,
		human_us((double)ttr->point.window_us).text, human_us((double)ttr_us).text);
	ttr_table_print(table_us);
	return EXIT_SUCCESS;
}

static int run(const struct command *command, int argc, char **argv)
{
	struct ttr args = {.point = {.utilization = 0.9, .window_us = 100000}};
	struct rouse_stalls *stalls = NULL;
	struct rouse_error error = {0};
	struct arguments arguments;
	int code = options_parse(command, argc, argv, &args, &arguments);

	if (code >= 0)
		return code;
	code = rouse_stalls_load(arguments.words[0], &stalls, &error);
	if (code < 0)
		return report_error(&error, code);
	code = print_ttr(&args, stalls);
	rouse_stalls_free(stalls);
	return code;
}

const struct command command_ttr = {
	.name = "ttr",
	.synopsis = "[OPTION]... STALLS",
	.summary = "Compute the time-to-responsiveness of a log of stalls",
	.text = "STALLS is what rouse restore --stall-log writes, or any text in that form: a "
		"line\n"
		"\"rouse-stalls 1\", a line \"vcpus N\", and a line \"FROM TO\" for each stall of "
		"one\n"
		"vCPU, in microseconds since the request to restore.",
	.options = options,
	.run = run,
	.min_arguments = 1,
	.max_arguments = 1,
};
