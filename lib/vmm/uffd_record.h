/* SPDX-License-Identifier: MIT */
/*
 * What a restore by userfaultfd leaves in QEMU for the Rouse that takes over: a memfd, next to the
 * userfaultfd itself.
 *
 *	0      struct uffd_record   which memory, of which checkpoint, how far it has come
 *	4096   the bitmap           pages that have been placed: 8 KiB for each 256 MiB
 *
 * It is shared with whoever serves, and sealed: it cannot be cut off under his hands. QEMU itself
 * never looks at it. The bitmap outlives a Rouse that is killed, so that the next one tells a page
 * that never came from one that the guest has given back since.
 */
#ifndef ROUSE_VMM_UFFD_RECORD_H
#define ROUSE_VMM_UFFD_RECORD_H

#include "sink/uffd_sink.h"

#define UFFD_RECORD_MAGIC UINT64_C(0x4446465545535552) /* "RUSEUFFD" */
#define UFFD_RECORD_VERSION 1u
#define UFFD_RECORD_BITMAP 4096u /* where the bitmap begins */
#define UFFD_RECORD_AREAS 64u
#define UFFD_RECORD_MAX_PAGES (UINT64_C(1) << 32)

enum uffd_record_state {
	UFFD_ARMED,   /* nothing has been sent: QEMU gives up if we die */
	UFFD_SENT,    /* QEMU gets all that it needs to load the VM, but for pages */
	UFFD_RUNNING, /* the guest runs, or stays paused as was asked */
	/* Nothing is missing or registered any more: what is left in QEMU is to be closed. */
	UFFD_COMPLETE,
};

struct uffd_record {
	uint64_t magic;
	uint32_t version;
	uint32_t state;
	uint64_t checkpoint; /* any number that tells checkpoints apart */
	uint64_t pages;      /* over all blocks */
	int32_t uffd;        /* its number in QEMU */
	uint32_t run;        /* not 0: the guest is to run */
	uint64_t area_count;
	struct uffd_area areas[UFFD_RECORD_AREAS];
};

/** Bytes of a memfd for @pages pages. */
uint64_t uffd_record_bytes(uint64_t pages);

/**
 * Whether @record, a copy of what is in a memfd of @bytes bytes, can be relied on. Pure: nothing in
 * it is trusted. -EUCLEAN: it makes no sense; -EPROTONOSUPPORT: of another version of Rouse.
 */
int uffd_record_check(const struct uffd_record *record, uint64_t bytes);

#endif
