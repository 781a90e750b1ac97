/* SPDX-License-Identifier: MIT */
/* Compresses chunks: the other side of rouse_chunk_decode(). One encoder for each thread. */
#ifndef ROUSE_IMAGE_CHUNK_ENCODE_H
#define ROUSE_IMAGE_CHUNK_ENCODE_H

#include "image/format.h"

#include <rouse.h>

struct rouse_encoder;

/** Whether the codec has this level; 0 is the default of each. */
bool rouse_codec_has_level(enum rouse_codec codec, int level);

/** NULL: no memory. */
struct rouse_encoder *rouse_encoder_new(const struct rouse_layout *layout);
void rouse_encoder_free(struct rouse_encoder *encoder);

/**
 * Compresses @pages pages at @plain into @packed, which has room for as many bytes, and fills in
 * @chunk except for its offset. Returns the bytes to store: @packed, or @plain if they do not
 * shrink.
 */
const void *rouse_encoder_run(struct rouse_encoder *encoder, const void *plain, uint16_t pages,
	void *packed, struct rouse_disk_chunk *chunk);

#endif
