/* SPDX-License-Identifier: MIT */
#include "image/chunk_packer.h"

#include "image/chunk_encode.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#define MAX_THREADS 64u
#define RING_BYTES (8u << 20)       /* of plain pages */
#define RUN_BYTES (1u << 20)        /* of stored bytes: what is worth a write */
#define RUN_CHUNKS 256u             /* in one write, at most */
#define WRITEBACK_BYTES (16u << 20) /* after which the kernel is told to begin writing */

struct slot {
	unsigned char *plain;
	unsigned char *packed;        /* room for as many bytes as plain */
	const void *stored;           /* one of both */
	struct rouse_disk_chunk disk; /* without its offset until it is written */
	uint32_t stored_bytes;
	uint16_t pages;
	bool done;
};

/*
 * Chunks are counted from 0 on over all series; chunk n is in slots[n % slot_count].
 *
 *   written <= taken <= filled <= written + slot_count
 */
struct rouse_packer {
	int fd;
	struct rouse_layout layout;

	/* Of the caller's thread. */
	struct slot *filling; /* NULL: no chunk is begun */
	uint64_t series;      /* the first chunk of this series */

	pthread_mutex_t lock; /* for all that follows */
	pthread_cond_t work;  /* for the workers */
	pthread_cond_t room;  /* for the caller */
	struct slot *slots;
	uint64_t slot_count;
	uint64_t written, taken, filled;
	bool writing, flushing, stop;
	int error;
	uint64_t offset;  /* where the next chunk goes */
	uint64_t started; /* up to where writeback has been started */
	struct rouse_disk_chunk *chunks;
	uint64_t chunk_count, chunk_room;

	pthread_t threads[MAX_THREADS];
	unsigned int thread_count;
};

static struct slot *slot_of(struct rouse_packer *packer, uint64_t number)
{
	return &packer->slots[number % packer->slot_count];
}

/* ---- Writing ---- */

static int write_pieces(int fd, struct iovec *pieces, int count, uint64_t offset)
{
	while (count > 0) {
		ssize_t n = pwritev(fd, pieces, count, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		offset += (uint64_t)n;
		while (count > 0 && (size_t)n >= pieces->iov_len) {
			n -= (ssize_t)pieces->iov_len;
			pieces++;
			count--;
		}
		if (count > 0) {
			pieces->iov_base = (char *)pieces->iov_base + n;
			pieces->iov_len -= (size_t)n;
		}
	}
	return 0;
}

/* Remembers where a chunk lies. With the lock held. */
static int note_chunk(struct rouse_packer *packer, const struct rouse_disk_chunk *chunk)
{
	if (packer->chunk_count == packer->chunk_room) {
		uint64_t room = packer->chunk_room > 0 ? packer->chunk_room * 2 : 1024;
		struct rouse_disk_chunk *more =
			realloc(packer->chunks, room * sizeof(*packer->chunks));

		if (more == NULL)
			return -ENOMEM;
		packer->chunks = more;
		packer->chunk_room = room;
	}
	packer->chunks[packer->chunk_count++] = *chunk;
	return 0;
}

/* How many packed chunks lie at the head of the ring; 0 if they are not worth a write yet. */
static unsigned int find_run(struct rouse_packer *packer)
{
	uint64_t bytes = 0, count = 0;

	while (packer->written + count < packer->taken && count < RUN_CHUNKS) {
		const struct slot *slot = slot_of(packer, packer->written + count);

		if (!slot->done)
			break;
		bytes += slot->stored_bytes;
		count++;
	}
	/* Half a ring is written however little it is: else the caller could wait for ever. */
	if (bytes < RUN_BYTES && count < RUN_CHUNKS && count * 2 < packer->slot_count &&
		!packer->flushing)
		return 0;
	return (unsigned int)count;
}

/* Gives the chunks of a run their places. With the lock held. */
static size_t place_run(struct rouse_packer *packer, unsigned int count, struct iovec *pieces)
{
	uint64_t offset = packer->offset;

	for (unsigned int i = 0; i < count; i++) {
		struct slot *slot = slot_of(packer, packer->written + i);
		int code;

		slot->disk.offset = le64_make(offset);
		code = note_chunk(packer, &slot->disk);
		if (code < 0 && packer->error == 0)
			packer->error = code;
		/* writev takes no const, but does not write there. */
		memcpy(&pieces[i].iov_base, &slot->stored, sizeof(slot->stored));
		pieces[i].iov_len = slot->stored_bytes;
		offset += slot->stored_bytes;
	}
	return (size_t)(offset - packer->offset);
}

/* Writes what is ready, unless another thread is at it. With the lock held, but not all the time.
 */
static void write_runs(struct rouse_packer *packer)
{
	struct iovec pieces[RUN_CHUNKS];
	unsigned int count;

	while (!packer->writing && (count = find_run(packer)) > 0) {
		uint64_t offset = packer->offset, from = packer->started;
		size_t bytes = place_run(packer, count, pieces);
		int code = packer->error;

		packer->writing = true;
		(void)pthread_mutex_unlock(&packer->lock);
		if (code == 0)
			code = write_pieces(packer->fd, pieces, (int)count, offset);
		/* Early, so that the fsync at the end finds little to do. Only a hint. */
		if (code == 0 && offset + bytes - from >= WRITEBACK_BYTES) {
			(void)sync_file_range(packer->fd, (off_t)from,
				(off_t)(offset + bytes - from), SYNC_FILE_RANGE_WRITE);
			from = offset + bytes;
		}
		(void)pthread_mutex_lock(&packer->lock);
		packer->writing = false;
		packer->offset += bytes;
		packer->started = from;
		packer->written += count;
		if (code < 0 && packer->error == 0)
			packer->error = code;
		(void)pthread_cond_signal(&packer->room);
	}
}

/* ---- Workers ---- */

static void pack(struct rouse_encoder *encoder, struct slot *slot)
{
	slot->stored =
		rouse_encoder_run(encoder, slot->plain, slot->pages, slot->packed, &slot->disk);
	slot->stored_bytes = le32_get(slot->disk.stored_bytes);
}

static void *worker(void *argument)
{
	struct rouse_packer *packer = argument;
	struct rouse_encoder *encoder = rouse_encoder_new(&packer->layout);

	(void)pthread_mutex_lock(&packer->lock);
	if (encoder == NULL && packer->error == 0)
		packer->error = -ENOMEM;
	while (!packer->stop) {
		struct slot *slot;

		if (packer->taken == packer->filled) {
			(void)pthread_cond_wait(&packer->work, &packer->lock);
			continue;
		}
		slot = slot_of(packer, packer->taken++);
		(void)pthread_mutex_unlock(&packer->lock);
		if (encoder != NULL)
			pack(encoder, slot);
		(void)pthread_mutex_lock(&packer->lock);
		slot->done = true;
		write_runs(packer);
		/* The caller waits for room or for the end of a flush. */
		(void)pthread_cond_signal(&packer->room);
	}
	(void)pthread_mutex_unlock(&packer->lock);
	rouse_encoder_free(encoder);
	return NULL;
}

static int start_workers(struct rouse_packer *packer)
{
	sigset_t all, old;
	int code = 0;

	/* Signals are for the program that uses the library. */
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	while (packer->thread_count < packer->layout.threads &&
		packer->thread_count < MAX_THREADS && code == 0) {
		code = -pthread_create(
			&packer->threads[packer->thread_count], NULL, worker, packer);
		if (code == 0)
			packer->thread_count++;
	}
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	/* One is enough to go on. */
	return packer->thread_count > 0 ? 0 : code;
}

/* ---- The caller's side ---- */

static int make_slots(struct rouse_packer *packer)
{
	size_t bytes = (size_t)packer->layout.chunk_pages * ROUSE_IMAGE_PAGE_BYTES;

	packer->slot_count = RING_BYTES / bytes;
	if (packer->slot_count < 2 * packer->layout.threads + 2)
		packer->slot_count = 2 * packer->layout.threads + 2;
	if (packer->slot_count > RUN_CHUNKS)
		packer->slot_count = RUN_CHUNKS;
	packer->slots = calloc(packer->slot_count, sizeof(*packer->slots));
	if (packer->slots == NULL)
		return -ENOMEM;
	for (uint64_t i = 0; i < packer->slot_count; i++) {
		struct slot *slot = &packer->slots[i];

		slot->plain = malloc(bytes);
		slot->packed = malloc(bytes);
		if (slot->plain == NULL || slot->packed == NULL)
			return -ENOMEM;
	}
	return 0;
}

int rouse_packer_new(int fd, const struct rouse_layout *layout, struct rouse_packer **packer)
{
	struct rouse_packer *new = calloc(1, sizeof(*new));
	int code;

	if (new == NULL)
		return -ENOMEM;
	new->fd = fd;
	new->layout = *layout;
	if (new->layout.threads > MAX_THREADS)
		new->layout.threads = MAX_THREADS;
	(void)pthread_mutex_init(&new->lock, NULL);
	(void)pthread_cond_init(&new->work, NULL);
	(void)pthread_cond_init(&new->room, NULL);
	code = make_slots(new);
	if (code == 0)
		code = start_workers(new);
	if (code < 0) {
		rouse_packer_free(new);
		return code;
	}
	*packer = new;
	return 0;
}

void rouse_packer_free(struct rouse_packer *packer)
{
	if (packer == NULL)
		return;
	(void)pthread_mutex_lock(&packer->lock);
	packer->stop = true;
	(void)pthread_cond_broadcast(&packer->work);
	(void)pthread_mutex_unlock(&packer->lock);
	for (unsigned int i = 0; i < packer->thread_count; i++)
		(void)pthread_join(packer->threads[i], NULL);
	for (uint64_t i = 0; packer->slots != NULL && i < packer->slot_count; i++) {
		free(packer->slots[i].plain);
		free(packer->slots[i].packed);
	}
	(void)pthread_cond_destroy(&packer->work);
	(void)pthread_cond_destroy(&packer->room);
	(void)pthread_mutex_destroy(&packer->lock);
	free(packer->slots);
	free(packer->chunks);
	free(packer);
}

void rouse_packer_begin(struct rouse_packer *packer, uint64_t offset)
{
	(void)pthread_mutex_lock(&packer->lock);
	packer->offset = offset;
	packer->started = offset;
	packer->series = packer->filled;
	(void)pthread_mutex_unlock(&packer->lock);
}

/* Waits for a free slot to fill. */
static int begin_chunk(struct rouse_packer *packer)
{
	int code;

	(void)pthread_mutex_lock(&packer->lock);
	while (packer->filled - packer->written == packer->slot_count)
		(void)pthread_cond_wait(&packer->room, &packer->lock);
	code = packer->error;
	packer->filling = slot_of(packer, packer->filled);
	(void)pthread_mutex_unlock(&packer->lock);
	packer->filling->pages = 0;
	packer->filling->done = false;
	return code;
}

static void end_chunk(struct rouse_packer *packer)
{
	(void)pthread_mutex_lock(&packer->lock);
	packer->filled++;
	(void)pthread_cond_signal(&packer->work);
	(void)pthread_mutex_unlock(&packer->lock);
	packer->filling = NULL;
}

int rouse_packer_add(struct rouse_packer *packer, const void *data, uint64_t *locator)
{
	struct slot *slot = packer->filling;

	if (slot == NULL) {
		int code = begin_chunk(packer);

		slot = packer->filling;
		if (code < 0)
			return code;
	}
	memcpy(slot->plain + (size_t)slot->pages * ROUSE_IMAGE_PAGE_BYTES, data,
		ROUSE_IMAGE_PAGE_BYTES);
	/* Only this thread changes packer->filled: it may read it without the lock. */
	*locator = rouse_locator_make(packer->filled - packer->series, slot->pages);
	slot->pages++;
	if (slot->pages == packer->layout.chunk_pages)
		end_chunk(packer);
	return 0;
}

int rouse_packer_flush(struct rouse_packer *packer, struct rouse_disk_chunk **chunks,
	uint64_t *count, uint64_t *end)
{
	int code;

	if (packer->filling != NULL && packer->filling->pages > 0)
		end_chunk(packer);
	packer->filling = NULL;
	(void)pthread_mutex_lock(&packer->lock);
	packer->flushing = true;
	while (packer->written < packer->filled) {
		write_runs(packer);
		if (packer->written < packer->filled)
			(void)pthread_cond_wait(&packer->room, &packer->lock);
	}
	packer->flushing = false;
	*chunks = packer->chunks;
	*count = packer->chunk_count;
	*end = packer->offset;
	packer->chunks = NULL;
	packer->chunk_count = 0;
	packer->chunk_room = 0;
	code = packer->error;
	(void)pthread_mutex_unlock(&packer->lock);
	return code;
}
