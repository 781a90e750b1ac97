/* SPDX-License-Identifier: MIT */
/*
 * The userfaultfd sink: QEMU's large RAM blocks are registered from outside (qemu_hold.h), and
 * pages go straight into them. Of the migration stream QEMU gets what is left: the small blocks and
 * the devices, as a precopy that has no page of the large blocks.
 *
 *	->  hold: RAM empty and registered            before anything is sent
 *	->  pages of the large blocks                 (prefetch: UFFDIO_COPY)
 *	->  header config | ram START | small blocks | ram END | devices | EOF       (start)
 *	    loading a device may touch a page already: that is a fault like any other
 *	<-> faults, pages                             (wait_fault, place)
 *	->  unregister, close what lies in QEMU       (finish)
 *
 * The small blocks are whoever's who makes the sink: he gives them to prefetch before the start.
 *
 * To QEMU the migration is complete as soon as the guest runs. So unlike in postcopy the VM can be
 * saved or migrated while pages are missing: QEMU then reads, and waits for, all of them.
 */
#ifndef ROUSE_VMM_QEMU_UFFD_H
#define ROUSE_VMM_QEMU_UFFD_H

#include "vmm/qemu_hold.h"
#include "vmm/qemu_sink.h"

struct qemu_uffd_config {
	/* fd: the migration connection, -1 in a takeover; qmp: NULL in a takeover. */
	struct qemu_sink_config qemu;
	struct qemu_hold *hold; /* is emptied: the sink takes it over, also when it fails */
	const char *socket;     /* QMP, in a takeover: connected when QEMU is able to answer */
	/**
	 * Whether a page of the image is not zero: such a page must not be missing at the end.
	 * 1, 0, or -errno. The thread that calls finish.
	 */
	int (*is_stored)(void *user, uint64_t page);
	void *user;
};

/** With a hold that was taken. -ENOMEM; errors of eventfd(2). */
int qemu_uffd_sink_new(
	const struct qemu_uffd_config *config, struct rouse_sink **sink, struct rouse_error *error);

/**
 * With a hold that was adopted: it has been started, only place, wait_fault, finish. Whoever waits
 * for a page asks for it again. -EPIPE: QEMU has ended; as above.
 */
int qemu_uffd_sink_resume(
	const struct qemu_uffd_config *config, struct rouse_sink **sink, struct rouse_error *error);

/**
 * The first page from @page on that the sink does not place itself: such pages must be given to
 * prefetch. Behind the VM's last page: there is none.
 */
uint64_t qemu_uffd_sink_next_small(const struct rouse_sink *sink, uint64_t page);

#endif
