/* SPDX-License-Identifier: MIT */
/* Whether the command line that an image has is the one for its disks. */
#include "api/metadata.h"

#include "base/cleanup.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/*
 * Whether an argument names the file, whole: "NAME", "file=NAME,format=raw", "file:NAME",
 * "{\"filename\": \"NAME\"}"; and not the end of another file's name.
 */
static bool argument_names(const char *argument, const char *name, size_t length)
{
	for (const char *at = strstr(argument, name); at != NULL; at = strstr(at + 1, name)) {
		const bool begins = at == argument || strchr("=:\"", at[-1]) != NULL;
		const char end = at[length];

		if (begins && (end == '\0' || end == ',' || end == '"'))
			return true;
	}
	return false;
}

/* Whether @name is one of the texts in it, at any depth. */
static bool json_names(const json_t *value, const char *name)
{
	const char *key;
	json_t *member;

	if (json_is_string(value))
		return strcmp(json_string_value(value), name) == 0;
	json_object_foreach((json_t *)(uintptr_t)value, key, member)
	{
		if (json_names(member, name))
			return true;
	}
	return false;
}

/* An argument that is JSON may spell a character as its number, and a slash with a backslash. */
static bool json_argument_names(const char *argument, const char *name)
{
	json_t *root = argument[0] == '{' ? json_loads(argument, 0, NULL) : NULL;
	const bool names = json_names(root, name);

	json_decref(root);
	return names;
}

static bool is_named(const struct rouse_metadata *metadata, const char *name)
{
	for (size_t i = 0; i < metadata->argument_count; i++) {
		const char *argument = metadata->command_line[i];

		if (argument_names(argument, name, strlen(name)) ||
			json_argument_names(argument, name))
			return true;
	}
	return false;
}

/* What QEMU calls a disk that no plain name stands for: options. The file at its bottom, or NULL.
 */
static char *file_of_json(const char *text)
{
	json_t *root = json_loads(text, 0, NULL);
	const json_t *at = root;
	const char *name = NULL;
	char *copy;

	while (name == NULL && json_is_object(at)) {
		name = json_string_value(json_object_get(at, "filename"));
		at = json_object_get(at, "file");
	}
	copy = name != NULL ? strdup(name) : NULL;
	json_decref(root);
	return copy;
}

char *rouse_metadata_disk_file(const struct rouse_metadata_disk *disk)
{
	cleanup_free char *made = NULL;
	const char *name = disk->file != NULL ? disk->file : "";

	if (strncmp(name, "json:", 5) == 0) {
		made = file_of_json(name + 5);
		name = made != NULL ? made : "";
	}
	if (strncmp(name, "file:", 5) == 0)
		name += 5;
	if (name[0] == '\0' || strncmp(name, "/dev/fdset/", 11) == 0)
		return NULL;
	return name[0] == '/' || strpbrk(name, ":{") == NULL ? strdup(name) : NULL;
}

static bool disk_is_named(
	const struct rouse_metadata *metadata, const struct rouse_metadata_disk *disk)
{
	const size_t length = metadata->cwd != NULL ? strlen(metadata->cwd) : 0;
	cleanup_free char *name = rouse_metadata_disk_file(disk);

	/* An argument would spell these with escapes. */
	if (name == NULL || strpbrk(name, ",\"\\") != NULL || is_named(metadata, name))
		return true;
	/* Named from where QEMU was started. */
	return length > 0 && strncmp(name, metadata->cwd, length) == 0 && name[length] == '/' &&
	       is_named(metadata, name + length + 1);
}

static const struct rouse_metadata_disk *find_unnamed(const struct rouse_metadata *metadata,
	const struct rouse_metadata_disk *disks, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (!disk_is_named(metadata, &disks[i]))
			return &disks[i];
	}
	return NULL;
}

const struct rouse_metadata_disk *rouse_metadata_unnamed_disk(const struct rouse_metadata *metadata)
{
	const struct rouse_metadata_disk *disk;

	if (metadata->argument_count == 0)
		return NULL;
	for (size_t i = 0; i < metadata->argument_count; i++) {
		const char *argument = metadata->command_line[i];

		if (strcmp(argument, "-readconfig") == 0 || strcmp(argument, "--readconfig") == 0)
			return NULL;
	}
	disk = find_unnamed(metadata, metadata->disks, metadata->disk_count);
	return disk != NULL ? disk
			    : find_unnamed(metadata, metadata->media, metadata->medium_count);
}
