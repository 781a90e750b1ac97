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

/* The flags of one line "VmFlags: rd wr ...". */
static uint32_t parse_flags(
	const char *line, size_t length, const char *const *flags, unsigned int count)
{
	uint32_t found = 0;

	for (size_t i = 0; i + 1 < length; i++) {
		for (unsigned int j = 0; j < count; j++) {
			if (line[i] == flags[j][0] && line[i + 1] == flags[j][1] && i > 0 &&
				line[i - 1] == ' ' && (i + 2 == length || line[i + 2] == ' '))
				found |= UINT32_C(1) << j;
		}
	}
	return found;
}

int target_flags(const struct target *target, uint64_t start, uint64_t end,
	const char *const *flags, unsigned int count, uint32_t *any, uint32_t *all,
	struct rouse_error *error)
{
	static const char key[] = "VmFlags:";
	cleanup_free char *text = NULL;
	bool inside = false;
	char path[64];
	size_t size;
	int code;

	(void)snprintf(path, sizeof(path), "/proc/%d/smaps", target->pid);
	code = rouse_io_read_file(path, MAX_MAPS_BYTES, &text, &size);
	if (code < 0)
		return rouse_error_errno(error, code, "cannot read %s", path);
	*any = 0;
	*all = ~UINT32_C(0);
	for (const char *line = text; *line != '\0';) {
		const size_t length = strcspn(line, "\n");
		struct target_map map;

		if (target_map_parse(line, length, &map) == 0)
			inside = map.start < end && map.end > start;
		if (inside && length > strlen(key) && memcmp(line, key, strlen(key)) == 0) {
			const uint32_t found = parse_flags(line, length, flags, count);

			*any |= found;
			*all &= found;
		}
		line += length + (line[length] != '\0');
	}
	*all &= *any;
	return 0;
}
