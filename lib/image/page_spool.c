/* SPDX-License-Identifier: MIT */
#include "image/page_spool.h"

#include "base/cleanup.h"
#include "base/io.h"
#include "image/format.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <xxhash.h>

#define WINDOW_PAGES 256u

struct rouse_page_spool {
	const struct rouse_temp_file *beside;
	uint64_t pages, in_memory;
	unsigned char *memory; /* of the first in_memory pages; NULL: there are none */
	int fd;                /* of the others, from offset 0 on; -1: none came */
	uint64_t put;          /* pages that the file is long */
	uint64_t *sums;        /* of its pages */

	/* What was read of the file last. */
	unsigned char *window;
	uint64_t window_first, window_count;
};

int rouse_page_spool_new(const struct rouse_temp_file *beside, uint64_t pages, uint64_t in_memory,
	struct rouse_page_spool **spool)
{
	struct rouse_page_spool *new = calloc(1, sizeof(*new));

	if (new == NULL)
		return -ENOMEM;
	*new = (struct rouse_page_spool){
		.beside = beside,
		.pages = pages,
		.in_memory = pages < in_memory ? pages : in_memory,
		.fd = -1,
	};
	if (new->in_memory > 0) {
		void *memory = mmap(NULL, new->in_memory *ROUSE_IMAGE_PAGE_BYTES,
			PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		if (memory == MAP_FAILED) {
			free(new);
			return -ENOMEM;
		}
		new->memory = memory;
	}
	*spool = new;
	return 0;
}

static unsigned char *in_memory(const struct rouse_page_spool *spool, uint64_t index)
{
	return spool->memory + index * ROUSE_IMAGE_PAGE_BYTES;
}

/* The first page that does not fit into memory. */
static int open_file(struct rouse_page_spool *spool)
{
	if (spool->sums == NULL)
		spool->sums = calloc(spool->pages - spool->in_memory, sizeof(*spool->sums));
	if (spool->sums == NULL)
		return -ENOMEM;
	spool->fd = rouse_temp_file_open_nameless(spool->beside);
	return spool->fd < 0 ? spool->fd : 0;
}

int rouse_page_spool_put(struct rouse_page_spool *spool, uint64_t index, const void *data)
{
	uint64_t at;
	int code;

	if (index >= spool->pages)
		return -ERANGE;
	if (index < spool->in_memory) {
		memcpy(in_memory(spool, index), data, ROUSE_IMAGE_PAGE_BYTES);
		return 0;
	}
	code = spool->fd < 0 ? open_file(spool) : 0;
	if (code < 0)
		return code;
	at = index - spool->in_memory;
	spool->sums[at] = XXH3_64bits(data, ROUSE_IMAGE_PAGE_BYTES);
	code = rouse_io_pwrite(
		spool->fd, data, ROUSE_IMAGE_PAGE_BYTES, at * ROUSE_IMAGE_PAGE_BYTES);
	if (code == 0 && at >= spool->put)
		spool->put = at + 1;
	spool->window_count = 0;
	return code;
}

/* Reads on from page @at of the file. */
static int fill_window(struct rouse_page_spool *spool, uint64_t at)
{
	uint64_t count = spool->put - at;
	int code;

	if (count > WINDOW_PAGES)
		count = WINDOW_PAGES;
	if (spool->window == NULL)
		spool->window = malloc((size_t)WINDOW_PAGES * ROUSE_IMAGE_PAGE_BYTES);
	if (spool->window == NULL)
		return -ENOMEM;
	spool->window_count = 0;
	code = rouse_io_pread(spool->fd, spool->window, count * ROUSE_IMAGE_PAGE_BYTES,
		at * ROUSE_IMAGE_PAGE_BYTES);
	if (code < 0)
		return code;
	spool->window_first = at;
	spool->window_count = count;
	return 0;
}

int rouse_page_spool_get(struct rouse_page_spool *spool, uint64_t index, const void **data)
{
	uint64_t at;

	if (index >= spool->pages)
		return -ERANGE;
	if (index < spool->in_memory) {
		*data = in_memory(spool, index);
		return 0;
	}
	at = index - spool->in_memory;
	if (at >= spool->put)
		return -ENODATA;
	if (at < spool->window_first || at - spool->window_first >= spool->window_count) {
		int code = fill_window(spool, at);

		if (code < 0)
			return code;
	}
	*data = spool->window + (at - spool->window_first) * ROUSE_IMAGE_PAGE_BYTES;
	return XXH3_64bits(*data, ROUSE_IMAGE_PAGE_BYTES) == spool->sums[at] ? 0 : -EIO;
}

void rouse_page_spool_free(struct rouse_page_spool *spool)
{
	if (spool == NULL)
		return;
	if (spool->memory != NULL)
		(void)munmap(spool->memory, spool->in_memory * ROUSE_IMAGE_PAGE_BYTES);
	cleanup_close_fn(&spool->fd);
	free(spool->window);
	free(spool->sums);
	free(spool);
}
