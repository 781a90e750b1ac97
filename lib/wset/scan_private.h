/* SPDX-License-Identifier: MIT */
/* What the scan's files share. */
#ifndef ROUSE_WSET_SCAN_PRIVATE_H
#define ROUSE_WSET_SCAN_PRIVATE_H

#include "wset/scan.h"

#define SCAN_PAGE 4096u

/* A part of the scanned memory. */
struct scan_area {
	uint64_t address, bytes;
	uint64_t first_page;    /* over all areas */
	uint64_t inode, offset; /* of its file, where it begins; 0 for private memory */
	bool shared;
	bool gone; /* what is there now is something else */
};

/* ---- The userfaultfd (scan_uffd.c) ----------------------------------------------------------- */

/*
 * A userfaultfd(2) of the process @target that only we have: *uffd. When it is closed, also by our
 * death, the kernel undoes all that was done with it. *stop_ns: a thread stood still for so long.
 */
int scan_uffd_open(struct target *target, int *uffd, uint64_t *stop_ns, struct rouse_error *error);
/* Whether this process gets such a userfaultfd. */
int scan_uffd_probe(void);
/* Registers an area. */
int scan_uffd_register(int uffd, const struct scan_area *area, struct rouse_error *error);
/* MADV_DONTNEED in the process, a thread of which must be stopped. Negative: why not. */
int scan_drop(struct target *target, uint64_t address, uint64_t bytes, struct rouse_error *error);

/* ---- Its page tables (scan_pagemap.c) -------------------------------------------------------- */

enum scan_bits {
	SCAN_PRESENT, /* page-table entries that are there */
	SCAN_WRITTEN, /* not write-protected */
};

typedef void scan_found_fn(void *user, uint64_t address, uint64_t bytes);

/*
 * Tells @found, which may be NULL, what in [start, end) has the bits. @protect: protects it again,
 * at once with the reading. -EPERM: a mapping in it is not one that scan_uffd_register() was
 * called for; -ENOTSUP: the kernel cannot do it.
 */
int scan_pagemap_read(int pagemap, enum scan_bits bits, bool protect, uint64_t start, uint64_t end,
	scan_found_fn *found, void *user);

#endif
