/* SPDX-License-Identifier: MIT */
/* Runs a fuzz target over every file of the directories and files named: the corpus as a test. */
#include "base/cleanup.h"
#include "base/io.h"

#include <dirent.h>
#include <limits.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path)
{
	cleanup_free char *data = NULL;
	size_t size;
	int code = rouse_io_read_file(path, 64u << 20, &data, &size);

	if (code < 0) {
		fprintf(stderr, "%s: %s\n", path, strerror(-code));
		return code;
	}
	(void)LLVMFuzzerTestOneInput((const uint8_t *)data, size);
	return 0;
}

static int replay_directory(const char *path, unsigned int *count)
{
	DIR *directory = opendir(path);
	const struct dirent *entry;
	int code = 0;

	if (directory == NULL) {
		perror(path);
		return -1;
	}
	while (code == 0 && (entry = readdir(directory)) != NULL) {
		char file[PATH_MAX];

		if (entry->d_name[0] == '.')
			continue;
		(void)snprintf(file, sizeof(file), "%s/%s", path, entry->d_name);
		code = replay_file(file);
		(*count)++;
	}
	(void)closedir(directory);
	return code;
}

int main(int argc, char **argv)
{
	unsigned int count = 0;

	for (int i = 1; i < argc; i++) {
		if (replay_directory(argv[i], &count) < 0)
			return 1;
	}
	printf("%u inputs\n", count);
	return count > 0 ? 0 : 1;
}
