/* SPDX-License-Identifier: MIT */
/* QEMU's migration stream into an image: the decoder and the image writer, joined. */
#ifndef ROUSE_API_STREAM_IMAGE_H
#define ROUSE_API_STREAM_IMAGE_H

#include "api/metadata.h"
#include "api/page_order.h"
#include "image/image_writer.h"

struct stream_image;

/**
 * Creates the image's temporary file. @wset: a working-set file to lay it out for, or NULL; it must
 * stay valid. @order: is told of every page, or NULL. Errors: as rouse_writer_create().
 */
int stream_image_new(const char *path, const struct rouse_layout *layout, const char *wset,
	struct page_order *order, struct stream_image **image, struct rouse_error *error);

/** The next bytes of the stream. Errors: as qemu_stream_feed(), of the writer and of the wset. */
int stream_image_feed(
	struct stream_image *image, const void *bytes, size_t size, struct rouse_error *error);

/** The stream has ended. -EUCLEAN: too early. */
int stream_image_end(struct stream_image *image, struct rouse_error *error);

/**
 * Bytes of RAM that have come, and of all RAM (0: not known yet). From any thread. A live stream
 * sends some pages twice: *done stops at *total.
 */
void stream_image_get_progress(const struct stream_image *image, uint64_t *done, uint64_t *total);

/**
 * After stream_image_end(): adds the sections and commits the image. machine and ram_bytes of
 * @metadata are filled in. Errors: as rouse_writer_commit().
 */
int stream_image_commit(struct stream_image *image, struct rouse_metadata *metadata,
	struct rouse_writer_stats *stats, struct rouse_error *error);

/** Removes the temporary file if the image was not committed. NULL is fine. */
void stream_image_free(struct stream_image *image);

#endif
