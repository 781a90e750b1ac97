/* SPDX-License-Identifier: MIT */
/* Whether the VM and its QEMU run, and letting it. */
#ifndef ROUSE_API_SAVE_VM_H
#define ROUSE_API_SAVE_VM_H

#include "vmm/qmp.h"

struct save_vm_state {
	bool running;
	bool finishing; /**< a migration is at its end, and nobody else may start the VM */
	/** Somebody wants it to stand: no migration's end has stopped it, and no error of its disk.
	 */
	bool paused;
};

/** Errors: those of qmp_execute(). */
int save_vm_get_state(struct qmp *qmp, struct save_vm_state *state, struct rouse_error *error);
int save_vm_is_running(struct qmp *qmp, bool *running, struct rouse_error *error);

/**
 * Lets it run if it does not. Where QEMU is just ending a migration, that is waited for. Errors:
 * those of qmp_execute().
 */
int save_vm_continue(struct qmp *qmp, struct rouse_error *error);

/** A descriptor that tells when QEMU's process ends; -1 if it cannot be seen. */
int save_vm_open_process(const struct qmp *qmp);
/**
 * Waits for QEMU's end, after its connection has closed. @process_fd: of save_vm_open_process(). A
 * process that cannot be seen has not ended.
 */
bool save_vm_wait_end(int process_fd, unsigned int timeout_ms);

#endif
