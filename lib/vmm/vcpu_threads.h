/* SPDX-License-Identifier: MIT */
/* The threads that QEMU's vCPUs run in, and what /proc says of them. */
#ifndef ROUSE_VMM_VCPU_THREADS_H
#define ROUSE_VMM_VCPU_THREADS_H

#include "vmm/qmp.h"

#include <sys/types.h>

/**
 * Opens /proc/PID/task/TID/@file of each thread that QMP names, for reading, in the order of the
 * vCPUs. Under TCG without thread=multi all vCPUs share one thread: it is opened once. *fds, which
 * is the caller's to close and free, gets *count of them, at least one. -ENOTSUP: not to be seen
 * here (a kernel without that file, a hidden or other /proc, another pid namespace), or no vCPU;
 * -ENOMEM; those of qmp_execute().
 */
int vcpu_threads_open(struct qmp *qmp, pid_t pid, const char *file, int **fds, size_t *count);

/**
 * The threads' numbers, one for each vCPU in their order: vCPUs that share one have the same.
 * *threads is the caller's to free. -ENOTSUP: they are not those of this pid namespace, or no vCPU;
 * -ENOMEM; those of qmp_execute().
 */
int vcpu_threads_list(struct qmp *qmp, pid_t pid, uint32_t **threads, size_t *count);

/** Closes and frees what vcpu_threads_open() made. NULL is fine. */
void vcpu_threads_close(int *fds, size_t count);

#endif
