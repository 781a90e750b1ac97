/* SPDX-License-Identifier: MIT */
/* What the scan's files share. */
#ifndef ROUSE_WSET_SCAN_PRIVATE_H
#define ROUSE_WSET_SCAN_PRIVATE_H

#include "wset/scan.h"

#define SCAN_PAGE 4096u

/* A part of the scanned memory. */
struct scan_area {
	uint64_t address, bytes;
	uint64_t first_page;           /* over all areas */
	uint64_t inode, offset;        /* of its file, where it begins; 0 for private memory */
	enum rouse_scan_source source; /* not AUTO, once it has begun */
	bool shared;
	bool gone; /* what is there now is something else */
};

/* ---- What is scanned (scan_areas.c) ---------------------------------------------------------- */

struct scan_areas {
	struct scan_area *list;
	uint32_t count;
	uint64_t pages; /* of all */
};

/* Makes areas of the ranges. -EINVAL: they make no sense; -ENOMEM; those of target_maps(). */
int scan_areas_init(struct scan_areas *areas, const struct target *target,
	const struct trace_range *ranges, uint32_t count, struct rouse_error *error);
void scan_areas_finish(struct scan_areas *areas);
/*
 * Whether what is mapped at the area is what was there when it was made. @maps: now. A mapping of
 * private memory is like every other.
 */
bool scan_area_is_same(const struct scan_area *area, const struct target_map *maps, size_t count);
/*
 * Which source an area is scanned by. @wanted: rouse_scan_options.source; @page_idle, @page_tables:
 * what this machine and the process allow. -ENOTSUP: none of them can, or not the wanted one.
 */
int scan_area_source(enum rouse_scan_source wanted, bool shared, bool page_idle, bool page_tables,
	enum rouse_scan_source *source);

struct scan {
	struct target *target;
	struct scan_config config;
	struct scan_areas areas;
	int uffd, pagemap; /* of the sources that are of page tables */
	struct scan_idle_files idle_files;
	struct scan_idle *idle; /* NULL: nothing is scanned by page_idle */
	struct scan_page *pages;
	uint64_t stopped_ns; /* a thread stands still since then; 0: none */
	uint64_t went_ns;    /* it was let go of then; 0: never stopped */
	struct scan_report report;
};

/* ---- The sources (scan_sources.c) ------------------------------------------------------------ */

/*
 * Decides by what each area is scanned and opens what that needs: the userfaultfd, the page map,
 * page_idle. Errors as scan_start().
 */
int scan_sources_open(struct scan *scan, struct rouse_error *error);
/* Takes all of it back. Safe without scan_sources_open(). */
void scan_sources_close(struct scan *scan);
/* A thread of the process stood still for so long. */
void scan_count_stop(struct scan_report *report, uint64_t ns);

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
