/* SPDX-License-Identifier: MIT */
/*
 * A QEMU that was started with -S does not let its VM run when it is loaded: somebody has to send
 * `cont`. If we are killed before we do, the VM has everything and waits for ever, and nobody can
 * tell it from one that its user has paused. So QEMU is asked before the devices are sent: `cont`
 * while it waits for a VM undoes -S. From then on it is QEMU's affair, whether we live or not.
 *
 *	started with    asked before the devices    loaded
 *	-S              cont                        runs
 *	-S              nothing                     paused
 *	                nothing                     runs
 *	                stop                        paused      (qemu_incoming_hold())
 */
#ifndef ROUSE_VMM_QEMU_AUTOSTART_H
#define ROUSE_VMM_QEMU_AUTOSTART_H

#include "vmm/qmp.h"

#include <sys/types.h>

/**
 * Whether the arguments of a QEMU keep its VM from running by itself (-S): @size bytes, a NUL after
 * each argument, as /proc/PID/cmdline has them. Pure.
 */
bool qemu_autostart_is_off(const char *arguments, size_t size);

/**
 * Makes sure that QEMU lets the VM run by itself once it is loaded. Only where it was started with
 * -S, or nobody knows: QEMU opens the VM's disks for writing when it is asked, earlier than it
 * would, and does not close them in good order if it cannot load the devices then. So it is due
 * right before these are sent. @pid: QEMU; 0: the one at @qmp's other end. If QEMU refuses, which
 * is logged, it will leave the VM paused. Errors of qmp_execute().
 */
int qemu_autostart_ensure(struct qmp *qmp, pid_t pid, const struct rouse_observer *observer,
	struct rouse_error *error);

#endif
