/* SPDX-License-Identifier: MIT */
#include "bench_cold.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

/* A page that somebody just reads is let go on the next attempt. */
#define ATTEMPTS 5
/* What is looked at in one go. */
#define SPAN ((uint64_t)64 << 20)

/* Of @size bytes at @offset; nothing is read, nor any page touched. */
static int count_present(int fd, uint64_t offset, uint64_t size, uint64_t *pages)
{
	const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	unsigned char present[SPAN / 4096];
	void *mapped = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, (off_t)offset);
	int code;

	if (mapped == MAP_FAILED)
		return -errno;
	code = mincore(mapped, size, present) < 0 ? -errno : 0;
	(void)munmap(mapped, size);
	for (uint64_t i = 0; code == 0 && i < (size + page - 1) / page; i++)
		*pages += present[i] & 1;
	return code;
}

static int look(int fd, uint64_t *left)
{
	const off_t end = lseek(fd, 0, SEEK_END); /* of a disk, too */
	uint64_t pages = 0;
	int code = end >= 0 ? 0 : -errno;

	for (uint64_t at = 0; code == 0 && at < (uint64_t)end; at += SPAN) {
		const uint64_t rest = (uint64_t)end - at;

		code = count_present(fd, at, rest < SPAN ? rest : SPAN, &pages);
	}
	*left = pages * (uint64_t)sysconf(_SC_PAGESIZE);
	return code;
}

int bench_make_cold(const char *path, uint64_t *left)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int code = fd >= 0 ? 0 : -errno;

	*left = 1;
	for (int i = 0; code == 0 && *left > 0 && i < ATTEMPTS; i++) {
		/* What is still to be written cannot be dropped. */
		code = fsync(fd) < 0 ? -errno : 0;
		if (code == 0)
			code = -posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		if (code == 0)
			code = look(fd, left);
	}
	if (fd >= 0)
		(void)close(fd);
	return code;
}
