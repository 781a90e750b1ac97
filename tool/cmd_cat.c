/* SPDX-License-Identifier: MIT */
/* rouse cat: a file to stdout, through the throttle. */
#include "tool.h"

#include <stdlib.h>
#include <unistd.h>

struct cat {
	struct rouse_throttle throttle;
};

static bool parse_throttle_option(const char *text, void *options)
{
	return parse_throttle(text, &((struct cat *)options)->throttle);
}

static const struct option_spec options[] = {
	{.name = "throttle",
		.kind = OPTION_CUSTOM,
		.argument = "RATE[,READS[,LATENCY]]",
		.parse = parse_throttle_option,
		.help = "read as slowly as another disk: bytes and random reads a second (0:\n"
			"no limit), time for a read elsewhere, as 100MB,100 or 125MB,0,20ms"},
	OPTIONS_END,
};

static int run(const struct command *command, int argc, char **argv)
{
	struct cat args = {0};
	struct rouse_error error = {0};
	struct arguments arguments;
	struct watch *watch;
	int code = options_parse(command, argc, argv, &args, &arguments);

	if (code >= 0)
		return code;
	watch = watch_begin(true, false);
	if (watch == NULL)
		return EXIT_FAILURE;
	code = rouse_copy(
		arguments.words[0], STDOUT_FILENO, &args.throttle, watch_observer(watch), &error);
	watch_end(watch);
	return code < 0 ? report_error(&error, code) : EXIT_SUCCESS;
}

const struct command command_cat = {
	.name = "cat",
	.synopsis = "[OPTION]... FILE",
	.summary = "Copy a file to standard output, as slowly as another disk",
	.text = "For comparisons at equal terms: it reads through the same throttle as restore "
		"does,\n"
		"for example for QEMU's own -incoming \"exec:rouse cat --throttle 100MB,100 "
		"FILE\".",
	.options = options,
	.run = run,
	.min_arguments = 1,
	.max_arguments = 1,
};
