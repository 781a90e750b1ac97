/* SPDX-License-Identifier: MIT */
/* Another source, through the throttle: the same for every way to read. */
#include "base/error.h"
#include "source/source.h"
#include "source/throttle.h"

#include <errno.h>
#include <stdlib.h>

struct throttled_source {
	struct rouse_source base;
	struct rouse_source *inner;
	struct rouse_throttler *throttler;
};

static int read_piece(struct throttled_source *throttled, uint64_t offset, void *buffer,
	size_t size, enum rouse_read_priority priority)
{
	struct rouse_throttle_turn turn;
	int code;

	rouse_throttler_begin(throttled->throttler, offset, size, priority, &turn);
	code = rouse_source_read(throttled->inner, offset, buffer, size, priority);
	rouse_throttler_end(throttled->throttler, priority, &turn);
	return code;
}

static int throttled_source_read(struct rouse_source *source, uint64_t offset, void *buffer,
	size_t size, enum rouse_read_priority priority)
{
	struct throttled_source *throttled = (struct throttled_source *)source;
	const uint64_t bytes = rouse_source_size(throttled->inner);
	int code = 0;

	if (offset > bytes || size > bytes - offset)
		return -ENODATA; /* takes no tokens */
	if (size > 0 && priority == ROUSE_READ_URGENT)
		return read_piece(throttled, offset, buffer, size, priority);
	/* In pieces, so that an urgent read waits for one piece at most. */
	while (code == 0 && size > 0) {
		size_t piece = size < ROUSE_SOURCE_BULK ? size : ROUSE_SOURCE_BULK;

		code = read_piece(throttled, offset, buffer, piece, priority);
		offset += piece;
		buffer = (char *)buffer + piece;
		size -= piece;
	}
	return code;
}

static uint64_t throttled_source_size(const struct rouse_source *source)
{
	return rouse_source_size(((const struct throttled_source *)source)->inner);
}

static void throttled_source_get_stats(
	struct rouse_source *source, struct rouse_source_stats *stats)
{
	rouse_source_get_stats(((struct throttled_source *)source)->inner, stats);
}

static void throttled_source_destroy(struct rouse_source *source)
{
	struct throttled_source *throttled = (struct throttled_source *)source;

	rouse_throttler_free(throttled->throttler);
	rouse_source_destroy(throttled->inner);
	free(throttled);
}

static const struct rouse_source_ops throttled_source_ops = {
	.read = throttled_source_read,
	.size = throttled_source_size,
	.get_stats = throttled_source_get_stats,
	.destroy = throttled_source_destroy,
};

int rouse_source_throttle(struct rouse_source **source, const struct rouse_throttle *limits,
	struct rouse_error *error)
{
	struct throttled_source *throttled;

	if (!rouse_throttle_limits(limits))
		return 0;
	throttled = calloc(1, sizeof(*throttled));
	if (throttled == NULL || rouse_throttler_new(limits, &throttled->throttler) < 0) {
		free(throttled);
		rouse_source_destroy(*source);
		*source = NULL;
		return rouse_error_errno(error, -ENOMEM, "cannot throttle the source");
	}
	throttled->base.ops = &throttled_source_ops;
	throttled->inner = *source;
	*source = &throttled->base;
	return 0;
}
