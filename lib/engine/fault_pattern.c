/* SPDX-License-Identifier: MIT */
#include "engine/fault_pattern.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

/*
 * In sequence: how far behind what came the next fault may be. Zero pages and pages that came
 * otherwise are not asked for.
 */
#define GAP_PAGES 16
/* The same with a stride, in steps. */
#define GAP_STEPS 2
/* No VM has so many pages; products and quotients of what is smaller cannot overflow. */
#define FAR (INT64_C(1) << 40)

static int64_t distance_of(const struct fault_stream *stream, uint64_t page)
{
	return (int64_t)(page - stream->last);
}

static bool is_sequence(const struct fault_stream *stream)
{
	return stream->stride == 1 || stream->stride == -1;
}

/*
 * Whether a sequence may go on @distance pages behind a fault with which @came pages came, or up
 * to a chunk less: its page was somewhere in its chunk.
 */
static bool is_next(int64_t distance, uint32_t came)
{
	return distance > 0 && distance > (int64_t)came - (int64_t)FAULT_PATTERN_PAGES &&
	       distance <= (int64_t)came + 1 + GAP_PAGES;
}

static bool is_on_track(const struct fault_stream *stream, uint64_t page)
{
	const int64_t distance = distance_of(stream, page);

	if (stream->stride == 0 || distance > FAR || distance < -FAR)
		return false;
	if (is_sequence(stream))
		return is_next(distance * stream->stride, stream->came);
	return distance % stream->stride == 0 && distance / stream->stride > 0 &&
	       distance / stream->stride <= (int64_t)stream->steps + 1 + GAP_STEPS;
}

/* The stream that was to come here; the latest of several. */
static struct fault_stream *find_track(struct fault_pattern *pattern, uint64_t page)
{
	struct fault_stream *found = NULL;

	for (size_t i = 0; i < FAULT_PATTERN_STREAMS; i++) {
		struct fault_stream *stream = &pattern->streams[i];

		if (stream->used > 0 && is_on_track(stream, page) &&
			(found == NULL || stream->used > found->used))
			found = stream;
	}
	return found;
}

/* The nearest fault that may be the beginning of a stream that goes on at @page. */
static struct fault_stream *find_beginning(struct fault_pattern *pattern, uint64_t page)
{
	struct fault_stream *found = NULL;

	for (size_t i = 0; i < FAULT_PATTERN_STREAMS; i++) {
		struct fault_stream *stream = &pattern->streams[i];
		const int64_t distance = distance_of(stream, page);

		if (stream->used == 0 || stream->hits > 0 || distance == 0 ||
			distance > FAULT_PATTERN_MAX_STRIDE || distance < -FAULT_PATTERN_MAX_STRIDE)
			continue;
		if (found == NULL || llabs(distance) < llabs(distance_of(found, page)))
			found = stream;
	}
	return found;
}

static struct fault_stream *find_oldest(struct fault_pattern *pattern)
{
	struct fault_stream *oldest = &pattern->streams[0];

	for (size_t i = 1; i < FAULT_PATTERN_STREAMS; i++) {
		if (pattern->streams[i].used < oldest->used)
			oldest = &pattern->streams[i];
	}
	return oldest;
}

static void hit(struct fault_stream *stream)
{
	if (stream->hits < FAULT_PATTERN_CONFIRM)
		stream->hits++;
	if (stream->hits == FAULT_PATTERN_CONFIRM && stream->level < FAULT_PATTERN_LEVELS)
		stream->level++;
}

/* A fault that nobody expected. Returns the stream that may begin with it, or go on. */
static struct fault_stream *miss(struct fault_pattern *pattern, uint64_t page)
{
	struct fault_stream *stream = find_beginning(pattern, page);

	for (size_t i = 0; i < FAULT_PATTERN_STREAMS; i++) {
		if (pattern->streams[i].level > 0)
			pattern->streams[i].level--;
	}
	if (stream == NULL) {
		stream = find_oldest(pattern);
		*stream = (struct fault_stream){0};
		return stream;
	}
	stream->stride = distance_of(stream, page);
	if (is_next(stream->stride, stream->came))
		stream->stride = 1;
	else if (is_next(-stream->stride, stream->front))
		stream->stride = -1;
	return stream;
}

/* What a stream of this level foretells. */
static uint32_t count_steps(const struct fault_stream *stream)
{
	if (stream->level == 0)
		return 0;
	return (is_sequence(stream) ? FAULT_PATTERN_PAGES : 1u) << (stream->level - 1);
}

struct fault_forecast fault_pattern_note(
	struct fault_pattern *pattern, uint64_t page, struct fault_reach reach)
{
	struct fault_stream *stream = find_track(pattern, page);

	if (stream != NULL)
		hit(stream);
	else
		stream = miss(pattern, page);
	stream->used = ++pattern->faults;
	stream->last = page;
	stream->steps = count_steps(stream);
	/* With the last page of a forecast its chunk comes. */
	stream->came = stream->stride < 0 ? reach.front : reach.behind;
	stream->front = reach.front;
	if (is_sequence(stream) && stream->steps + FAULT_PATTERN_PAGES - 1 > stream->came)
		stream->came = stream->steps + FAULT_PATTERN_PAGES - 1;
	return (struct fault_forecast){.stride = stream->stride, .steps = stream->steps};
}
