/* SPDX-License-Identifier: MIT */
/* What sort of file it is, by its first bytes. */
#include "tool.h"

#include <string.h>

enum file_kind file_kind(const char *path)
{
	static const struct {
		const char *magic;
		enum file_kind kind;
	} kinds[] = {
		{"ROUSEWST", FILE_WSET},
		{"rouse-stalls", FILE_STALLS},
		{"QEVM", FILE_QEMU},
	};
	char bytes[16] = {0};
	FILE *file = fopen(path, "re");

	if (file == NULL)
		return FILE_OTHER;
	(void)!fread(bytes, 1, sizeof(bytes) - 1, file);
	(void)fclose(file);
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (strncmp(bytes, kinds[i].magic, strlen(kinds[i].magic)) == 0)
			return kinds[i].kind;
	}
	return FILE_OTHER;
}
