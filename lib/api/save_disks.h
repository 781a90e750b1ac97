/* SPDX-License-Identifier: MIT */
/*
 * The disks of a VM that goes on after its checkpoint: what it writes from then on must not reach
 * the disks that belong to the image.
 */
#ifndef ROUSE_API_SAVE_DISKS_H
#define ROUSE_API_SAVE_DISKS_H

#include "api/metadata.h"
#include "vmm/qmp.h"

/** Lists the writable disks into @metadata->disks, and what is only read into @metadata->media. */
int save_disks_query(struct qmp *qmp, struct rouse_metadata *metadata, struct rouse_error *error);

/**
 * Refuses a VM whose disk ends with QEMU: a file without a name (snapshot=on, -snapshot). @pid:
 * QEMU's; what cannot be seen by it is not refused. -ENOTSUP, kind REFUSED.
 */
int save_disks_check(const struct rouse_metadata *metadata, int pid, struct rouse_error *error);

/** For a VM that goes on: -EBUSY, naming the disks, if there are any. */
int save_disks_refuse(const struct rouse_metadata *metadata, struct rouse_error *error);

/**
 * Chooses a name for the overlay of each disk, next to the disk: NAME.rouse-ID.qcow2. @pid: QEMU's.
 * -ENOTSUP: a disk is no regular file, or its name leaves open where it lies.
 */
int save_disks_plan(struct rouse_metadata *metadata, int pid, struct rouse_error *error);

/**
 * Makes all overlays in one transaction: all or none. The VM must stand still. After an error for
 * which qmp_unknown() is true there may be overlays: save_disks_undo().
 */
int save_disks_snapshot(
	struct qmp *qmp, const struct rouse_metadata *metadata, struct rouse_error *error);

/**
 * Takes the overlays back after a failure: merges each that is in use into its disk and removes it.
 * What cannot be undone is appended to @error's message, since the VM goes on in those files.
 */
void save_disks_undo(struct qmp *qmp, const struct rouse_metadata *metadata,
	const struct rouse_observer *observer, struct rouse_error *error);

#endif
