/* SPDX-License-Identifier: MIT */
#include "source/throttle.h"

#include "base/clock.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#define NS_PER_S UINT64_C(1000000000)
#define READ_AHEAD_NS UINT64_C(20000000)
#define LATENCY_MAX_US UINT64_C(60000000)

/*
 * A bucket is kept as the time at which all that was taken from it is paid (a virtual clock):
 * behind now by at most the burst, ahead of now by what is owed. No timer fills anything.
 */
struct rouse_throttler {
	pthread_mutex_t lock;
	pthread_cond_t turn; /* an urgent read or a bulk read has ended, or an urgent one came */
	struct rouse_throttle limits;
	uint64_t bytes_paid_ns; /* the bytes taken so far are paid then */
	uint64_t next_random_ns;
	uint64_t last_end;                        /* file offset */
	uint64_t stream_end[ROUSE_READ_BULK + 1]; /* the same, of each priority */
	unsigned int urgent;
	bool bulk_active;
	bool bulk_waits;
	unsigned int passed; /* the bulk read that waits, by urgent ones that had to seek */
};

bool rouse_throttle_limits(const struct rouse_throttle *limits)
{
	return limits->bytes_per_s != 0 || limits->random_reads_per_s != 0 ||
	       limits->latency_us != 0;
}

int rouse_throttler_new(const struct rouse_throttle *limits, struct rouse_throttler **throttler)
{
	struct rouse_throttler *new = calloc(1, sizeof(*new));
	pthread_condattr_t attributes;

	if (new == NULL)
		return -ENOMEM;
	new->limits = *limits;
	if (new->limits.latency_us > LATENCY_MAX_US)
		new->limits.latency_us = LATENCY_MAX_US;
	new->last_end = UINT64_MAX; /* the first read is a random one */
	new->stream_end[ROUSE_READ_URGENT] = new->stream_end[ROUSE_READ_BULK] = UINT64_MAX;
	(void)pthread_mutex_init(&new->lock, NULL);
	(void)pthread_condattr_init(&attributes);
	(void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&new->turn, &attributes);
	(void)pthread_condattr_destroy(&attributes);
	*throttler = new;
	return 0;
}

void rouse_throttler_free(struct rouse_throttler *throttler)
{
	if (throttler == NULL)
		return;
	(void)pthread_cond_destroy(&throttler->turn);
	(void)pthread_mutex_destroy(&throttler->lock);
	free(throttler);
}

/* How long @size bytes take at @rate; without overflow for every size and rate. */
static uint64_t transfer_ns(uint64_t size, uint64_t rate)
{
	__extension__ unsigned __int128 ns = (unsigned __int128)size * NS_PER_S;

	return (uint64_t)(ns / rate);
}

static uint64_t later(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static bool must_seek(const struct rouse_throttler *throttler, uint64_t offset)
{
	return throttler->limits.random_reads_per_s != 0 && offset != throttler->last_end;
}

/* The most that the bytes bucket holds for a read at @offset, as the time in which it fills. */
static uint64_t bytes_burst_ns(const struct rouse_throttler *throttler, uint64_t offset)
{
	uint64_t ns = transfer_ns(ROUSE_THROTTLE_BURST, throttler->limits.bytes_per_s);

	return offset == throttler->last_end ? ns + READ_AHEAD_NS : ns;
}

/* How long the read takes beyond its tokens. */
static uint64_t latency_ns(const struct rouse_throttler *throttler, uint64_t offset)
{
	const uint64_t *ends = throttler->stream_end;

	if (offset == ends[ROUSE_READ_URGENT] || offset == ends[ROUSE_READ_BULK])
		return 0;
	return throttler->limits.latency_us * 1000;
}

/* Takes the tokens of a read that begins now or as soon as it can. Returns when they are paid. */
static uint64_t take(struct rouse_throttler *throttler, uint64_t offset, size_t size)
{
	const struct rouse_throttle *limits = &throttler->limits;
	uint64_t start = rouse_clock_ns(), burst;

	if (must_seek(throttler, offset)) {
		throttler->passed += throttler->bulk_waits;
		start = later(start, throttler->next_random_ns);
		throttler->next_random_ns = start + NS_PER_S / limits->random_reads_per_s;
	}
	if (limits->bytes_per_s > 0) {
		/* What idling saved up is worth at most the burst; a seek transfers nothing. */
		burst = bytes_burst_ns(throttler, offset);
		throttler->bytes_paid_ns =
			later(throttler->bytes_paid_ns, start > burst ? start - burst : 0) +
			transfer_ns(size, limits->bytes_per_s);
	}
	throttler->last_end = offset + size;
	return later(start, throttler->bytes_paid_ns);
}

static struct timespec to_timespec(uint64_t ns)
{
	return (struct timespec){
		.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
}

/*
 * Waits, with the lock held, until a bulk read may take its tokens; or until it has been passed
 * often enough: its token is the next one then, though it is not there yet.
 */
static void wait_bulk_turn(struct rouse_throttler *throttler, uint64_t offset)
{
	while (throttler->bulk_active)
		(void)pthread_cond_wait(&throttler->turn, &throttler->lock);
	throttler->bulk_active = true;
	throttler->bulk_waits = true;
	throttler->passed = 0;
	while (throttler->passed < ROUSE_THROTTLE_PATIENCE) {
		if (throttler->urgent > 0) {
			(void)pthread_cond_wait(&throttler->turn, &throttler->lock);
		} else if (must_seek(throttler, offset) &&
			   rouse_clock_ns() < throttler->next_random_ns) {
			/* An urgent read that comes meanwhile gets the token. */
			struct timespec until = to_timespec(throttler->next_random_ns);

			(void)pthread_cond_timedwait(&throttler->turn, &throttler->lock, &until);
		} else {
			break;
		}
	}
	throttler->bulk_waits = false;
}

void rouse_throttler_begin(struct rouse_throttler *throttler, uint64_t offset, size_t size,
	enum rouse_read_priority priority, struct rouse_throttle_turn *turn)
{
	(void)pthread_mutex_lock(&throttler->lock);
	if (priority == ROUSE_READ_URGENT) {
		throttler->urgent++;
	} else {
		wait_bulk_turn(throttler, offset);
	}
	turn->paid_ns = take(throttler, offset, size);
	turn->due_ns = turn->paid_ns + latency_ns(throttler, offset);
	throttler->stream_end[priority] = offset + size;
	(void)pthread_mutex_unlock(&throttler->lock);
}

static void sleep_until(uint64_t ns)
{
	struct timespec until = to_timespec(ns);

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
		;
}

void rouse_throttler_end(struct rouse_throttler *throttler, enum rouse_read_priority priority,
	const struct rouse_throttle_turn *turn)
{
	sleep_until(turn->paid_ns);
	(void)pthread_mutex_lock(&throttler->lock);
	if (priority == ROUSE_READ_URGENT)
		throttler->urgent--;
	else
		throttler->bulk_active = false;
	(void)pthread_cond_broadcast(&throttler->turn);
	(void)pthread_mutex_unlock(&throttler->lock);
	if (turn->due_ns > turn->paid_ns)
		sleep_until(turn->due_ns);
}
