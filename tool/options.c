/* SPDX-License-Identifier: MIT */
/* Parsing by a table of options, and the help that is made from the same table. */
#include "options.h"

#include "tool.h"

#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_OPTIONS 48

/* Values that getopt_long(3) returns for options: above every letter. */
#define FIRST_VALUE 256

/* What getopt_long(3) wants, made from a command's table. */
struct getopt_tables {
	struct option options[MAX_OPTIONS + 2];
	char letters[2 * MAX_OPTIONS + 3];
};

static void make_tables(const struct option_spec *specs, struct getopt_tables *tables)
{
	char *letter = tables->letters;
	int count = 0;

	for (; specs[count].name != NULL && count < MAX_OPTIONS; count++) {
		const struct option_spec *spec = &specs[count];

		tables->options[count] = (struct option){.name = spec->name,
			.has_arg = spec->kind == OPTION_FLAG ? no_argument : required_argument,
			.val = FIRST_VALUE + count};
		if (spec->letter != 0) {
			*letter++ = (char)spec->letter;
			if (spec->kind != OPTION_FLAG)
				*letter++ = ':';
		}
	}
	tables->options[count] = (struct option){.name = "help", .val = 'h'};
	tables->options[count + 1] = (struct option){0};
	*letter++ = 'h';
	*letter = '\0';
}

static const struct option_spec *find_spec(const struct option_spec *specs, int value)
{
	if (value >= FIRST_VALUE)
		return &specs[value - FIRST_VALUE];
	for (; specs->name != NULL; specs++) {
		if (specs->letter == value)
			return specs;
	}
	return NULL;
}

static bool store_count(const char *text, unsigned int *target)
{
	uint64_t count;

	if (!parse_count(text, UINT_MAX, &count))
		return false;
	*target = (unsigned int)count;
	return true;
}

static bool store_level(const char *text, int *target)
{
	bool negative = *text == '-';
	uint64_t count;

	if (!parse_count(text + negative, INT_MAX, &count))
		return false;
	*target = negative ? -(int)count : (int)count;
	return true;
}

static bool store_enum(const char *text, const struct option_value *values, int *target)
{
	for (; values->word != NULL; values++) {
		if (strcmp(text, values->word) == 0) {
			*target = values->value;
			return true;
		}
	}
	return false;
}

static bool store(const struct option_spec *spec, const char *text, void *options)
{
	void *target = (char *)options + spec->offset;

	switch (spec->kind) {
	case OPTION_FLAG:
		*(bool *)target = true;
		return true;
	case OPTION_STRING:
		*(const char **)target = text;
		return *text != '\0';
	case OPTION_SIZE:
		return parse_size(text, target);
	case OPTION_RATE:
		return parse_rate(text, target);
	case OPTION_DURATION:
		return parse_duration(text, target);
	case OPTION_COUNT:
		return store_count(text, target);
	case OPTION_LEVEL:
		return store_level(text, target);
	case OPTION_ENUM:
		return store_enum(text, spec->values, target);
	case OPTION_CUSTOM:
		return spec->parse(text, options);
	}
	return false;
}

static int usage_error(const struct command *command)
{
	fprintf(stderr, "Try 'rouse %s --help'.\n", command->name);
	return EXIT_USAGE;
}

/* auto|eager|... */
static void list_words(const struct option_value *values, char *text, size_t size)
{
	size_t used = 0;

	text[0] = '\0';
	for (; values->word != NULL && used < size; values++) {
		int n = snprintf(
			text + used, size - used, "%s%s", used > 0 ? "|" : "", values->word);

		used += n > 0 ? (size_t)n : 0;
	}
}

static void refuse_value(const struct option_spec *spec, const char *value)
{
	char words[256];

	if (spec->kind != OPTION_ENUM) {
		message(MESSAGE_ERROR, "--%s: '%s' is not a valid %s", spec->name, value,
			spec->argument);
		return;
	}
	list_words(spec->values, words, sizeof(words));
	message(MESSAGE_ERROR, "--%s: '%s' is not one of %s", spec->name, value, words);
}

static int parse_options(const struct command *command, int argc, char **argv, void *options)
{
	struct getopt_tables tables;
	int value;

	make_tables(command->options, &tables);
	optind = 0; /* glibc: start anew */
	while ((value = getopt_long(argc, argv, tables.letters, tables.options, NULL)) != -1) {
		const struct option_spec *spec;

		if (value == 'h') {
			command_print_help(command);
			return EXIT_SUCCESS;
		}
		if (value == '?')
			return usage_error(command);
		spec = find_spec(command->options, value);
		if (spec != NULL && !store(spec, optarg, options)) {
			refuse_value(spec, optarg);
			return usage_error(command);
		}
	}
	return -1;
}

int options_parse(const struct command *command, int argc, char **argv, void *options,
	struct arguments *arguments)
{
	char name[64];
	int count = 1, code;

	*arguments = (struct arguments){0};
	/* getopt_long(3) sorts the words and forgets where "--" was: it sees nothing behind it. */
	while (count < argc && strcmp(argv[count], "--") != 0)
		count++;
	if (count < argc) {
		arguments->rest = &argv[count + 1];
		argv[count] = NULL;
	}
	(void)snprintf(name, sizeof(name), "rouse %s", command->name);
	argv[0] = name;
	code = parse_options(command, count, argv, options);
	argv[0] = NULL; /* name goes out of scope */
	if (code >= 0)
		return code;
	arguments->words = &argv[optind];
	arguments->count = (unsigned int)(count - optind);
	if (arguments->count < command->min_arguments) {
		message(MESSAGE_ERROR, "something is missing: rouse %s %s", command->name,
			command->synopsis);
		return usage_error(command);
	}
	if (arguments->count > command->max_arguments) {
		message(MESSAGE_ERROR, "'%s' is too much: rouse %s %s",
			arguments->words[command->max_arguments], command->name, command->synopsis);
		return usage_error(command);
	}
	return -1;
}

static void print_option(const struct option_spec *spec)
{
	char head[96];
	const char *text = spec->help;
	int width = 28;

	(void)snprintf(head, sizeof(head), "%c%c%s --%s%s%s", spec->letter ? '-' : ' ',
		spec->letter ? spec->letter : ' ', spec->letter ? "," : " ", spec->name,
		spec->argument != NULL ? " " : "", spec->argument != NULL ? spec->argument : "");
	printf("  %-*s", width, head);
	if (strlen(head) > (size_t)width - 1)
		printf("\n  %*s", width, "");
	for (;;) {
		const char *newline = strchr(text, '\n');

		if (newline == NULL)
			break;
		printf("%.*s\n  %*s", (int)(newline - text), text, width, "");
		text = newline + 1;
	}
	printf("%s\n", text);
}

void command_print_help(const struct command *command)
{
	static const struct option_spec help = {
		.name = "help", .letter = 'h', .help = "show this help"};

	printf("Usage: rouse %s %s\n%s.\n\n%s\n\nOptions:\n", command->name, command->synopsis,
		command->summary, command->text);
	for (const struct option_spec *spec = command->options; spec->name != NULL; spec++)
		print_option(spec);
	print_option(&help);
}
