/* SPDX-License-Identifier: MIT */
/*
 * When QEMU's vCPUs wait for memory that nobody serves through userfaultfd: a file that is mapped.
 * A thread that waits for a page to be read is in uninterruptible sleep ("D"), which
 * /proc/PID/task/TID/stat tells, beside how many such faults it has had. Both are looked at a
 * thousand times a second, from a thread of our own.
 *
 *   samples    R   D   D   R   D   R          one a millisecond
 *   stalls       '-------'   '---'            each sample stands for the time since the one before
 *
 * A stall that is shorter than the distance of two samples is seen with a probability in proportion
 * to its length, and counted as that distance: the sum is right on average, single ones are not.
 * A vCPU that waits in "D" for something else counts too; one that KVM lets sleep in the guest
 * instead (asynchronous page faults) does not.
 */
#ifndef ROUSE_VMM_VCPU_STALLS_H
#define ROUSE_VMM_VCPU_STALLS_H

#include "vmm/qmp.h"

#include <sys/types.h>

#define VCPU_STALLS_PERIOD_US 1000u

/** Of a thread: what its stat file says. */
struct thread_stat {
	char state;
	uint64_t major_faults;
};

/** Parses the text of a stat file, proc_pid_stat(5). Pure. -EUCLEAN: it is none. */
int thread_stat_parse(const char *text, size_t size, struct thread_stat *stat);

struct vcpu_stall {
	uint64_t from_ns, to_ns; /* CLOCK_MONOTONIC */
};

struct vcpu_stalls;

/**
 * Asks QEMU, process @pid, for its vCPUs' threads and begins to look at them. -ENOTSUP: they are
 * not to be seen here; -ENOMEM, -EAGAIN; those of qmp_execute().
 */
int vcpu_stalls_begin(struct qmp *qmp, pid_t pid, struct vcpu_stalls **stalls);

/** Ends it. Once. Before that, what the following say means nothing. */
void vcpu_stalls_end(struct vcpu_stalls *stalls);
/** The stalls of all vCPUs; the handle's. *complete: no memory was short for any. */
const struct vcpu_stall *vcpu_stalls_list(
	const struct vcpu_stalls *stalls, size_t *count, bool *complete);
/** Faults for which something had to be read, exact, from begin to end. */
uint64_t vcpu_stalls_major_faults(const struct vcpu_stalls *stalls);
/** Ends it too, if it goes on. NULL is fine. */
void vcpu_stalls_free(struct vcpu_stalls *stalls);

#endif
