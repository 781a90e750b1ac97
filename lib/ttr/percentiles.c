/* SPDX-License-Identifier: MIT */
#include "ttr/ttr.h"

#include <stdlib.h>

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* Nearest rank: the least value that @percent of all values do not exceed. */
static double rank(const uint32_t *sorted, size_t count, unsigned int percent)
{
	size_t nth = (count * percent + 99) / 100;

	return sorted[nth - 1];
}

void rouse_percentiles_compute(uint32_t *values, size_t count, struct rouse_percentiles *out)
{
	*out = (struct rouse_percentiles){0};
	if (count == 0)
		return;
	qsort(values, count, sizeof(*values), compare);
	out->p50 = rank(values, count, 50);
	out->p90 = rank(values, count, 90);
	out->p99 = rank(values, count, 99);
	out->max = values[count - 1];
}
