/* SPDX-License-Identifier: MIT */
/*
 * Where the bytes of an image come from. Thread-safe: any number of threads may read at once.
 *
 * Reads have a priority: an urgent read (a guest waits for it) goes before every bulk read that
 * waits. Bulk reads may be as long as the reader likes: a source whose reads cannot be passed reads
 * them in pieces of ROUSE_SOURCE_BULK.
 *
 *                rouse_source_open()
 *                        |
 *              throttled_source.c        only with limits
 *                 |            |
 *                 |      auto_source.c   only ROUSE_IO_AUTO: direct until another reads the file
 *                 |       |    |
 *         file_source.c   direct_source.c
 *           page cache      O_DIRECT: urgent reads by pread(2) in the caller's thread,
 *                           bulk reads by read_ahead.h, several blocks in flight (io_uring)
 */
#ifndef ROUSE_SOURCE_SOURCE_H
#define ROUSE_SOURCE_SOURCE_H

#include <rouse.h>

/** The largest piece of a bulk read that does not hurt an urgent one behind it much. */
#define ROUSE_SOURCE_BULK (256u << 10)

enum rouse_read_priority { ROUSE_READ_URGENT, ROUSE_READ_BULK };

struct rouse_source;

struct rouse_source_stats {
	uint64_t reads,
		bytes;    /**< from the medium; with direct I/O what is read ahead counts, too */
	enum rouse_io io; /**< how it reads: ROUSE_IO_CACHED or ROUSE_IO_DIRECT */
	bool io_uring;    /**< bulk reads in flight together */
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
 * A file, read as @io says; @throttle as below. ROUSE_IO_DIRECT falls back to the page cache where
 * the file system refuses direct I/O, and to pread(2) where io_uring is forbidden:
 * rouse_source_get_stats() tells. ROUSE_IO_AUTO: docs/design.md, "How the image is read".
 * Errors: those of rouse_file_source_open(), -ENOMEM.
 */
int rouse_source_open(const char *path, enum rouse_io io, const struct rouse_throttle *throttle,
	struct rouse_source **source, struct rouse_error *error);

/**
 * Puts a throttle around *@source, unless @limits has none. On an error (-ENOMEM) *@source is
 * destroyed and NULL.
 */
int rouse_source_throttle(struct rouse_source **source, const struct rouse_throttle *limits,
	struct rouse_error *error);

/**
 * A file, read through the page cache. @throttle may be NULL or all zero for none.
 * Errors: those of open(2); -EINVAL: not a regular file or block device.
 */
int rouse_file_source_open(const char *path, const struct rouse_throttle *throttle,
	struct rouse_source **source, struct rouse_error *error);

#endif
