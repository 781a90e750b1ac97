/* SPDX-License-Identifier: MIT */
#include "api/metadata.h"

#include "base/error.h"
#include "image/format.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static void disk_finish(struct rouse_metadata_disk *disk)
{
	free(disk->device);
	free(disk->node);
	free(disk->file);
	free(disk->format);
	free(disk->overlay);
}

static void disks_finish(struct rouse_metadata_disk *disks, size_t count)
{
	for (size_t i = 0; i < count; i++)
		disk_finish(&disks[i]);
	free(disks);
}

void rouse_metadata_finish(struct rouse_metadata *metadata)
{
	free(metadata->vmm);
	free(metadata->qemu_version);
	free(metadata->machine);
	free(metadata->executable);
	free(metadata->cwd);
	free(metadata->saved_at);
	for (size_t i = 0; i < metadata->argument_count; i++)
		free(metadata->command_line[i]);
	free(metadata->command_line);
	disks_finish(metadata->disks, metadata->disk_count);
	disks_finish(metadata->media, metadata->medium_count);
	memset(metadata, 0, sizeof(*metadata));
}

/* Sets @key unless the text is NULL or not UTF-8. */
static void put_text(json_t *object, const char *key, const char *text)
{
	if (text != NULL)
		(void)json_object_set_new(object, key, json_string(text));
}

static json_t *command_line_build(const struct rouse_metadata *metadata)
{
	json_t *array = json_array();

	for (size_t i = 0; i < metadata->argument_count; i++) {
		if (json_array_append_new(array, json_string(metadata->command_line[i])) < 0) {
			json_decref(array);
			return NULL;
		}
	}
	return array;
}

static json_t *disks_build(const struct rouse_metadata_disk *disks, size_t count)
{
	json_t *array = json_array();

	for (size_t i = 0; i < count; i++) {
		const struct rouse_metadata_disk *disk = &disks[i];
		json_t *object = json_object();

		put_text(object, "device", disk->device);
		put_text(object, "node", disk->node);
		put_text(object, "file", disk->file);
		put_text(object, "format", disk->format);
		put_text(object, "overlay", disk->overlay);
		(void)json_array_append_new(array, object);
	}
	return array;
}

int rouse_metadata_build(const struct rouse_metadata *metadata, char **text, size_t *size)
{
	json_t *root = json_pack("{s:i, s:I, s:I, s:I, s:b, s:b}", "format", ROUSE_METADATA_FORMAT,
		"vcpus", (json_int_t)metadata->vcpus, "ram_bytes", (json_int_t)metadata->ram_bytes,
		"memory_bytes", (json_int_t)metadata->memory_bytes, "was_running",
		metadata->was_running, "kept_running", metadata->kept_running);
	json_t *command_line;
	char *out;

	if (root == NULL)
		return -ENOMEM;
	put_text(root, "vmm", metadata->vmm);
	put_text(root, "qemu_version", metadata->qemu_version);
	put_text(root, "machine", metadata->machine);
	put_text(root, "saved_at", metadata->saved_at);
	put_text(root, "executable", metadata->executable);
	put_text(root, "cwd", metadata->cwd);
	command_line = metadata->command_line != NULL ? command_line_build(metadata) : NULL;
	if (command_line != NULL)
		(void)json_object_set_new(root, "command_line", command_line);
	(void)json_object_set_new(
		root, "disks", disks_build(metadata->disks, metadata->disk_count));
	(void)json_object_set_new(
		root, "media", disks_build(metadata->media, metadata->medium_count));
	out = json_dumps(root, JSON_INDENT(1));
	json_decref(root);
	if (out == NULL)
		return -ENOMEM;
	*size = strlen(out);
	if (*size > ROUSE_IMAGE_MAX_METADATA) {
		free(out);
		return -EFBIG;
	}
	*text = out;
	return 0;
}

/*
 * Takes a member of type text into *out. One that is missing or null stays NULL. jansson refuses
 * NULs inside strings, so that a copy of it is the whole of it.
 */
static int get_text(const json_t *object, const char *key, char **out)
{
	const json_t *value = json_object_get(object, key);

	if (value == NULL || json_is_null(value))
		return 0;
	if (!json_is_string(value))
		return -EUCLEAN;
	*out = strdup(json_string_value(value));
	return *out != NULL ? 0 : -ENOMEM;
}

static int get_number(const json_t *object, const char *key, uint64_t max, uint64_t *out)
{
	const json_t *value = json_object_get(object, key);

	if (value == NULL)
		return 0;
	if (!json_is_integer(value) || json_integer_value(value) < 0 ||
		(uint64_t)json_integer_value(value) > max)
		return -EUCLEAN;
	*out = (uint64_t)json_integer_value(value);
	return 0;
}

static int get_flag(const json_t *object, const char *key, bool *out)
{
	const json_t *value = json_object_get(object, key);

	if (value == NULL)
		return 0;
	if (!json_is_boolean(value))
		return -EUCLEAN;
	*out = json_is_true(value);
	return 0;
}

static int command_line_parse(const json_t *root, struct rouse_metadata *metadata)
{
	const json_t *array = json_object_get(root, "command_line");
	size_t count = json_array_size(array);

	if (array == NULL)
		return 0;
	if (!json_is_array(array) || count == 0 || count > ROUSE_METADATA_MAX_ARGUMENTS)
		return -EUCLEAN;
	metadata->command_line = calloc(count + 1, sizeof(*metadata->command_line));
	if (metadata->command_line == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		const char *text = json_string_value(json_array_get(array, i));

		if (text == NULL)
			return -EUCLEAN;
		metadata->command_line[i] = strdup(text);
		if (metadata->command_line[i] == NULL)
			return -ENOMEM;
		metadata->argument_count = i + 1;
	}
	return 0;
}

static int disk_parse(const json_t *object, struct rouse_metadata_disk *disk)
{
	int code = json_is_object(object) ? 0 : -EUCLEAN;

	if (code == 0)
		code = get_text(object, "device", &disk->device);
	if (code == 0)
		code = get_text(object, "node", &disk->node);
	if (code == 0)
		code = get_text(object, "file", &disk->file);
	if (code == 0)
		code = get_text(object, "format", &disk->format);
	if (code == 0)
		code = get_text(object, "overlay", &disk->overlay);
	return code;
}

static int disks_parse(const json_t *array, struct rouse_metadata_disk **disks, size_t *disk_count)
{
	size_t count = json_array_size(array);
	int code = 0;

	if (array == NULL)
		return 0;
	if (!json_is_array(array) || count > ROUSE_METADATA_MAX_DISKS)
		return -EUCLEAN;
	if (count == 0)
		return 0;
	*disks = calloc(count, sizeof(**disks));
	if (*disks == NULL)
		return -ENOMEM;
	*disk_count = count;
	for (size_t i = 0; code == 0 && i < count; i++)
		code = disk_parse(json_array_get(array, i), &(*disks)[i]);
	return code;
}

static int members_parse(const json_t *root, struct rouse_metadata *metadata)
{
	static const struct {
		const char *key;
		size_t offset;
	} texts[] = {
		{"vmm", offsetof(struct rouse_metadata, vmm)},
		{"qemu_version", offsetof(struct rouse_metadata, qemu_version)},
		{"machine", offsetof(struct rouse_metadata, machine)},
		{"saved_at", offsetof(struct rouse_metadata, saved_at)},
		{"executable", offsetof(struct rouse_metadata, executable)},
		{"cwd", offsetof(struct rouse_metadata, cwd)},
	};
	uint64_t vcpus = 0;
	int code = 0;

	for (size_t i = 0; code == 0 && i < sizeof(texts) / sizeof(texts[0]); i++)
		code = get_text(root, texts[i].key, (char **)((char *)metadata + texts[i].offset));
	if (code == 0)
		code = get_number(root, "vcpus", 65535, &vcpus);
	metadata->vcpus = (unsigned int)vcpus;
	if (code == 0)
		code = get_number(root, "ram_bytes", INT64_MAX, &metadata->ram_bytes);
	if (code == 0)
		code = get_number(root, "memory_bytes", INT64_MAX, &metadata->memory_bytes);
	if (code == 0)
		code = get_flag(root, "was_running", &metadata->was_running);
	if (code == 0)
		code = get_flag(root, "kept_running", &metadata->kept_running);
	if (code == 0)
		code = command_line_parse(root, metadata);
	if (code == 0)
		code = disks_parse(
			json_object_get(root, "disks"), &metadata->disks, &metadata->disk_count);
	if (code == 0)
		code = disks_parse(
			json_object_get(root, "media"), &metadata->media, &metadata->medium_count);
	return code;
}

int rouse_metadata_parse(
	const char *text, size_t size, struct rouse_metadata *metadata, struct rouse_error *error)
{
	json_t *root = NULL;
	uint64_t format = 0;
	int code = -EUCLEAN;

	memset(metadata, 0, sizeof(*metadata));
	if (size <= ROUSE_IMAGE_MAX_METADATA)
		root = json_loadb(text, size, 0, NULL);
	if (json_is_object(root))
		code = get_number(root, "format", INT64_MAX, &format);
	if (code == 0 && format == 0)
		code = -EUCLEAN;
	if (code == 0 && format > ROUSE_METADATA_FORMAT)
		code = -EPROTONOSUPPORT;
	if (code == 0)
		code = members_parse(root, metadata);
	json_decref(root);
	if (code == -EPROTONOSUPPORT)
		return rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, code,
			"the image's metadata has format %llu: it needs a newer Rouse",
			(unsigned long long)format);
	if (code == -EUCLEAN)
		return rouse_error_set(
			error, ROUSE_ERROR_DAMAGED, code, "the image's metadata makes no sense");
	if (code < 0)
		return rouse_error_errno(error, code, "cannot read the image's metadata");
	return 0;
}
