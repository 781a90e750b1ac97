/* SPDX-License-Identifier: MIT */
/* What sort of file it is, by its first bytes, or where these are a VM's by its last. */
#include "tool.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* docs/format.md: the magic is at the beginning of a footer of this size. */
#define FLAT_MAGIC "ROUSEFLT"
#define FLAT_FOOTER_BYTES 4096

static bool is_flat(FILE *file)
{
	char bytes[sizeof(FLAT_MAGIC) - 1];

	return fseeko(file, -FLAT_FOOTER_BYTES, SEEK_END) == 0 &&
	       fread(bytes, sizeof(bytes), 1, file) == 1 &&
	       memcmp(bytes, FLAT_MAGIC, sizeof(bytes)) == 0;
}

static enum file_kind kind_of(FILE *file)
{
	static const struct {
		const char *magic;
		enum file_kind kind;
	} kinds[] = {
		{"ROUSEIMG", FILE_OTHER}, /* whatever its last bytes are */
		{"ROUSEWST", FILE_WSET},
		{"rouse-stalls", FILE_STALLS},
		{"QEVM", FILE_QEMU},
	};
	char bytes[16] = {0};

	(void)!fread(bytes, 1, sizeof(bytes) - 1, file);
	/* A VM's memory may begin with anything: what a footer says is more. */
	if (is_flat(file) && memcmp(bytes, kinds[0].magic, strlen(kinds[0].magic)) != 0)
		return FILE_FLAT;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (strncmp(bytes, kinds[i].magic, strlen(kinds[i].magic)) == 0)
			return kinds[i].kind;
	}
	return FILE_OTHER;
}

enum file_kind file_kind(const char *path)
{
	/* Of a pipe nothing is taken, and nobody waits for its other end. */
	const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat status;
	enum file_kind kind = FILE_OTHER;
	FILE *file;

	if (fd < 0)
		return FILE_OTHER;
	file = fstat(fd, &status) == 0 && S_ISREG(status.st_mode) ? fdopen(fd, "r") : NULL;
	if (file != NULL)
		kind = kind_of(file);
	(void)(file != NULL ? fclose(file) : close(fd));
	return kind;
}
