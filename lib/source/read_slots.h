/* SPDX-License-Identifier: MIT */
/*
 * Pieces of a file that are being read, or have been: a ring of slots with memory of their own,
 * filled by io_uring. Which pieces, and when, is read_ahead.c's business. Not thread-safe.
 *
 *   memory   | slot 0 | slot 1 | ...      ROUSE_SOURCE_BULK each; a piece fills one, or less
 *              |  ^ next: the oldest
 *              a piece of the file, from any offset that direct I/O allows
 *
 * Slots are taken in turn. So whole pieces that are neighbours in the file and requested one after
 * the other are neighbours in memory, and the kernel makes one request of them; and what was read
 * for a reader who went elsewhere stays until SLOTS further pieces have been read.
 */
#ifndef ROUSE_SOURCE_READ_SLOTS_H
#define ROUSE_SOURCE_READ_SLOTS_H

#include "source/read_ahead.h"

#include <liburing.h>
#include <stdatomic.h>

#define READ_SLOTS ROUSE_READ_DEPTH_MAX
#define READ_SLOT_BYTES ((uint64_t)ROUSE_SOURCE_BULK)
/* What direct I/O wants offsets and sizes to be multiples of. */
#define READ_SLOT_ALIGN UINT64_C(4096)

enum read_slot_state { READ_SLOT_FREE, READ_SLOT_FLIGHT, READ_SLOT_DONE };

struct read_slot {
	uint64_t offset, bytes; /* of the piece; the last one may reach beyond the file's end */
	int result;             /* when it is done: bytes or -errno */
	enum read_slot_state state;
};

struct read_slots {
	int fd;
	uint64_t file_bytes;
	uint8_t *memory;
	struct io_uring ring;
	rouse_queue_submit_fn *submit;
	struct read_slot slots[READ_SLOTS];
	unsigned int next;  /* the slot that the next request takes */
	uint64_t waited_ns; /* for pieces in flight, in all */
	bool has_ring;      /* set once */
	bool registered;    /* set once: the kernel has the memory mapped */
	bool broken;        /* the ring failed: what is in flight may still be written to */
	_Atomic uint64_t reads_done, bytes_done;
};

/** Without a ring nothing can be requested. */
void read_slots_init(struct read_slots *slots, const struct rouse_read_ahead_config *config);
/**
 * The memory may be unmapped afterwards: requests that are still in flight hold it if it is
 * registered, and are waited for if not.
 */
void read_slots_finish(struct read_slots *slots);

static inline bool read_slots_work(const struct read_slots *slots)
{
	return slots->has_ring && !slots->broken;
}

static inline uint64_t read_slot_end(const struct read_slot *slot)
{
	return slot->offset + slot->bytes;
}

/** The slot with the piece that @offset lies in: in flight, done, or failed. NULL: there is none.
 */
struct read_slot *read_slots_find(struct read_slots *slots, uint64_t offset);

/**
 * Prepares the request for a piece in the next slot, once that is not in flight any more; @offset
 * and @bytes are aligned. NULL: the ring is broken, or takes nothing now.
 */
struct read_slot *read_slots_request(struct read_slots *slots, uint64_t offset, uint64_t bytes);
/** Submits what is prepared. What the kernel refuses read_slots_await() submits again. */
void read_slots_submit(struct read_slots *slots);

/** Takes note of what has come, and waits for nothing. */
void read_slots_reap(struct read_slots *slots);
/**
 * Waits until a slot is not in flight. -EIO: the ring is broken; -EAGAIN: the kernel takes nothing
 * now, and the slot stays in flight.
 */
int read_slots_await(struct read_slots *slots, const struct read_slot *slot);

/** Whether a piece is there, and all of it. */
bool read_slot_is_whole(const struct read_slots *slots, const struct read_slot *slot);
/** Where the byte at @offset lies, which the piece of @slot has. */
const uint8_t *read_slot_memory(
	const struct read_slots *slots, const struct read_slot *slot, uint64_t offset);

#endif
