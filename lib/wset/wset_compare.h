/* SPDX-License-Identifier: MIT */
/*
 * How two working sets differ: pure. The order is compared by Kendall's tau of the places that the
 * common pages have in both orders: of all pairs, the share that stands in the same order less the
 * share that does not. Places have no ties, so it is tau-a. (M. Kendall, Biometrika 30, 1938; the
 * pairs are counted while sorting by merging, as Knight, JASA 61, 1966.)
 */
#ifndef ROUSE_WSET_WSET_COMPARE_H
#define ROUSE_WSET_WSET_COMPARE_H

#include "wset/wset.h"

/** Both must be of the same VM. @only as rouse_wset_compare() has it. -ENOMEM. */
int rouse_wset_measure(const struct rouse_wset *a, const struct rouse_wset *b,
	struct rouse_wset_diff *diff, rouse_wset_diff_fn *only, void *user);

#endif
