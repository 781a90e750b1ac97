/* SPDX-License-Identifier: MIT */
#include "source/read_ahead.h"

#include "base/clock.h"
#include "source/read_slots.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* What a reader may leave out between two reads of one stream. */
#define GAP UINT64_C(65536)
/* A read of so much is worth a stream of its own. */
#define STREAM_BYTES (READ_SLOT_BYTES / 2)
#define EPOCH_BYTES (UINT64_C(16) * READ_SLOT_BYTES)

/* The read that is under way. */
struct span {
	uint64_t end;    /* offset */
	uint64_t margin; /* bytes that may be requested beyond what the stream was asked for */
};

struct rouse_read_ahead {
	struct rouse_read_ahead_config config;

	pthread_mutex_t lock; /* one bulk read at a time; it guards what follows */
	struct read_slots slots;
	/* Of the stream, since it began: */
	uint64_t requested; /* offset: up to here all is, or was, in a slot, or was left out */
	uint64_t asked_bytes, requested_bytes;
	struct rouse_read_depth depth;
	uint64_t epoch_begun_ns, epoch_bytes;

	_Atomic uint64_t stream_end, ahead_end; /* offsets: read, and requested, so far */
	_Atomic uint64_t single_end;            /* offset at which the last read beside it ended */
	_Atomic unsigned int urgent;
	_Atomic uint64_t urgent_ns; /* sliding average since the last epoch; 0: none */
};

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t most(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static uint64_t align_down(uint64_t offset)
{
	return offset & ~(READ_SLOT_ALIGN - 1);
}

static uint64_t align_up(uint64_t offset)
{
	return align_down(offset + READ_SLOT_ALIGN - 1);
}

int rouse_read_ahead_new(
	const struct rouse_read_ahead_config *config, struct rouse_read_ahead **ahead)
{
	struct rouse_read_ahead *new = calloc(1, sizeof(*new));

	if (new == NULL)
		return -ENOMEM;
	new->config = *config;
	new->stream_end = new->single_end = UINT64_MAX;
	rouse_read_depth_init(&new->depth);
	(void)pthread_mutex_init(&new->lock, NULL);
	read_slots_init(&new->slots, config);
	*ahead = new;
	return 0;
}

void rouse_read_ahead_free(struct rouse_read_ahead *ahead)
{
	if (ahead == NULL)
		return;
	read_slots_finish(&ahead->slots);
	(void)pthread_mutex_destroy(&ahead->lock);
	free(ahead);
}

bool rouse_read_ahead_has_ring(const struct rouse_read_ahead *ahead)
{
	return ahead->slots.has_ring;
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

static uint64_t needed_from(uint64_t at, const struct span *span)
{
	const uint64_t end = align_up(span->end);

	return end > at ? end - at : 0;
}

/*
 * Bytes that may be requested from @at on, wanted or not. Both bounds count: what the reader leaves
 * out of what was requested is lost, and what it finds in a slot of another time was not requested.
 */
static uint64_t allowed_from(
	const struct rouse_read_ahead *ahead, uint64_t at, const struct span *span)
{
	const uint64_t end = span->end + span->margin;
	const uint64_t bytes = ahead->asked_bytes + span->margin;

	if (at >= end || ahead->requested_bytes >= bytes)
		return 0;
	return least(end - at, bytes - ahead->requested_bytes);
}

/* A whole piece where that is allowed, else what is needed of one. 0: none. */
static uint64_t piece_at(const struct rouse_read_ahead *ahead, uint64_t at, const struct span *span)
{
	uint64_t bytes = least(needed_from(at, span), READ_SLOT_BYTES);

	if (allowed_from(ahead, at, span) >= READ_SLOT_BYTES)
		bytes = READ_SLOT_BYTES;
	return least(bytes, align_up(ahead->config.bytes) - at);
}

static struct read_slot *request(
	struct rouse_read_ahead *ahead, uint64_t at, const struct span *span)
{
	const uint64_t bytes = piece_at(ahead, at, span);

	ahead->requested_bytes += bytes;
	return read_slots_request(&ahead->slots, at, bytes);
}

/* Whether the stream will come to what @slot has, at @offset or behind it. */
static bool is_wanted(
	const struct rouse_read_ahead *ahead, const struct read_slot *slot, uint64_t offset)
{
	return slot->state != READ_SLOT_FREE && slot->offset < ahead->requested &&
	       read_slot_end(slot) > offset;
}

static unsigned int count_wanted(const struct rouse_read_ahead *ahead, uint64_t offset)
{
	unsigned int count = 0;

	for (unsigned int i = 0; i < READ_SLOTS; i++)
		count += is_wanted(ahead, &ahead->slots.slots[i], offset);
	return count;
}

/* More is submitted when half of it is used up, so that the kernel can join requests. */
static bool is_enough(
	const struct rouse_read_ahead *ahead, unsigned int wanted, const struct span *span)
{
	const uint64_t bytes = most(
		needed_from(ahead->requested, span), allowed_from(ahead, ahead->requested, span));
	const uint64_t pieces = (bytes + READ_SLOT_BYTES - 1) / READ_SLOT_BYTES;

	return wanted > least(wanted + pieces, ahead->depth.depth) / 2;
}

/*
 * Requests what comes behind what is requested: up to the end of the read and the margin, in as
 * many pieces as the depth says. What is in a slot of another time is not requested again.
 */
static void request_ahead(struct rouse_read_ahead *ahead, uint64_t offset, const struct span *span)
{
	unsigned int wanted = count_wanted(ahead, offset);
	struct read_slots *slots = &ahead->slots;

	for (; wanted < ahead->depth.depth && ahead->requested < ahead->config.bytes; wanted++) {
		const struct read_slot *slot = read_slots_find(slots, ahead->requested);

		if (slot == NULL && (piece_at(ahead, ahead->requested, span) == 0 ||
					    is_wanted(ahead, &slots->slots[slots->next], offset)))
			return;
		if (slot == NULL)
			slot = request(ahead, ahead->requested, span);
		if (slot == NULL)
			return;
		ahead->requested = read_slot_end(slot);
	}
}

/* The slot with @offset, in flight or not, and requests ahead of it. NULL: nothing is taken. */
static struct read_slot *request_slot(
	struct rouse_read_ahead *ahead, uint64_t offset, const struct span *span)
{
	struct read_slot *slot = read_slots_find(&ahead->slots, offset);
	const bool is_there = slot != NULL;

	if (!is_there)
		slot = request(ahead, align_down(offset), span);
	if (slot == NULL)
		return NULL;
	ahead->requested = most(ahead->requested, read_slot_end(slot));
	if (atomic_load(&ahead->urgent) == 0 &&
		!(is_there && is_enough(ahead, count_wanted(ahead, offset), span)))
		request_ahead(ahead, offset, span);
	ahead->ahead_end = ahead->requested;
	read_slots_submit(&ahead->slots);
	return slot;
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
					       .waited_ns = ahead->slots.waited_ns,
					       .urgent_ns = atomic_exchange(&ahead->urgent_ns, 0),
				       });
	ahead->epoch_begun_ns = now;
	ahead->epoch_bytes = ahead->slots.waited_ns = 0;
}

/* Goes on with the stream, or begins one. */
static struct span follow(struct rouse_read_ahead *ahead, uint64_t offset, size_t size)
{
	struct span span = {.end = offset + size};

	if (!continues(ahead, offset)) {
		ahead->requested = align_down(offset);
		ahead->asked_bytes = ahead->requested_bytes = 0;
		ahead->epoch_begun_ns = 0;
		end_epoch(ahead);
	} else if (ahead->epoch_bytes >= EPOCH_BYTES) {
		end_epoch(ahead);
	}
	span.margin = ahead->asked_bytes / 2;
	ahead->asked_bytes += size;
	return span;
}

/* The slot with @offset, whose piece has come. NULL: it did not come, or not all of it. */
static const struct read_slot *fetch(
	struct rouse_read_ahead *ahead, uint64_t offset, const struct span *span)
{
	struct read_slot *slot;

	if (!read_slots_work(&ahead->slots))
		return NULL;
	slot = request_slot(ahead, offset, span);
	if (slot == NULL || read_slots_await(&ahead->slots, slot) < 0)
		return NULL;
	if (read_slot_is_whole(&ahead->slots, slot))
		return slot;
	slot->state = READ_SLOT_FREE;
	return NULL;
}

/* Copies what @slot has from @offset on. Returns how many bytes these are, @size at most. */
static size_t copy_from(const struct rouse_read_ahead *ahead, const struct read_slot *slot,
	uint64_t offset, void *buffer, size_t size)
{
	const size_t part = (size_t)least(size, read_slot_end(slot) - offset);

	memcpy(buffer, read_slot_memory(&ahead->slots, slot, offset), part);
	return part;
}

int rouse_read_ahead_read(
	struct rouse_read_ahead *ahead, uint64_t offset, void *buffer, size_t size)
{
	struct span span;
	int code = 0;

	(void)pthread_mutex_lock(&ahead->lock);
	span = follow(ahead, offset, size);
	while (code == 0 && size > 0) {
		const struct read_slot *slot = fetch(ahead, offset, &span);
		size_t part = (size_t)least(size, READ_SLOT_BYTES);

		if (slot != NULL)
			part = copy_from(ahead, slot, offset, buffer, size);
		else
			code = ahead->config.read_now(ahead->config.user, offset, buffer, part);
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

static bool take_all(struct rouse_read_ahead *ahead, uint64_t offset, uint8_t *buffer, size_t size)
{
	read_slots_reap(&ahead->slots);
	while (size > 0) {
		const struct read_slot *slot = read_slots_find(&ahead->slots, offset);
		size_t part;

		if (slot == NULL || !read_slot_is_whole(&ahead->slots, slot))
			return false;
		part = copy_from(ahead, slot, offset, buffer, size);
		offset += part;
		buffer += part;
		size -= part;
	}
	return true;
}

bool rouse_read_ahead_take(
	struct rouse_read_ahead *ahead, uint64_t offset, void *buffer, size_t size)
{
	bool taken;

	if (pthread_mutex_trylock(&ahead->lock) != 0)
		return false;
	taken = read_slots_work(&ahead->slots) && take_all(ahead, offset, buffer, size);
	(void)pthread_mutex_unlock(&ahead->lock);
	return taken;
}

int rouse_read_ahead_read_single(
	struct rouse_read_ahead *ahead, uint64_t offset, void *buffer, size_t size)
{
	int code = 0;

	if (!rouse_read_ahead_take(ahead, offset, buffer, size))
		code = ahead->config.read_now(ahead->config.user, offset, buffer, size);
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
	stats->reads += atomic_load_explicit(&ahead->slots.reads_done, memory_order_relaxed);
	stats->bytes += atomic_load_explicit(&ahead->slots.bytes_done, memory_order_relaxed);
}
