/* SPDX-License-Identifier: MIT */
/* A directory for images, pages with known content, and whole images out of a description. */
#ifndef ROUSE_TESTS_IMAGE_FIXTURE_H
#define ROUSE_TESTS_IMAGE_FIXTURE_H

#include "base/cleanup.h"
#include "image/image_reader.h"
#include "image/image_writer.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define PAGE ROUSE_IMAGE_PAGE_BYTES

struct fixture {
	char directory[64];
	char path[96]; /* of an image in it */
};

static inline int fixture_setup(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	assert_non_null(fixture);
	(void)strcpy(fixture->directory, "/tmp/rouse-test-image-XXXXXX");
	assert_non_null(mkdtemp(fixture->directory));
	(void)snprintf(fixture->path, sizeof(fixture->path), "%s/vm.rouse", fixture->directory);
	*state = fixture;
	return 0;
}

/* How many files are in the directory. */
static inline unsigned int fixture_count_files(const struct fixture *fixture)
{
	DIR *directory = opendir(fixture->directory);
	const struct dirent *entry;
	unsigned int count = 0;

	assert_non_null(directory);
	while ((entry = readdir(directory)) != NULL)
		count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
	(void)closedir(directory);
	return count;
}

static inline int fixture_teardown(void **state)
{
	struct fixture *fixture = *state;
	DIR *directory = opendir(fixture->directory);
	const struct dirent *entry;

	while (directory != NULL && (entry = readdir(directory)) != NULL)
		(void)unlinkat(dirfd(directory), entry->d_name, 0);
	if (directory != NULL)
		(void)closedir(directory);
	(void)rmdir(fixture->directory);
	free(fixture);
	return 0;
}

/* Half random, half constant: compresses about twice. Another @seed, other content; 0: zeros. */
static inline void fill_page(void *page, uint64_t seed)
{
	uint64_t *words = page, x = seed * UINT64_C(0x9e3779b97f4a7c15);

	memset(page, 0, PAGE);
	for (unsigned int i = 0; seed != 0 && i < PAGE / 16; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		words[i] = x;
	}
}

static inline struct rouse_block make_block(const char *name, uint64_t pages)
{
	struct rouse_block block = {.used_bytes = pages * PAGE, .page_bytes = PAGE};

	(void)snprintf(block.name, sizeof(block.name), "%s", name);
	return block;
}

/* A writer for one block of @pages pages. */
static inline struct rouse_writer *begin_image(const char *path, uint64_t pages,
	const struct rouse_layout *layout, const struct rouse_writer_touch *wset, uint32_t count)
{
	struct rouse_block block = make_block("pc.ram", pages);
	struct rouse_writer *writer = NULL;
	struct rouse_error error = {0};

	if (rouse_writer_create(path, layout, &writer, &error) != 0)
		fail_msg("%s", error.message);
	if (rouse_writer_set_blocks(writer, &block, 1, wset, count, &error) != 0)
		fail_msg("%s", error.message);
	return writer;
}

static inline void put_seed(struct rouse_writer *writer, uint64_t page, uint64_t seed)
{
	unsigned char data[PAGE];

	fill_page(data, seed);
	assert_int_equal(rouse_writer_put_page(writer, page, data), 0);
}

static inline struct rouse_writer_stats end_image(struct rouse_writer *writer)
{
	struct rouse_writer_stats stats;
	struct rouse_error error = {0};

	if (rouse_writer_commit(writer, &stats, &error) != 0)
		fail_msg("%s", error.message);
	return stats;
}

struct open_image {
	struct rouse_source *source;
	struct rouse_reader *reader;
	/* What was decoded last: large chunks, page by page, are slow with sanitizers. */
	unsigned char *pages;
	uint64_t number;
	struct rouse_chunk chunk;
};

static inline struct open_image open_image(const char *path)
{
	struct open_image image = {0};
	struct rouse_error error = {0};

	if (rouse_file_source_open(path, NULL, &image.source, &error) != 0)
		fail_msg("%s", error.message);
	if (rouse_reader_open(image.source, &image.reader, &error) != 0)
		fail_msg("%s", error.message);
	return image;
}

static inline void close_image(struct open_image *image)
{
	free(image->pages);
	rouse_reader_close(image->reader);
	rouse_source_destroy(image->source);
}

static inline void load_chunk(struct open_image *image, uint64_t number)
{
	cleanup_free unsigned char *stored = NULL;
	struct rouse_chunk *chunk = &image->chunk;

	if (image->pages != NULL && image->number == number)
		return;
	free(image->pages);
	image->pages = NULL;
	assert_int_equal(rouse_reader_chunk(image->reader, number, ROUSE_READ_URGENT, chunk), 0);
	stored = malloc(chunk->stored_bytes);
	image->pages = malloc((size_t)chunk->pages * PAGE);
	assert_non_null(stored);
	assert_non_null(image->pages);
	assert_int_equal(rouse_source_read(image->source, chunk->offset, stored,
				 chunk->stored_bytes, ROUSE_READ_URGENT),
		0);
	assert_int_equal(rouse_chunk_decode(chunk, stored, image->pages), 0);
	image->number = number;
}

/* The content of a page, the way that a fault takes. */
static inline void read_page(struct open_image *image, uint64_t page, void *data)
{
	uint64_t locator;

	assert_int_equal(rouse_reader_locate(image->reader, page, ROUSE_READ_URGENT, &locator), 0);
	memset(data, 0, PAGE);
	if (locator == ROUSE_LOCATOR_ZERO)
		return;
	load_chunk(image, rouse_locator_chunk(locator));
	assert_true(rouse_locator_in_chunk(locator, &image->chunk));
	memcpy(data, image->pages + (size_t)rouse_locator_slot(locator) * PAGE, PAGE);
}

static inline void assert_page_is(struct open_image *image, uint64_t page, uint64_t seed)
{
	unsigned char expected[PAGE], data[PAGE];

	fill_page(expected, seed);
	read_page(image, page, data);
	if (memcmp(expected, data, PAGE) != 0)
		fail_msg("page %llu has the wrong content", (unsigned long long)page);
}

#endif
