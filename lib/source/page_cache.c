/* SPDX-License-Identifier: MIT */
#include "source/page_cache.h"

#include "base/cleanup.h"
#include "source/medium.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#define SAMPLES 256u

int rouse_page_cache_percent(const char *path)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	unsigned int present = 0;
	uint64_t bytes = 0, pages;
	uint8_t *mapped;
	int code = fd >= 0 ? rouse_medium_size(fd, &bytes) : -errno;

	if (code < 0 || bytes == 0)
		return code;
	/* Nothing is read through it, nor any page of it touched. */
	mapped = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
	if (mapped == MAP_FAILED)
		return -errno;
	pages = (bytes + page - 1) / page;
	for (uint64_t i = 0; code == 0 && i < SAMPLES; i++) {
		/* In the middle of each 256th of the file. */
		uint64_t at = (uint64_t)(((double)i + 0.5) / SAMPLES * (double)pages);
		unsigned char resident = 0;

		code = mincore(mapped + at * page, page, &resident) < 0 ? -errno : 0;
		present += resident & 1;
	}
	(void)munmap(mapped, bytes);
	return code < 0 ? code : (int)(present * 100 / SAMPLES);
}
