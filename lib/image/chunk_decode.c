/* SPDX-License-Identifier: MIT */
/* The one place where stored bytes become pages of a guest: everything is checked here. */
#include "image/image_parse.h"

#include <errno.h>
#include <lz4.h>
#include <stdalign.h>
#include <xxhash.h>
/* For a context in memory of our own: the fault path allocates nothing. */
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>

/*
 * The context lives on the stack, so that neither a call nor a thread needs a preparation. zstd
 * 1.5 asks for 94 KiB; the check below catches a library that wants more.
 */
#define ZSTD_WORKSPACE_BYTES (192u << 10)

static size_t decode_zstd(const void *stored, size_t stored_bytes, void *plain, size_t plain_bytes)
{
	alignas(16) unsigned char workspace[ZSTD_WORKSPACE_BYTES];
	ZSTD_DCtx *context;

	if (ZSTD_estimateDCtxSize() > sizeof(workspace))
		return 0;
	context = ZSTD_initStaticDCtx(workspace, sizeof(workspace));
	if (context == NULL)
		return 0;
	/* An error code is a size larger than any chunk. */
	return ZSTD_decompressDCtx(context, plain, plain_bytes, stored, stored_bytes);
}

int rouse_chunk_decode(const struct rouse_chunk *chunk, const void *stored, void *pages)
{
	size_t plain_bytes = (size_t)chunk->pages * ROUSE_IMAGE_PAGE_BYTES, size = 0;
	int lz4_size;

	if (plain_bytes == 0 || XXH3_64bits(stored, chunk->stored_bytes) != chunk->checksum)
		return -EUCLEAN;
	switch (chunk->codec) {
	case ROUSE_CODEC_NONE:
		if (chunk->stored_bytes != plain_bytes)
			return -EUCLEAN;
		memcpy(pages, stored, plain_bytes);
		size = plain_bytes;
		break;
	case ROUSE_CODEC_LZ4:
		lz4_size = LZ4_decompress_safe(
			stored, pages, (int)chunk->stored_bytes, (int)plain_bytes);
		size = lz4_size > 0 ? (size_t)lz4_size : 0;
		break;
	case ROUSE_CODEC_ZSTD:
		size = decode_zstd(stored, chunk->stored_bytes, pages, plain_bytes);
		break;
	default:
		break;
	}
	return size == plain_bytes ? 0 : -EUCLEAN;
}
