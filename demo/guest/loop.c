// SPDX-License-Identifier: MIT
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>

#include "content.h"
#include "link.h"
#include "workload.h"

struct loop {
	const struct workload *workload;
	unsigned int cpu;
};

static struct {
	atomic_uint_fast64_t period_us, served;
} pace;

uint64_t loop_served(void)
{
	return atomic_load(&pace.served);
}

void loop_set_period(uint64_t period_us)
{
	atomic_store(&pace.period_us, period_us);
}

static void sleep_until(uint64_t us)
{
	struct timespec when = {
		.tv_sec = (time_t)(us / 1000000),
		.tv_nsec = (long)(us % 1000000) * 1000,
	};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL) == EINTR)
		;
}

/*
 * Requests must not be the same in every restore of one image, or a working set that was recorded
 * in one of them would foretell the others: so they depend on the clock, to the nanosecond.
 */
static uint64_t chance(unsigned int cpu, uint64_t seq)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return content_mix(seq * 64 + cpu + ((uint64_t)now.tv_nsec << 32)) | 1;
}

/*
 * A request starts one period after the last one started, or at once if that took longer. So a
 * stall is seen even if it hits between two requests: as the late start of the next one.
 */
static void *loop_main(void *arg)
{
	struct loop *loop = arg;
	uint64_t next = link_now_us();

	for (uint64_t seq = 0;; seq++) {
		uint64_t period_us = atomic_load(&pace.period_us);
		uint64_t start, end;

		next += period_us;
		sleep_until(next);
		start = link_now_us();
		loop->workload->request(loop->cpu, chance(loop->cpu, seq));
		end = link_now_us();
		atomic_fetch_add(&pace.served, 1);
		link_record(loop->cpu, seq, start, end);
		if (next + period_us < end)
			next = end - period_us;
	}
	return NULL;
}

static int start_one(const struct workload *workload, unsigned int cpu)
{
	struct loop *loop = malloc(sizeof(*loop));
	pthread_attr_t attr;
	pthread_t thread;
	cpu_set_t set;
	int err;

	if (!loop)
		return -ENOMEM;
	*loop = (struct loop){workload, cpu};
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	pthread_attr_init(&attr);
	err = pthread_attr_setaffinity_np(&attr, sizeof(set), &set);
	if (!err)
		err = pthread_create(&thread, &attr, loop_main, loop);
	pthread_attr_destroy(&attr);
	if (err)
		free(loop);
	return -err;
}

int loop_start(const struct workload *workload, unsigned int cpus, uint64_t period_us)
{
	loop_set_period(period_us);
	for (unsigned int cpu = 0; cpu < cpus; cpu++) {
		int err = start_one(workload, cpu);

		if (err)
			return err;
	}
	return 0;
}
