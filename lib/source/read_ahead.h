/* SPDX-License-Identifier: MIT */
/*
 * Bulk reads with direct I/O: a stream of pieces, of which several are in flight (io_uring), also
 * beyond what has been asked for. So the reader stays simple and blocking, and the disk busy while
 * the reader does something else.
 *
 *   file    . . . |---------|---------|---------|---------|---| . . .
 *                 ^ the stream began here     ^ asked for      ^ requested
 *                   (aligned down to 4 KiB)     so far           so far
 *
 *   a piece is ROUSE_SOURCE_BULK bytes, or less where no more may be requested; read_slots.h has
 *   the memory
 *
 * The memory is of huge pages where possible: a request then has one segment for 2 MiB instead of
 * one for 4 KiB, which on a virtual disk was three times as fast (docs/performance.md).
 *
 * A read that begins at or shortly behind the end of the last one, or in what was read ahead, goes
 * on with the stream. Any other one begins a new stream: the reader may jump at any time, and what
 * was read ahead of it is lost then, unless it comes back soon. So a stream never requests more
 * beyond what it is asked for than half of what it has given before, and no more pieces than the
 * depth that read_depth.h finds: the first read of a stream costs no more than its own pages, all
 * of them together no more than half again. (Restores that follow the guest's faults jump every few
 * hundred KiB. When blocks lay at multiples of their size and the window doubled with each read
 * such a restore read its image nearly twice.)
 *
 * Without io_uring each piece is read when it is asked for.
 */
#ifndef ROUSE_SOURCE_READ_AHEAD_H
#define ROUSE_SOURCE_READ_AHEAD_H

#include "source/read_depth.h"
#include "source/source.h"

struct io_uring;
struct rouse_read_ahead;

/** The memory that it reads into. */
#define ROUSE_READ_AHEAD_BYTES ((size_t)ROUSE_READ_DEPTH_MAX * ROUSE_SOURCE_BULK)

/** io_uring_queue_init(3), or what a test puts in its place. */
typedef int rouse_queue_init_fn(unsigned int entries, struct io_uring *ring, unsigned int flags);
/** io_uring_submit_and_wait(3), likewise. */
typedef int rouse_queue_submit_fn(struct io_uring *ring, unsigned int wait_for);

struct rouse_read_ahead_config {
	int fd;          /**< with O_DIRECT */
	uint64_t bytes;  /**< of the file */
	uint8_t *memory; /**< ROUSE_READ_AHEAD_BYTES, aligned; until _free() it is the kernel's */
	rouse_queue_init_fn *queue_init;
	rouse_queue_submit_fn *queue_submit;
	/** Reads what a request did not bring, and finds out why: that is the error. */
	int (*read_now)(void *user, uint64_t offset, void *buffer, size_t size);
	void *user;
};

/** Free with rouse_read_ahead_free(). -ENOMEM. Without io_uring it works, one piece at a time. */
int rouse_read_ahead_new(
	const struct rouse_read_ahead_config *config, struct rouse_read_ahead **ahead);
void rouse_read_ahead_free(struct rouse_read_ahead *ahead);

/** Whether pieces are in flight together. */
bool rouse_read_ahead_has_ring(const struct rouse_read_ahead *ahead);
/**
 * Whether a bulk read is one of a stream: it is long, goes on with the stream, or goes on where the
 * last read of rouse_read_ahead_read_single() ended. Tables of the index, which are read in
 * between, are not. Any thread.
 */
bool rouse_read_ahead_is_stream(const struct rouse_read_ahead *ahead, uint64_t offset, size_t size);
/**
 * Copies what is there already, if all of it is, and nobody is reading by the stream: waits for
 * nothing. Returns whether it did; otherwise @buffer may have been written to. Any thread.
 */
bool rouse_read_ahead_take(
	struct rouse_read_ahead *ahead, uint64_t offset, void *buffer, size_t size);
/** Takes it, or reads by read_now, and remembers where. Any thread; errors of read_now. */
int rouse_read_ahead_read_single(
	struct rouse_read_ahead *ahead, uint64_t offset, void *buffer, size_t size);

/**
 * Reads by the stream; one read at a time, from any thread. @size is above 0, the range within the
 * file. Errors: those of read_now.
 */
int rouse_read_ahead_read(
	struct rouse_read_ahead *ahead, uint64_t offset, void *buffer, size_t size);

/** Around an urgent read, in any thread: no more than what is needed is submitted meanwhile. */
void rouse_read_ahead_urgent_begin(struct rouse_read_ahead *ahead);
void rouse_read_ahead_urgent_end(struct rouse_read_ahead *ahead, uint64_t took_ns);

/** Adds its requests to @stats. */
void rouse_read_ahead_add_stats(
	const struct rouse_read_ahead *ahead, struct rouse_source_stats *stats);

#endif
