/* SPDX-License-Identifier: MIT */
#include "vmm/qemu_map.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "vmm/qemu_object.h"
#include "vmm/qemu_process.h"

#include <string.h>

#define CANONICAL "/objects/"

/* ---- The memory object --------------------------------------------------------------------- */

/* The new object's text while it is made, and what the old one was. */
struct object {
	char type[64];
	char id[256];
	char kept[512]; /* ",NAME=VALUE" of properties that stay */
	char refused[64];
};

/*
 * What becomes of a property. Those that say where memory comes from are replaced; where it is
 * placed on NUMA nodes cannot be kept, because pages of a shared page cache lie where they lie.
 */
static bool is_kept(const char *name)
{
	return strcmp(name, "merge") == 0 || strcmp(name, "dump") == 0;
}

static bool is_replaced(const char *name)
{
	static const char *const names[] = {"size", "share", "prealloc", "prealloc-threads",
		"prealloc-context", "mem-path", "hugetlb", "hugetlbsize", "seal", "readonly", "rom",
		"pmem", "align", "offset", "discard-data", "reserve",
		"x-use-canonical-path-for-ramblock-id"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(name, names[i]) == 0)
			return true;
	}
	return false;
}

static void take_property(void *user, const char *name, const char *value)
{
	struct object *object = user;
	const size_t used = strlen(object->kept);

	if (strcmp(name, "qom-type") == 0)
		(void)snprintf(object->type, sizeof(object->type), "%s", value);
	else if (strcmp(name, "id") == 0)
		(void)snprintf(object->id, sizeof(object->id), "%s", value);
	else if (is_kept(name))
		(void)snprintf(
			object->kept + used, sizeof(object->kept) - used, ",%s=%s", name, value);
	else if (!is_replaced(name))
		(void)snprintf(object->refused, sizeof(object->refused), "%s", name);
}

static void read_object(const char *text, struct object *object)
{
	*object = (struct object){0};
	qemu_object_read(text, take_property, object);
}

/* The object's id out of the block's name: *canonical: the name is the object's path. */
static const char *id_of(const struct qemu_map_file *file, bool *canonical)
{
	*canonical = strncmp(file->block, CANONICAL, strlen(CANONICAL)) == 0;
	return *canonical ? file->block + strlen(CANONICAL) : file->block;
}

static int make_object(
	const struct qemu_map_file *file, const char *kept, struct qemu_map_command *command)
{
	cleanup_free char *path = qemu_object_escape(file->path);
	bool canonical;
	const char *id = id_of(file, &canonical);

	/* The block's name is what the stream calls it by, whatever the machine's default is. */
	if (path == NULL || asprintf(&command->object,
				    "memory-backend-file,id=%s,size=%llu,mem-path=%s,share=off,"
				    "x-use-canonical-path-for-ramblock-id=%s%s",
				    id, (unsigned long long)file->bytes, path,
				    canonical ? "on" : "off", kept) < 0) {
		command->object = NULL;
		return -ENOMEM;
	}
	return 0;
}

/* ---- The command line ----------------------------------------------------------------------- */

static int refuse(struct rouse_error *error, const char *option, const char *why)
{
	return rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, -ENOTSUP,
		"the VM's memory cannot be mapped from a file: %s: %s", option, why);
}

static int check_machine(const char *machine, struct rouse_error *error)
{
	static const char *const known[] = {"pc-", "microvm"};

	for (size_t i = 0; machine != NULL && i < sizeof(known) / sizeof(known[0]); i++) {
		if (strncmp(machine, known[i], strlen(known[i])) == 0)
			return 0;
	}
	return refuse(error, machine != NULL ? machine : "an unknown machine",
		"only pc, q35 and microvm are known");
}

/* An option with a value that does not go with a private file as memory. */
static int check_option(const char *option, const char *value, struct rouse_error *error)
{
	static const struct {
		const char *word, *why;
	} devices[] = {
		/* virtio's and Hyper-V's. */
		{"balloon", "a balloon would punch holes into the file"},
		{"virtio-mem", "it would punch holes into the file"},
		{"vhost-user", "another process needs the memory shared"},
	};

	if (qemu_process_is_option(option, "readconfig"))
		return refuse(error, "-readconfig", "it has options that Rouse does not see");
	if (!qemu_process_is_option(option, "device") && !qemu_process_is_option(option, "netdev"))
		return 0;
	for (size_t i = 0; i < sizeof(devices) / sizeof(devices[0]); i++) {
		if (strstr(value, devices[i].word) != NULL)
			return refuse(error, devices[i].word, devices[i].why);
	}
	return 0;
}

/* What one pass over the arguments finds out. */
struct rewriting {
	const struct qemu_map_file *file;
	const char *id;
	struct qemu_map_command *command;
	size_t count;
	bool replaced; /* an object of that id was there */
	bool chosen;   /* -machine memory-backend= was there */
};

static void add(struct rewriting *r, const char *argument)
{
	r->command->argv[r->count++] = argument;
}

static int rewrite_object(struct rewriting *r, const char *value, struct rouse_error *error)
{
	struct object object;

	read_object(value, &object);
	if (strncmp(object.type, "memory-backend-", strlen("memory-backend-")) != 0 ||
		strcmp(object.id, r->id) != 0) {
		add(r, value);
		return 0;
	}
	if (object.refused[0] != '\0')
		return refuse(error, object.refused, "it has no meaning for memory from a file");
	if (r->replaced || make_object(r->file, object.kept, r->command) < 0)
		return rouse_error_errno(error, -ENOMEM, "cannot rewrite QEMU's command line");
	r->replaced = true;
	add(r, r->command->object);
	return 0;
}

/* Takes an argument, with its value if it has one; *taken: how many that were. */
static int rewrite(
	struct rewriting *r, const char *const *argv, size_t *taken, struct rouse_error *error)
{
	const char *value = argv[1];
	int code;

	*taken = 1;
	if (qemu_process_is_option(argv[0], "mem-prealloc"))
		return 0;
	if (value == NULL) {
		add(r, argv[0]);
		return 0;
	}
	if (qemu_process_is_option(argv[0], "mem-path")) {
		*taken = 2;
		return 0;
	}
	code = check_option(argv[0], value, error);
	if (code < 0)
		return code;
	add(r, argv[0]);
	if (qemu_process_is_option(argv[0], "machine") || qemu_process_is_option(argv[0], "M"))
		r->chosen = r->chosen || strstr(value, "memory-backend=") != NULL;
	if (!qemu_process_is_option(argv[0], "object"))
		return 0;
	*taken = 2;
	return rewrite_object(r, value, error);
}

/* The default memory, which has no object: gives it one. */
static int add_object(struct rewriting *r, struct rouse_error *error)
{
	if (r->chosen)
		return refuse(error, "memory-backend",
			"there is no -object memory-backend-... of the RAM block's name");
	if (make_object(r->file, "", r->command) < 0 ||
		asprintf(&r->command->machine, "memory-backend=%s", r->id) < 0) {
		r->command->machine = NULL;
		return rouse_error_errno(error, -ENOMEM, "cannot rewrite QEMU's command line");
	}
	add(r, "-object");
	add(r, r->command->object);
	add(r, "-machine");
	add(r, r->command->machine);
	return 0;
}

int qemu_map_command(const char *const *argv, const struct qemu_map_file *file,
	struct qemu_map_command *command, struct rouse_error *error)
{
	struct rewriting r = {.file = file, .command = command};
	bool canonical;
	size_t count = 0, taken;
	int code;

	*command = (struct qemu_map_command){0};
	code = check_machine(file->machine, error);
	if (code < 0)
		return code;
	while (argv[count] != NULL)
		count++;
	command->argv = calloc(count + 5, sizeof(*command->argv));
	if (command->argv == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot rewrite QEMU's command line");
	r.id = id_of(file, &canonical);
	for (; code == 0 && *argv != NULL; argv += taken)
		code = rewrite(&r, argv, &taken, error);
	if (code == 0 && !r.replaced)
		code = add_object(&r, error);
	return code;
}

void qemu_map_command_finish(struct qemu_map_command *command)
{
	free(command->argv);
	free(command->object);
	free(command->machine);
	*command = (struct qemu_map_command){0};
}

int qemu_map_check_devices(const void *devices, size_t size, struct rouse_error *error)
{
	/* A section's name ends in the device's: "0000:00:04.0/virtio-balloon". */
	static const char *const names[] = {"/virtio-balloon", "/virtio-mem"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (size > 0 && memmem(devices, size, names[i], strlen(names[i])) != NULL)
			return refuse(error, names[i] + 1,
				"it gives memory back, and QEMU would punch holes into the file "
				"that other VMs map");
	}
	return 0;
}
