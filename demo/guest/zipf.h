/* SPDX-License-Identifier: MIT */
/*
 * Choosing things as requests do: a few often, most seldom. The rank of what is chosen follows
 * Zipf's law; ranks are scattered, so that what is popular lies all over the memory.
 */
#ifndef GUEST_ZIPF_H
#define GUEST_ZIPF_H

#include <stdint.h>

struct zipf {
	uint64_t count;
	double *below; /* below[r]: the probability of a rank less than or equal to r */
};

/** For choosing one of @count things with the exponent @skew. 0 or -ENOMEM. */
int zipf_init(struct zipf *zipf, uint64_t count, double skew);
/** Chooses: 0 <= result < count. @state is a content_next() state. */
uint64_t zipf_choose(const struct zipf *zipf, uint64_t *state);

#endif
