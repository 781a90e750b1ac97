/* SPDX-License-Identifier: MIT */
/*
 * Where the bytes of an image come from. Thread-safe: any number of threads may read at once.
 *
 * Reads have a priority: an urgent read (a guest waits for it) goes before every bulk read that
 * waits. A bulk read that has begun is not interrupted: keep bulk reads to ROUSE_SOURCE_BULK bytes.
 */
#ifndef ROUSE_SOURCE_SOURCE_H
#define ROUSE_SOURCE_SOURCE_H

#include <rouse.h>

/** The largest bulk read that does not hurt an urgent one behind it much. */
#define ROUSE_SOURCE_BULK (256u << 10)

enum rouse_read_priority { ROUSE_READ_URGENT, ROUSE_READ_BULK };

struct rouse_source;

struct rouse_source_stats {
	uint64_t reads, bytes;
};

struct rouse_source_ops {
	/** Reads exactly @size bytes. 0, -ENODATA beyond the end, -EIO and others of the medium. */
	int (*read)(struct rouse_source *source, uint64_t offset, void *buffer, size_t size,
		enum rouse_read_priority priority);
	uint64_t (*size)(const struct rouse_source *source);
	void (*get_stats)(struct rouse_source *source, struct rouse_source_stats *stats);
	void (*destroy)(struct rouse_source *source);
};

struct rouse_source {
	const struct rouse_source_ops *ops;
};

static inline int rouse_source_read(struct rouse_source *source, uint64_t offset, void *buffer,
	size_t size, enum rouse_read_priority priority)
{
	return source->ops->read(source, offset, buffer, size, priority);
}

static inline uint64_t rouse_source_size(const struct rouse_source *source)
{
	return source->ops->size(source);
}

static inline void rouse_source_get_stats(
	struct rouse_source *source, struct rouse_source_stats *stats)
{
	source->ops->get_stats(source, stats);
}

static inline void rouse_source_destroy(struct rouse_source *source)
{
	if (source != NULL)
		source->ops->destroy(source);
}

/**
 * A file, read through the page cache. @throttle may be NULL or all zero for none.
 * Errors: those of open(2); -EINVAL: not a regular file or block device.
 */
int rouse_file_source_open(const char *path, const struct rouse_throttle *throttle,
	struct rouse_source **source, struct rouse_error *error);

#endif
