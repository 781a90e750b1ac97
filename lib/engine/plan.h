/* SPDX-License-Identifier: MIT */
/*
 * Which pages the feeder brings, in which order: two plans.
 *
 *   working set   the image's own, or one that was given: one region
 *   rest          everything else, for eager and for the background: regions of a GiB of the VM;
 *                 for the background of a larger VM in two passes: in each region first what the
 *                 image has laid near its working set, which would else come late in the last ones
 *
 * Inside a region pages are sorted by where they are stored, so that the disk is read in one
 * direction and a chunk once. A GiB of the VM costs 4 MiB of memory.
 */
#ifndef ROUSE_ENGINE_PLAN_H
#define ROUSE_ENGINE_PLAN_H

#include "base/bitmap.h"
#include "engine/feeder.h"
#include "wset/wset.h"

/** A plan of one region. */
struct rouse_wset_plan {
	struct rouse_feed_page *pages;
	size_t count;
	bool given;
};

/** The working set of the image itself: reads nothing. -ENOMEM. */
int rouse_wset_plan_init(struct rouse_wset_plan *plan, const struct rouse_reader *reader);
/** Another one: its pages are looked up in the image. -ERANGE: a page that the image lacks. */
int rouse_wset_plan_init_from(
	struct rouse_wset_plan *plan, struct rouse_reader *reader, const struct rouse_wset *wset);
/** Takes pages out of it again: those in @pages, a bitmap of the VM. Before the first _next(). */
void rouse_wset_plan_leave_out(struct rouse_wset_plan *plan, const struct rouse_bitmap *pages);
void rouse_wset_plan_finish(struct rouse_wset_plan *plan);
int rouse_wset_plan_next(void *plan, const struct rouse_feed_page **pages, size_t *count);

struct rouse_rest_plan {
	struct rouse_reader *reader;
	bool zeros; /* zero pages too */
	bool (*skip)(void *user, uint64_t page);
	void *skip_user;
	uint64_t near_chunks; /* of the image: its pages come before all others; 0: no such order */
	bool near_done;
	uint64_t next_table;
	struct rouse_feed_page *pages;
	size_t room;
};

/** @skip may be NULL: pages to leave out. Nothing is read before the first _next(). */
void rouse_rest_plan_init(struct rouse_rest_plan *plan, struct rouse_reader *reader, bool zeros,
	bool (*skip)(void *user, uint64_t page), void *skip_user);
void rouse_rest_plan_finish(struct rouse_rest_plan *plan);
int rouse_rest_plan_next(void *plan, const struct rouse_feed_page **pages, size_t *count);

#endif
