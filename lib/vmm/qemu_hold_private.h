/* SPDX-License-Identifier: MIT */
/* What the hold's files share. */
#ifndef ROUSE_VMM_QEMU_HOLD_PRIVATE_H
#define ROUSE_VMM_QEMU_HOLD_PRIVATE_H

#include "vmm/qemu_hold.h"

/* Fills in hold->areas: the large blocks, where QEMU has them. Errors as qemu_hold_take(). */
int qemu_hold_choose(struct qemu_hold *hold, struct qmp *qmp, const struct qemu_block *blocks,
	uint32_t count, struct rouse_error *error);

/*
 * Makes the userfaultfd in the stopped QEMU and fetches it. *there: its number in QEMU, to be
 * closed there if this fails; -1: it was not made.
 */
int qemu_hold_make_uffd(struct qemu_hold *hold, int *there, struct rouse_error *error);

/* Empties the areas and registers them with it. */
int qemu_hold_register(struct qemu_hold *hold, struct rouse_error *error);

/*
 * Marks the pages that are there: a Rouse that was killed between placing a page and marking it has
 * left one that nobody will ever ask for. What the guest gives back meanwhile is marked rightly,
 * too: missing and marked is zero. -ENOMEM; errors of reading /proc/PID/pagemap.
 */
int qemu_hold_mark_present(struct qemu_hold *hold, struct rouse_error *error);

/* A system call in QEMU, whose result is a number or an error. @what: for the message. */
int qemu_hold_call(struct target *target, long number, const uint64_t arguments[6],
	const void *data, size_t data_bytes, const char *what, struct rouse_error *error);

#endif
