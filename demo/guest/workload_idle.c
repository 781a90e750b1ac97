// SPDX-License-Identifier: MIT
/*
 * A VM that has worked before and rests now: its memory is full of page cache (files in a tmpfs)
 * and anonymous memory, and its requests touch a small part of it: a few pages that are the same
 * again and again, and a few that they write.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "content.h"
#include "workload.h"

#define FILE_SHARE 55 /* percent of the memory that is page cache */
#define READ_SET 1024 /* pages that requests read, spread over all */
#define READS 8       /* of each request */
#define WRITE_SET 256 /* pages that requests write */
#define WRITES 2      /* of each request */

static uint64_t (*scratch)[STAMP_PAGE / sizeof(uint64_t)];

static int idle_start(size_t mb, unsigned int cpus)
{
	size_t file_mb = mb * FILE_SHARE / 100;
	int err;

	(void)cpus;
	err = stamp_region_new("/data/file", file_mb, "file");
	if (!err)
		err = stamp_region_new(NULL, mb - file_mb, "anonymous");
	if (err)
		return err;
	scratch = mmap(NULL, (size_t)WRITE_SET * STAMP_PAGE, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return scratch == MAP_FAILED ? -errno : 0;
}

static void idle_request(unsigned int cpu, uint64_t state)
{
	uint64_t stride = stamp_pages() / READ_SET;
	uint64_t sum = 0;

	for (int i = 0; i < READS; i++) {
		const volatile uint64_t *page =
			stamp_page(content_next(&state) % READ_SET * (stride ? stride : 1));

		for (unsigned int word = 0; page && word < STAMP_PAGE / sizeof(*page); word += 8)
			sum += page[word];
	}
	for (int i = 0; i < WRITES; i++)
		scratch[content_next(&state) % WRITE_SET][cpu] += sum | 1;
}

const struct workload workload_idle = {
	.name = "idle",
	.start = idle_start,
	.request = idle_request,
};
