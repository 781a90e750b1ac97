/* SPDX-License-Identifier: MIT */
/* What make_golden.c and the test of the golden images share. */
#ifndef ROUSE_TESTS_GOLDEN_H
#define ROUSE_TESTS_GOLDEN_H

#include "base/cleanup.h"
#include "image/image_reader.h"

#include <errno.h>
#include <string.h>
#include <xxhash.h>

#define GOLDEN_PAGE ROUSE_IMAGE_PAGE_BYTES
#define GOLDEN_PAGES 47u

/* Page 0 and every 5th are zero, 7, 14, 21 ... are equal, the others hold words that repeat. */
static inline void golden_fill(void *page, uint64_t number)
{
	uint32_t *words = page;

	if (number % 7 == 0)
		number = 7;
	memset(page, 0, GOLDEN_PAGE);
	for (uint32_t i = 0; number % 5 != 0 && i < GOLDEN_PAGE / sizeof(*words); i++)
		words[i] = htole32((uint32_t)(number << 24) + i / 16 * 40503u);
}

/* The content of one page, or a negative code. */
static inline int golden_read_page(struct rouse_source *source, struct rouse_reader *reader,
	uint64_t page, unsigned char *data)
{
	unsigned char stored[64 << 10], pages[64 << 10];
	struct rouse_chunk chunk;
	uint64_t locator;
	int code = rouse_reader_locate(reader, page, ROUSE_READ_URGENT, &locator);

	memset(data, 0, GOLDEN_PAGE);
	if (code < 0 || locator == ROUSE_LOCATOR_ZERO)
		return code;
	code = rouse_reader_chunk(reader, rouse_locator_chunk(locator), ROUSE_READ_URGENT, &chunk);
	if (code == 0 && (!rouse_locator_in_chunk(locator, &chunk) ||
				 chunk.pages * GOLDEN_PAGE > sizeof(pages)))
		code = -EUCLEAN;
	if (code == 0)
		code = rouse_source_read(
			source, chunk.offset, stored, chunk.stored_bytes, ROUSE_READ_URGENT);
	if (code == 0)
		code = rouse_chunk_decode(&chunk, stored, pages);
	if (code == 0)
		memcpy(data, pages + (size_t)rouse_locator_slot(locator) * GOLDEN_PAGE,
			GOLDEN_PAGE);
	return code;
}

/* XXH3-64 of all pages and of METADATA, CONFIG and DEVICES; 0 if the image cannot be read. */
static inline uint64_t golden_hash(const char *path)
{
	static const enum rouse_section_type types[] = {
		ROUSE_SECTION_METADATA, ROUSE_SECTION_CONFIG, ROUSE_SECTION_DEVICES};
	struct rouse_source *source = NULL;
	struct rouse_reader *reader = NULL;
	XXH3_state_t *state = XXH3_createState();
	unsigned char page[GOLDEN_PAGE];
	uint64_t hash = 0;
	int code = rouse_file_source_open(path, NULL, &source, NULL);

	(void)XXH3_64bits_reset(state);
	if (code == 0)
		code = rouse_reader_open(source, &reader, NULL);
	for (uint64_t i = 0; code == 0 && i < rouse_reader_page_count(reader); i++) {
		code = golden_read_page(source, reader, i, page);
		(void)XXH3_64bits_update(state, page, sizeof(page));
	}
	for (unsigned int i = 0; code == 0 && i < 3; i++) {
		size_t size;
		const void *bytes = rouse_reader_section(reader, types[i], &size);

		(void)XXH3_64bits_update(state, bytes, size);
	}
	if (code == 0)
		hash = XXH3_64bits_digest(state);
	(void)XXH3_freeState(state);
	rouse_reader_close(reader);
	rouse_source_destroy(source);
	return hash;
}

#endif
