/* SPDX-License-Identifier: MIT */
/*
 * What of a region of pages is still to be read, and where reading goes on.
 *
 *   region   0 . . . . . . . . . . . . . . . . count     (indices of pages, sorted by place)
 *   pending    |-------|      |-----------|
 *                             ^ current
 *
 * Reading goes on where it is until rouse_pending_jump() takes it elsewhere; what was left behind
 * is read later. At the end of the region it begins again with what is left at the front.
 */
#ifndef ROUSE_ENGINE_PENDING_H
#define ROUSE_ENGINE_PENDING_H

#include <stddef.h>

struct rouse_pending_range {
	size_t from, to;
};

struct rouse_pending {
	struct rouse_pending_range *ranges; /* disjoint, ascending, none is empty */
	size_t count, room;
	size_t current; /* of ranges; below count while anything is pending */
};

/** Pages 0 to @count are pending. -ENOMEM. */
int rouse_pending_init(struct rouse_pending *pending, size_t count);
void rouse_pending_finish(struct rouse_pending *pending);

/** What is to be read next. An empty range: nothing is pending. */
struct rouse_pending_range rouse_pending_next(const struct rouse_pending *pending);

/** The first @count pages of rouse_pending_next(), which has so many, have been read. */
void rouse_pending_take(struct rouse_pending *pending, size_t count);

/**
 * Reading goes on at @index, or at the first pending page behind it. It stays where it is if there
 * is none, or no memory for another range: this is about order only.
 */
void rouse_pending_jump(struct rouse_pending *pending, size_t index);

#endif
