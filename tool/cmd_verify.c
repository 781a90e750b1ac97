/* SPDX-License-Identifier: MIT */
/* rouse verify: every checksum of an image, a flat file or a working-set file. */
#include "tool.h"

#include <errno.h>
#include <stdlib.h>

struct verify {
	bool json, quiet;
	json_t *damage;
	unsigned long long count;
};

static const struct option_spec options[] = {
	FLAG_OPTION(struct verify, json, 'j', "json", "print JSON"),
	FLAG_OPTION(struct verify, quiet, 'q', "quiet", "no progress; the exit code tells"),
	OPTIONS_END,
};

static void on_damage(void *user, const char *what, uint64_t offset, uint64_t length)
{
	struct verify *verify = user;

	verify->count++;
	if (verify->json)
		(void)json_array_append_new(
			verify->damage, json_pack("{s:s, s:I, s:I}", "what", what, "offset",
						(json_int_t)offset, "length", (json_int_t)length));
	else if (!verify->quiet)
		printf("%s: %llu bytes at offset %llu\n", what, (unsigned long long)length,
			(unsigned long long)offset);
}

static int finish(
	struct verify *verify, const char *path, const struct rouse_error *error, int code)
{
	int exit_code = EXIT_SUCCESS, printed = EXIT_SUCCESS;

	if (code < 0)
		exit_code = report_error(error, code);
	if (verify->json && (code == 0 || code == -EUCLEAN))
		printed = print_json(json_pack("{s:s, s:b, s:O}", "file", path, "ok", code == 0,
			"damage", verify->damage));
	else if (code == 0 && !verify->quiet)
		printf("%s: whole\n", path);
	return exit_code != EXIT_SUCCESS ? exit_code : printed;
}

static int verify_image(struct verify *verify, const char *path)
{
	struct rouse_image *image = NULL;
	struct rouse_error error = {0};
	struct watch *watch = NULL;
	int code = rouse_image_open(path, &image, &error);

	if (code == 0) {
		watch = watch_begin(verify->quiet, false);
		if (watch == NULL) {
			rouse_image_close(image);
			return EXIT_FAILURE;
		}
		code = rouse_image_verify(image, on_damage, verify, watch_observer(watch), &error);
		watch_end(watch);
	}
	rouse_image_close(image);
	return finish(verify, path, &error, code);
}

/* A working-set file has one checksum, and opening checks it. */
static int verify_wset(struct verify *verify, const char *path)
{
	struct rouse_wset *wset = NULL;
	struct rouse_error error = {0};
	int code = rouse_wset_open(path, &wset, &error);

	rouse_wset_close(wset);
	return finish(verify, path, &error, code);
}

static int verify_flat(struct verify *verify, const char *path)
{
	struct rouse_error error = {0};
	struct watch *watch = watch_begin(verify->quiet, false);
	int code;

	if (watch == NULL)
		return EXIT_FAILURE;
	code = rouse_flat_verify(path, on_damage, verify, watch_observer(watch), &error);
	watch_end(watch);
	return finish(verify, path, &error, code);
}

static int verify_file(struct verify *verify, const char *path)
{
	switch (file_kind(path)) {
	case FILE_WSET:
		return verify_wset(verify, path);
	case FILE_FLAT:
		return verify_flat(verify, path);
	case FILE_STALLS:
	case FILE_QEMU:
	case FILE_OTHER: /* opening it says what is wrong */
		break;
	}
	return verify_image(verify, path);
}

static int run(const struct command *command, int argc, char **argv)
{
	struct verify args = {0};
	struct arguments arguments;
	int exit_code = options_parse(command, argc, argv, &args, &arguments);

	if (exit_code >= 0)
		return exit_code;
	args.damage = json_array();
	exit_code = verify_file(&args, arguments.words[0]);
	json_decref(args.damage);
	return exit_code;
}

const struct command command_verify = {
	.name = "verify",
	.synopsis = "[OPTION]... FILE",
	.summary = "Check every checksum of an image, a flat or a working-set file",
	.text = "Names each thing that is broken and where it lies in the file. The exit code is 0 "
		"if\n"
		"the file is whole and 3 if something is broken.",
	.options = options,
	.run = run,
	.min_arguments = 1,
	.max_arguments = 1,
};
