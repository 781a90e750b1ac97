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

/*
 * At least the first @front bytes, all of @plain_bytes if the codec cannot stop before. How many
 * came out; 0, or more than any chunk has, if it is not what it says.
 */
static size_t decompress(const struct rouse_chunk *chunk, const void *stored, void *pages,
	size_t front, size_t plain_bytes)
{
	int size;

	switch (chunk->codec) {
	case ROUSE_CODEC_NONE:
		if (chunk->stored_bytes != plain_bytes)
			return 0;
		memcpy(pages, stored, front);
		return front;
	case ROUSE_CODEC_LZ4:
		size = front < plain_bytes
			       ? LZ4_decompress_safe_partial(stored, pages,
					 (int)chunk->stored_bytes, (int)front, (int)plain_bytes)
			       : LZ4_decompress_safe(
					 stored, pages, (int)chunk->stored_bytes, (int)plain_bytes);
		return size > 0 ? (size_t)size : 0;
	case ROUSE_CODEC_ZSTD:
		return decode_zstd(stored, chunk->stored_bytes, pages, plain_bytes);
	default:
		return 0;
	}
}

static size_t plain_bytes_of(const struct rouse_chunk *chunk)
{
	return (size_t)chunk->pages * ROUSE_IMAGE_PAGE_BYTES;
}

static int verify(
	const struct rouse_chunk *chunk, const void *stored, struct rouse_decode_time *time)
{
	const uint64_t begun_ns = time != NULL ? rouse_clock_ns() : 0;
	const bool right = plain_bytes_of(chunk) > 0 &&
			   XXH3_64bits(stored, chunk->stored_bytes) == chunk->checksum;

	if (time != NULL)
		time->verify_ns += rouse_clock_ns() - begun_ns;
	return right ? 0 : -EUCLEAN;
}

/* *size: as of decompress(). -EUCLEAN: neither @front bytes nor all of them. */
static int decompress_timed(const struct rouse_chunk *chunk, const void *stored, void *pages,
	size_t front, size_t *size, struct rouse_decode_time *time)
{
	const uint64_t begun_ns = time != NULL ? rouse_clock_ns() : 0;
	const size_t plain_bytes = plain_bytes_of(chunk);

	*size = decompress(chunk, stored, pages, front, plain_bytes);
	if (time != NULL)
		time->decompress_ns += rouse_clock_ns() - begun_ns;
	return *size == front || *size == plain_bytes ? 0 : -EUCLEAN;
}

int rouse_chunk_decode_behind(const struct rouse_chunk *chunk, const void *stored, void *pages,
	struct rouse_decode_time *time)
{
	size_t size;

	return decompress_timed(chunk, stored, pages, plain_bytes_of(chunk), &size, time);
}

int rouse_chunk_decode_front(const struct rouse_chunk *chunk, const void *stored, uint32_t front,
	void *pages, uint32_t *decoded, struct rouse_decode_time *time)
{
	size_t size = 0;
	int code = verify(chunk, stored, time);

	*decoded = 0;
	if (code == 0 && (front == 0 || front > chunk->pages))
		code = -EUCLEAN;
	if (code < 0)
		return code;
	code = decompress_timed(
		chunk, stored, pages, (size_t)front * ROUSE_IMAGE_PAGE_BYTES, &size, time);
	*decoded = code == 0 ? (uint32_t)(size / ROUSE_IMAGE_PAGE_BYTES) : 0;
	return code;
}

int rouse_chunk_decode_timed(const struct rouse_chunk *chunk, const void *stored, void *pages,
	struct rouse_decode_time *time)
{
	int code = verify(chunk, stored, time);

	return code == 0 ? rouse_chunk_decode_behind(chunk, stored, pages, time) : code;
}

int rouse_chunk_decode(const struct rouse_chunk *chunk, const void *stored, void *pages)
{
	return rouse_chunk_decode_timed(chunk, stored, pages, NULL);
}
