/* SPDX-License-Identifier: MIT */
/* What a restore by userfaultfd does otherwise than one by QEMU's stream. For restore_qemu.c. */
#ifndef ROUSE_API_RESTORE_UFFD_H
#define ROUSE_API_RESTORE_UFFD_H

#include "api/restore_qemu.h"
#include "vmm/qemu_sink.h"

/**
 * Takes hold of the memory of a QEMU that waits: into qemu->hold. Errors of qemu_hold_take();
 * -ESRCH: its process is not known here.
 */
int restore_uffd_take(
	struct restore_qemu *qemu, uint64_t checkpoint, bool run, struct rouse_error *error);

/**
 * Takes over a VM at @socket whose Rouse died, into qemu->hold; qemu->way says so. QEMU need not
 * answer: its main loop may wait for a page. -ENOENT: it has no such restore; -EPERM: that cannot
 * be seen from here, and *error is as it was; others of qemu_hold_adopt().
 */
int restore_uffd_adopt(struct restore_qemu *qemu, const char *socket, uint64_t checkpoint,
	struct rouse_error *error);

/** The sink for qemu->hold, which it takes over. @config: as for the other sinks. */
int restore_uffd_sink(struct restore_qemu *qemu, const struct qemu_sink_config *config,
	const struct rouse_restore_options *options, struct rouse_reader *reader,
	struct rouse_error *error);

/**
 * Gives the sink the pages that it does not place itself: ROMs, tables, video memory, some hundred
 * that are not zero. They are read in the order of their numbers, and QEMU has them before the
 * devices. -EUCLEAN: a chunk is damaged; those of the source and of the sink.
 */
int restore_uffd_send_small(struct rouse_sink *sink, struct rouse_reader *reader,
	struct rouse_source *source, struct rouse_error *error);

/** Undoes a hold that no sink has taken over. */
void restore_uffd_give_up(struct restore_qemu *qemu);

#endif
