/* SPDX-License-Identifier: MIT */
/*
 * Takes QEMU's stream out of its socket at memory speed, so that how fast pages are packed does not
 * hold up the guest: in a background snapshot a guest that writes waits until its page has been
 * taken.
 *
 *	QEMU --socket--> drain thread --> buffers in memory, up to a limit --> one consumer
 *
 * Beyond the limit the thread waits for the consumer, and QEMU for the thread.
 */
#ifndef ROUSE_API_SAVE_DRAIN_H
#define ROUSE_API_SAVE_DRAIN_H

#include <rouse.h>

struct save_drain;

struct save_drain_stats {
	uint64_t bytes;
	uint64_t first_us, last_us; /**< CLOCK_MONOTONIC, of the first byte and the last; or 0 */
	uint64_t most_bytes;        /**< the most memory that it took */
	uint64_t waits;             /**< how often the limit was met */
	bool aborted;               /**< by save_drain_abort() */
};

struct save_drain_config {
	uint64_t limit_bytes;
	int notify_fd; /**< an eventfd: written to when reading ends; it must outlive the drain */
	/**
	 * The stream must not break off: after an abort it is still read to its end, and thrown
	 * away; and a process of its own does so if we are killed (save_guard.h).
	 */
	bool must_finish;
};

/** Starts reading @fd, a socket, which is taken over in any case. -ENOMEM, -EAGAIN, -EMFILE. */
int save_drain_start(int fd, const struct save_drain_config *config, struct save_drain **drain);

/**
 * The next bytes: waits until there are some. They stay valid until save_drain_release(). *size is
 * 0 at the end of the stream. -ECANCELED after an abort, or what reading gave.
 */
int save_drain_next(struct save_drain *drain, const void **bytes, size_t *size);
/** Gives back the @size bytes that save_drain_next() handed out. */
void save_drain_release(struct save_drain *drain, size_t size);

/**
 * Ends it: the consumer meets -ECANCELED, QEMU a closed socket, unless the stream must finish.
 * From any thread.
 */
void save_drain_abort(struct save_drain *drain);
/** Whether QEMU's stream has ended, well or not. */
bool save_drain_ended(struct save_drain *drain);
void save_drain_get_stats(struct save_drain *drain, struct save_drain_stats *stats);
/**
 * Ends and frees it; the consumer must be gone. A stream that must finish and has not, because QEMU
 * stands still, is left to the process that reads it if we are killed. NULL is fine.
 */
void save_drain_free(struct save_drain *drain);

#endif
