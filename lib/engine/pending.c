/* SPDX-License-Identifier: MIT */
#include "engine/pending.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_ROOM 16u

int rouse_pending_init(struct rouse_pending *pending, size_t count)
{
	*pending = (struct rouse_pending){.room = FIRST_ROOM};
	pending->ranges = malloc(pending->room * sizeof(*pending->ranges));
	if (pending->ranges == NULL)
		return -ENOMEM;
	if (count > 0)
		pending->ranges[pending->count++] = (struct rouse_pending_range){.to = count};
	return 0;
}

void rouse_pending_finish(struct rouse_pending *pending)
{
	free(pending->ranges);
	pending->ranges = NULL;
}

struct rouse_pending_range rouse_pending_next(const struct rouse_pending *pending)
{
	if (pending->count == 0)
		return (struct rouse_pending_range){0};
	return pending->ranges[pending->current];
}

void rouse_pending_take(struct rouse_pending *pending, size_t count)
{
	struct rouse_pending_range *range = &pending->ranges[pending->current];

	range->from += count;
	if (range->from < range->to)
		return;
	pending->count--;
	memmove(range, range + 1, (pending->count - pending->current) * sizeof(*range));
	if (pending->current == pending->count)
		pending->current = 0;
}

/* The first range that ends behind @index; count if there is none. */
static size_t find(const struct rouse_pending *pending, size_t index)
{
	size_t low = 0, high = pending->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (pending->ranges[middle].to <= index)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static int make_room(struct rouse_pending *pending)
{
	struct rouse_pending_range *more;

	if (pending->count < pending->room)
		return 0;
	more = realloc(pending->ranges, 2 * pending->room * sizeof(*more));
	if (more == NULL)
		return -ENOMEM;
	pending->ranges = more;
	pending->room *= 2;
	return 0;
}

void rouse_pending_jump(struct rouse_pending *pending, size_t index)
{
	size_t at = find(pending, index);
	struct rouse_pending_range *range;

	if (at == pending->count)
		return;
	if (pending->ranges[at].from >= index) {
		pending->current = at;
		return;
	}
	if (make_room(pending) < 0)
		return;
	range = &pending->ranges[at];
	memmove(range + 1, range, (pending->count - at) * sizeof(*range));
	range[0].to = index;
	range[1].from = index;
	pending->count++;
	pending->current = at + 1;
}
