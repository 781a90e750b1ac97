/* SPDX-License-Identifier: MIT */
/* A file with known bytes, for the tests of sources. */
#ifndef TESTS_SOURCE_FILE_H
#define TESTS_SOURCE_FILE_H

#include "base/io.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct source_file {
	char path[64];
	unsigned char *content;
	size_t bytes;
};

static inline struct source_file *source_file_new(const char *directory, size_t bytes)
{
	struct source_file *file = calloc(1, sizeof(*file));
	int fd;

	assert_non_null(file);
	(void)snprintf(file->path, sizeof(file->path), "%s/rouse-test-source-XXXXXX", directory);
	fd = mkstemp(file->path);
	assert_true(fd >= 0);
	file->bytes = bytes;
	file->content = malloc(bytes);
	assert_non_null(file->content);
	for (size_t i = 0; i < bytes; i++)
		file->content[i] = (unsigned char)(i * 31 + i / 251 + i / 65521);
	assert_int_equal(rouse_io_pwrite(fd, file->content, bytes, 0), 0);
	(void)fsync(fd);
	(void)close(fd);
	return file;
}

static inline void source_file_remove(struct source_file *file)
{
	(void)unlink(file->path);
	free(file->content);
	free(file);
}

#endif
