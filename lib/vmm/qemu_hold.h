/* SPDX-License-Identifier: MIT */
/*
 * QEMU's RAM, registered with a userfaultfd(2) from outside. QEMU does not know of it.
 *
 *	QEMU:  memfd (uffd_record.h)   userfaultfd   <- stay open: a page that is missing waits,
 *	          |                       |             whoever of us dies, and is never zeros
 *	us:    opened anew, mapped     duplicate     <- pidfd_getfd(2)
 *
 * A userfaultfd belongs to the memory of the process that made it: so one thread of QEMU is stopped
 * for some milliseconds and makes the calls (target/target.h), which needs what a debugger needs.
 *
 * Whether somebody serves is told by a lock (fcntl(2), F_OFD_SETLK) on the memfd. It is of the file
 * that we have opened, which is not QEMU's: two holds keep each other out in one process as well,
 * and the lock goes with the hold or with the process. A child that was forked meanwhile has it,
 * too, until it closes what it has inherited, as by execve(2).
 */
#ifndef ROUSE_VMM_QEMU_HOLD_H
#define ROUSE_VMM_QEMU_HOLD_H

#include "target/target.h"
#include "vmm/qemu_stream.h"
#include "vmm/qmp.h"
#include "vmm/uffd_record.h"

struct qemu_hold {
	struct target *target;
	struct uffd_record *record; /* shared, as is the bitmap behind it; NULL: there is none */
	size_t record_bytes;
	int memfd, uffd; /* ours */
	bool adopted;    /* a VM has it already */
	/* Of ours, so that nobody else can change them: the areas and the bitmap. */
	struct uffd_area areas[UFFD_RECORD_AREAS];
	size_t area_count;
	struct rouse_bitmap placed;
};

/** All descriptors -1, for cleanup. */
#define QEMU_HOLD_INIT ((struct qemu_hold){.memfd = -1, .uffd = -1})

/**
 * Whether a QEMU of this user could be held, as far as the kernel tells without one. 0; -ENOTSUP:
 * another processor, or the kernel lacks something; -EPERM: no userfaultfd for this user.
 */
int qemu_hold_probe(void);

/**
 * Takes hold of a QEMU that waits for a VM, before it has been sent anything: its large RAM blocks
 * lose what QEMU has put there at its start, and from then on wait for their pages. Blocks of which
 * qemu_hold_has() says no are to be sent with the devices.
 *
 * -EPERM, kind REFUSED: no right to trace QEMU, seccomp is on it, or it may not use userfaultfd;
 * -ENOTSUP: a large block is not private anonymous memory, is locked or pinned; not x86-64; the
 * kernel lacks something; -EBUSY: QEMU cannot be stopped, or its memory has a userfaultfd already;
 * -ESRCH; -ENOMEM; errors of qmp_execute().
 */
int qemu_hold_take(struct qemu_hold *hold, int pid, struct qmp *qmp,
	const struct qemu_block *blocks, uint32_t count, uint64_t checkpoint, bool run,
	struct rouse_error *error);

/**
 * Whether process @pid has a record of a restore by this backend that is not complete, of a Rouse
 * that lives or not. False also where that cannot be seen.
 */
bool qemu_hold_is_there(int pid);

/**
 * Takes over what a Rouse that died or gave up has left in process @pid. -ENOENT: there is nothing;
 * -EBUSY, kind REFUSED: a Rouse that lives serves it, maybe this process; -EINVAL, kind MISMATCH:
 * of another checkpoint than @checkpoint, or another VM; -EPERM; -EUCLEAN, -EPROTONOSUPPORT: its
 * record.
 */
int qemu_hold_adopt(struct qemu_hold *hold, int pid, const struct qemu_block *blocks,
	uint32_t count, uint64_t checkpoint, struct rouse_error *error);

/** Closes what lies in QEMU, once nothing is registered any more. Errors as target_stop(). */
int qemu_hold_release(struct qemu_hold *hold, struct rouse_error *error);

/** Closes our descriptors. QEMU's stay open unless they were released. */
void qemu_hold_finish(struct qemu_hold *hold);

#endif
