/* SPDX-License-Identifier: MIT */
/*
 * Packs pages into chunks: compresses and checksums them in worker threads and writes them to a
 * file one behind the other, in the order in which their pages came.
 *
 *   add() --> [ ring of chunks: filled | being packed | packed ] --> pwritev of long runs
 *             caller                     workers                     the worker that finds one
 *
 * For one thread at a time; the workers are its own.
 */
#ifndef ROUSE_IMAGE_CHUNK_PACKER_H
#define ROUSE_IMAGE_CHUNK_PACKER_H

#include "image/format.h"

#include <rouse.h>

struct rouse_packer;

/** @layout: without defaults to fill in. @fd stays the caller's. -ENOMEM, -EAGAIN (threads). */
int rouse_packer_new(int fd, const struct rouse_layout *layout, struct rouse_packer **packer);
/** Waits for the workers; what was not flushed may be lost. NULL is fine. */
void rouse_packer_free(struct rouse_packer *packer);

/** Begins a series of chunks at a file offset. Only when nothing is unflushed. */
void rouse_packer_begin(struct rouse_packer *packer, uint64_t offset);

/**
 * Adds a page, which is copied. *locator: where it will be, with chunk numbers from 0 on in this
 * series. Blocks while the workers are behind. An error of writing so far, or -ENOMEM.
 */
int rouse_packer_add(struct rouse_packer *packer, const void *data, uint64_t *locator);

/**
 * Writes everything out. *chunks: the descriptors of the series, the caller's to free; *end: the
 * file offset behind the last chunk.
 */
int rouse_packer_flush(struct rouse_packer *packer, struct rouse_disk_chunk **chunks,
	uint64_t *count, uint64_t *end);

#endif
