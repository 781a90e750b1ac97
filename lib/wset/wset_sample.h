/* SPDX-License-Identifier: MIT */
/*
 * How good a set is that was prefetched, although a page that is there never faults: a random
 * sample of it is left out, and the guest asks for what it uses of that. Pure; docs/estimators.md
 * has the statistics.
 *
 *   set   . . . . . . . . . . . . . . . .      prefetched, but for
 *             s           s       s            the sample: drawn at random, each page equally
 * likely d           d                  doubtful pages: the least likely ones, looked at again
 *
 * The hit rate comes from the sample alone. All that were left out tell of themselves.
 */
#ifndef ROUSE_WSET_WSET_SAMPLE_H
#define ROUSE_WSET_WSET_SAMPLE_H

#include "base/bitmap.h"
#include "wset/wset_merge.h"

#define ROUSE_WSET_SAMPLE_ONE_IN 64u
#define ROUSE_WSET_SAMPLE_MIN 32u  /* but not more than a quarter of the set */
#define ROUSE_WSET_SAMPLE_MAX 256u /* standard error of the hit rate: at most 3.1 % */
#define ROUSE_WSET_DOUBT 0.8       /* pages of less weight are looked at again */
#define ROUSE_WSET_GROUP_SAMPLES 16u

/** The pages that a restore prefetches by a set and could see in use, and those it leaves out. */
struct rouse_wset_sample {
	uint32_t *pages;
	uint32_t count;
	struct rouse_bitmap drawn;    /* the sample */
	struct rouse_bitmap left_out; /* the sample and the doubtful ones */
	uint32_t drawn_count, left_out_count;
};

struct rouse_wset_sample_config {
	uint64_t vm_pages;
	uint64_t until_us; /* pages with a later first touch are not looked at */
	uint32_t
		one_in; /* ROUSE_LEARN_NO_SAMPLE: none; 0: as the constants above say; or so many */
	uint64_t seed;  /* makes the choice repeatable */
};

/** Draws the sample of @count pages. -ENOMEM; then nothing is to be freed. */
int rouse_wset_sample_draw(struct rouse_wset_sample *sample, const struct rouse_wset_page *pages,
	uint32_t count, const struct rouse_wset_sample_config *config);
/** Safe on a zeroed structure. */
void rouse_wset_sample_finish(struct rouse_wset_sample *sample);

/** A share that was estimated from a sample, and its 95 % interval. */
struct rouse_wset_share {
	double value, low, high; /* -1, 0, 1: nothing is known */
};

/**
 * The share of @used in a sample of @sampled: Wilson's interval, which holds for small samples and
 * for shares near 0 and 1 too (E. B. Wilson, JASA 22, 1927). @z: 1.96 for 95 %, 1 for one standard
 * error.
 */
struct rouse_wset_share rouse_wset_share_of(uint64_t used, uint64_t sampled, double z);

/**
 * Cuts the VM into stretches with ROUSE_WSET_GROUP_SAMPLES sampled pages or more each, and says of
 * each how large its rate of use may be: one standard error above what the sample shows.
 * @touched: pages that were asked for. *groups is the caller's to free(3). Sorts the sample's
 * pages. -ENOMEM.
 */
int rouse_wset_sample_groups(struct rouse_wset_sample *sample, const struct rouse_bitmap *touched,
	struct rouse_wset_group **groups, size_t *group_count);

/** Pages of the sample that are in @touched. */
uint32_t rouse_wset_sample_used(
	const struct rouse_wset_sample *sample, const struct rouse_bitmap *touched);

#endif
