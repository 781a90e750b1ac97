/* SPDX-License-Identifier: MIT */
#include "bench_decode.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <stdlib.h>

#define READ_BYTES ((size_t)256 << 10)

/* A piece of the image; chunks mostly lie one after the other. */
struct piece {
	uint8_t *bytes;
	uint64_t offset;
	size_t size;
};

static int find_stored(const struct bench_vm *vm, const struct rouse_chunk *chunk,
	struct piece *piece, const uint8_t **stored)
{
	int code = 0;

	if (chunk->offset < piece->offset ||
		chunk->offset + chunk->stored_bytes > piece->offset + piece->size) {
		const uint64_t rest = rouse_source_size(vm->source) - chunk->offset;

		piece->offset = chunk->offset;
		piece->size = rest < READ_BYTES ? (size_t)rest : READ_BYTES;
		code = rouse_source_read(
			vm->source, piece->offset, piece->bytes, piece->size, ROUSE_READ_BULK);
	}
	*stored = piece->bytes + (chunk->offset - piece->offset);
	return code;
}

int bench_decode(const struct bench_vm *vm, bool wset, uint64_t *pages, struct rouse_error *error)
{
	const struct rouse_image_wset *front = rouse_reader_wset(vm->reader);
	const uint64_t chunks = wset ? front->chunk_count : rouse_reader_chunk_count(vm->reader);
	const size_t chunk_bytes =
		(size_t)le32_get(rouse_reader_superblock(vm->reader)->chunk_pages) *
		ROUSE_IMAGE_PAGE_BYTES;
	cleanup_free uint8_t *bytes = malloc(READ_BYTES + chunk_bytes);
	cleanup_free uint8_t *plain = malloc(chunk_bytes);
	struct piece piece = {.bytes = bytes};
	int code = bytes != NULL && plain != NULL ? 0 : -ENOMEM;

	*pages = 0;
	for (uint64_t i = 0; code == 0 && i < chunks; i++) {
		const uint8_t *stored;
		struct rouse_chunk chunk;

		code = rouse_reader_chunk(vm->reader, i, ROUSE_READ_BULK, &chunk);
		if (code == 0)
			code = find_stored(vm, &chunk, &piece, &stored);
		if (code == 0)
			code = rouse_chunk_decode(&chunk, stored, plain);
		*pages += chunk.pages;
	}
	return code == 0 ? 0 : rouse_error_errno(error, code, "cannot read the image");
}
