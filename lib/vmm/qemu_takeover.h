/* SPDX-License-Identifier: MIT */
/*
 * Taking over a postcopy restore whose Rouse died: what is said to QEMU, and what it answers.
 *
 *   ->  per block  RECV_BITMAP: u8 length, name
 *       at the end POSTCOPY_RESUME
 *   <-  per block  RECV_BITMAP, and the bitmap behind it
 *       at the end RESUME_ACK, and every request that waits
 *
 * QEMU's fault thread knows nothing of this, and a vCPU or a device may miss a page at any moment:
 * a REQ_PAGES may stand before each message, and between a RECV_BITMAP and its bitmap.
 */
#ifndef ROUSE_VMM_QEMU_TAKEOVER_H
#define ROUSE_VMM_QEMU_TAKEOVER_H

#include "base/bitmap.h"
#include "base/error.h"
#include "vmm/qemu_stream.h"

/* Whom to ask. All of it is the caller's. */
struct qemu_takeover {
	int fd;        /* the migration connection */
	int cancel_fd; /* readable: give up; -1: none */
	const struct qemu_block *blocks;
	uint32_t block_count;
};

/**
 * What a takeover says to QEMU, as one piece of malloc'ed memory: which pages do you have, and go
 * on. It must be written before QEMU sees the connection, or at once: QEMU 7.2 crashes if the
 * connection ends between its beginning and "go on". Once it is in the socket we may be killed:
 * QEMU reads it, notices the end, and waits for the next Rouse. -ENOMEM.
 */
int qemu_takeover_request(
	const struct qemu_block *blocks, uint32_t count, uint8_t **bytes, size_t *size);

/**
 * Reads the answers to that: sets the bits of the pages that QEMU has in @placed, which has one for
 * each page of the blocks. Requests among the answers are left out: QEMU repeats what it waits for
 * behind its RESUME_ACK. -EPROTO: not this VM's memory; -EPIPE; -ENOMEM; -ECANCELED, and -ETIMEDOUT
 * of a QEMU that says nothing for 30 s: the VM waits for the next takeover.
 */
int qemu_takeover_read(const struct qemu_takeover *takeover, struct rouse_bitmap *placed,
	struct rouse_error *error);

#endif
