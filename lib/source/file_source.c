/* SPDX-License-Identifier: MIT */
/*
 * A file through the page cache: several restores of one image share what one of them read. Reads
 * are plain pread(2) calls from the threads that want the bytes: urgent and bulk reads run beside
 * each other and the kernel's queue serves both.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "base/io.h"
#include "source/medium.h"
#include "source/source.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>

struct file_source {
	struct rouse_source base;
	int fd;
	uint64_t bytes;
	_Atomic uint64_t reads_done, bytes_done;
};

static int file_source_read(struct rouse_source *source, uint64_t offset, void *buffer, size_t size,
	enum rouse_read_priority priority)
{
	struct file_source *file = (struct file_source *)source;
	int code = rouse_medium_check(file->bytes, offset, size);

	(void)priority;
	if (code < 0 || size == 0)
		return code;
	atomic_fetch_add_explicit(&file->reads_done, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&file->bytes_done, size, memory_order_relaxed);
	return rouse_medium_code(rouse_io_pread(file->fd, buffer, size, offset));
}

static uint64_t file_source_size(const struct rouse_source *source)
{
	return ((const struct file_source *)source)->bytes;
}

static void file_source_get_stats(struct rouse_source *source, struct rouse_source_stats *stats)
{
	struct file_source *file = (struct file_source *)source;

	*stats = (struct rouse_source_stats){
		.reads = atomic_load_explicit(&file->reads_done, memory_order_relaxed),
		.bytes = atomic_load_explicit(&file->bytes_done, memory_order_relaxed),
		.io = ROUSE_IO_CACHED,
	};
}

static void file_source_destroy(struct rouse_source *source)
{
	struct file_source *file = (struct file_source *)source;

	(void)close(file->fd);
	free(file);
}

static const struct rouse_source_ops file_source_ops = {
	.read = file_source_read,
	.size = file_source_size,
	.get_stats = file_source_get_stats,
	.destroy = file_source_destroy,
};

static int open_plain(const char *path, struct rouse_source **source, struct rouse_error *error)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	cleanup_free struct file_source *file = NULL;
	int code;

	if (fd < 0)
		return rouse_error_errno(error, -errno, "cannot open %s", path);
	file = calloc(1, sizeof(*file));
	code = file != NULL ? rouse_medium_size(fd, &file->bytes) : -ENOMEM;
	if (code < 0)
		return rouse_medium_refuse(path, code, error);
	file->base.ops = &file_source_ops;
	file->fd = take_fd(&fd);
	rouse_medium_join(file->fd);
	*source = &take_ptr(&file)->base;
	return 0;
}

int rouse_file_source_open(const char *path, const struct rouse_throttle *throttle,
	struct rouse_source **source, struct rouse_error *error)
{
	int code = open_plain(path, source, error);

	if (code == 0 && throttle != NULL)
		code = rouse_source_throttle(source, throttle, error);
	return code;
}
