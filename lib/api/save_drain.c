/* SPDX-License-Identifier: MIT */
#include "api/save_drain.h"

#include "api/save_guard.h"
#include "base/clock.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUFFER_BYTES (4u << 20)
#define BUFFER_ALIGN (2u << 20) /* so that huge pages can back it: fewer page faults */
/* The consumer is woken for so much, or when QEMU pauses for so long: not for every packet. */
#define WAKE_BYTES (512u << 10)
#define IDLE_MS 3
/* How often a thread whose socket must stay as it is looks whether it is to end. */
#define LEAVE_TICK_MS 50
/* For the end of a stream whose migration is over. */
#define END_TIMEOUT_MS 1000

struct buffer {
	struct buffer *next;
	size_t filled, taken;
	char *data;
};

struct save_drain {
	int fd;
	struct save_drain_config config;
	struct save_guard guard;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct buffer *first, *last, *spare;
	uint64_t pending; /* bytes filled and not yet taken */
	uint64_t held;
	bool idle, ended, aborted;
	atomic_bool left; /* to the guard: nothing is read here any more */
	int code;         /* why it ended */
	struct save_drain_stats stats;
};

static struct buffer *buffer_new(void)
{
	struct buffer *buffer = calloc(1, sizeof(*buffer));
	void *data = NULL;

	if (buffer == NULL)
		return NULL;
	if (posix_memalign(&data, BUFFER_ALIGN, BUFFER_BYTES) != 0) {
		free(buffer);
		return NULL;
	}
	(void)madvise(data, BUFFER_BYTES, MADV_HUGEPAGE); /* only a wish */
	buffer->data = data;
	return buffer;
}

static void buffers_free(struct buffer *buffer)
{
	while (buffer != NULL) {
		struct buffer *next = buffer->next;

		free(buffer->data);
		free(buffer);
		buffer = next;
	}
}

/* A buffer with room, at the end of the list. Waits at the limit. */
static int drain_room(struct save_drain *drain, struct buffer **buffer)
{
	struct buffer *b = drain->last;

	if (b != NULL && b->filled < BUFFER_BYTES) {
		*buffer = b;
		return 0;
	}
	while (drain->spare == NULL && drain->held + BUFFER_BYTES > drain->config.limit_bytes &&
		drain->held > 0 && !drain->aborted) {
		drain->stats.waits++;
		drain->idle = true;
		(void)pthread_cond_broadcast(&drain->changed);
		(void)pthread_cond_wait(&drain->changed, &drain->lock);
	}
	if (drain->aborted)
		return -ECANCELED;
	b = drain->spare;
	if (b != NULL) {
		drain->spare = b->next;
		b->next = NULL;
		b->filled = b->taken = 0;
	} else {
		b = buffer_new();
		if (b == NULL)
			return -ENOMEM;
		drain->held += BUFFER_BYTES;
		if (drain->held > drain->stats.most_bytes)
			drain->stats.most_bytes = drain->held;
	}
	if (drain->last != NULL)
		drain->last->next = b;
	else
		drain->first = b;
	drain->last = b;
	*buffer = b;
	return 0;
}

static void drain_set_idle(struct save_drain *drain)
{
	(void)pthread_mutex_lock(&drain->lock);
	drain->idle = true;
	(void)pthread_cond_broadcast(&drain->changed);
	(void)pthread_mutex_unlock(&drain->lock);
}

/* What is there, at most @size bytes; waits for the first. 0: the end. */
static ssize_t drain_receive(struct save_drain *drain, char *data, size_t size)
{
	const int tick_ms = drain->config.must_finish ? LEAVE_TICK_MS : -1;

	while (!atomic_load(&drain->left)) {
		struct pollfd fd = {.fd = drain->fd, .events = POLLIN};
		ssize_t n = recv(drain->fd, data, size, MSG_DONTWAIT);

		if (n >= 0)
			return n;
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return -errno;
		if (poll(&fd, 1, IDLE_MS) == 0) {
			drain_set_idle(drain);
			(void)poll(&fd, 1, tick_ms);
		}
	}
	return -ECANCELED;
}

static int drain_step(struct save_drain *drain)
{
	struct buffer *buffer;
	ssize_t n;
	int code;

	(void)pthread_mutex_lock(&drain->lock);
	code = drain_room(drain, &buffer);
	(void)pthread_mutex_unlock(&drain->lock);
	if (code < 0)
		return code;
	/* The consumer reads below ->filled only, and leaves a buffer that is not full alone. */
	n = drain_receive(drain, buffer->data + buffer->filled, BUFFER_BYTES - buffer->filled);
	if (n < 0)
		return (int)n;
	(void)pthread_mutex_lock(&drain->lock);
	if (n > 0) {
		buffer->filled += (size_t)n;
		drain->pending += (uint64_t)n;
		drain->stats.bytes += (uint64_t)n;
		drain->stats.last_us = rouse_clock_us();
		if (drain->stats.first_us == 0)
			drain->stats.first_us = drain->stats.last_us;
		drain->idle = false;
		if (drain->aborted)
			code = -ECANCELED;
		if (drain->pending >= WAKE_BYTES)
			(void)pthread_cond_broadcast(&drain->changed);
	} else {
		code = drain->aborted ? -ECANCELED : 1;
	}
	(void)pthread_mutex_unlock(&drain->lock);
	return code;
}

/* Reads what is left and throws it away. */
static void drain_discard(struct save_drain *drain)
{
	char scratch[65536];

	while (drain_receive(drain, scratch, sizeof(scratch)) > 0)
		;
}

static void *drain_run(void *argument)
{
	struct save_drain *drain = argument;
	uint64_t one = 1;
	int code;

	do
		code = drain_step(drain);
	while (code == 0);
	if (code < 0 && drain->config.must_finish)
		drain_discard(drain);
	(void)pthread_mutex_lock(&drain->lock);
	drain->code = code < 0 ? code : 0;
	drain->ended = true;
	(void)pthread_cond_broadcast(&drain->changed);
	(void)pthread_mutex_unlock(&drain->lock);
	/* QEMU must not wait for us if reading failed. */
	if (!atomic_load(&drain->left))
		(void)shutdown(drain->fd, SHUT_RDWR);
	(void)!write(drain->config.notify_fd, &one, sizeof(one));
	return NULL;
}

int save_drain_start(int fd, const struct save_drain_config *config, struct save_drain **drain)
{
	struct save_drain *d = calloc(1, sizeof(*d));
	int code = d == NULL ? -ENOMEM : 0;

	if (code == 0) {
		d->fd = fd;
		d->config = *config;
		(void)pthread_mutex_init(&d->lock, NULL);
		(void)pthread_cond_init(&d->changed, NULL);
		if (config->must_finish)
			code = save_guard_start(&d->guard, fd);
	}
	if (code == 0) {
		code = -pthread_create(&d->thread, NULL, drain_run, d);
		if (code < 0)
			(void)shutdown(fd, SHUT_RDWR); /* QEMU has not got its end yet */
	}
	if (code < 0) {
		(void)close(fd);
		if (d != NULL)
			save_guard_end(&d->guard);
		free(d);
		return code;
	}
	*drain = d;
	return 0;
}

static bool drain_can_take(const struct save_drain *drain)
{
	return drain->aborted || drain->ended || drain->pending >= WAKE_BYTES ||
	       (drain->idle && drain->pending > 0);
}

/* Puts buffers that are used up aside. */
static void drain_recycle(struct save_drain *drain)
{
	while (drain->first != NULL && drain->first->taken == BUFFER_BYTES) {
		struct buffer *buffer = drain->first;

		drain->first = buffer->next;
		if (drain->first == NULL)
			drain->last = NULL;
		buffer->next = drain->spare;
		drain->spare = buffer;
		(void)pthread_cond_broadcast(&drain->changed);
	}
}

int save_drain_next(struct save_drain *drain, const void **bytes, size_t *size)
{
	int code = 0;

	(void)pthread_mutex_lock(&drain->lock);
	while (!drain_can_take(drain))
		(void)pthread_cond_wait(&drain->changed, &drain->lock);
	*size = 0;
	if (drain->aborted) {
		code = -ECANCELED;
	} else if (drain->pending > 0) {
		*bytes = drain->first->data + drain->first->taken;
		*size = drain->first->filled - drain->first->taken;
	} else {
		code = drain->code;
	}
	(void)pthread_mutex_unlock(&drain->lock);
	return code;
}

void save_drain_release(struct save_drain *drain, size_t size)
{
	(void)pthread_mutex_lock(&drain->lock);
	drain->first->taken += size;
	drain->pending -= size;
	drain_recycle(drain);
	(void)pthread_mutex_unlock(&drain->lock);
}

void save_drain_abort(struct save_drain *drain)
{
	(void)pthread_mutex_lock(&drain->lock);
	drain->aborted = true;
	(void)pthread_cond_broadcast(&drain->changed);
	(void)pthread_mutex_unlock(&drain->lock);
	if (!drain->config.must_finish)
		(void)shutdown(drain->fd, SHUT_RDWR);
}

bool save_drain_ended(struct save_drain *drain)
{
	bool ended;

	(void)pthread_mutex_lock(&drain->lock);
	ended = drain->ended;
	(void)pthread_mutex_unlock(&drain->lock);
	return ended;
}

void save_drain_get_stats(struct save_drain *drain, struct save_drain_stats *stats)
{
	(void)pthread_mutex_lock(&drain->lock);
	*stats = drain->stats;
	stats->aborted = drain->aborted;
	(void)pthread_mutex_unlock(&drain->lock);
}

/* False: the stream does not come to its end. */
static bool drain_wait_end(struct save_drain *drain)
{
	const uint64_t deadline_us = rouse_clock_us() + (uint64_t)END_TIMEOUT_MS * 1000;

	while (!save_drain_ended(drain)) {
		if (rouse_clock_us() > deadline_us)
			return false;
		(void)poll(NULL, 0, 1);
	}
	return true;
}

void save_drain_free(struct save_drain *drain)
{
	bool leave;

	if (drain == NULL)
		return;
	save_drain_abort(drain);
	leave = drain->config.must_finish && !drain_wait_end(drain);
	atomic_store(&drain->left, leave);
	if (!leave)
		(void)shutdown(drain->fd, SHUT_RDWR);
	(void)pthread_join(drain->thread, NULL);
	(void)close(drain->fd);
	if (leave)
		save_guard_leave(&drain->guard);
	else
		save_guard_end(&drain->guard);
	buffers_free(drain->first);
	buffers_free(drain->spare);
	(void)pthread_mutex_destroy(&drain->lock);
	(void)pthread_cond_destroy(&drain->changed);
	free(drain);
}
