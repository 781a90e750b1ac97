/* SPDX-License-Identifier: MIT */
/*
 * Pages of a working set that wait for the end of a save. The first ones are kept in memory, which
 * is all of an ordinary set; the rest in a file without a name beside the image, that the kernel
 * writes back when it needs the memory. A set can be nearly all of a large VM: as much memory once
 * more, while QEMU still has its own, would have the kernel end one of the two. What comes back
 * from the file is what was put there, or an error: a sum of each page stays in memory.
 */
#ifndef ROUSE_IMAGE_PAGE_SPOOL_H
#define ROUSE_IMAGE_PAGE_SPOOL_H

#include "image/temp_file.h"

#include <stdint.h>

struct rouse_page_spool;

/**
 * For @pages pages, of which the first @in_memory take memory as they come. @beside is used until
 * the spool is freed. 0 or -ENOMEM.
 */
int rouse_page_spool_new(const struct rouse_temp_file *beside, uint64_t pages, uint64_t in_memory,
	struct rouse_page_spool **spool);

/** Keeps a page, in place of what was put there before. 0, or -errno of the file. */
int rouse_page_spool_put(struct rouse_page_spool *spool, uint64_t index, const void *data);

/**
 * *data: a page that was put; valid until the next call. To be called with growing indexes: the
 * file is read ahead. 0; -EIO: the file gives other bytes; or -errno of the file.
 */
int rouse_page_spool_get(struct rouse_page_spool *spool, uint64_t index, const void **data);

/** NULL is allowed. */
void rouse_page_spool_free(struct rouse_page_spool *spool);

#endif
