/* SPDX-License-Identifier: MIT */
#ifndef ROUSE_BASE_CLOCK_H
#define ROUSE_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

/** CLOCK_MONOTONIC in nanoseconds. */
static inline uint64_t rouse_clock_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static inline uint64_t rouse_clock_us(void)
{
	return rouse_clock_ns() / 1000;
}

/** The moment @ms milliseconds from now, for waiting on CLOCK_MONOTONIC. @ms: 0 or more. */
static inline struct timespec rouse_clock_in_ms(int ms)
{
	const uint64_t then = rouse_clock_ns() + (uint64_t)ms * 1000000;

	return (struct timespec){.tv_sec = (time_t)(then / UINT64_C(1000000000)),
		.tv_nsec = (long)(then % UINT64_C(1000000000))};
}

#endif
