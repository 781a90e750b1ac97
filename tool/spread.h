/* SPDX-License-Identifier: MIT */
/* What is said of a figure that was measured several times. */
#ifndef ROUSE_TOOL_SPREAD_H
#define ROUSE_TOOL_SPREAD_H

#include <stddef.h>

struct spread {
	double median, least, greatest;
	size_t count;
};

/** Sorts @values. The median of an even number is between the two in the middle; of none all is 0.
 */
struct spread spread_of(double *values, size_t count);

#endif
