/* SPDX-License-Identifier: MIT */
/* rouse wset: working-set files shown, merged, compared, and converted to text and back. */
#include "replace_file.h"
#include "wset_show.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_SETS 1000u

/* What the verbs' options fill in. */
struct wset_args {
	struct rouse_wset_rules rules;
	const char *out, *like;
	bool json, pages;
};

static bool parse_decay(const char *text, void *options)
{
	return parse_share(text, &((struct wset_args *)options)->rules.decay);
}

static bool parse_keep(const char *text, void *options)
{
	return parse_share(text, &((struct wset_args *)options)->rules.keep);
}

static bool parse_forget(const char *text, void *options)
{
	return parse_share(text, &((struct wset_args *)options)->rules.forget);
}

/* Each verb has some of these; rouse wset --help has all. */
#define JSON_ROW FLAG_OPTION(struct wset_args, json, 'j', "json", "print JSON")
#define PAGES_ROW                                              \
	FLAG_OPTION(struct wset_args, pages, 0, "pages",       \
		"show: each page, too; diff: each page that\n" \
		"only one of them has")
#define OUT_ROW                                                     \
	STRING_OPTION(struct wset_args, out, 'o', "output", "FILE", \
		"merge: where to; it may be one of the sets")
#define BUDGET_ROW                                                                            \
	{                                                                                     \
		.name = "budget", .kind = OPTION_SIZE,                                        \
		.offset = offsetof(struct wset_args, rules.budget_bytes), .argument = "SIZE", \
		.help = "merge: the most that the set may have (default: half of the\n"       \
			"VM's RAM)"                                                           \
	}
#define SHARE_ROW(name_, parse_, argument_, help_)                               \
	{                                                                        \
		.name = (name_), .kind = OPTION_CUSTOM, .argument = (argument_), \
		.parse = (parse_), .help = (help_)                               \
	}
#define DECAY_ROW                                     \
	SHARE_ROW("decay", parse_decay, "D",          \
		"merge: what a restore counts when\n" \
		"the next one comes (default: 0.75)")
#define KEEP_ROW                                            \
	SHARE_ROW("keep", parse_keep, "W",                  \
		"merge: pages that are less likely to be\n" \
		"touched leave the set (default: 0.25)")
#define FORGET_ROW                                        \
	SHARE_ROW("forget", parse_forget, "W",            \
		"merge: pages that are less likely are\n" \
		"forgotten (default: 0.05)")
#define CONFIRM_ROW                                                                   \
	{                                                                             \
		.name = "confirm", .kind = OPTION_COUNT,                              \
		.offset = offsetof(struct wset_args, rules.confirm), .argument = "N", \
		.help = "merge: pages that the first set lacks must have been\n"      \
			"touched by N restores (default: 2)"                          \
	}
#define LIKE_ROW                                                             \
	STRING_OPTION(struct wset_args, like, 0, "like", "FILE",             \
		"convert: an image or a working set of the same VM, for a\n" \
		"text that does not say what RAM blocks it has")

static const struct option_spec show_options[] = {PAGES_ROW, JSON_ROW, OPTIONS_END};
static const struct option_spec merge_options[] = {
	OUT_ROW, BUDGET_ROW, DECAY_ROW, KEEP_ROW, FORGET_ROW, CONFIRM_ROW, JSON_ROW, OPTIONS_END};
static const struct option_spec convert_options[] = {LIKE_ROW, OPTIONS_END};
static const struct option_spec all_options[] = {PAGES_ROW, OUT_ROW, BUDGET_ROW, DECAY_ROW,
	KEEP_ROW, FORGET_ROW, CONFIRM_ROW, LIKE_ROW, JSON_ROW, OPTIONS_END};

/* ---- show ------------------------------------------------------------------------------------ */

static int open_wset(const char *path, struct rouse_wset **wset)
{
	struct rouse_error error = {0};
	int code = rouse_wset_open(path, wset, &error);

	return code == 0 ? EXIT_SUCCESS : report_error(&error, code);
}

static int show(const struct wset_args *args, const struct arguments *arguments)
{
	struct rouse_wset *wset = NULL;
	int exit_code = open_wset(arguments->words[0], &wset);

	if (exit_code == EXIT_SUCCESS)
		exit_code = args->json ? wset_show_json(wset, args->pages)
				       : wset_show_print(wset, args->pages);
	rouse_wset_close(wset);
	return exit_code;
}

/* ---- merge ----------------------------------------------------------------------------------- */

static int merge(const struct wset_args *args, const struct arguments *arguments)
{
	struct rouse_wset *merged = NULL;
	struct rouse_wset_info info;
	struct rouse_error error = {0};
	int code, exit_code = EXIT_SUCCESS;

	if (args->out == NULL) {
		message(MESSAGE_ERROR, "say with -o FILE where the merged set is to go");
		return EXIT_USAGE;
	}
	code = rouse_wset_merge_files((const char *const *)arguments->words, arguments->count,
		&args->rules, args->out, &merged, &error);
	if (code < 0)
		return report_error(&error, code);
	rouse_wset_get_info(merged, &info);
	if (args->json)
		exit_code = wset_show_json(merged, false);
	else
		printf("%s: %llu pages (%s) of %u restores; %llu more wait\n", args->out,
			(unsigned long long)info.pages, human_bytes(info.pages * 4096).text,
			info.runs, (unsigned long long)info.waiting);
	rouse_wset_close(merged);
	return exit_code;
}

/* ---- diff ------------------------------------------------------------------------------------ */

/* Pages that only one set has. */
struct only {
	bool print; /* as text, at once */
	json_t *a, *b;
};

static void on_only(void *user, uint64_t page, bool in_a)
{
	const struct only *only = user;

	if (only->print)
		printf("%c %llu\n", in_a ? 'A' : 'B', (unsigned long long)page);
	else
		(void)json_array_append_new(
			in_a ? only->a : only->b, json_integer((json_int_t)page));
}

static void print_diff(const struct rouse_wset_diff *diff)
{
	printf("A has %llu pages, B %llu; both have %llu, only A %llu, only B %llu\n",
		(unsigned long long)diff->pages_a, (unsigned long long)diff->pages_b,
		(unsigned long long)diff->common,
		(unsigned long long)(diff->pages_a - diff->common),
		(unsigned long long)(diff->pages_b - diff->common));
	printf("B against A: recall %.3f, precision %.3f, order (Kendall's tau) %.3f\n",
		diff->recall, diff->precision, diff->kendall);
}

static int print_diff_json(const struct rouse_wset_diff *diff, const struct only *only, bool pages)
{
	json_t *json = json_pack("{s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f}", "pages_a",
		(json_int_t)diff->pages_a, "pages_b", (json_int_t)diff->pages_b, "common",
		(json_int_t)diff->common, "only_a", (json_int_t)(diff->pages_a - diff->common),
		"only_b", (json_int_t)(diff->pages_b - diff->common), "recall", diff->recall,
		"precision", diff->precision, "kendall_tau", diff->kendall);

	if (pages) {
		(void)json_object_set(json, "page_list_a", only->a);
		(void)json_object_set(json, "page_list_b", only->b);
	}
	return print_json(json);
}

static int compare(
	const struct wset_args *args, const struct rouse_wset *a, const struct rouse_wset *b)
{
	struct only only = {.print = !args->json, .a = json_array(), .b = json_array()};
	struct rouse_wset_diff diff;
	struct rouse_error error = {0};
	int code = rouse_wset_compare(a, b, &diff, args->pages ? on_only : NULL, &only, &error);
	int exit_code = EXIT_SUCCESS;

	if (code < 0)
		exit_code = report_error(&error, code);
	else if (args->json)
		exit_code = print_diff_json(&diff, &only, args->pages);
	else
		print_diff(&diff);
	json_decref(only.a);
	json_decref(only.b);
	return exit_code;
}

static int diff(const struct wset_args *args, const struct arguments *arguments)
{
	struct rouse_wset *a = NULL, *b = NULL;
	int exit_code = open_wset(arguments->words[0], &a);

	if (exit_code == EXIT_SUCCESS)
		exit_code = open_wset(arguments->words[1], &b);
	if (exit_code == EXIT_SUCCESS)
		exit_code = compare(args, a, b);
	rouse_wset_close(a);
	rouse_wset_close(b);
	return exit_code;
}

/* ---- convert --------------------------------------------------------------------------------- */

/* *temporary: what it is called until it is whole; NULL: it is written in place. -errno. */
static int begin_text(const char *out, char **temporary)
{
	int fd;

	*temporary = NULL;
	if (replace_is_possible(out))
		return replace_begin(out, temporary);
	fd = open(out, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	return fd < 0 ? -errno : fd;
}

static int write_text_file(
	const struct rouse_wset *wset, const char *out, struct rouse_error *error)
{
	char *temporary;
	const int fd = begin_text(out, &temporary);
	int code;

	if (fd < 0) {
		message(MESSAGE_ERROR, "cannot write %s: %s", out, strerror(-fd));
		return EXIT_FAILURE;
	}
	code = rouse_wset_write_text(wset, fd, error);
	if (code < 0) {
		(void)close(fd);
		(void)replace_end(temporary, code);
		return report_error(error, code);
	}
	if (temporary != NULL && fsync(fd) < 0)
		code = -errno;
	if (close(fd) < 0 && code == 0)
		code = -errno;
	if (temporary != NULL)
		code = replace_end(temporary, code);
	if (code < 0)
		message(MESSAGE_ERROR, "cannot write %s: %s", out, strerror(-code));
	return code < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int to_text(const char *in, const char *out)
{
	struct rouse_wset *wset = NULL;
	struct rouse_error error = {0};
	const bool to_stdout = strcmp(out, "-") == 0;
	int exit_code = open_wset(in, &wset), code;

	if (exit_code != EXIT_SUCCESS)
		return exit_code;
	if (to_stdout) {
		code = rouse_wset_write_text(wset, STDOUT_FILENO, &error);
		exit_code = code < 0 ? report_error(&error, code) : EXIT_SUCCESS;
	} else if (!replace_check_text(out)) {
		exit_code = EXIT_USAGE;
	} else {
		exit_code = write_text_file(wset, out, &error);
	}
	rouse_wset_close(wset);
	return exit_code;
}

static int from_text(const char *in, const char *like, const char *out)
{
	struct rouse_wset *wset = NULL;
	struct rouse_error error = {0};
	int code = rouse_wset_read_text(in, like, &wset, &error);

	if (code == 0)
		code = rouse_wset_save(wset, out, &error);
	rouse_wset_close(wset);
	return code == 0 ? EXIT_SUCCESS : report_error(&error, code);
}

static int convert(const struct wset_args *args, const struct arguments *arguments)
{
	if (file_kind(arguments->words[0]) == FILE_WSET)
		return to_text(arguments->words[0], arguments->words[1]);
	return from_text(arguments->words[0], args->like, arguments->words[1]);
}

/* ---- The verbs ------------------------------------------------------------------------------- */

struct verb {
	struct command command;
	int (*run)(const struct wset_args *args, const struct arguments *arguments);
};

static const struct verb verbs[] = {
	{{.name = "wset show",
		 .synopsis = "[OPTION]... FILE",
		 .summary = "Describe a working set",
		 .text = "How large it is, how many restores it comes from, how likely its pages "
			 "are, and how\n"
			 "well it fitted at the latest restore.",
		 .options = show_options,
		 .min_arguments = 1,
		 .max_arguments = 1},
		show},
	{{.name = "wset merge",
		 .synopsis = "[OPTION]... -o FILE FILE...",
		 .summary = "Merge working sets of one VM, the oldest first",
		 .text = "The newer a set, the more it counts. Pages that the newer ones lack "
			 "fade; "
			 "pages that\n"
			 "are new to the first set must come twice.",
		 .options = merge_options,
		 .min_arguments = 1,
		 .max_arguments = MAX_SETS},
		merge},
	{{.name = "wset diff",
		 .synopsis = "[OPTION]... A B",
		 .summary = "Compare working set B with A, which is taken for the truth",
		 .text = "Recall is the share of A's pages that B has, precision the share of B's "
			 "pages that A\n"
			 "has; Kendall's tau says how alike the order of the common pages is, -1 "
			 "to 1.",
		 .options = show_options,
		 .min_arguments = 2,
		 .max_arguments = 2},
		diff},
	{{.name = "wset convert",
		 .synopsis = "[OPTION]... IN OUT",
		 .summary = "Convert a working-set file to text, or text to a working-set file",
		 .text = "A line of the text is \"PAGE TIME_US [VCPU [COUNT]]\"; rouse-wset(1) has "
			 "the rest.\n"
			 "OUT may be - for standard output if it is text.",
		 .options = convert_options,
		 .min_arguments = 2,
		 .max_arguments = 2},
		convert},
};
#define VERB_COUNT (sizeof(verbs) / sizeof(verbs[0]))

static int run_verb(const struct verb *verb, int argc, char **argv)
{
	struct wset_args args = {.json = false};
	struct arguments arguments;
	int exit_code;

	message_set_command(verb->command.name);
	exit_code = options_parse(&verb->command, argc, argv, &args, &arguments);
	return exit_code >= 0 ? exit_code : verb->run(&args, &arguments);
}

static int run(const struct command *command, int argc, char **argv)
{
	struct wset_args args = {.json = false};
	struct arguments arguments;
	int exit_code;

	for (size_t i = 0; argc > 1 && i < VERB_COUNT; i++) {
		/* The verb's name without "wset ". */
		if (strcmp(strchr(verbs[i].command.name, ' ') + 1, argv[1]) == 0)
			return run_verb(&verbs[i], argc - 1, argv + 1);
	}
	exit_code = options_parse(command, argc, argv, &args, &arguments);
	if (exit_code >= 0)
		return exit_code;
	message(MESSAGE_ERROR, "there is no verb '%s': it is show, merge, diff or convert",
		arguments.words[0]);
	return EXIT_USAGE;
}

const struct command command_wset = {
	.name = "wset",
	.synopsis = "show|merge|diff|convert [OPTION]... FILE...",
	.summary = "Show, merge, compare and convert working sets",
	.text = "  rouse wset show FILE              what is in it\n"
		"  rouse wset merge -o OUT FILE...   sets of several restores, the oldest first\n"
		"  rouse wset diff A B               recall, precision and order of B against A\n"
		"  rouse wset convert IN OUT         a working-set file to text, or text to one\n"
		"rouse wset VERB --help has the options of one.",
	.options = all_options,
	.run = run,
	.min_arguments = 1,
	.max_arguments = MAX_SETS,
};
