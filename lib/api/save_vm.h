/* SPDX-License-Identifier: MIT */
/* Whether the VM runs, and letting it. */
#ifndef ROUSE_API_SAVE_VM_H
#define ROUSE_API_SAVE_VM_H

#include "vmm/qmp.h"

/** Errors: those of qmp_execute(). */
int save_vm_is_running(struct qmp *qmp, bool *running, struct rouse_error *error);

/**
 * Lets it run if it does not. Where QEMU is just ending a migration, that is waited for. Errors:
 * those of qmp_execute().
 */
int save_vm_continue(struct qmp *qmp, struct rouse_error *error);

#endif
