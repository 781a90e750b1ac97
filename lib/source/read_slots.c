/* SPDX-License-Identifier: MIT */
#include "source/read_slots.h"

#include "base/clock.h"

#include <errno.h>

static uint8_t *memory_of(const struct read_slots *slots, const struct read_slot *slot)
{
	return slots->memory + (size_t)(slot - slots->slots) * READ_SLOT_BYTES;
}

void read_slots_init(struct read_slots *slots, const struct rouse_read_ahead_config *config)
{
	const struct iovec all = {config->memory, ROUSE_READ_AHEAD_BYTES};

	slots->fd = config->fd;
	slots->file_bytes = config->bytes;
	slots->memory = config->memory;
	slots->submit = config->queue_submit;
	slots->has_ring = config->queue_init(READ_SLOTS, &slots->ring, 0) == 0;
	/* Refused where RLIMIT_MEMLOCK is small: then each request maps its memory anew. */
	slots->registered =
		slots->has_ring && io_uring_register_buffers(&slots->ring, &all, 1) == 0;
}

struct read_slot *read_slots_find(struct read_slots *slots, uint64_t offset)
{
	for (unsigned int i = 0; i < READ_SLOTS; i++) {
		struct read_slot *slot = &slots->slots[i];

		if (slot->state != READ_SLOT_FREE && offset >= slot->offset &&
			offset - slot->offset < slot->bytes)
			return slot;
	}
	return NULL;
}

static void finish(struct read_slots *slots, struct io_uring_cqe *cqe)
{
	struct read_slot *slot = &slots->slots[io_uring_cqe_get_data64(cqe)];

	slot->result = cqe->res;
	slot->state = READ_SLOT_DONE;
	io_uring_cqe_seen(&slots->ring, cqe);
}

void read_slots_reap(struct read_slots *slots)
{
	struct io_uring_cqe *cqe;

	while (io_uring_peek_cqe(&slots->ring, &cqe) == 0)
		finish(slots, cqe);
}

int read_slots_await(struct read_slots *slots, const struct read_slot *slot)
{
	const uint64_t begun = slot->state == READ_SLOT_FLIGHT ? rouse_clock_ns() : 0;

	while (slot->state == READ_SLOT_FLIGHT) {
		struct io_uring_cqe *cqe;
		int code = io_uring_peek_cqe(&slots->ring, &cqe);

		if (code == 0) {
			finish(slots, cqe);
			continue;
		}
		/* Submits what a full kernel refused before, too. */
		code = slots->submit(&slots->ring, 1);
		/* It has no memory now, or too much to tell: the reader helps himself meanwhile. */
		if (code == -EAGAIN || code == -EBUSY)
			return -EAGAIN;
		if (code < 0 && code != -EINTR) {
			slots->broken = true;
			return -EIO;
		}
	}
	if (begun != 0)
		slots->waited_ns += rouse_clock_ns() - begun;
	return 0;
}

/* Until nothing is in flight that the kernel has. */
static void await_all(struct read_slots *slots)
{
	unsigned int count = 0;

	read_slots_reap(slots);
	for (unsigned int i = 0; i < READ_SLOTS; i++)
		count += slots->slots[i].state == READ_SLOT_FLIGHT;
	count -= io_uring_sq_ready(&slots->ring);
	while (count > 0) {
		struct io_uring_cqe *cqe;
		int code = io_uring_wait_cqe(&slots->ring, &cqe);

		if (code < 0 && code != -EINTR)
			return;
		if (code < 0)
			continue;
		finish(slots, cqe);
		count--;
	}
}

void read_slots_finish(struct read_slots *slots)
{
	if (!slots->has_ring)
		return;
	/*
	 * A request that waits for a worker of the kernel looks for memory that is not registered
	 * when it begins, and might find what is mapped there by then.
	 */
	if (!slots->registered)
		await_all(slots);
	io_uring_queue_exit(&slots->ring);
}

struct read_slot *read_slots_request(struct read_slots *slots, uint64_t offset, uint64_t bytes)
{
	const unsigned int number = slots->next;
	struct read_slot *slot = &slots->slots[number];
	struct io_uring_sqe *sqe;

	if (read_slots_await(slots, slot) < 0)
		return NULL;
	sqe = io_uring_get_sqe(&slots->ring);
	if (sqe == NULL) {
		slots->broken = true; /* cannot be: there are as many as slots */
		return NULL;
	}
	if (slots->registered)
		io_uring_prep_read_fixed(
			sqe, slots->fd, memory_of(slots, slot), (unsigned int)bytes, offset, 0);
	else
		io_uring_prep_read(
			sqe, slots->fd, memory_of(slots, slot), (unsigned int)bytes, offset);
	io_uring_sqe_set_data64(sqe, number);
	*slot = (struct read_slot){.offset = offset, .bytes = bytes, .state = READ_SLOT_FLIGHT};
	slots->next = (number + 1) % READ_SLOTS;
	atomic_fetch_add_explicit(&slots->reads_done, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&slots->bytes_done, bytes, memory_order_relaxed);
	return slot;
}

void read_slots_submit(struct read_slots *slots)
{
	if (io_uring_sq_ready(&slots->ring) > 0)
		(void)slots->submit(&slots->ring, 0);
}

bool read_slot_is_whole(const struct read_slots *slots, const struct read_slot *slot)
{
	const uint64_t left = slots->file_bytes - slot->offset;

	return slot->state == READ_SLOT_DONE && slot->result >= 0 &&
	       (uint64_t)slot->result >= (slot->bytes < left ? slot->bytes : left);
}

const uint8_t *read_slot_memory(
	const struct read_slots *slots, const struct read_slot *slot, uint64_t offset)
{
	return memory_of(slots, slot) + (offset - slot->offset);
}
