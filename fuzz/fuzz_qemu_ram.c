/* SPDX-License-Identifier: MIT */
/* What QEMU's human monitor says of its memory. */
#include "vmm/qemu_ram.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	struct qemu_ram_block *blocks;
	uint64_t address;
	size_t count;

	if (text == NULL)
		return 0;
	if (size > 0)
		memcpy(text, data, size);
	text[size] = '\0';
	if (qemu_ram_parse_blocks(text, &blocks, &count) == 0) {
		for (size_t i = 0; i < count; i++) {
			if (strlen(blocks[i].name) == 0)
				abort();
		}
		free(blocks);
	}
	(void)qemu_ram_parse_address(text, &address);
	for (const char *line = text; *line != '\0';) {
		const size_t length = strcspn(line, "\n");
		struct qemu_ram_range range;

		if (qemu_ram_parse_range(line, length, &range) && strlen(range.name) == 0)
			abort();
		line += length + (line[length] != '\0');
	}
	free(text);
	return 0;
}
