/* SPDX-License-Identifier: MIT */
/*
 * A window of the feeder: some pages, the chunks that hold them, and the two steps that fill it.
 *
 *   feed_window_cut()        which pages: a number of them, whole chunks where possible
 *   window_reader_fill()     the stored bytes of their chunks       (reader thread)
 *   window_decoder_decode()  the pages' content, ready to be placed (a worker)
 */
#ifndef ROUSE_ENGINE_WINDOW_H
#define ROUSE_ENGINE_WINDOW_H

#include "engine/feeder.h"

#include <stdatomic.h>
#include <stddef.h>

#define WINDOW_PAGES 256u
/*
 * In the background: what is read in about one piece of ROUSE_SOURCE_BULK. Between two windows the
 * reader may follow a fault; within one it would seek back to where it was.
 */
#define WINDOW_BACKGROUND_PAGES 128u

struct window_chunk {
	struct rouse_chunk chunk;
	uint64_t number;
	size_t stored_at; /* in feed_window.stored */
};

struct feed_window {
	struct feed_window *next;
	bool decoded; /* of the line: out is ready */
	struct rouse_window out;
	size_t room;  /* pages that fit */
	size_t count; /* of wanted */
	struct rouse_feed_page *wanted;
	struct window_chunk *chunks;
	size_t chunk_count;
	uint8_t *stored; /* compressed bytes, with the gaps that were read over */
	size_t stored_room;
	uint8_t *data; /* room pages */
};

struct feed_window *feed_window_new(uint32_t chunk_pages);
void feed_window_free(struct feed_window *window);

static inline struct feed_window *feed_window_of(struct rouse_window *out)
{
	return (struct feed_window *)((char *)out - offsetof(struct feed_window, out));
}

/**
 * Takes pages from the front of @pages (sorted by locator), without those that config->skip names.
 * Returns how many were used up, skipped ones included.
 */
size_t feed_window_cut(struct feed_window *window, const struct rouse_feed_page *pages,
	size_t count, const struct rouse_feeder_config *config);

struct window_reader {
	struct rouse_reader *reader;
	struct rouse_source *source;
	const struct rouse_chunk *front_chunks;
	uint32_t front_chunk_count;
	uint32_t chunk_pages;
	/* The last chunk that was read: the next window may begin with it, and reading it again
	   would break the sequence of reads. */
	uint8_t *carry;
	size_t carry_room;
	uint64_t carry_offset;
	size_t carry_size;
	uint64_t read_ns; /* of the last window: the time in the source */
	atomic_bool stopped;
};

int window_reader_init(struct window_reader *reader, const struct rouse_feeder_config *config);
void window_reader_finish(struct window_reader *reader);
/** Whoever fills a window stops after the read that is under way. Any thread. */
void window_reader_stop(struct window_reader *reader);
/**
 * 0; -EUCLEAN (*damaged: the chunk whose descriptor is), -ENOMEM, the source's errors; -ECANCELED
 * after window_reader_stop().
 */
int window_reader_fill(struct window_reader *reader, struct feed_window *window, uint64_t *damaged);

struct window_decoder {
	uint8_t *scratch; /* one chunk */
	/* Of the last window: */
	struct rouse_decode_time time;
	uint64_t pages; /* that were decompressed, wanted or not */
};

/** Pages of the chunks that a window was filled from, wanted or not. */
uint64_t feed_window_chunk_pages(const struct feed_window *window);

int window_decoder_init(struct window_decoder *decoder, uint32_t chunk_pages);
void window_decoder_finish(struct window_decoder *decoder);
/** 0 or -EUCLEAN, *damaged: the chunk. Nothing of a damaged chunk gets into window->out. */
int window_decoder_decode(
	struct window_decoder *decoder, struct feed_window *window, uint64_t *damaged);

#endif
