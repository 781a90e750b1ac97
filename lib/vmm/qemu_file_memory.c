/* SPDX-License-Identifier: MIT */
#include "vmm/qemu_file_memory.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "vmm/qemu_object.h"
#include "vmm/qemu_process.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_TYPE "memory-backend-file"
#define RAM_TYPE "memory-backend-ram"

/* What says where the memory of an object comes from. */
struct backend {
	bool is_file, shared;
	char path[PATH_MAX];
};

static void take_property(void *user, const char *name, const char *value)
{
	struct backend *backend = user;

	if (strcmp(name, "qom-type") == 0)
		backend->is_file = strcmp(value, FILE_TYPE) == 0;
	else if (strcmp(name, "share") == 0)
		backend->shared = strcmp(value, "on") == 0 || strcmp(value, "yes") == 0 ||
				  strcmp(value, "true") == 0 || strcmp(value, "y") == 0;
	else if (strcmp(name, "mem-path") == 0)
		(void)snprintf(backend->path, sizeof(backend->path), "%s", value);
}

/* What memory-backend-ram has not got. */
static bool is_of_files(const char *name)
{
	static const char *const names[] = {
		"mem-path", "align", "offset", "discard-data", "pmem", "readonly", "rom"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(name, names[i]) == 0)
			return true;
	}
	return false;
}

/* ---- The object as anonymous memory --------------------------------------------------------- */

/* The list without what is of files. */
static char *list_as_ram(const char *text)
{
	/* Commas are written again as they were. */
	char *made = malloc(strlen(RAM_TYPE) + strlen(text) + 2), *to = made;
	char word[QEMU_OBJECT_WORD];

	if (made == NULL)
		return NULL;
	to = stpcpy(to, RAM_TYPE);
	for (bool first = true; *text != '\0'; first = false) {
		const char *begin = text;
		char *value;

		text = qemu_object_word(text, word);
		value = strchr(word, '=');
		if (value != NULL)
			*value = '\0';
		if (is_of_files(word) || strcmp(word, "qom-type") == 0 || (first && value == NULL))
			continue;
		*to++ = ',';
		/* Behind it is a comma, unless it is the last one. */
		to = mempcpy(to, begin, (size_t)(text - begin) - (*text != '\0'));
		*to = '\0';
	}
	return made;
}

static char *json_as_ram(const char *text)
{
	json_t *root = json_loads(text, 0, NULL), *value;
	const char *name;
	void *next;
	char *made = NULL;

	json_object_foreach_safe(root, next, name, value)
	{
		if (is_of_files(name))
			(void)json_object_del(root, name);
	}
	if (root != NULL && json_object_set_new(root, "qom-type", json_string(RAM_TYPE)) == 0)
		made = json_dumps(root, JSON_COMPACT);
	json_decref(root);
	return made;
}

/* ---- The command line ----------------------------------------------------------------------- */

/* Whether QEMU would map just this file: it makes one where there is none. */
static bool is_single_file(const char *path, const char *directory, char full[PATH_MAX])
{
	struct stat status;

	if (path[0] == '/' || directory == NULL)
		(void)snprintf(full, PATH_MAX, "%s", path);
	else if (snprintf(full, PATH_MAX, "%s/%s", directory, path) >= PATH_MAX)
		return true;
	return stat(full, &status) < 0 || !S_ISDIR(status.st_mode);
}

/*
 * A lease to write is given only if nobody else has the file open. Who opens it while we have the
 * lease waits until we close it, and we are told by a signal: one that nobody minds.
 */
static int check_nobody_has(const char *path, struct rouse_error *error)
{
	cleanup_close int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0 || fcntl(fd, F_SETSIG, SIGURG) < 0 || fcntl(fd, F_SETLEASE, F_WRLCK) == 0 ||
		errno != EAGAIN)
		return 0;
	return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EBUSY,
		"the VM's memory is the file %s, which another process has open: a VM that runs "
		"from it would lose its memory. End it, or give QEMU's command after --, with "
		"another file",
		path);
}

static int rewrite_object(struct qemu_file_memory_command *command, const char **value,
	const char *directory, const char *kept, struct rouse_error *error)
{
	struct backend backend = {0};
	char full[PATH_MAX], *made;

	if (*value == kept)
		return 0;
	qemu_object_read(*value, take_property, &backend);
	if (!backend.is_file || !is_single_file(backend.path, directory, full))
		return 0;
	if (backend.shared)
		return check_nobody_has(full, error);
	made = (*value)[0] == '{' ? json_as_ram(*value) : list_as_ram(*value);
	if (made == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot rewrite QEMU's command line");
	command->texts[command->text_count++] = made;
	command->left_out = *value;
	*value = made;
	return 0;
}

int qemu_file_memory_command(const char *const *argv, const char *directory, const char *kept,
	struct qemu_file_memory_command *command, struct rouse_error *error)
{
	size_t count = 0, out = 0;
	char full[PATH_MAX];
	int code = 0;

	*command = (struct qemu_file_memory_command){0};
	while (argv[count] != NULL)
		count++;
	command->argv = calloc(count + 1, sizeof(*command->argv));
	command->texts = calloc(count + 1, sizeof(*command->texts));
	if (command->argv == NULL || command->texts == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot rewrite QEMU's command line");
	for (size_t i = 0; code == 0 && i < count; i++) {
		const char *value = argv[i + 1];

		if (value != NULL && qemu_process_is_option(argv[i], "mem-path") &&
			is_single_file(value, directory, full)) {
			command->left_out = argv[++i];
			continue;
		}
		command->argv[out++] = argv[i];
		if (value == NULL || !qemu_process_is_option(argv[i], "object"))
			continue;
		code = rewrite_object(command, &value, directory, kept, error);
		command->argv[out++] = value;
		i++;
	}
	return code;
}

void qemu_file_memory_finish(struct qemu_file_memory_command *command)
{
	for (size_t i = 0; i < command->text_count; i++)
		free(command->texts[i]);
	free(command->texts);
	free(command->argv);
	*command = (struct qemu_file_memory_command){0};
}

/* ---- A QEMU that waits ---------------------------------------------------------------------- */

static void json_free(json_t **value)
{
	json_decref(*value);
}

static int check_backend(struct qmp *qmp, const char *id, struct rouse_error *error)
{
	cleanup_with(json_free) json_t *result = NULL;
	char name[512], full[PATH_MAX];
	struct rouse_error why = {0};
	int code;

	(void)snprintf(name, sizeof(name), "/objects/%s", id);
	code = qmp_execute(qmp, "qom-get",
		json_pack("{s:s, s:s}", "path", name, "property", "mem-path"), &result, &why);
	/* An object that is no file has no such property. */
	if (code == -EREMOTEIO)
		return 0;
	if (code < 0 && error != NULL)
		*error = why;
	if (code < 0 || !json_is_string(result) ||
		!is_single_file(json_string_value(result), NULL, full))
		return code;
	return rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, -ENOTSUP,
		"the memory of the QEMU that waits is a private mapping of %s, into which it would "
		"punch holes: start it with memory-backend-ram, or use --policy eager; "
		"--backend map is for flat files",
		full);
}

int qemu_file_memory_check(struct qmp *qmp, struct rouse_error *error)
{
	cleanup_with(json_free) json_t *list = NULL;
	const json_t *each;
	size_t i;
	int code = qmp_execute(qmp, "query-memdev", NULL, &list, error);

	if (code < 0)
		return code;
	json_array_foreach(list, i, each)
	{
		const char *id = json_string_value(json_object_get(each, "id"));

		if (id == NULL || json_is_true(json_object_get(each, "share")))
			continue;
		code = check_backend(qmp, id, error);
		if (code < 0)
			return code;
	}
	return 0;
}
