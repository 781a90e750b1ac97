/* SPDX-License-Identifier: MIT */
#include "source/read_ahead.h"

#include "base/clock.h"

#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK ((uint64_t)ROUSE_SOURCE_BULK)
#define SLOTS ROUSE_READ_DEPTH_MAX
#define ALIGN UINT64_C(4096)
/* What a reader may leave out between two reads of one stream. */
#define GAP UINT64_C(65536)
/* A read of so much is worth a stream of its own. */
#define STREAM_BYTES (BLOCK / 2)
#define EPOCH_BYTES (UINT64_C(16) * BLOCK)

enum slot_state { SLOT_FREE, SLOT_FLIGHT, SLOT_DONE };

struct slot {
	uint64_t block;
	int result; /* when it is done: bytes or -errno */
	enum slot_state state;
};

struct rouse_read_ahead {
	struct rouse_read_ahead_config config;
	uint64_t block_count;

	pthread_mutex_t lock; /* one bulk read at a time; it guards what follows */
	struct io_uring ring;
	struct slot slots[SLOTS];
	unsigned int window; /* blocks to read beyond what is asked for */
	uint64_t submitted;  /* blocks of the stream below this one are, or were, in a slot */
	struct rouse_read_depth depth;
	uint64_t epoch_begun_ns, epoch_bytes, epoch_waited_ns;

	bool has_ring;       /* set once */
	bool registered;     /* set once: the kernel has the memory mapped */
	_Atomic bool broken; /* the ring failed: what is in flight may still be written to */
	_Atomic uint64_t stream_end, ahead_end; /* offsets: read, and requested, so far */
	_Atomic uint64_t single_end;            /* offset at which the last read beside it ended */
	_Atomic unsigned int urgent;
	_Atomic uint64_t urgent_ns; /* sliding average since the last epoch; 0: none */
	_Atomic uint64_t reads_done, bytes_done;
};

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint8_t *memory_of(const struct rouse_read_ahead *ahead, uint64_t block)
{
	return ahead->config.memory + block % SLOTS * BLOCK;
}

/* Bytes of the file in a block. */
static uint64_t bytes_in(const struct rouse_read_ahead *ahead, uint64_t block)
{
	return least(BLOCK, ahead->config.bytes - block * BLOCK);
}

static void set_up_ring(struct rouse_read_ahead *ahead)
{
	const struct iovec all = {ahead->config.memory, ROUSE_READ_AHEAD_BYTES};

	ahead->has_ring = ahead->config.queue_init(SLOTS, &ahead->ring, 0) == 0;
	/* Refused where RLIMIT_MEMLOCK is small: then each request maps its memory anew. */
	ahead->registered =
		ahead->has_ring && io_uring_register_buffers(&ahead->ring, &all, 1) == 0;
}

int rouse_read_ahead_new(
	const struct rouse_read_ahead_config *config, struct rouse_read_ahead **ahead)
{
	struct rouse_read_ahead *new = calloc(1, sizeof(*new));

	if (new == NULL)
		return -ENOMEM;
	new->config = *config;
	new->block_count = config->bytes / BLOCK + (config->bytes % BLOCK != 0);
	new->stream_end = new->single_end = UINT64_MAX;
	rouse_read_depth_init(&new->depth);
	(void)pthread_mutex_init(&new->lock, NULL);
	set_up_ring(new);
	*ahead = new;
	return 0;
}

/* Requests that are still in flight hold their memory: it may be unmapped. */
void rouse_read_ahead_free(struct rouse_read_ahead *ahead)
{
	if (ahead == NULL)
		return;
	if (ahead->has_ring)
		io_uring_queue_exit(&ahead->ring);
	(void)pthread_mutex_destroy(&ahead->lock);
	free(ahead);
}

bool rouse_read_ahead_has_ring(const struct rouse_read_ahead *ahead)
{
	return ahead->has_ring;
}

static bool is_behind(uint64_t offset, uint64_t end)
{
	return offset >= end && offset - end <= GAP;
}

static bool continues(const struct rouse_read_ahead *ahead, uint64_t offset)
{
	return is_behind(offset, ahead->stream_end) ||
	       (offset >= ahead->stream_end && offset < ahead->ahead_end);
}

bool rouse_read_ahead_is_stream(const struct rouse_read_ahead *ahead, uint64_t offset, size_t size)
{
	return size >= STREAM_BYTES || continues(ahead, offset) ||
	       is_behind(offset, ahead->single_end);
}

/* ---- Requests -------------------------------------------------------------------------------- */

static void finish(struct rouse_read_ahead *ahead, struct io_uring_cqe *cqe)
{
	struct slot *slot = &ahead->slots[io_uring_cqe_get_data64(cqe)];

	slot->result = cqe->res;
	slot->state = SLOT_DONE;
	io_uring_cqe_seen(&ahead->ring, cqe);
}

/* Waits until a slot is not in flight. -EIO: the ring is broken. */
static int await(struct rouse_read_ahead *ahead, const struct slot *slot)
{
	const uint64_t begun = slot->state == SLOT_FLIGHT ? rouse_clock_ns() : 0;

	while (slot->state == SLOT_FLIGHT) {
		struct io_uring_cqe *cqe;
		int code = io_uring_peek_cqe(&ahead->ring, &cqe);

		if (code == 0) {
			finish(ahead, cqe);
			continue;
		}
		/* Submits what a full kernel refused before, too. */
		code = io_uring_submit_and_wait(&ahead->ring, 1);
		if (code < 0 && code != -EINTR) {
			ahead->broken = true;
			return -EIO;
		}
	}
	if (begun != 0)
		ahead->epoch_waited_ns += rouse_clock_ns() - begun;
	return 0;
}

/* Prepares the request for a block, unless it is there or under way. */
static int request(struct rouse_read_ahead *ahead, uint64_t block)
{
	struct slot *slot = &ahead->slots[block % SLOTS];
	const uint64_t bytes = (bytes_in(ahead, block) + ALIGN - 1) & ~(ALIGN - 1);
	struct io_uring_sqe *sqe;
	int code;

	if (slot->state != SLOT_FREE && slot->block == block)
		return 0;
	code = await(ahead, slot); /* of a stream that was left */
	if (code < 0)
		return code;
	sqe = io_uring_get_sqe(&ahead->ring);
	if (sqe == NULL) {
		ahead->broken = true; /* cannot be: there are as many as slots */
		return -EIO;
	}
	if (ahead->registered)
		io_uring_prep_read_fixed(sqe, ahead->config.fd, memory_of(ahead, block),
			(unsigned int)bytes, block * BLOCK, 0);
	else
		io_uring_prep_read(sqe, ahead->config.fd, memory_of(ahead, block),
			(unsigned int)bytes, block * BLOCK);
	io_uring_sqe_set_data64(sqe, block % SLOTS);
	*slot = (struct slot){.block = block, .state = SLOT_FLIGHT};
	atomic_fetch_add_explicit(&ahead->reads_done, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&ahead->bytes_done, bytes, memory_order_relaxed);
	return 0;
}

/*
 * Requests @block, and what comes behind it: up to @last, which the reader wants, and the window.
 * More is submitted when half of it is used up, so that the kernel can join requests.
 */
static int request_ahead(struct rouse_read_ahead *ahead, uint64_t block, uint64_t last)
{
	const bool urgent = atomic_load(&ahead->urgent) > 0;
	uint64_t end = urgent ? block + 1 : last + 1 + ahead->window;
	uint64_t from = ahead->submitted > block ? ahead->submitted : block;
	int code;

	end = least(end, block + ahead->depth.depth);
	end = least(end, ahead->block_count);
	if (from > block && from - block > (end - block) / 2)
		return 0;
	/* It may be in no slot, if the reader went back. */
	code = request(ahead, block);
	for (; code == 0 && from < end; from++)
		code = request(ahead, from);
	ahead->submitted = from;
	ahead->ahead_end = from * BLOCK;
	if (code == 0 && io_uring_sq_ready(&ahead->ring) > 0)
		(void)io_uring_submit(&ahead->ring); /* what is refused await() submits again */
	return code;
}

/* ---- The stream ------------------------------------------------------------------------------ */

static void end_epoch(struct rouse_read_ahead *ahead)
{
	const uint64_t now = rouse_clock_ns();

	if (ahead->epoch_begun_ns != 0 && now > ahead->epoch_begun_ns)
		rouse_read_depth_epoch(
			&ahead->depth, &(struct rouse_read_epoch){
					       .bytes = ahead->epoch_bytes,
					       .ns = now - ahead->epoch_begun_ns,
					       .waited_ns = ahead->epoch_waited_ns,
					       .urgent_ns = atomic_exchange(&ahead->urgent_ns, 0),
				       });
	ahead->epoch_begun_ns = now;
	ahead->epoch_bytes = ahead->epoch_waited_ns = 0;
}

static void follow(struct rouse_read_ahead *ahead, uint64_t offset)
{
	if (!continues(ahead, offset)) {
		ahead->window = is_behind(offset, ahead->single_end);
		ahead->submitted = offset / BLOCK;
		ahead->epoch_begun_ns = 0;
		end_epoch(ahead);
		return;
	}
	ahead->window = (unsigned int)least(
		ahead->window > 0 ? ahead->window * UINT64_C(2) : 1, ahead->depth.depth);
	if (ahead->epoch_bytes >= EPOCH_BYTES)
		end_epoch(ahead);
}

/* Gets a block into its slot. 1: it did not come, or not all of it. */
static int fetch(struct rouse_read_ahead *ahead, uint64_t block, uint64_t last)
{
	struct slot *slot = &ahead->slots[block % SLOTS];
	int code = request_ahead(ahead, block, last);

	/* Without the second step a block behind a half-used window might be in no slot. */
	if (code == 0)
		code = request(ahead, block);
	if (code == 0)
		code = await(ahead, slot);
	if (code < 0)
		return 1;
	if (slot->result >= 0 && (uint64_t)slot->result >= bytes_in(ahead, block))
		return 0;
	slot->state = SLOT_FREE;
	return 1;
}

static int read_part(
	struct rouse_read_ahead *ahead, uint64_t offset, void *buffer, size_t size, uint64_t last)
{
	const uint64_t block = offset / BLOCK;

	if (!ahead->has_ring || ahead->broken || fetch(ahead, block, last) != 0)
		return ahead->config.read_now(ahead->config.user, offset, buffer, size);
	memcpy(buffer, memory_of(ahead, block) + offset % BLOCK, size);
	return 0;
}

int rouse_read_ahead_read(
	struct rouse_read_ahead *ahead, uint64_t offset, void *buffer, size_t size)
{
	const uint64_t last = (offset + size - 1) / BLOCK;
	int code = 0;

	(void)pthread_mutex_lock(&ahead->lock);
	follow(ahead, offset);
	while (code == 0 && size > 0) {
		size_t part = (size_t)least(size, BLOCK - offset % BLOCK);

		code = read_part(ahead, offset, buffer, part, last);
		offset += part;
		buffer = (uint8_t *)buffer + part;
		size -= part;
		ahead->epoch_bytes += part;
	}
	ahead->stream_end = offset;
	(void)pthread_mutex_unlock(&ahead->lock);
	return code;
}

/* ---- Beside it ------------------------------------------------------------------------------- */

int rouse_read_ahead_read_single(
	struct rouse_read_ahead *ahead, uint64_t offset, void *buffer, size_t size)
{
	int code = ahead->config.read_now(ahead->config.user, offset, buffer, size);

	ahead->single_end = offset + size;
	return code;
}

void rouse_read_ahead_urgent_begin(struct rouse_read_ahead *ahead)
{
	atomic_fetch_add(&ahead->urgent, 1);
}

void rouse_read_ahead_urgent_end(struct rouse_read_ahead *ahead, uint64_t took_ns)
{
	uint64_t before = atomic_load(&ahead->urgent_ns);

	/* Two that end at once may lose one: it is an average. */
	atomic_store(&ahead->urgent_ns,
		before == 0 ? took_ns + 1 : before - before / 4 + took_ns / 4 + 1);
	atomic_fetch_sub(&ahead->urgent, 1);
}

void rouse_read_ahead_add_stats(
	const struct rouse_read_ahead *ahead, struct rouse_source_stats *stats)
{
	stats->reads += atomic_load_explicit(&ahead->reads_done, memory_order_relaxed);
	stats->bytes += atomic_load_explicit(&ahead->bytes_done, memory_order_relaxed);
}
