/* SPDX-License-Identifier: MIT */
/*
 * Time-to-responsiveness, exactly.
 *
 * Let n be the number of vCPUs and S(x) the stalled vCPU time in [0, x]. A window [t, y] has less
 * than the utilization U when S(y) - S(t) > (1 - U) n (y - t), that is, when
 *
 *     g(y) > g(t)    with    g(x) = S(x) - (1 - U) n x
 *
 * t violates when this holds for some y >= t + w, and TTR(U, w) is the supremum of the t that
 * violate. g is piecewise linear with corners at whole microseconds, so its maximum over y >= t + w
 * is at y = t + w or at a corner. Between two neighbours of the times
 *
 *     { corners } u { corners - w }
 *
 * both g(t + w) - g(t) and (highest corner at or after t + w) - g(t) are straight lines: the last
 * violating t is where one of them falls through zero. Going through these intervals from the last
 * to the first, the first crossing that is found is the answer. After the last stall g only falls:
 * nothing violates there.
 *
 * U counts in millionths and everything else in whole microseconds: no rounding before the end.
 */
#include "ttr/stalls.h"

#define MILLION 1000000

__extension__ typedef __int128 wide_t;

const double rouse_ttr_utilizations[ROUSE_TTR_UTILIZATIONS] = {0.50, 0.75, 0.90, 0.95, 0.99};
const uint64_t rouse_ttr_windows_us[ROUSE_TTR_WINDOWS] = {10000, 100000, 1000000};

/* Goes through the intervals from the last to the first. */
struct walk {
	const struct rouse_stalls_profile *profile;
	int64_t allowed; /* (1 - U) n, in millionths */
	int64_t window;
	size_t here;    /* cursor for g(t) */
	size_t there;   /* cursor for g(t + w) */
	size_t corners; /* how many corners are not yet in highest */
	bool any;       /* highest is something */
	wide_t highest; /* g at the highest corner at or after the interval's end + w */
};

static wide_t g_at(const struct walk *walk, size_t *cursor, int64_t time)
{
	wide_t stalled = rouse_stalls_integral(walk->profile, cursor, time);

	return stalled * MILLION - (wide_t)walk->allowed * time;
}

/* The greatest of the times that divide the intervals, below @end; 0 if there is none. */
static int64_t previous_time(const struct walk *walk, int64_t end)
{
	const struct rouse_stalls_point *points = walk->profile->points;
	size_t here = walk->here, there = walk->there;
	int64_t time;

	while (here > 0 && points[here].time >= end)
		here--;
	while (there > 0 && points[there].time - walk->window >= end)
		there--;
	time = points[here].time;
	if (points[there].time - walk->window > time)
		time = points[there].time - walk->window;
	return time < end ? time : 0;
}

static void take_corners(struct walk *walk, int64_t from)
{
	while (walk->corners > 0 && walk->profile->points[walk->corners - 1].time >= from) {
		size_t cursor = --walk->corners;
		wide_t g = g_at(walk, &cursor, walk->profile->points[cursor].time);

		if (!walk->any || g > walk->highest)
			walk->highest = g;
		walk->any = true;
	}
}

/* Where the line from (a, at_a) to (b, at_b) falls through zero, rounded up; -1 if not positive. */
static int64_t falls_at(int64_t a, int64_t b, wide_t at_a, wide_t at_b)
{
	if (at_b > 0)
		return b;
	if (at_a <= 0)
		return -1;
	return a + (int64_t)((at_a * (b - a) + (at_a - at_b) - 1) / (at_a - at_b));
}

/* The supremum of the violating times in the interval, rounded up; -1 if there are none. */
static int64_t last_violation(struct walk *walk, int64_t a, int64_t b)
{
	/* The cursors fall: the end before the beginning. */
	wide_t there_b = g_at(walk, &walk->there, b + walk->window);
	wide_t here_b = g_at(walk, &walk->here, b);
	wide_t there_a = g_at(walk, &walk->there, a + walk->window);
	wide_t here_a = g_at(walk, &walk->here, a);
	int64_t found = falls_at(a, b, there_a - here_a, there_b - here_b);

	take_corners(walk, b + walk->window);
	if (walk->any) {
		int64_t other = falls_at(a, b, walk->highest - here_a, walk->highest - here_b);

		if (other > found)
			found = other;
	}
	return found;
}

/* (1 - U) in millionths. NaN and everything beyond 0 to 1 becomes the nearer end. */
static int64_t allowed_millionths(double utilization)
{
	if (!(utilization > 0))
		return MILLION;
	if (utilization >= 1)
		return 0;
	return MILLION - (int64_t)(utilization * MILLION + 0.5);
}

uint64_t rouse_stalls_ttr(const struct rouse_stalls *stalls, const struct rouse_ttr_point *point)
{
	const struct rouse_stalls_profile *profile = rouse_stalls_get_profile(stalls);
	size_t last = profile->count - 1;
	int64_t window = point->window_us < (uint64_t)ROUSE_STALLS_MAX_US
				 ? (int64_t)point->window_us
				 : ROUSE_STALLS_MAX_US;
	struct walk walk = {.profile = profile,
		.allowed = allowed_millionths(point->utilization) * stalls->vcpus,
		.window = window,
		.here = last,
		.there = last,
		.corners = profile->count};
	int64_t end = profile->points[last].time;

	while (end > 0) {
		int64_t begin = previous_time(&walk, end);
		int64_t found = last_violation(&walk, begin, end);

		if (found >= 0)
			return (uint64_t)found;
		end = begin;
	}
	return 0;
}

void rouse_stalls_table(const struct rouse_stalls *stalls,
	uint64_t table_us[ROUSE_TTR_UTILIZATIONS][ROUSE_TTR_WINDOWS])
{
	for (size_t u = 0; u < ROUSE_TTR_UTILIZATIONS; u++) {
		for (size_t w = 0; w < ROUSE_TTR_WINDOWS; w++) {
			struct rouse_ttr_point point = {.utilization = rouse_ttr_utilizations[u],
				.window_us = rouse_ttr_windows_us[w]};

			table_us[u][w] = rouse_stalls_ttr(stalls, &point);
		}
	}
}

uint64_t rouse_stalls_stalled_us(
	const struct rouse_stalls *stalls, uint64_t from_us, uint64_t to_us)
{
	const struct rouse_stalls_profile *profile = rouse_stalls_get_profile(stalls);
	size_t cursor = profile->count - 1;
	int64_t end = profile->points[cursor].time;
	/* Nothing is stalled after the last point, so times beyond it are as good as it. */
	int64_t from = from_us < (uint64_t)end ? (int64_t)from_us : end;
	int64_t to = to_us < (uint64_t)end ? (int64_t)to_us : end;
	int64_t until_to;

	if (to <= from)
		return 0;
	until_to = rouse_stalls_integral(profile, &cursor, to);
	return (uint64_t)(until_to - rouse_stalls_integral(profile, &cursor, from));
}

double rouse_stalls_utilization(
	const struct rouse_stalls *stalls, uint64_t from_us, uint64_t window_us)
{
	uint64_t to_us = from_us + window_us < from_us ? UINT64_MAX : from_us + window_us;

	if (window_us == 0)
		return 1;
	return 1 - (double)rouse_stalls_stalled_us(stalls, from_us, to_us) /
			   ((double)stalls->vcpus * (double)window_us);
}
