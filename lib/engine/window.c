/* SPDX-License-Identifier: MIT */
#include "engine/window.h"

#include "base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Unwanted bytes between two chunks that are read over rather than begin another read. */
#define READ_GAP (64u << 10)
/* Scattered chunks may span many times a window's bytes; a stop must not wait for all of them. */
#define READ_PIECE (1u << 20)

struct feed_window *feed_window_new(uint32_t chunk_pages)
{
	struct feed_window *window = calloc(1, sizeof(*window));

	if (window == NULL)
		return NULL;
	window->room = WINDOW_PAGES + chunk_pages;
	window->wanted = malloc(window->room * sizeof(*window->wanted));
	window->chunks = malloc(window->room * sizeof(*window->chunks));
	window->out.pages = malloc(window->room * sizeof(*window->out.pages));
	window->data = malloc(window->room * ROUSE_IMAGE_PAGE_BYTES);
	if (window->wanted == NULL || window->chunks == NULL || window->out.pages == NULL ||
		window->data == NULL) {
		feed_window_free(window);
		return NULL;
	}
	return window;
}

void feed_window_free(struct feed_window *window)
{
	if (window == NULL)
		return;
	free(window->wanted);
	free(window->chunks);
	free(window->out.pages);
	free(window->data);
	free(window->stored);
	free(window);
}

/* Whether two pages lie in one chunk: their locators differ in the slot only. */
static bool same_chunk(const struct rouse_feed_page *a, const struct rouse_feed_page *b)
{
	return a->locator >> 16 == b->locator >> 16;
}

size_t feed_window_cut(struct feed_window *window, const struct rouse_feed_page *pages,
	size_t count, const struct rouse_feeder_config *config)
{
	const size_t usual = config->background ? WINDOW_BACKGROUND_PAGES : WINDOW_PAGES;
	size_t used = 0;

	window->count = 0;
	while (used < count && window->count < window->room) {
		/* Past the usual size only to the end of a chunk. */
		if (window->count >= usual && !same_chunk(&pages[used], &pages[used - 1]))
			break;
		if (config->skip == NULL || !config->skip(config->skip_user, pages[used].page))
			window->wanted[window->count++] = pages[used];
		used++;
	}
	return used;
}

int window_reader_init(struct window_reader *reader, const struct rouse_feeder_config *config)
{
	*reader = (struct window_reader){
		.reader = config->reader,
		.source = config->source,
		.front_chunks = config->front_chunks,
		.front_chunk_count = config->front_chunk_count,
		.chunk_pages = le32_get(rouse_reader_superblock(config->reader)->chunk_pages),
	};
	return 0;
}

void window_reader_finish(struct window_reader *reader)
{
	free(reader->carry);
	reader->carry = NULL;
}

static int find_chunk(struct window_reader *reader, uint64_t number, struct rouse_chunk *chunk)
{
	if (number < reader->front_chunk_count) {
		*chunk = reader->front_chunks[number];
		return 0;
	}
	return rouse_reader_chunk(reader->reader, number, ROUSE_READ_BULK, chunk);
}

/* The chunks that the wanted pages lie in, in the order of the pages. */
static int list_chunks(struct window_reader *reader, struct feed_window *window, uint64_t *damaged)
{
	window->chunk_count = 0;
	for (size_t i = 0; i < window->count; i++) {
		uint64_t locator = window->wanted[i].locator;
		struct window_chunk *chunk;
		int code;

		if (locator == ROUSE_LOCATOR_ZERO)
			continue;
		if (i > 0 && same_chunk(&window->wanted[i], &window->wanted[i - 1]))
			continue;
		chunk = &window->chunks[window->chunk_count++];
		chunk->number = rouse_locator_chunk(locator);
		code = find_chunk(reader, chunk->number, &chunk->chunk);
		if (code < 0) {
			*damaged = chunk->number;
			return code;
		}
	}
	return 0;
}

static int make_room(uint8_t **buffer, size_t *room, size_t size)
{
	uint8_t *more;

	if (size <= *room)
		return 0;
	more = realloc(*buffer, size);
	if (more == NULL)
		return -ENOMEM;
	*buffer = more;
	*room = size;
	return 0;
}

void window_reader_stop(struct window_reader *reader)
{
	atomic_store(&reader->stopped, true);
}

/* As much at once as can be: the source knows in which pieces, and how many of them together. */
static int read_bulk(struct window_reader *reader, uint64_t offset, uint8_t *buffer, size_t size)
{
	const uint64_t begun_ns = rouse_clock_ns();
	int code = 0;

	while (code == 0 && size > 0) {
		const size_t piece = size < 2 * (size_t)READ_PIECE ? size : READ_PIECE;

		if (atomic_load(&reader->stopped))
			return -ECANCELED;
		code = rouse_source_read(reader->source, offset, buffer, piece, ROUSE_READ_BULK);
		offset += piece;
		buffer += piece;
		size -= piece;
	}
	reader->read_ns += rouse_clock_ns() - begun_ns;
	return code;
}

/* Chunks that lie in a run, from the @first-th on: their number, and the bytes they span. */
static size_t find_run(const struct feed_window *window, size_t first, uint64_t *span)
{
	uint64_t begin = window->chunks[first].chunk.offset;
	uint64_t end = begin + window->chunks[first].chunk.stored_bytes;
	size_t i = first + 1;

	while (i < window->chunk_count && window->chunks[i].chunk.offset >= end &&
		window->chunks[i].chunk.offset - end <= READ_GAP) {
		end = window->chunks[i].chunk.offset + window->chunks[i].chunk.stored_bytes;
		i++;
	}
	*span = end - begin;
	return i - first;
}

static int read_run(struct window_reader *reader, struct feed_window *window, size_t first,
	size_t count, uint64_t span, size_t at)
{
	uint64_t offset = window->chunks[first].chunk.offset;
	size_t have = 0;
	int code = make_room(&window->stored, &window->stored_room, at + span);

	if (code < 0)
		return code;
	if (reader->carry_size > 0 && reader->carry_offset == offset &&
		reader->carry_size <= span) {
		memcpy(window->stored + at, reader->carry, reader->carry_size);
		have = reader->carry_size;
	}
	for (size_t i = first; i < first + count; i++)
		window->chunks[i].stored_at =
			at + (size_t)(window->chunks[i].chunk.offset - offset);
	return read_bulk(reader, offset + have, window->stored + at + have, (size_t)span - have);
}

static int keep_carry(struct window_reader *reader, const struct feed_window *window)
{
	const struct window_chunk *last = &window->chunks[window->chunk_count - 1];
	int code = make_room(&reader->carry, &reader->carry_room, last->chunk.stored_bytes);

	reader->carry_size = 0;
	if (code < 0)
		return code;
	memcpy(reader->carry, window->stored + last->stored_at, last->chunk.stored_bytes);
	reader->carry_offset = last->chunk.offset;
	reader->carry_size = last->chunk.stored_bytes;
	return 0;
}

int window_reader_fill(struct window_reader *reader, struct feed_window *window, uint64_t *damaged)
{
	size_t at = 0, first = 0;
	int code = list_chunks(reader, window, damaged);

	reader->read_ns = 0;
	while (code == 0 && first < window->chunk_count) {
		uint64_t span;
		size_t count = find_run(window, first, &span);

		code = read_run(reader, window, first, count, span, at);
		first += count;
		at += (size_t)span;
	}
	if (code == 0 && window->chunk_count > 0)
		code = keep_carry(reader, window);
	return code;
}

uint64_t feed_window_chunk_pages(const struct feed_window *window)
{
	uint64_t pages = 0;

	for (size_t i = 0; i < window->chunk_count; i++)
		pages += window->chunks[i].chunk.pages;
	return pages;
}

int window_decoder_init(struct window_decoder *decoder, uint32_t chunk_pages)
{
	decoder->scratch = malloc((size_t)chunk_pages * ROUSE_IMAGE_PAGE_BYTES);
	return decoder->scratch != NULL ? 0 : -ENOMEM;
}

void window_decoder_finish(struct window_decoder *decoder)
{
	free(decoder->scratch);
	decoder->scratch = NULL;
}

/* Whether @count wanted pages are exactly the pages of @chunk in order. */
static bool is_whole(
	const struct rouse_feed_page *wanted, size_t count, const struct rouse_chunk *chunk)
{
	if (count != chunk->pages)
		return false;
	for (size_t i = 0; i < count; i++) {
		if (rouse_locator_slot(wanted[i].locator) != i)
			return false;
	}
	return true;
}

/* Decodes one chunk's pages to @data, in the order wanted. */
static int decode_pages(struct window_decoder *decoder, const struct rouse_chunk *chunk,
	const uint8_t *stored, const struct rouse_feed_page *wanted, size_t count, uint8_t *data)
{
	int code;

	decoder->pages += chunk->pages;
	if (is_whole(wanted, count, chunk))
		return rouse_chunk_decode_timed(chunk, stored, data, &decoder->time);
	code = rouse_chunk_decode_timed(chunk, stored, decoder->scratch, &decoder->time);
	for (size_t i = 0; code == 0 && i < count; i++) {
		uint32_t slot = rouse_locator_slot(wanted[i].locator);

		if (slot >= chunk->pages)
			return -EUCLEAN;
		memcpy(data + i * ROUSE_IMAGE_PAGE_BYTES,
			decoder->scratch + (size_t)slot * ROUSE_IMAGE_PAGE_BYTES,
			ROUSE_IMAGE_PAGE_BYTES);
	}
	return code;
}

int window_decoder_decode(
	struct window_decoder *decoder, struct feed_window *window, uint64_t *damaged)
{
	size_t chunk = 0, i = 0;

	decoder->time = (struct rouse_decode_time){0};
	decoder->pages = 0;
	window->out.count = 0;
	while (i < window->count) {
		const struct rouse_feed_page *wanted = &window->wanted[i];
		const struct window_chunk *from = &window->chunks[chunk];
		uint8_t *data = window->data + i * ROUSE_IMAGE_PAGE_BYTES;
		size_t n = 1;
		const bool zero = wanted->locator == ROUSE_LOCATOR_ZERO;

		while (i + n < window->count && same_chunk(wanted, wanted + n))
			n++;
		if (!zero) {
			int code = decode_pages(decoder, &from->chunk,
				window->stored + from->stored_at, wanted, n, data);

			if (code < 0) {
				*damaged = from->number;
				return code;
			}
			chunk++;
		}
		for (size_t k = 0; k < n; k++)
			window->out.pages[window->out.count++] = (struct rouse_sink_page){
				.page = wanted[k].page,
				.data = zero ? NULL : data + k * ROUSE_IMAGE_PAGE_BYTES,
			};
		i += n;
	}
	return 0;
}
