// SPDX-License-Identifier: MIT
#include "zipf.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "content.h"

int zipf_init(struct zipf *zipf, uint64_t count, double skew)
{
	double sum = 0;

	zipf->count = count;
	zipf->below = malloc(count * sizeof(*zipf->below));
	if (!zipf->below)
		return -ENOMEM;
	for (uint64_t rank = 0; rank < count; rank++) {
		sum += pow((double)(rank + 1), -skew);
		zipf->below[rank] = sum;
	}
	for (uint64_t rank = 0; rank < count; rank++)
		zipf->below[rank] /= sum;
	return 0;
}

uint64_t zipf_choose(const struct zipf *zipf, uint64_t *state)
{
	double point = (double)(content_next(state) >> 11) / 9007199254740992.0; /* 2^53 */
	uint64_t low = 0, high = zipf->count - 1;

	while (low < high) {
		uint64_t middle = (low + high) / 2;

		if (zipf->below[middle] <= point)
			low = middle + 1;
		else
			high = middle;
	}
	return content_mix(low + 1) % zipf->count;
}
