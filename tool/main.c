/* SPDX-License-Identifier: MIT */
/* rouse: save running virtual machines and wake them so that they are responsive soonest. */
#include "tool.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct command *const commands[] = {
	&command_save,
	&command_restore,
	&command_inspect,
	&command_verify,
	&command_pack,
	&command_convert,
	&command_wset,
	&command_cat,
	&command_trace,
	&command_scan,
	&command_ttr,
	&command_bench,
	&command_report,
	&command_doctor,
};
#define COMMAND_COUNT (sizeof(commands) / sizeof(commands[0]))

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < COMMAND_COUNT; i++) {
		if (strcmp(commands[i]->name, name) == 0)
			return commands[i];
	}
	return NULL;
}

static void print_help(FILE *file)
{
	fprintf(file, "Usage: rouse COMMAND [OPTION]...\n"
		      "Save running virtual machines and wake them so that they are responsive "
		      "soonest.\n\n"
		      "Commands:\n");
	for (size_t i = 0; i < COMMAND_COUNT; i++)
		fprintf(file, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
	fprintf(file,
		"\nSizes and rates: 100, 100K, 100KiB (1024), 100KB (1000), also with M, G, T;\n"
		"durations: 10us, 10ms, 10s, 1min.\n"
		"Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a file is damaged or does not "
		"fit,\n"
		"4 refused by this machine or the VM's state, 5 the VMM died or answered with an\n"
		"error, 130 cancelled.\n"
		"'rouse help COMMAND' or 'rouse COMMAND --help' tells more; 'rouse --version'.\n");
}

static int unknown_command(const char *name)
{
	message(MESSAGE_ERROR, "there is no command '%s'", name);
	fprintf(stderr, "Try 'rouse --help'.\n");
	return EXIT_USAGE;
}

static int help(int argc, char **argv)
{
	const struct command *command;

	if (argc < 3) {
		print_help(stdout);
		return EXIT_SUCCESS;
	}
	command = find_command(argv[2]);
	if (command == NULL)
		return unknown_command(argv[2]);
	command_print_help(command);
	return EXIT_SUCCESS;
}

static int dispatch(int argc, char **argv)
{
	const struct command *command;

	if (argc < 2) {
		print_help(stderr);
		return EXIT_USAGE;
	}
	if (strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0 ||
		strcmp(argv[1], "-h") == 0)
		return help(argc, argv);
	if (strcmp(argv[1], "--version") == 0) {
		printf("rouse %s\n", rouse_version());
		return EXIT_SUCCESS;
	}
	command = find_command(argv[1]);
	if (command == NULL)
		return unknown_command(argv[1]);
	message_set_command(command->name);
	return command->run(command, argc - 1, argv + 1);
}

/*
 * A file, a socket or an event that is opened in the place of a standard descriptor that is closed
 * would get what is written there: messages in an image, or a job that its own warning cancels.
 */
static bool fill_standard_descriptors(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
		/* The lowest that is free; and not O_CLOEXEC: QEMU needs them, too. */
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
			return false;
	}
	return true;
}

int main(int argc, char **argv)
{
	int exit_code;

	if (!fill_standard_descriptors())
		return EXIT_FAILURE;
	/* A reader of our messages that goes away must not end the service of a running VM. */
	(void)signal(SIGPIPE, SIG_IGN);
	/* Nor a limit for the size of files: it is an error of that file (EFBIG), as a full disk
	 * is. */
	(void)signal(SIGXFSZ, SIG_IGN);
	exit_code = dispatch(argc, argv);
	if (fflush(stdout) != 0 || ferror(stdout)) {
		message(MESSAGE_ERROR, "cannot write to standard output");
		if (exit_code == EXIT_SUCCESS)
			exit_code = EXIT_FAILURE;
	}
	return exit_code;
}
