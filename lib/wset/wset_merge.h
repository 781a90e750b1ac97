/* SPDX-License-Identifier: MIT */
/*
 * The rule by which working sets are merged: pure, without I/O. docs/estimators.md explains it.
 *
 * A page has a weight w: an estimate of how likely the next restore touches it, as an average over
 * the restores in which each counts `decay` times what the next one counts:
 *
 *     s(r)  = 1 + d + d^2 + ... + d^(r-1)                      what r restores count, all together
 *     share = s(rB) / (s(rA) d^rB + s(rB))                     of the newer set B beside A
 *     w     = (1 - share) wA + share wB
 *
 * so that one restore decides alone at first and has the share 1 - d in the long run. For a page
 * that B lacks, wB is 0 if B could have seen it. A page that was prefetched could not be seen: then
 * w only falls, towards the largest rate of use that the sample of its neighbours leaves likely.
 *
 *                       touched again, confirmed and w >= keep
 *     not known --touched--> waits <--------------------------> in the set
 *         ^                    |          w < keep, or over budget
 *         '----- w < forget ---'
 *
 * Pages of the first set are believed at once; later ones must have been touched by `confirm`
 * restores. A page that waits is not prefetched, so the next restore shows whether it is used.
 */
#ifndef ROUSE_WSET_WSET_MERGE_H
#define ROUSE_WSET_WSET_MERGE_H

#include "base/bitmap.h"
#include "wset/wset.h"

/** Fills in the defaults that depend on the VM. -EINVAL: the rules make no sense. */
int rouse_wset_rules_complete(
	struct rouse_wset_rules *rules, uint64_t vm_pages, struct rouse_error *error);

/** Some of the VM's pages, and how large a share of their prefetched pages was used, at most. */
struct rouse_wset_group {
	uint32_t end_page; /* the page behind its last one */
	double rate;       /* 0 to 1 */
};

/** How a page that a restore did not touch is to be taken. */
struct rouse_wset_unseen {
	bool whole; /* the restore would have shown a touch of every page that was not hidden */
	uint32_t until_us; /* up to this time; of pages with a later first touch it says nothing */
	const struct rouse_bitmap *hidden;     /* pages that were prefetched; or NULL */
	const struct rouse_wset_group *groups; /* in order of page numbers; for the hidden ones */
	size_t group_count;
};

/**
 * Merges the newer @b into @a, which may be NULL: *merged is the caller's to close. Both must be of
 * the same VM; @rules must be complete. @unseen NULL: nothing was hidden, and @b is whole if it is
 * marked complete. @merged has the look of @b. -ENOMEM.
 */
int rouse_wset_combine(const struct rouse_wset *a, const struct rouse_wset *b,
	const struct rouse_wset_unseen *unseen, const struct rouse_wset_rules *rules,
	struct rouse_wset **merged);

/** Whether both are of VMs with the same blocks. */
bool rouse_wset_same_vm(const struct rouse_wset *a, const struct rouse_wset *b);

#endif
