/* SPDX-License-Identifier: MIT */
/* rouse doctor: what this machine allows, and what each lack costs. */
#include "tool.h"

#include <stdlib.h>

struct doctor {
	const char *qemu, *kernel;
	bool json;
	json_t *findings;
};

static const struct option_spec options[] = {
	STRING_OPTION(struct doctor, qemu, 0, "qemu", "PROGRAM",
		"the QEMU to ask (default: qemu-system-x86_64)"),
	STRING_OPTION(struct doctor, kernel, 0, "kernel", "FILE",
		"boot this Linux kernel under KVM, to see that KVM really works"),
	FLAG_OPTION(struct doctor, json, 'j', "json", "print JSON"),
	OPTIONS_END,
};

static void on_finding(void *user, const struct rouse_finding *finding)
{
	struct doctor *doctor = user;

	if (doctor->json) {
		(void)json_array_append_new(
			doctor->findings, json_pack("{s:s, s:b, s:s?, s:s?}", "name", finding->name,
						  "available", finding->available, "detail",
						  finding->detail, "cost", finding->cost));
		return;
	}
	printf("%-12s %-4s %s\n", finding->name, finding->available ? "yes" : "no",
		finding->detail != NULL ? finding->detail : "");
	if (finding->cost != NULL)
		printf("%18s%s\n", "", finding->cost);
	(void)fflush(stdout);
}

static int run(const struct command *command, int argc, char **argv)
{
	struct doctor args = {0};
	struct rouse_error error = {0};
	struct arguments arguments;
	int code = options_parse(command, argc, argv, &args, &arguments);

	if (code >= 0)
		return code;
	args.findings = json_array();
	code = rouse_doctor(args.qemu, args.kernel, on_finding, &args, &error);
	if (code < 0) {
		json_decref(args.findings);
		return report_error(&error, code);
	}
	if (args.json)
		return print_json(json_pack("{s:o}", "findings", args.findings));
	json_decref(args.findings);
	return EXIT_SUCCESS;
}

const struct command command_doctor = {
	.name = "doctor",
	.synopsis = "[OPTION]...",
	.summary = "List what this machine allows, and what each lack costs",
	.text = "Probes QEMU, userfaultfd, tracing, scanning, KVM and what else of the kernel\n"
		"Rouse can use. A lack is no error: the exit code is 0 whenever the probes could\n"
		"be made.",
	.options = options,
	.run = run,
};
