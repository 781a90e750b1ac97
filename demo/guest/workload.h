/* SPDX-License-Identifier: MIT */
/* What the guest does: four workloads with one interface, and the loop that makes requests. */
#ifndef GUEST_WORKLOAD_H
#define GUEST_WORKLOAD_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "stamp.h"

struct workload {
	const char *name;
	/** Fills @mb MiB of memory and gets ready for requests. 0 or -errno. */
	int (*start)(size_t mb, unsigned int cpus);
	/** One request; called from one thread for each CPU. Counts what is wrong with
	 * errors_add(). */
	void (*request)(unsigned int cpu, uint64_t seq);
	/** Gives the data new generations before a save, beyond the stamped pages; may be NULL. */
	void (*renew)(void);
	/** Checks all data beyond the stamped pages; may be NULL. */
	struct stamp_result (*verify)(void);
};

extern const struct workload workload_idle, workload_kv, workload_scan;
#ifdef HAVE_SQLITE
extern const struct workload workload_sql;
#endif

/** Wrong data that requests met, of all workloads. */
extern atomic_uint_fast64_t workload_errors;

static inline void errors_add(void)
{
	atomic_fetch_add(&workload_errors, 1);
}

/** Starts a thread on each CPU that makes a request every @period_us. 0 or -errno. */
int loop_start(const struct workload *workload, unsigned int cpus, uint64_t period_us);
/** Changes that, beginning with each CPU's next request. A period shorter than a request keeps
 * all CPUs busy. */
void loop_set_period(uint64_t period_us);
/** How many requests have ended, on all CPUs, recorded or not. */
uint64_t loop_served(void);

#endif
