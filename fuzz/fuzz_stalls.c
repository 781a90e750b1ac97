/* SPDX-License-Identifier: MIT */
/*
 * The reader of stall logs: what it accepts can be written and read again, and what is computed
 * from it is what docs/ttr.md says: no window that begins at TTR or later is worse than asked for.
 */
#include "base/cleanup.h"
#include "ttr/stalls.h"

#include <stdlib.h>
#include <string.h>

#define LOOKS 8u
#define ROUNDING 1e-9

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(const struct rouse_stalls *stalls)
{
	cleanup_free char *text = NULL;
	struct rouse_stalls *again = NULL;
	size_t size = 0;
	FILE *file = open_memstream(&text, &size);

	if (file == NULL)
		return;
	if (rouse_stalls_write(stalls, file) < 0 || fclose(file) != 0 ||
		rouse_stalls_parse(text, size, &again, NULL) < 0)
		abort();
	if (again->vcpus != stalls->vcpus || again->count != stalls->count ||
		(stalls->count > 0 && memcmp(again->stalls, stalls->stalls,
					      stalls->count * sizeof(*stalls->stalls)) != 0))
		abort();
	rouse_stalls_free(again);
}

static void check_ttr(const struct rouse_stalls *stalls, const struct rouse_ttr_point *point)
{
	const uint64_t ttr_us = rouse_stalls_ttr(stalls, point);

	for (unsigned int i = 0; i < LOOKS; i++) {
		uint64_t from_us = ttr_us + i * (point->window_us / 3);
		double share = rouse_stalls_utilization(stalls, from_us, point->window_us);

		if (share < point->utilization - ROUNDING || share > 1)
			abort();
	}
}

static void check(const struct rouse_stalls *stalls)
{
	check_text(stalls);
	for (unsigned int u = 0; u < ROUSE_TTR_UTILIZATIONS; u++) {
		for (unsigned int w = 0; w < ROUSE_TTR_WINDOWS; w++) {
			const struct rouse_ttr_point point = {
				.utilization = rouse_ttr_utilizations[u],
				.window_us = rouse_ttr_windows_us[w]};

			check_ttr(stalls, &point);
		}
	}
	if (rouse_stalls_stalled_us(stalls, 0, UINT64_MAX) >
		(uint64_t)ROUSE_STALLS_MAX_US * stalls->vcpus)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct rouse_stalls *stalls = NULL;
	/* A copy of just that size: reading behind it is then seen by the sanitizer. */
	cleanup_free char *copy = malloc(size > 0 ? size : 1);

	if (copy == NULL)
		return 0;
	memcpy(copy, data, size);
	if (rouse_stalls_parse(copy, size, &stalls, NULL) == 0)
		check(stalls);
	rouse_stalls_free(stalls);
	return 0;
}
