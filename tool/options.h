/* SPDX-License-Identifier: MIT */
/*
 * Options as tables: a command lists what it takes, and both the parsing and its --help are made
 * from that list. Values land in a structure of the command, at the offset of each option.
 */
#ifndef ROUSE_TOOL_OPTIONS_H
#define ROUSE_TOOL_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum option_kind {
	OPTION_FLAG,     /* bool: true when it is given */
	OPTION_STRING,   /* const char *: points into argv */
	OPTION_SIZE,     /* uint64_t: bytes */
	OPTION_RATE,     /* uint64_t: bytes a second; or off, auto, max: ROUSE_BACKGROUND_... */
	OPTION_DURATION, /* uint64_t: microseconds */
	OPTION_COUNT,    /* uint32_t or unsigned int */
	OPTION_LEVEL,    /* int, negative ones too */
	OPTION_ENUM,     /* int or an enum: one of values */
	OPTION_CUSTOM,   /* parse() is called with the text */
};

/** A word that an option accepts, and what it stands for; the list ends with a NULL word. */
struct option_value {
	const char *word;
	int value;
};

struct option_spec {
	const char *name; /* without the dashes */
	int letter;       /* of the short form; 0: none */
	enum option_kind kind;
	size_t offset;
	const char *argument; /* what --help calls the value */
	const char *help;     /* one or more lines, with \n between them */
	const struct option_value *values;
	/* For OPTION_CUSTOM: @options is the command's structure. False: @text makes no sense. */
	bool (*parse)(const char *text, void *options);
};

#define OPTIONS_END                               \
	{                                         \
		.name = NULL, .kind = OPTION_FLAG \
	}

/** A subcommand, as the table in main.c lists it. */
struct command {
	const char *name;
	const char *synopsis; /* what follows the name: "[OPTION]... IMAGE" */
	const char *summary;  /* one line */
	const char *text;     /* some lines for --help */
	const struct option_spec *options;
	int (*run)(const struct command *command, int argc, char **argv);
	unsigned int min_arguments, max_arguments; /* that are no options */
};

/** What options_parse() found beside the options. */
struct arguments {
	char **words; /* NULL-terminated */
	unsigned int count;
	char **rest; /* what stands behind "--", NULL-terminated; NULL: there is no "--" */
};

/**
 * Parses @argv (the command's name is argv[0]) into @options. Returns -1 to go on; otherwise the
 * exit code: 0 after --help, 2 after a mistake, which has been reported.
 */
int options_parse(const struct command *command, int argc, char **argv, void *options,
	struct arguments *arguments);

void command_print_help(const struct command *command);

/* The values themselves. False: @text makes no sense. */

/** 12, 12K, 12KiB (1024), 12KB (1000), and so on with M, G, T. */
bool parse_size(const char *text, uint64_t *bytes);
/** A size a second, or "off", or "max". */
bool parse_rate(const char *text, uint64_t *bytes_per_s);
/** 10us, 10ms, 1.5s. The unit must be there. */
bool parse_duration(const char *text, uint64_t *us);
/** A decimal number without sign. */
bool parse_count(const char *text, uint64_t max, uint64_t *count);
/** A decimal fraction without sign. */
bool parse_fraction(const char *text, double *number);

#endif
