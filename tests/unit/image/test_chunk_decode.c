/* SPDX-License-Identifier: MIT */
/* Chunks that are decompressed in two steps: up to the page that somebody waits for, then all. */
#include "image/chunk_encode.h"
#include "image/image_parse.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PAGES 16u
#define PAGE ROUSE_IMAGE_PAGE_BYTES

static const enum rouse_codec codecs[] = {ROUSE_CODEC_NONE, ROUSE_CODEC_LZ4, ROUSE_CODEC_ZSTD};

#define CODECS (sizeof(codecs) / sizeof(codecs[0]))

/* Each page has something of its own, and shrinks. */
static void fill(unsigned char *plain)
{
	for (size_t i = 0; i < PAGES * PAGE; i++)
		plain[i] = (unsigned char)(i % 64 == 0 ? i / 64 * 2654435761u >> 24 : i / PAGE);
}

struct encoded {
	unsigned char plain[PAGES * PAGE], stored[PAGES * PAGE], out[PAGES * PAGE];
	struct rouse_chunk chunk;
};

static struct encoded *encode(enum rouse_codec codec)
{
	const struct rouse_layout layout = {.codec = codec};
	struct rouse_encoder *encoder = rouse_encoder_new(&layout);
	struct encoded *e = calloc(1, sizeof(*e));
	unsigned char *packed = malloc(PAGES * PAGE);
	struct rouse_disk_chunk disk;
	const void *stored;

	assert_true(encoder != NULL && packed != NULL);
	assert_non_null(e);
	fill(e->plain);
	stored = rouse_encoder_run(encoder, e->plain, PAGES, packed, &disk);
	e->chunk = (struct rouse_chunk){.pages = le16_get(disk.pages),
		.codec = disk.codec,
		.stored_bytes = le32_get(disk.stored_bytes),
		.checksum = le64_get(disk.checksum)};
	memcpy(e->stored, stored, e->chunk.stored_bytes);
	assert_int_equal(e->chunk.codec, codec);
	rouse_encoder_free(encoder);
	free(packed);
	return e;
}

static void the_front_of_a_chunk_is_what_the_whole_begins_with(void **state)
{
	(void)state;
	for (size_t i = 0; i < CODECS; i++) {
		struct encoded *e = encode(codecs[i]);

		for (uint32_t front = 1; front <= PAGES; front++) {
			uint32_t decoded;

			memset(e->out, 0xee, sizeof(e->out));
			assert_int_equal(rouse_chunk_decode_front(&e->chunk, e->stored, front,
						 e->out, &decoded, NULL),
				0);
			assert_in_range(decoded, front, PAGES);
			assert_memory_equal(e->out, e->plain, (size_t)decoded * PAGE);
			assert_int_equal(
				rouse_chunk_decode_behind(&e->chunk, e->stored, e->out, NULL), 0);
			assert_memory_equal(e->out, e->plain, sizeof(e->plain));
		}
		free(e);
	}
}

static void lz4_stops_at_the_page_that_is_waited_for(void **state)
{
	struct encoded *e = encode(ROUSE_CODEC_LZ4);
	uint32_t decoded;

	(void)state;
	assert_int_equal(
		rouse_chunk_decode_front(&e->chunk, e->stored, 3, e->out, &decoded, NULL), 0);
	assert_int_equal(decoded, 3);
	free(e);
}

static void the_front_of_a_damaged_chunk_is_refused_wherever_the_damage_is(void **state)
{
	(void)state;
	for (size_t i = 0; i < CODECS; i++) {
		struct encoded *e = encode(codecs[i]);
		uint32_t decoded;

		e->stored[e->chunk.stored_bytes - 1] ^= 1;
		assert_int_equal(
			rouse_chunk_decode_front(&e->chunk, e->stored, 1, e->out, &decoded, NULL),
			-EUCLEAN);
		assert_int_equal(decoded, 0);
		free(e);
	}
}

static void a_page_behind_the_end_of_a_chunk_is_refused(void **state)
{
	struct encoded *e = encode(ROUSE_CODEC_LZ4);
	uint32_t decoded;

	(void)state;
	assert_int_equal(
		rouse_chunk_decode_front(&e->chunk, e->stored, PAGES + 1, e->out, &decoded, NULL),
		-EUCLEAN);
	assert_int_equal(rouse_chunk_decode_front(&e->chunk, e->stored, 0, e->out, &decoded, NULL),
		-EUCLEAN);
	free(e);
}

/* Its checksum is right: whoever made it meant it so. */
static void a_chunk_that_is_shorter_than_it_says_is_found_when_all_of_it_is_decoded(void **state)
{
	static const enum rouse_codec all_at_once[] = {ROUSE_CODEC_NONE, ROUSE_CODEC_ZSTD};
	struct encoded *e = encode(ROUSE_CODEC_LZ4);
	unsigned char *more = calloc(PAGES + 1, PAGE);
	uint32_t decoded;

	(void)state;
	assert_non_null(more);
	e->chunk.pages++;
	assert_int_equal(
		rouse_chunk_decode_front(&e->chunk, e->stored, 1, more, &decoded, NULL), 0);
	assert_int_equal(
		rouse_chunk_decode_front(&e->chunk, e->stored, PAGES + 1, more, &decoded, NULL),
		-EUCLEAN);
	assert_int_equal(rouse_chunk_decode_behind(&e->chunk, e->stored, more, NULL), -EUCLEAN);
	free(e);
	for (size_t i = 0; i < sizeof(all_at_once) / sizeof(all_at_once[0]); i++) {
		e = encode(all_at_once[i]);
		e->chunk.pages++;
		assert_int_equal(
			rouse_chunk_decode_front(&e->chunk, e->stored, 1, more, &decoded, NULL),
			-EUCLEAN);
		free(e);
	}
	free(more);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_front_of_a_chunk_is_what_the_whole_begins_with),
		cmocka_unit_test(lz4_stops_at_the_page_that_is_waited_for),
		cmocka_unit_test(the_front_of_a_damaged_chunk_is_refused_wherever_the_damage_is),
		cmocka_unit_test(a_page_behind_the_end_of_a_chunk_is_refused),
		cmocka_unit_test(
			a_chunk_that_is_shorter_than_it_says_is_found_when_all_of_it_is_decoded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
