/* SPDX-License-Identifier: MIT */
/* The log of stalls, and its profile. */
#include "ttr/stalls.h"

#include <errno.h>
#include <stdlib.h>

int rouse_stalls_new(unsigned int vcpus, struct rouse_stalls **stalls)
{
	struct rouse_stalls *s;

	if (vcpus == 0 || vcpus > ROUSE_STALLS_MAX_VCPUS)
		return -EINVAL;
	s = calloc(1, sizeof(*s));
	if (s == NULL)
		return -ENOMEM;
	s->vcpus = vcpus;
	s->profile = calloc(1, sizeof(*s->profile));
	if (s->profile != NULL)
		s->profile->points = malloc(sizeof(*s->profile->points));
	if (s->profile == NULL || s->profile->points == NULL) {
		rouse_stalls_free(s);
		return -ENOMEM;
	}
	*stalls = s;
	return 0;
}

void rouse_stalls_free(struct rouse_stalls *stalls)
{
	if (stalls == NULL)
		return;
	if (stalls->profile != NULL)
		free(stalls->profile->points);
	free(stalls->profile);
	free(stalls->stalls);
	free(stalls);
}

static int grow(struct rouse_stalls *s)
{
	size_t room = s->room > 0 ? s->room * 2 : 64;
	struct rouse_stalls_point *points;
	struct rouse_stall *stalls;

	/* Two points for each stall, and the one at time 0. */
	points = reallocarray(s->profile->points, 2 * room + 1, sizeof(*points));
	if (points == NULL)
		return -ENOMEM;
	s->profile->points = points;
	stalls = reallocarray(s->stalls, room, sizeof(*stalls));
	if (stalls == NULL)
		return -ENOMEM;
	s->stalls = stalls;
	s->room = room;
	return 0;
}

int rouse_stalls_add(struct rouse_stalls *stalls, uint64_t from_us, uint64_t to_us)
{
	if (to_us < from_us || to_us > (uint64_t)ROUSE_STALLS_MAX_US)
		return -EINVAL;
	if (to_us == from_us)
		return 0;
	if (stalls->count == stalls->room) {
		int code = grow(stalls);

		if (code < 0)
			return code;
	}
	stalls->stalls[stalls->count++] =
		(struct rouse_stall){.from = (int64_t)from_us, .to = (int64_t)to_us};
	stalls->profile->valid = false;
	return 0;
}

int rouse_stalls_get_stall(
	const struct rouse_stalls *stalls, size_t index, uint64_t *from_us, uint64_t *to_us)
{
	if (index >= stalls->count)
		return -ERANGE;
	*from_us = (uint64_t)stalls->stalls[index].from;
	*to_us = (uint64_t)stalls->stalls[index].to;
	return 0;
}

static int compare_points(const void *a, const void *b)
{
	const struct rouse_stalls_point *p = a, *q = b;

	return (p->time > q->time) - (p->time < q->time);
}

/* Points hold changes of the number of stalls, sorted: makes them the step function. */
static size_t sum_up(struct rouse_stalls_point *points, size_t changes, int64_t vcpus)
{
	int64_t covering = 0;
	size_t used = 0;

	for (size_t i = 0; i < changes; used++) {
		int64_t time = points[i].time, stalled = 0;

		if (used > 0) {
			const struct rouse_stalls_point *last = &points[used - 1];

			stalled = last->stalled + last->level * (time - last->time);
		}
		for (; i < changes && points[i].time == time; i++)
			covering += points[i].level;
		points[used] = (struct rouse_stalls_point){.time = time,
			.stalled = stalled,
			.level = covering < vcpus ? covering : vcpus};
	}
	return used;
}

const struct rouse_stalls_profile *rouse_stalls_get_profile(const struct rouse_stalls *stalls)
{
	struct rouse_stalls_profile *profile = stalls->profile;
	struct rouse_stalls_point *points = profile->points;
	size_t used = 0;

	if (profile->valid)
		return profile;
	points[used++] = (struct rouse_stalls_point){.time = 0};
	for (size_t i = 0; i < stalls->count; i++) {
		const struct rouse_stall *stall = &stalls->stalls[i];

		points[used++] = (struct rouse_stalls_point){.time = stall->from, .level = 1};
		points[used++] = (struct rouse_stalls_point){.time = stall->to, .level = -1};
	}
	qsort(points, used, sizeof(*points), compare_points);
	profile->count = sum_up(points, used, stalls->vcpus);
	profile->valid = true;
	return profile;
}
