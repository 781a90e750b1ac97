/* SPDX-License-Identifier: MIT */
/* rouse inspect: what an image, a flat file or a working-set file is. */
#include "tool.h"
#include "wset_show.h"

#include <stdlib.h>
#include <string.h>

struct inspect {
	bool json, pages;
};

static const struct option_spec options[] = {
	FLAG_OPTION(struct inspect, json, 'j', "json", "print JSON"),
	FLAG_OPTION(struct inspect, pages, 0, "pages",
		"list the pages of a working-set file in order of first touch"),
	OPTIONS_END,
};

static void hex(const unsigned char id[16], char text[33])
{
	for (unsigned int i = 0; i < 16; i++)
		(void)snprintf(text + 2 * (size_t)i, 3, "%02x", id[i]);
}

/* The metadata as JSON; null if it is not. */
static json_t *metadata_of(const struct rouse_image_info *info)
{
	json_t *metadata = info->metadata != NULL ? json_loads(info->metadata, 0, NULL) : NULL;

	return metadata != NULL ? metadata : json_null();
}

static json_t *blocks_json(const struct rouse_image *image, uint32_t count)
{
	json_t *list = json_array();
	struct rouse_block_info block;

	for (uint32_t i = 0; i < count && rouse_image_get_block(image, i, &block) == 0; i++)
		(void)json_array_append_new(
			list, json_pack("{s:s, s:I, s:I}", "name", block.name, "used_bytes",
				      (json_int_t)block.used_bytes, "first_page",
				      (json_int_t)block.first_page));
	return list;
}

static int image_json(const struct rouse_image *image, const struct rouse_image_info *info)
{
	const struct {
		const char *name;
		uint64_t value;
	} numbers[] = {
		{"version", info->version},
		{"compat", info->compat},
		{"incompat", info->incompat},
		{"page_size", info->page_size},
		{"chunk_pages", info->chunk_pages},
		{"file_bytes", info->file_bytes},
		{"front_bytes", info->front_bytes},
		{"ram_bytes", info->ram_bytes},
		{"device_bytes", info->device_bytes},
		{"pages", info->pages},
		{"zero_pages", info->zero_pages},
		{"duplicate_pages", info->duplicate_pages},
		{"chunks", info->chunks},
		{"stored_bytes", info->stored_bytes},
		{"wset_pages", info->wset_pages},
		{"wset_stored_bytes", info->wset_stored_bytes},
	};
	char id[33];
	json_t *json;

	hex(info->id, id);
	json = json_pack("{s:s, s:s}", "type", "image", "id", id);
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		(void)json_object_set_new(
			json, numbers[i].name, json_integer((json_int_t)numbers[i].value));
	(void)json_object_set_new(json, "blocks", blocks_json(image, info->block_count));
	(void)json_object_set_new(json, "metadata", metadata_of(info));
	return print_json(json);
}

static void print_metadata(const struct rouse_image_info *info)
{
	json_t *metadata = metadata_of(info);
	const char *name;
	json_t *value;

	json_object_foreach(metadata, name, value)
	{
		char *text = json_is_string(value) ? strdup(json_string_value(value))
						   : json_dumps(value, JSON_ENCODE_ANY);
		char *key = strdup(name);

		if (key != NULL && text != NULL)
			printf("%-14s%s\n", make_printable(key), make_printable(text));
		free(key);
		free(text);
	}
	json_decref(metadata);
}

static int image_print(const struct rouse_image *image, const struct rouse_image_info *info)
{
	uint64_t kept = info->pages - info->zero_pages - info->duplicate_pages;
	struct rouse_block_info block;
	char id[33];

	hex(info->id, id);
	printf("%-14sRouse image, format %u, id %s\n", "type", info->version, id);
	print_metadata(info);
	printf("%-14s%s, of it %s at the front\n", "file", human_bytes(info->file_bytes).text,
		human_bytes(info->front_bytes).text);
	printf("%-14s%s in %llu pages: %llu zero, %llu stored for another, %llu stored\n", "RAM",
		human_bytes(info->ram_bytes).text, (unsigned long long)info->pages,
		(unsigned long long)info->zero_pages, (unsigned long long)info->duplicate_pages,
		(unsigned long long)kept);
	printf("%-14s%s in %llu chunks of up to %u pages, packed %.2f times\n", "stored",
		human_bytes(info->stored_bytes).text, (unsigned long long)info->chunks,
		info->chunk_pages,
		info->stored_bytes > 0 ? (double)kept * info->page_size / (double)info->stored_bytes
				       : 1);
	printf("%-14s%s\n", "devices", human_bytes(info->device_bytes).text);
	if (info->wset_pages > 0)
		printf("%-14s%llu pages, %s stored\n", "working set",
			(unsigned long long)info->wset_pages,
			human_bytes(info->wset_stored_bytes).text);
	else
		printf("%-14snone\n", "working set");
	for (uint32_t i = 0; i < info->block_count && rouse_image_get_block(image, i, &block) == 0;
		i++)
		printf("%-14s%s, %s\n", i == 0 ? "blocks" : "", block.name,
			human_bytes(block.used_bytes).text);
	return EXIT_SUCCESS;
}

static int inspect_image(const struct inspect *inspect, const char *path)
{
	struct rouse_image *image = NULL;
	struct rouse_image_info info;
	struct rouse_error error = {0};
	int code = rouse_image_open(path, &image, &error), exit_code;

	if (code < 0)
		return report_error(&error, code);
	rouse_image_get_info(image, &info);
	exit_code = inspect->json ? image_json(image, &info) : image_print(image, &info);
	rouse_image_close(image);
	return exit_code;
}

static int wset_print(const struct inspect *inspect, const struct rouse_wset *wset)
{
	struct rouse_wset_info info;
	uint64_t page, time_us;

	rouse_wset_get_info(wset, &info);
	printf("%-14sRouse working set%s\n", "type",
		info.complete ? "" : ", incomplete: touches of some pages may be missing");
	printf("%-14s%llu, the last one touched %s after the start\n", "pages",
		(unsigned long long)info.pages, human_us((double)info.span_us).text);
	printf("%-14s%s in %u blocks\n", "of a VM with", human_bytes(info.ram_bytes).text,
		info.block_count);
	for (uint64_t i = 0; inspect->pages && rouse_wset_get_page(wset, i, &page, &time_us) == 0;
		i++)
		printf("%llu %llu\n", (unsigned long long)page, (unsigned long long)time_us);
	return EXIT_SUCCESS;
}

static int inspect_wset(const struct inspect *inspect, const char *path)
{
	struct rouse_wset *wset = NULL;
	struct rouse_error error = {0};
	int code = rouse_wset_open(path, &wset, &error), exit_code;

	if (code < 0)
		return report_error(&error, code);
	exit_code =
		inspect->json ? wset_show_json(wset, inspect->pages) : wset_print(inspect, wset);
	rouse_wset_close(wset);
	return exit_code;
}

static int flat_json(const struct rouse_flat_info *info, const char *id)
{
	return print_json(json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:b}", "type", "flat", "id", id,
		"file_bytes", (json_int_t)info->file_bytes, "ram_bytes",
		(json_int_t)info->ram_bytes, "pages", (json_int_t)info->pages, "zero_pages",
		(json_int_t)info->zero_pages, "unchanged", info->unchanged));
}

static int inspect_flat(const struct inspect *inspect, const char *path)
{
	struct rouse_error error = {0};
	struct rouse_flat_info info;
	char id[33];
	int code = rouse_flat_get_info(path, &info, &error);

	if (code < 0)
		return report_error(&error, code);
	hex(info.id, id);
	if (inspect->json)
		return flat_json(&info, id);
	printf("%-14sRouse flat file, of the image with id %s\n", "type", id);
	printf("%-14s%s, zero pages are holes\n", "file", human_bytes(info.file_bytes).text);
	printf("%-14s%s in %llu pages, %llu of them zero\n", "RAM",
		human_bytes(info.ram_bytes).text, (unsigned long long)info.pages,
		(unsigned long long)info.zero_pages);
	if (!info.unchanged)
		printf("%-14sits time of modification is not that of its making: a restore checks "
		       "all of it first\n",
			"changed");
	return EXIT_SUCCESS;
}

static int run(const struct command *command, int argc, char **argv)
{
	struct inspect args = {0};
	struct arguments arguments;
	int exit_code = options_parse(command, argc, argv, &args, &arguments);

	if (exit_code >= 0)
		return exit_code;
	switch (file_kind(arguments.words[0])) {
	case FILE_WSET:
		return inspect_wset(&args, arguments.words[0]);
	case FILE_STALLS:
		message(MESSAGE_ERROR, "%s is a log of stalls: rouse ttr reads it",
			arguments.words[0]);
		return EXIT_FILE;
	case FILE_QEMU:
		message(MESSAGE_ERROR, "%s is a migration file of QEMU: rouse convert reads it",
			arguments.words[0]);
		return EXIT_FILE;
	case FILE_FLAT:
		return inspect_flat(&args, arguments.words[0]);
	case FILE_OTHER: /* opening it says what is wrong */
		break;
	}
	return inspect_image(&args, arguments.words[0]);
}

const struct command command_inspect = {
	.name = "inspect",
	.synopsis = "[OPTION]... FILE",
	.summary = "Describe an image, a flat or a working-set file",
	.text = "Reads the front of an image and the end of a flat file only: rouse verify checks "
		"all.",
	.options = options,
	.run = run,
	.min_arguments = 1,
	.max_arguments = 1,
};
