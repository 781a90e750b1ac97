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

/** A moment of rouse_clock_ns(), for calls that wait until then. */
static inline struct timespec rouse_clock_timespec(uint64_t ns)
{
	return (struct timespec){.tv_sec = (time_t)(ns / UINT64_C(1000000000)),
		.tv_nsec = (long)(ns % UINT64_C(1000000000))};
}

/** The moment @ms milliseconds from now, for waiting on CLOCK_MONOTONIC. @ms: 0 or more. */
static inline struct timespec rouse_clock_in_ms(int ms)
{
	return rouse_clock_timespec(rouse_clock_ns() + (uint64_t)ms * 1000000);
}

#endif
