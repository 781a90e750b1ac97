/* SPDX-License-Identifier: MIT */
/* A working-set file applied to an image: is it of the same VM, and what the writer wants of it. */
#ifndef ROUSE_API_WSET_APPLY_H
#define ROUSE_API_WSET_APPLY_H

#include "image/image_writer.h"
#include "wset/wset.h"

/**
 * Checks that a working set is of a VM with these RAM blocks: the same names and sizes in the same
 * order, so that its page numbers mean the same. @path: of its file, for the error.
 * -EINVAL, kind MISMATCH.
 */
int rouse_wset_check_blocks(const struct rouse_wset *wset, const struct rouse_block *blocks,
	uint32_t count, const char *path, struct rouse_error *error);

/** The working set as the image writer takes it: *touches is the caller's to free. -ENOMEM. */
int rouse_wset_touches(const struct rouse_wset *wset, struct rouse_writer_touch **touches,
	struct rouse_error *error);

#endif
