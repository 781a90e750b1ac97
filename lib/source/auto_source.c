/* SPDX-License-Identifier: MIT */
/*
 * Restores of one image at once: one read of the disk feeds them all, by the page cache. Who comes
 * later sees by a lock (medium.h) that the file is being read and uses the page cache from the
 * start; who was first and alone has begun past it, which is cheaper for one, and goes over here:
 *
 *   first    direct ----|-- page cache --------------------->
 *   second              | page cache --------------------------->
 *                       ^ the first sees the second's lock
 *
 * What the first has read until then is read twice.
 */
#include "source/auto_source.h"

#include "base/clock.h"
#include "source/direct_source.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

/*
 * How often to look. A local file system answers within a microsecond; one that asks a server may
 * take a thousand times as long, and must not be asked for more than a hundredth of the time.
 */
#define LOOK_EVERY_NS UINT64_C(1000000)
#define LOOK_SHARE 100

struct auto_source {
	struct rouse_source base;
	struct rouse_source *direct;
	/* NULL until the file is shared. It never changes back: reads may be under way. */
	_Atomic(struct rouse_source *) cached;
	_Atomic uint64_t look_ns; /* not before; UINT64_MAX while somebody looks, and at the end */
};

static void look(struct auto_source *s)
{
	const uint64_t begun = rouse_clock_ns();
	uint64_t next = atomic_load_explicit(&s->look_ns, memory_order_relaxed);
	struct rouse_source *cached = NULL;

	if (begun < next || !atomic_compare_exchange_strong_explicit(&s->look_ns, &next, UINT64_MAX,
				    memory_order_acquire, memory_order_relaxed))
		return;
	if (!rouse_direct_source_is_shared(s->direct)) {
		const uint64_t now = rouse_clock_ns(), pause = (now - begun) * LOOK_SHARE;

		next = now + (pause > LOOK_EVERY_NS ? pause : LOOK_EVERY_NS);
		atomic_store_explicit(&s->look_ns, next, memory_order_release);
		return;
	}
	/* It cannot be opened again: go on as before. Reading twice is no error. */
	if (rouse_direct_source_open_cached(s->direct, &cached, NULL) == 0)
		atomic_store_explicit(&s->cached, cached, memory_order_release);
}

static struct rouse_source *in_use(struct auto_source *s)
{
	struct rouse_source *cached = atomic_load_explicit(&s->cached, memory_order_acquire);

	return cached != NULL ? cached : s->direct;
}

/* An urgent read does not look: a guest waits for it. */
static int auto_source_read(struct rouse_source *source, uint64_t offset, void *buffer, size_t size,
	enum rouse_read_priority priority)
{
	struct auto_source *s = (struct auto_source *)source;

	if (priority == ROUSE_READ_BULK)
		look(s);
	return rouse_source_read(in_use(s), offset, buffer, size, priority);
}

static uint64_t auto_source_size(const struct rouse_source *source)
{
	return rouse_source_size(((const struct auto_source *)source)->direct);
}

static void auto_source_get_stats(struct rouse_source *source, struct rouse_source_stats *stats)
{
	struct auto_source *s = (struct auto_source *)source;
	struct rouse_source *now = in_use(s);
	struct rouse_source_stats before = {0};

	rouse_source_get_stats(now, stats);
	if (now == s->direct)
		return;
	rouse_source_get_stats(s->direct, &before);
	stats->reads += before.reads;
	stats->bytes += before.bytes;
}

static void auto_source_destroy(struct rouse_source *source)
{
	struct auto_source *s = (struct auto_source *)source;

	rouse_source_destroy(atomic_load_explicit(&s->cached, memory_order_acquire));
	rouse_source_destroy(s->direct);
	free(s);
}

static const struct rouse_source_ops auto_source_ops = {
	.read = auto_source_read,
	.size = auto_source_size,
	.get_stats = auto_source_get_stats,
	.destroy = auto_source_destroy,
};

int rouse_auto_source_new(struct rouse_source *direct, struct rouse_source **source)
{
	struct auto_source *s = calloc(1, sizeof(*s));

	if (s == NULL) {
		rouse_source_destroy(direct);
		return -ENOMEM;
	}
	s->base.ops = &auto_source_ops;
	s->direct = direct;
	*source = &s->base;
	return 0;
}
