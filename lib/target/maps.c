/* SPDX-License-Identifier: MIT */
/* /proc/PID/maps: "start-end perms offset major:minor inode   name". */
#include "base/cleanup.h"
#include "base/io.h"
#include "target/target_private.h"

#include <string.h>

#define MAX_MAPS_BYTES (64u << 20)

/* What is left of a line. */
struct cursor {
	const char *at, *end;
};

static bool take_number(struct cursor *cursor, unsigned int base, uint64_t *value)
{
	const char *began = cursor->at;

	*value = 0;
	for (; cursor->at < cursor->end; cursor->at++) {
		const char c = *cursor->at;
		unsigned int digit;

		if (c >= '0' && c <= '9')
			digit = (unsigned int)(c - '0');
		else if (base == 16 && c >= 'a' && c <= 'f')
			digit = (unsigned int)(c - 'a') + 10;
		else
			break;
		if (*value > (UINT64_MAX - digit) / base)
			return false;
		*value = *value * base + digit;
	}
	return cursor->at > began;
}

static bool take_char(struct cursor *cursor, char c)
{
	if (cursor->at >= cursor->end || *cursor->at != c)
		return false;
	cursor->at++;
	return true;
}

/* One of the letters of "rwxp": '-' is no; 's' in place of 'p' is shared. */
static bool take_flag(struct cursor *cursor, char yes, char no, bool *flag)
{
	if (cursor->at >= cursor->end || (*cursor->at != yes && *cursor->at != no))
		return false;
	*flag = *cursor->at++ == yes;
	return true;
}

int target_map_parse(const char *line, size_t length, struct target_map *map)
{
	struct cursor cursor = {line, line + length};
	uint64_t device;
	size_t name;

	memset(map, 0, sizeof(*map));
	if (!take_number(&cursor, 16, &map->start) || !take_char(&cursor, '-') ||
		!take_number(&cursor, 16, &map->end) || !take_char(&cursor, ' ') ||
		!take_flag(&cursor, 'r', '-', &map->read) ||
		!take_flag(&cursor, 'w', '-', &map->write) ||
		!take_flag(&cursor, 'x', '-', &map->execute) ||
		!take_flag(&cursor, 's', 'p', &map->shared) || !take_char(&cursor, ' ') ||
		!take_number(&cursor, 16, &map->offset) || !take_char(&cursor, ' ') ||
		!take_number(&cursor, 16, &device) || !take_char(&cursor, ':') ||
		!take_number(&cursor, 16, &device) || !take_char(&cursor, ' ') ||
		!take_number(&cursor, 10, &map->inode) || map->start >= map->end)
		return -EUCLEAN;
	while (take_char(&cursor, ' '))
		;
	name = (size_t)(cursor.end - cursor.at);
	if (name >= sizeof(map->name))
		name = sizeof(map->name) - 1;
	memcpy(map->name, cursor.at, name);
	return 0;
}

static int parse_all(const char *text, size_t size, struct target_map *maps, size_t *count)
{
	const char *end = text + size;

	for (*count = 0; text < end; (*count)++) {
		const char *newline = memchr(text, '\n', (size_t)(end - text));
		size_t length = (size_t)((newline != NULL ? newline : end) - text);
		int code = target_map_parse(text, length, &maps[*count]);

		if (code < 0)
			return code;
		text += length + 1;
	}
	return 0;
}

int target_maps(const struct target *target, struct target_map **maps, size_t *count,
	struct rouse_error *error)
{
	cleanup_free struct target_map *list = NULL;
	cleanup_free char *text = NULL;
	size_t size, lines = 1;
	char path[64];
	int code;

	(void)snprintf(path, sizeof(path), "/proc/%d/maps", target->pid);
	code = rouse_io_read_file(path, MAX_MAPS_BYTES, &text, &size);
	if (code < 0)
		return rouse_error_errno(error, code, "cannot read %s", path);
	for (size_t i = 0; i < size; i++)
		lines += text[i] == '\n';
	list = calloc(lines, sizeof(*list));
	if (list == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot read %s", path);
	code = parse_all(text, size, list, count);
	if (code < 0)
		return rouse_error_errno(error, code, "cannot make sense of %s", path);
	if (*count == 0) /* of a process that has ended and was not waited for */
		return rouse_error_set(
			error, ROUSE_ERROR_SYSTEM, -ESRCH, "process %d has ended", target->pid);
	*maps = take_ptr(&list);
	return 0;
}
