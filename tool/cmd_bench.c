/* SPDX-License-Identifier: MIT */
/* rouse bench: which policy wakes an image soonest, on this machine. */
#include "bench.h"
#include "page.h"
#include "replace_file.h"

#include <stdlib.h>
#include <string.h>

#define MAX_WATCH_S 86400u

struct bench_arguments {
	const char *policies, *storages, *name, *out;
	struct bench_storage own[BENCH_MAX_STORAGES];
	unsigned int own_count, rounds, watch_s;
	bool quick, writable_disks, json, quiet;
};

static bool parse_throttle_option(const char *text, void *options)
{
	struct bench_arguments *args = options;
	struct bench_storage *storage = &args->own[args->own_count];

	if (args->own_count == BENCH_MAX_STORAGES || !bench_storage_parse(text, storage))
		return false;
	for (unsigned int i = 0; i < args->own_count; i++) {
		if (strcmp(args->own[i].name, storage->name) == 0)
			return false;
	}
	args->own_count++;
	return true;
}

static const struct option_spec options[] = {
	STRING_OPTION(struct bench_arguments, policies, 'p', "policies", "LIST",
		"what rouse restore --policy takes, with commas between them\n"
		"(default: all that this image can be restored by)"),
	STRING_OPTION(struct bench_arguments, storages, 's', "storages", "LIST",
		"disk: as it is (default); as slow as others: slow (100MB,100),\n"
		"mid (500MB,0,1ms), net (125MB,0,20ms), or names of --throttle"),
	{.name = "throttle",
		.kind = OPTION_CUSTOM,
		.argument = "NAME=RATE[,READS[,LATENCY]]",
		.parse = parse_throttle_option,
		.help = "one more storage, as of rouse restore --throttle"},
	{.name = "rounds",
		.letter = 'n',
		.kind = OPTION_COUNT,
		.offset = offsetof(struct bench_arguments, rounds),
		.argument = "N",
		.help = "how often each is measured (default: 3)"},
	FLAG_OPTION(struct bench_arguments, quick, 0, "quick", "one round"),
	{.name = "watch",
		.kind = OPTION_COUNT,
		.offset = offsetof(struct bench_arguments, watch_s),
		.argument = "SECONDS",
		.help = "a restore that is not complete by then has failed (default: 600)"},
	FLAG_OPTION(struct bench_arguments, writable_disks, 0, "writable-disks",
		"start the VM although it can write to its disks"),
	STRING_OPTION(struct bench_arguments, name, 0, "name", "TEXT",
		"what the report calls the image (default: its file's name)"),
	STRING_OPTION(struct bench_arguments, out, 'o', "output", "FILE",
		"write the report as JSON to this file, too, for rouse report"),
	FLAG_OPTION(
		struct bench_arguments, json, 'j', "json", "print the report as JSON, no table"),
	FLAG_OPTION(struct bench_arguments, quiet, 'q', "quiet",
		"no progress; errors, warnings and the result only"),
	OPTIONS_END,
};

/* ---- The plan -------------------------------------------------------------------------------- */

/* Policies that need a working set are left out, by name, if the image has none. */
static void leave_out(struct bench_plan *plan, const struct bench_subject *subject, json_t *report)
{
	static const char reason[] = "the image has no working set: rouse restore --record, then "
				     "rouse pack";

	if (subject->has_set)
		return;
	for (const struct option_value *each = policy_values; each->word != NULL; each++) {
		const unsigned int before = plan->policy_count;

		if (!policy_needs_set((enum rouse_policy)each->value))
			continue;
		bench_plan_leave_out(plan, each->word);
		if (plan->policy_count < before)
			bench_report_skip(report, each->word, reason);
	}
}

static int make_plan(const struct bench_arguments *args, struct bench_plan *plan)
{
	char wrong[32];

	if (args->rounds == 0 || args->rounds > BENCH_MAX_ROUNDS || args->watch_s == 0 ||
		args->watch_s > MAX_WATCH_S) {
		message(MESSAGE_ERROR, "--rounds is 1 to %u, --watch 1 to %u", BENCH_MAX_ROUNDS,
			MAX_WATCH_S);
		return EXIT_USAGE;
	}
	plan->rounds = args->quick ? 1 : args->rounds;
	if (!bench_plan_policies(plan, args->policies, wrong)) {
		message(MESSAGE_ERROR, "--policies: '%s' is not a policy of rouse restore", wrong);
		return EXIT_USAGE;
	}
	if (!bench_plan_storages(plan, args->storages, args->own, args->own_count, wrong)) {
		message(MESSAGE_ERROR,
			"--storages: '%s' is neither disk, slow, mid or net nor one of --throttle, "
			"or there are too many",
			wrong);
		return EXIT_USAGE;
	}
	return EXIT_SUCCESS;
}

/* ---- Measuring ------------------------------------------------------------------------------- */

static double number_in(const json_t *report, const char *name)
{
	return json_number_value(json_object_get(report, name));
}

static void tell(const struct bench_run *run, unsigned int number, unsigned int total, bool quiet)
{
	const char *storage = run->way.storage->name, *policy = run->way.policy;

	if (run->outcome == BENCH_FAILED)
		message(MESSAGE_WARNING, "%u of %u: %s, %s, round %u: FAILED: %s", number, total,
			storage, policy, run->round, run->reason);
	else if (run->outcome == BENCH_MEASURED && !quiet)
		message(MESSAGE_NOTE,
			"%u of %u: %s, %s, round %u: first instruction %.0f ms, TTR %.0f ms, %.0f "
			"faults",
			number, total, storage, policy, run->round,
			number_in(run->report, "start_ms"), number_in(run->report, "ttr_ms"),
			number_in(run->report, "faults"));
	if (run->outcome == BENCH_MEASURED && run->cached_bytes > 0)
		message(MESSAGE_WARNING,
			"this was NOT COLD: %s of the image stayed in the page cache (in use, on "
			"tmpfs, or not this user's)",
			human_bytes(run->cached_bytes).text);
}

static int write_out(const char *path, const json_t *report)
{
	int code = path != NULL ? bench_report_write(report, path) : 0;

	if (code < 0)
		message(MESSAGE_ERROR, "cannot write %s: %s", path, strerror(-code));
	return code < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* After each restore, so that nothing that was measured is ever lost; a pipe gets one report. */
static int write_early(const char *path, const json_t *report)
{
	return path != NULL && bench_report_is_replaced(path) ? write_out(path, report)
							      : EXIT_SUCCESS;
}

static int write_late(const char *path, const json_t *report)
{
	return path != NULL && !bench_report_is_replaced(path) ? write_out(path, report)
							       : EXIT_SUCCESS;
}

/* All rounds, until a signal comes. */
static int measure(const struct bench_arguments *args, struct bench *bench,
	const struct bench_plan *plan, const struct bench_subject *subject, json_t *report)
{
	const unsigned int ways = bench_plan_ways(plan), total = ways * plan->rounds;
	int exit_code = EXIT_SUCCESS;

	for (unsigned int i = 0; i < total; i++) {
		struct bench_run run;

		if (bench_signals_seen(&bench->signals))
			return EXIT_CANCELLED;
		bench_restore(bench, bench_plan_way(plan, i / ways, i % ways), i / ways + 1, &run);
		tell(&run, i + 1, total, args->quiet);
		bench_report_add(report, &run, args->name, subject->memory_bytes);
		bench_run_finish(&run);
		if (run.outcome == BENCH_INTERRUPTED)
			return EXIT_CANCELLED;
		if (write_early(args->out, report) != EXIT_SUCCESS || run.outcome == BENCH_FAILED)
			exit_code = EXIT_FAILURE;
	}
	return exit_code;
}

static int show(const struct bench_arguments *args, const struct bench_plan *plan, json_t *report)
{
	if (args->json)
		return print_json(json_incref(report));
	bench_table_print(stdout, report, plan);
	return EXIT_SUCCESS;
}

static int measure_and_show(const struct bench_arguments *args, struct bench *bench,
	const struct bench_plan *plan, const struct bench_subject *subject, json_t *report)
{
	int exit_code, shown;

	if (!args->quiet)
		message(MESSAGE_NOTE,
			"%u restores of %s: each starts the VM, measures, and ends it",
			bench_plan_ways(plan) * plan->rounds, args->name);
	exit_code = bench_open(bench);
	if (exit_code == EXIT_SUCCESS)
		exit_code = measure(args, bench, plan, subject, report);
	bench_close(bench);
	if (exit_code == EXIT_CANCELLED)
		message(MESSAGE_WARNING, "interrupted: this is what was measured until then");
	shown = show(args, plan, report);
	return exit_code != EXIT_SUCCESS ? exit_code : shown;
}

static int bench_image(const struct bench_arguments *args, struct bench *bench,
	struct bench_plan *plan, const struct bench_subject *subject)
{
	json_t *report = bench_report_new(bench_facts(bench->image, subject->metadata, plan));
	int exit_code;

	if (report == NULL) {
		message(MESSAGE_ERROR, "not enough memory");
		return EXIT_FAILURE;
	}
	leave_out(plan, subject, report);
	/* Before an hour of measuring: whether it can be written at all. */
	exit_code = write_early(args->out, report);
	if (exit_code == EXIT_SUCCESS && bench_plan_ways(plan) == 0) {
		message(MESSAGE_ERROR, "nothing is left to be measured");
		(void)show(args, plan, report);
		exit_code = EXIT_FAILURE;
	} else if (exit_code == EXIT_SUCCESS) {
		exit_code = measure_and_show(args, bench, plan, subject, report);
	}
	if (write_late(args->out, report) != EXIT_SUCCESS && exit_code == EXIT_SUCCESS)
		exit_code = EXIT_FAILURE;
	json_decref(report);
	return exit_code;
}

static int run(const struct command *command, int argc, char **argv)
{
	struct bench_arguments args = {.rounds = 3, .watch_s = 600};
	struct bench bench = {.signals = {.fd = -1}};
	struct bench_plan plan = {0};
	struct bench_subject subject = {0};
	struct arguments arguments;
	const char *slash;
	int exit_code = options_parse(command, argc, argv, &args, &arguments);

	if (exit_code >= 0)
		return exit_code;
	if (arguments.rest != NULL && arguments.rest[0] == NULL) {
		message(MESSAGE_ERROR, "there is no command behind --");
		return EXIT_USAGE;
	}
	bench.image = arguments.words[0];
	bench.command = arguments.rest;
	bench.watch_s = args.watch_s;
	slash = strrchr(bench.image, '/');
	if (args.name == NULL)
		args.name = slash != NULL ? slash + 1 : bench.image;
	if (args.out != NULL && !replace_check_text(args.out))
		return EXIT_USAGE;
	exit_code = make_plan(&args, &plan);
	if (exit_code == EXIT_SUCCESS)
		exit_code = bench_subject_look(&subject, bench.image);
	if (exit_code == EXIT_SUCCESS)
		exit_code = bench_subject_check(&subject, args.writable_disks);
	if (exit_code == EXIT_SUCCESS)
		exit_code = bench_image(&args, &bench, &plan, &subject);
	bench_subject_finish(&subject);
	return exit_code;
}

const struct command command_bench = {
	.name = "bench",
	.synopsis = "[OPTION]... IMAGE [-- QEMU [ARGUMENT]...]",
	.summary = "Measure which policy wakes an image soonest, on this machine",
	.text = "Restores it by each policy in turns, from a cold page cache, as rouse restore\n"
		"does, and ends the VM again each time. The VM really runs for that while: it\n"
		"writes to its disks and is on its networks, if it has any.",
	.options = options,
	.run = run,
	.min_arguments = 1,
	.max_arguments = 1,
};
