/* SPDX-License-Identifier: MIT */
/*
 * What is read for one fault: the chunk that is asked for and, where a read is slow, chunks that
 * are stored next to it; and fault-around, which places the neighbours of the page out of them.
 *
 *   stored   ... | chunk | chunk | CHUNK | chunk | chunk | ...
 *                '------ 1. read -------' '--- 3. read --'
 *   pages    ...  . . . . . . . . . . P . . . . . . . . . ...
 *                                 2. answered; then its neighbours, those of the second read last
 *
 * Neighbours are found by their page numbers: pages are stored in the order of their addresses, but
 * for a working set's, whose chunk-mates are anywhere, and are prefetched.
 *
 * For one thread. After fault_span_init() nothing is allocated.
 */
#ifndef ROUSE_ENGINE_FAULT_SPAN_H
#define ROUSE_ENGINE_FAULT_SPAN_H

#include "engine/stage_clock.h"
#include "image/image_reader.h"
#include "sink/sink.h"

#define FAULT_SPAN_CHUNKS 64u
/**
 * The most that is read on each side of a chunk. At 100 MB/s it takes 2.6 ms, a quarter of the seek
 * that it saves: guests touch a second page within some 200 of the first one, more often below it
 * than above (docs/performance.md, "What a set lacks").
 */
#define FAULT_SPAN_SIDE_BYTES ROUSE_SOURCE_BULK
/** How far from the page that was asked for its chunk's pages are placed with it. */
#define FAULT_AROUND_PAGES 15u

struct fault_span {
	struct rouse_reader *reader; /* the caller's */
	struct stage_clock *stages;  /* as well; or NULL */
	uint64_t first;              /* chunk number */
	uint32_t count;              /* of chunks that were read; stored one behind the other */
	uint32_t chosen;             /* and with those that are to be read behind them */
	struct rouse_chunk chunks[FAULT_SPAN_CHUNKS];
	size_t chunk_bytes; /* uncompressed, at most */
	uint8_t *stored;
	uint8_t *scratch; /* one chunk, uncompressed */
};

/** -ENOMEM. */
int fault_span_init(
	struct fault_span *span, struct rouse_reader *reader, struct stage_clock *stages);
void fault_span_finish(struct fault_span *span);
/** Takes the memory that one chunk needs from the kernel, before a fault does. */
void fault_span_touch(struct fault_span *span);

/**
 * Chooses what to read for chunk @number: it alone, or if @wide up to FAULT_SPAN_SIDE_BYTES in
 * front of it, too; and as much behind it for fault_span_read_behind(). 0, -EUCLEAN, or what
 * reading a chunk table gives.
 */
int fault_span_choose(struct fault_span *span, uint64_t number, bool wide);

/** Chooses @number and chunks stored right behind it: up to @count, as far as there is room. */
int fault_span_choose_run(struct fault_span *span, uint64_t number, uint32_t count);

/** Reads it, urgently. 0 or the source's errors. */
int fault_span_read(struct fault_span *span, struct rouse_source *source);
/** Reads what was chosen behind that, if anything. 0 or the source's errors: it is not there. */
int fault_span_read_behind(struct fault_span *span, struct rouse_source *source);

/** The last chunk that was read. */
static inline uint64_t fault_span_last(const struct fault_span *span)
{
	return span->first + span->count - 1;
}

/** A locator in the last chunk that was chosen: behind it reading would go on. */
static inline uint64_t fault_span_end(const struct fault_span *span)
{
	return (span->first + span->chosen) << 16;
}

/** Stored bytes that were read, without those of chunk @number. */
uint64_t fault_span_extra_bytes(const struct fault_span *span, uint64_t number);

/** Verifies and decompresses chunk @number, which was read, to @pages. 0 or -EUCLEAN. */
int fault_span_decode(const struct fault_span *span, uint64_t number, void *pages);

/**
 * The same in two steps: first up to the page that somebody waits for, then all of it.
 * *decoded: pages that are there, @front or more; the second step wants to know how many were.
 * 0 or -EUCLEAN.
 */
int fault_span_decode_front(const struct fault_span *span, uint64_t number, uint32_t front,
	void *pages, uint32_t *decoded);
int fault_span_decode_behind(
	const struct fault_span *span, uint64_t number, void *pages, uint32_t decoded);

/** The descriptor of a chunk that was read. */
static inline const struct rouse_chunk *fault_span_chunk(
	const struct fault_span *span, uint64_t number)
{
	return &span->chunks[number - span->first];
}

/**
 * Places the neighbours of @page, which is in chunk @number, that were read with it and are not
 * placed yet. @decoded: that chunk's pages. Of a chunk that turns out to be damaged nothing is
 * placed: whoever needs it will say so. With @number ROUSE_FEEDER_NO_CHUNK nothing is decompressed
 * yet, and @page itself is placed, too. *placed: how many. 0 or the sink's errors.
 */
int fault_span_place_around(struct fault_span *span, struct rouse_sink *sink, uint64_t page,
	uint64_t number, const void *decoded, size_t *placed);

#endif
