/* SPDX-License-Identifier: MIT */
#include "api/save_memory.h"

#include "base/cleanup.h"
#include "base/io.h"

#include <inttypes.h>
#include <string.h>

/* Of the available memory, for a VM that runs meanwhile. */
#define DRAIN_SHARE 2
#define DRAIN_LEAST_BYTES (UINT64_C(64) << 20)
#define TEXT_MAX (1u << 20)

/* A tree of control groups that can limit memory. */
struct tree {
	const char *controllers; /* what /proc/self/cgroup calls it by */
	const char *mount;
	const char *limit, *used; /* files of a group */
	const char *unused;       /* in its memory.stat: file pages, those of groups below too */
};

static const struct tree trees[] = {
	{"", "/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"},
	{"", "/sys/fs/cgroup/unified", "memory.max", "memory.current", "inactive_file"},
	{"memory", "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
		"total_inactive_file"},
};

/* ---- what the kernel's texts say ----------------------------------------------------------- */

static const char *next_line(const char *line)
{
	const char *end = strchr(line, '\n');

	return end != NULL ? end + 1 : NULL;
}

/* The number behind the name that a line begins with; "" is any line's. "max" is none. */
static bool find_number(const char *text, const char *name, uint64_t *number)
{
	const size_t length = strlen(name);

	for (const char *line = text; line != NULL; line = next_line(line)) {
		if (strncmp(line, name, length) == 0 &&
			sscanf(line + length, "%" SCNu64, number) == 1)
			return true;
	}
	return false;
}

/* Whether a name is one of a list with commas; "" is in an empty one only. */
static bool is_listed(const char *list, size_t size, const char *name)
{
	const size_t length = strlen(name);

	for (size_t at = 0; at + length <= size; at++) {
		const bool begins = at == 0 || list[at - 1] == ',';
		const bool ends = at + length == size || list[at + length] == ',';

		if (begins && ends && memcmp(list + at, name, length) == 0)
			return true;
	}
	return false;
}

/* The group in a text of lines "NUMBER:CONTROLLERS:PATH". Its length; 0: there is none. */
static size_t find_group(const char *text, const char *controllers, const char **path)
{
	for (const char *line = text; line != NULL; line = next_line(line)) {
		const char *list = line + strcspn(line, ":\n");
		size_t size;

		if (*list != ':')
			continue;
		list++;
		size = strcspn(list, ":\n");
		if (list[size] != ':' || !is_listed(list, size, controllers))
			continue;
		*path = list + size + 1;
		if (**path == '/')
			return strcspn(*path, "\n");
	}
	return 0;
}

/* ---- reading them -------------------------------------------------------------------------- */

/* The text of a file, to be freed. NULL: it is not there. */
static char *read_text(const char *folder, const char *name)
{
	cleanup_free char *path = NULL;
	char *text = NULL;
	size_t size;

	if (asprintf(&path, "%s/%s", folder, name) < 0) {
		path = NULL;
		return NULL;
	}
	return rouse_io_read_file(path, TEXT_MAX, &text, &size) == 0 ? text : NULL;
}

static bool read_number(const char *folder, const char *file, const char *name, uint64_t *number)
{
	cleanup_free char *text = read_text(folder, file);

	return text != NULL && find_number(text, name, number);
}

/* What a group leaves, in bytes. UINT64_MAX: it has no limit. */
static uint64_t group_room(const struct tree *tree, const char *folder)
{
	uint64_t limit, used, unused = 0;

	if (!read_number(folder, tree->limit, "", &limit) ||
		!read_number(folder, tree->used, "", &used))
		return UINT64_MAX;
	(void)read_number(folder, "memory.stat", tree->unused, &unused);
	used -= unused < used ? unused : used;
	return used < limit ? limit - used : 0;
}

/* What the group and all above it leave: a container may see only those at the top. */
static uint64_t tree_room(const struct tree *tree, const char *root, const char *groups)
{
	cleanup_free char *folder = NULL;
	uint64_t least = UINT64_MAX;
	const char *path = NULL;
	size_t length = find_group(groups, tree->controllers, &path);
	char *end;

	if (length == 0 ||
		asprintf(&folder, "%s%s%.*s", root, tree->mount, (int)length, path) < 0) {
		folder = NULL;
		return UINT64_MAX;
	}
	path = folder + strlen(root) + strlen(tree->mount);
	do {
		uint64_t room = group_room(tree, folder);

		least = room < least ? room : least;
		end = strrchr(path, '/');
		if (end != NULL)
			*end = '\0';
	} while (end != NULL);
	return least;
}

uint64_t save_memory_available(const char *root)
{
	cleanup_free char *groups = NULL, *proc = NULL;
	uint64_t kib = 0, least;

	if (asprintf(&proc, "%s/proc", root) < 0) {
		proc = NULL;
		return 0;
	}
	if (!read_number(proc, "meminfo", "MemAvailable:", &kib))
		return 0;
	least = kib * 1024;
	groups = read_text(proc, "self/cgroup");
	for (size_t i = 0; groups != NULL && i < sizeof(trees) / sizeof(trees[0]); i++) {
		uint64_t room = tree_room(&trees[i], root, groups);

		least = room < least ? room : least;
	}
	return least;
}

uint64_t save_memory_drain_limit(const char *root, bool keep_running)
{
	uint64_t share = keep_running ? save_memory_available(root) / DRAIN_SHARE : 0;

	return share > DRAIN_LEAST_BYTES ? share : DRAIN_LEAST_BYTES;
}
