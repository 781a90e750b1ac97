/* SPDX-License-Identifier: MIT */
#include "spread.h"

#include <stdlib.h>

static int by_value(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

struct spread spread_of(double *values, size_t count)
{
	struct spread spread = {.count = count};

	if (count == 0)
		return spread;
	qsort(values, count, sizeof(*values), by_value);
	spread.least = values[0];
	spread.greatest = values[count - 1];
	spread.median = (values[(count - 1) / 2] + values[count / 2]) / 2;
	return spread;
}
