/* SPDX-License-Identifier: MIT */
/*
 * Warming a flat file: reading it, and so bringing it into the page cache, in an order and at a
 * pace, with every page checked. What a VM maps of it is there then.
 *
 *   map_warm_begin()    the working set, or all, in a thread of its own    while QEMU starts
 *   map_warm_wait()     until that is there
 *   map_warm_rest()     the other pages, at a pace, in the caller's thread
 */
#ifndef ROUSE_API_MAP_WARM_H
#define ROUSE_API_MAP_WARM_H

#include "image/flat.h"
#include "vmm/vcpu_wait.h"

struct map_warm_config {
	struct rouse_flat_file *file; /* opened; its table is loaded here. The caller's, as all */
	const uint32_t *pages;        /* numbers of the pages to begin with, in order; or NULL */
	uint64_t page_count;
	bool all; /* begin with all pages */
	const struct rouse_observer *observer;
};

struct map_warm_stats {
	uint64_t first_pages;         /* before the start */
	uint64_t rest_pages, rest_ns; /* behind it, and how long that took */
	uint64_t bytes, reads;        /* all that was read, the table included */
};

struct map_warm;

/** -ENOMEM, -EAGAIN. */
int map_warm_begin(
	const struct map_warm_config *config, struct map_warm **warm, struct rouse_error *error);

/**
 * Waits until what it began with is there; progress meanwhile. -EUCLEAN: a page or the table is
 * not what was written (it is named); -ECANCELED; those of reading.
 */
int map_warm_wait(struct map_warm *warm, struct rouse_error *error);

/**
 * Reads what is left of the mapped block. @background: as in struct rouse_restore_options; not 0.
 * @wait: the vCPUs, or NULL: nobody sees how they fare. Errors as map_warm_wait().
 */
int map_warm_rest(struct map_warm *warm, uint64_t background, const struct vcpu_wait *wait,
	struct rouse_error *error);

void map_warm_get_stats(const struct map_warm *warm, struct map_warm_stats *stats);
/** Ends the thread too. NULL is fine. */
void map_warm_free(struct map_warm *warm);

/** The error of a page that is not what was written. Returns -EUCLEAN. */
int map_warm_damaged(const struct rouse_flat_file *file, uint64_t index, struct rouse_error *error);

#endif
