/* SPDX-License-Identifier: MIT */
/*
 * QEMU as a sink: ways to hand a VM's memory and devices to a QEMU that waits for a migration.
 *
 *   precopy   everything, then the devices: for the eager policy; needs no privilege
 *   postcopy  some pages, the devices, the guest runs, the rest on demand: QEMU's userfaultfd does
 *             the trapping, its return path asks for pages
 *   uffd      the same without QEMU's help: qemu_uffd.h
 *
 * What goes over the wire is drawn in qemu_precopy.c and qemu_postcopy.c.
 */
#ifndef ROUSE_VMM_QEMU_SINK_H
#define ROUSE_VMM_QEMU_SINK_H

#include "sink/sink.h"
#include "vmm/qemu_stream.h"
#include "vmm/qmp.h"

struct qemu_sink_config {
	int fd;                          /* the migration connection; the sink closes it */
	struct qmp *qmp;                 /* of that QEMU; the caller's, and used by prefetch, start,
					    finish, stop_guest, guest_wait only */
	pid_t pid;                       /* of that QEMU; 0: the one at qmp's other end */
	const struct qemu_block *blocks; /* the caller's, as are config and devices */
	uint32_t block_count;
	const void *config; /* the configuration section with its type byte, or NULL */
	size_t config_size;
	const void *devices; /* the device sections */
	size_t devices_size;
	bool run; /* the guest is to run once it is there; otherwise it stays paused */
	const struct rouse_observer *observer; /* its cancel object ends waits for QEMU to read */
};

/** -ENOMEM. The sink is freed by its destroy. On failure fd is closed as well. */
int qemu_precopy_sink_new(
	const struct qemu_sink_config *config, struct rouse_sink **sink, struct rouse_error *error);

/**
 * The first half of its start: sends what prefetch has not, and does not wait for QEMU to load it.
 * Pages that were not given to prefetch are not sent: somebody else has to see to them. -EPIPE;
 * -ECANCELED: QEMU read nothing, and the restore was cancelled.
 */
int qemu_precopy_send(struct rouse_sink *sink);

/**
 * -ENOMEM; -EFBIG: the device state is larger than what postcopy can carry (16 MiB).
 */
int qemu_postcopy_sink_new(
	const struct qemu_sink_config *config, struct rouse_sink **sink, struct rouse_error *error);

/**
 * A sink for a VM whose restore broke off (postcopy-paused): learns from QEMU which pages it has,
 * over the connection made by qemu_incoming_recover() or qemu_rescue_recover(), to which
 * qemu_takeover_request() has been written. It has been started: only place, wait_fault,
 * finish. -EPROTO, -EPIPE; -ECANCELED, and -ETIMEDOUT of a QEMU that says nothing for 30 s: the VM
 * waits for the next takeover.
 */
int qemu_postcopy_sink_resume(
	const struct qemu_sink_config *config, struct rouse_sink **sink, struct rouse_error *error);

#endif
