/* SPDX-License-Identifier: MIT */
#include "image/chunk_encode.h"

#include <lz4.h>
#include <lz4hc.h>
#include <stdlib.h>
#include <xxhash.h>
#include <zstd.h>

/* As in the lz4 program: below this level the fast compressor, from it on the strong one. */
#define LZ4_FIRST_STRONG_LEVEL 3
#define ZSTD_DEFAULT_LEVEL 1

struct rouse_encoder {
	enum rouse_codec codec;
	int level;
	void *lz4_state;
	ZSTD_CCtx *zstd;
};

bool rouse_codec_has_level(enum rouse_codec codec, int level)
{
	switch (codec) {
	case ROUSE_CODEC_NONE:
		return level == 0;
	case ROUSE_CODEC_LZ4:
		return level >= 0 && level <= LZ4HC_CLEVEL_MAX;
	case ROUSE_CODEC_ZSTD:
		return level >= 0 && level <= ZSTD_maxCLevel();
	default:
		return false;
	}
}

struct rouse_encoder *rouse_encoder_new(const struct rouse_layout *layout)
{
	struct rouse_encoder *new = calloc(1, sizeof(*new));
	bool strong = layout->level >= LZ4_FIRST_STRONG_LEVEL;

	if (new == NULL)
		return NULL;
	new->codec = layout->codec;
	new->level = layout->level;
	if (new->codec == ROUSE_CODEC_LZ4)
		new->lz4_state = malloc((size_t)(strong ? LZ4_sizeofStateHC() : LZ4_sizeofState()));
	if (new->codec == ROUSE_CODEC_ZSTD)
		new->zstd = ZSTD_createCCtx();
	if ((new->codec == ROUSE_CODEC_LZ4 &&new->lz4_state == NULL) ||
		(new->codec == ROUSE_CODEC_ZSTD &&new->zstd == NULL)) {
		rouse_encoder_free(new);
		return NULL;
	}
	return new;
}

void rouse_encoder_free(struct rouse_encoder *encoder)
{
	if (encoder == NULL)
		return;
	free(encoder->lz4_state);
	(void)ZSTD_freeCCtx(encoder->zstd);
	free(encoder);
}

/* The compressed size, below @size; 0 if it does not shrink. */
static size_t compress(struct rouse_encoder *encoder, const void *plain, size_t size, void *packed)
{
	size_t packed_size = 0;

	if (encoder->codec == ROUSE_CODEC_LZ4 && encoder->level < LZ4_FIRST_STRONG_LEVEL) {
		packed_size = (size_t)LZ4_compress_fast_extState(
			encoder->lz4_state, plain, packed, (int)size, (int)size - 1, 1);
	} else if (encoder->codec == ROUSE_CODEC_LZ4) {
		packed_size = (size_t)LZ4_compress_HC_extStateHC(encoder->lz4_state, plain, packed,
			(int)size, (int)size - 1, encoder->level);
	} else if (encoder->codec == ROUSE_CODEC_ZSTD) {
		packed_size = ZSTD_compressCCtx(encoder->zstd, packed, size - 1, plain, size,
			encoder->level != 0 ? encoder->level : ZSTD_DEFAULT_LEVEL);
		if (ZSTD_isError(packed_size))
			packed_size = 0;
	}
	return packed_size < size ? packed_size : 0;
}

const void *rouse_encoder_run(struct rouse_encoder *encoder, const void *plain, uint16_t pages,
	void *packed, struct rouse_disk_chunk *chunk)
{
	size_t size = (size_t)pages * ROUSE_IMAGE_PAGE_BYTES;
	size_t packed_size = compress(encoder, plain, size, packed);
	const void *stored = packed_size > 0 ? packed : plain;
	size_t stored_size = packed_size > 0 ? packed_size : size;

	*chunk = (struct rouse_disk_chunk){
		.stored_bytes = le32_make((uint32_t)stored_size),
		.pages = le16_make(pages),
		.codec = packed_size > 0 ? (uint8_t)encoder->codec : ROUSE_CODEC_NONE,
		.checksum = le64_make(XXH3_64bits(stored, stored_size)),
	};
	return stored;
}
