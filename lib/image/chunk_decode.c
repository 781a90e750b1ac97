/* SPDX-License-Identifier: MIT */
/* The one place where stored bytes become pages of a guest: everything is checked here. */
#include "image/image_parse.h"

#include "base/clock.h"

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

/* How many bytes came out of it; 0, or more than any chunk has, if it is not what it says. */
static size_t decompress(
	const struct rouse_chunk *chunk, const void *stored, void *pages, size_t plain_bytes)
{
	int size;

	switch (chunk->codec) {
	case ROUSE_CODEC_NONE:
		if (chunk->stored_bytes != plain_bytes)
			return 0;
		memcpy(pages, stored, plain_bytes);
		return plain_bytes;
	case ROUSE_CODEC_LZ4:
		size = LZ4_decompress_safe(
			stored, pages, (int)chunk->stored_bytes, (int)plain_bytes);
		return size > 0 ? (size_t)size : 0;
	case ROUSE_CODEC_ZSTD:
		return decode_zstd(stored, chunk->stored_bytes, pages, plain_bytes);
	default:
		return 0;
	}
}

int rouse_chunk_decode_timed(const struct rouse_chunk *chunk, const void *stored, void *pages,
	struct rouse_decode_time *time)
{
	const size_t plain_bytes = (size_t)chunk->pages * ROUSE_IMAGE_PAGE_BYTES;
	const uint64_t begun_ns = time != NULL ? rouse_clock_ns() : 0;
	uint64_t verified_ns = 0;
	size_t size;

	if (plain_bytes == 0 || XXH3_64bits(stored, chunk->stored_bytes) != chunk->checksum)
		return -EUCLEAN;
	if (time != NULL)
		verified_ns = rouse_clock_ns();
	size = decompress(chunk, stored, pages, plain_bytes);
	if (time != NULL) {
		time->verify_ns += verified_ns - begun_ns;
		time->decompress_ns += rouse_clock_ns() - verified_ns;
	}
	return size == plain_bytes ? 0 : -EUCLEAN;
}

int rouse_chunk_decode(const struct rouse_chunk *chunk, const void *stored, void *pages)
{
	return rouse_chunk_decode_timed(chunk, stored, pages, NULL);
}
