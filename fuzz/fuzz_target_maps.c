/* SPDX-License-Identifier: MIT */
/* Lines of /proc/PID/maps: whatever they are, a mapping that is taken makes sense. */
#include "target/target.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *line = (const char *)data, *end = line + size;

	while (line < end) {
		const char *newline = memchr(line, '\n', (size_t)(end - line));
		const size_t length = (size_t)((newline != NULL ? newline : end) - line);
		struct target_map map;

		if (target_map_parse(line, length, &map) == 0 &&
			(map.start >= map.end || strlen(map.name) >= sizeof(map.name)))
			abort();
		line += length + 1;
	}
	return 0;
}
