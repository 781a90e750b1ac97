/* SPDX-License-Identifier: MIT */
/*
 * The feeder: pages of an image, read and decompressed ahead of who places them.
 *
 *   plan --pages, sorted by place--> reader thread --stored bytes--> workers --in order--> next()
 *
 * The plan says which pages, region by region. The feeder cuts a region into windows of about a
 * mebibyte (half of it in the background), reads each window's chunks in as few sequential reads as
 * they lie in runs, and verifies and decompresses them, several windows at once (window_line.h):
 * the order of next() is that of reading all the same. At most `windows` of them are under way:
 * that bounds the memory, and on a slow disk it is how far reading runs ahead while QEMU is still
 * starting. As soon as somebody takes windows no new ones are made beyond
 * ROUSE_FEEDER_WARM_WINDOWS: those that are released go round. A region is read from its beginning
 * to its end, unless `follow` takes it elsewhere.
 */
#ifndef ROUSE_ENGINE_FEEDER_H
#define ROUSE_ENGINE_FEEDER_H

#include "engine/stage_clock.h"
#include "image/image_reader.h"
#include "sink/sink.h"

/**
 * Windows that are enough while they are being taken: whoever is slowest sets the pace, and more of
 * them would be memory that nobody has touched yet. Measured: the first touch of 758 MB of windows
 * costs 200 ms of processor time, their decompression 120.
 */
#define ROUSE_FEEDER_WARM_WINDOWS 8u

/**
 * More threads would only wait: four decompress LZ4 at 12 GB/s and more, and QEMU takes a tenth of
 * that through its socket.
 */
#define ROUSE_FEEDER_MAX_WORKERS 4u

/** A page, where it is stored, and when it is touched after the start; 0: at once, or unknown. */
struct rouse_feed_page {
	uint64_t locator;
	uint32_t page;
	uint32_t time_us;
};

/**
 * Gives the next region: *count pages in *pages, sorted by locator, which stay valid until the
 * next call; 0 of them: the end. Runs on the feeder's thread. 0 or -errno.
 */
typedef int rouse_feed_fn(void *user, const struct rouse_feed_page **pages, size_t *count);

struct rouse_feeder_config {
	struct rouse_reader *reader; /* the caller's, as is source */
	struct rouse_source *source;
	const struct rouse_chunk
		*front_chunks; /* descriptors of chunks 0 on that are known already */
	uint32_t front_chunk_count;
	rouse_feed_fn *plan;
	void *plan_user;
	unsigned int windows; /* at least 2 */
	/** Threads that decode, up to ROUSE_FEEDER_MAX_WORKERS; 0: as many as this machine is
	    worth. */
	unsigned int workers;
	bool background; /* run at low priority: it must not hurt a running guest */
	/** Pages that need not be read any more; may be NULL. Any thread. */
	bool (*skip)(void *user, uint64_t page);
	void *skip_user;
	/**
	 * Where somebody else is reading: the locator after which reading is to go on, so that it
	 * goes on in sequence and near what is wanted; 0: where it is. May be NULL. Asked before
	 * each window.
	 */
	uint64_t (*follow)(void *user);
	void *follow_user;
	struct stage_clock *stages; /* counts; the caller's, or NULL */
};

/** Pages ready to be placed. */
struct rouse_window {
	struct rouse_sink_page *pages;
	size_t count;
};

struct rouse_feeder;

/** Starts reading at once. -ENOMEM, -EAGAIN (no thread). */
int rouse_feeder_start(const struct rouse_feeder_config *config, struct rouse_feeder **feeder);

/**
 * Waits for the next window, which belongs to the caller until rouse_feeder_release().
 * 1: there is one; 0: the end; -EUCLEAN: a chunk is damaged (rouse_feeder_damaged() names it);
 * -ETIMEDOUT: none within @timeout_ms (-1: wait for ever); the plan's and the source's errors.
 */
int rouse_feeder_next(struct rouse_feeder *feeder, int timeout_ms, struct rouse_window **window);
void rouse_feeder_release(struct rouse_feeder *feeder, struct rouse_window *window);

/** In place of a chunk's number: a table is damaged. */
#define ROUSE_FEEDER_NO_CHUNK UINT64_MAX

/** The chunk that made rouse_feeder_next() fail, or ROUSE_FEEDER_NO_CHUNK. */
uint64_t rouse_feeder_damaged(const struct rouse_feeder *feeder);

/** Ends the threads and frees everything, windows too. NULL is fine. */
void rouse_feeder_stop(struct rouse_feeder *feeder);

#endif
