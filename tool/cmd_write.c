/* SPDX-License-Identifier: MIT */
/* rouse pack and rouse convert: an image written anew. */
#include "tool.h"

#include <stdlib.h>

struct write_args {
	struct rouse_layout layout;
	const char *wset;
	bool flat; /* convert only */
	bool json, quiet;
};

typedef int write_fn(const char *in, const char *wset, const char *out,
	const struct rouse_layout *layout, struct rouse_write_report *report,
	const struct rouse_observer *observer, struct rouse_error *error);

/* What both commands take. */
#define WRITE_OPTIONS                                                                          \
	STRING_OPTION(struct write_args, wset, 'w', "working-set", "FILE",                     \
		"lay the image out for this working set (default: for none)"),                 \
		LAYOUT_OPTIONS(offsetof(struct write_args, layout)),                           \
		FLAG_OPTION(struct write_args, json, 'j', "json", "print the report as JSON"), \
		FLAG_OPTION(struct write_args, quiet, 'q', "quiet",                            \
			"no progress, no report; errors and warnings only"),                   \
		OPTIONS_END

static const struct option_spec pack_options[] = {WRITE_OPTIONS};

static const struct option_spec convert_options[] = {
	FLAG_OPTION(struct write_args, flat, 0, "flat",
		"write the memory of an image to a flat file, for\n"
		"rouse restore --backend map"),
	WRITE_OPTIONS,
};

static int run_writer(const struct command *command, int argc, char **argv, write_fn *writer)
{
	/* The library's own default would be no compression: 0 is a codec, too. */
	struct write_args args = {.layout = {.codec = ROUSE_CODEC_LZ4}};
	struct rouse_write_report report = {0};
	struct rouse_error error = {0};
	struct arguments arguments;
	struct watch *watch;
	int code = options_parse(command, argc, argv, &args, &arguments);

	if (code >= 0)
		return code;
	if (args.flat && args.wset != NULL) {
		message(MESSAGE_ERROR, "a flat file has its pages in order: there is no place for "
				       "a working set, which stays in the image");
		return EXIT_USAGE;
	}
	watch = watch_begin(args.quiet, false);
	if (watch == NULL)
		return EXIT_FAILURE;
	if (args.flat)
		code = rouse_flatten(arguments.words[0], arguments.words[1], &report,
			watch_observer(watch), &error);
	else
		code = writer(arguments.words[0], args.wset, arguments.words[1], &args.layout,
			&report, watch_observer(watch), &error);
	watch_end(watch);
	if (code < 0)
		return report_error(&error, code);
	if (args.json)
		return print_json(write_report_json(&report));
	if (!args.quiet)
		write_report_print(&report, arguments.words[1]);
	return EXIT_SUCCESS;
}

static int run_pack(const struct command *command, int argc, char **argv)
{
	return run_writer(command, argc, argv, rouse_pack);
}

static int run_convert(const struct command *command, int argc, char **argv)
{
	return run_writer(command, argc, argv, rouse_convert);
}

const struct command command_pack = {
	.name = "pack",
	.synopsis = "[OPTION]... IMAGE OUT",
	.summary = "Lay an image out anew, for a working set",
	.text = "Writes what IMAGE has to OUT, with the pages of the working set at the front, in "
		"the\n"
		"order of their first touch. OUT appears when it is complete; it may be IMAGE.",
	.options = pack_options,
	.run = run_pack,
	.min_arguments = 2,
	.max_arguments = 2,
};

const struct command command_convert = {
	.name = "convert",
	.synopsis = "[OPTION]... IN OUT",
	.summary = "Convert a migration file to an image, or back, or make a flat file",
	.text = "If IN is an image, OUT becomes a plain migration file for -incoming; if IN is "
		"such a\n"
		"file, OUT becomes an image. The options are for the latter, but --flat: with it\n"
		"an image's memory becomes a file that any number of VMs can map.",
	.options = convert_options,
	.run = run_convert,
	.min_arguments = 2,
	.max_arguments = 2,
};
