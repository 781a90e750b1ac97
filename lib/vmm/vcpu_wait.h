/* SPDX-License-Identifier: MIT */
/*
 * How long QEMU's vCPUs have waited for a processor of the host: what a guest feels of a busy host
 * and no page fault explains. Linux counts it for each thread, in /proc/PID/task/TID/schedstat
 * (Documentation/scheduler/sched-stats.rst: time on the processor, time waiting for one, both in
 * nanoseconds, and the number of time slices); QMP says which threads the vCPUs are. Under TCG
 * without thread=multi all vCPUs share one thread: it counts once.
 */
#ifndef ROUSE_VMM_VCPU_WAIT_H
#define ROUSE_VMM_VCPU_WAIT_H

#include "vmm/qmp.h"

#include <sys/types.h>

/** Time waited for a processor, out of a schedstat file's text. -EUCLEAN: not one. */
int schedstat_parse(const char *text, size_t size, uint64_t *wait_ns);

/**
 * Whether a restore sees how long its vCPUs wait, as far as can be told without a QEMU: whether the
 * kernel counts it for this process. -ENOTSUP.
 */
int vcpu_wait_probe(void);

struct vcpu_wait;

/**
 * Asks QEMU for its vCPUs' threads. @pid: QEMU's process; 0: the one at QMP's other end.
 * -ENOTSUP: not to be seen here (a kernel without it, a hidden or other /proc, another pid
 * namespace); -ENOMEM; those of qmp_execute().
 */
int vcpu_wait_open(struct qmp *qmp, pid_t pid, struct vcpu_wait **wait);

/**
 * The time waited since the threads began, the sum over them, in *wait_ns. Allocates nothing; some
 * microseconds. Returns the number of threads, or -ENOTSUP: one of them is gone. One thread.
 */
int vcpu_wait_read(const struct vcpu_wait *wait, uint64_t *wait_ns);

/** NULL is fine. */
void vcpu_wait_close(struct vcpu_wait *wait);

#endif
