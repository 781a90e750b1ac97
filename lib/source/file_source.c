/* SPDX-License-Identifier: MIT */
/*
 * A file through the page cache: several restores of one image share what one of them read. Reads
 * are plain pread(2) calls from the threads that want the bytes: without a throttle urgent and
 * bulk reads run beside each other and the kernel's queue serves both.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "base/io.h"
#include "source/source.h"
#include "source/throttle.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>

struct file_source {
	struct rouse_source base;
	int fd;
	uint64_t bytes;
	struct rouse_throttler *throttler; /* NULL: no limit */
	_Atomic uint64_t reads_done, bytes_done;
};

/* Checked here once: the medium is never asked for what lies beyond its end. */
static int check_range(const struct file_source *file, uint64_t offset, size_t size)
{
	return offset > file->bytes || size > file->bytes - offset ? -ENODATA : 0;
}

/*
 * A medium can fail in ways that mean something else above, as ETIMEDOUT and ESTALE of a network
 * file system: all of them are -EIO there.
 */
static int read_piece(struct file_source *file, uint64_t offset, void *buffer, size_t size)
{
	int code;

	atomic_fetch_add_explicit(&file->reads_done, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&file->bytes_done, size, memory_order_relaxed);
	code = rouse_io_pread(file->fd, buffer, size, offset);
	return code == 0 || code == -ENODATA || code == -ENOMEM ? code : -EIO;
}

static int read_throttled(struct file_source *file, uint64_t offset, void *buffer, size_t size,
	enum rouse_read_priority priority)
{
	struct rouse_throttle_turn turn;
	int code;

	rouse_throttler_begin(file->throttler, offset, size, priority, &turn);
	code = read_piece(file, offset, buffer, size);
	rouse_throttler_end(file->throttler, priority, &turn);
	return code;
}

static int file_source_read(struct rouse_source *source, uint64_t offset, void *buffer, size_t size,
	enum rouse_read_priority priority)
{
	struct file_source *file = (struct file_source *)source;
	int code = check_range(file, offset, size);

	if (code < 0 || size == 0)
		return code;
	if (file->throttler == NULL)
		return read_piece(file, offset, buffer, size);
	if (priority == ROUSE_READ_URGENT)
		return read_throttled(file, offset, buffer, size, priority);
	/* In pieces, so that an urgent read waits for one piece at most. */
	while (code == 0 && size > 0) {
		size_t piece = size < ROUSE_SOURCE_BULK ? size : ROUSE_SOURCE_BULK;

		code = read_throttled(file, offset, buffer, piece, priority);
		offset += piece;
		buffer = (char *)buffer + piece;
		size -= piece;
	}
	return code;
}

static uint64_t file_source_size(const struct rouse_source *source)
{
	return ((const struct file_source *)source)->bytes;
}

static void file_source_get_stats(struct rouse_source *source, struct rouse_source_stats *stats)
{
	struct file_source *file = (struct file_source *)source;

	stats->reads = atomic_load_explicit(&file->reads_done, memory_order_relaxed);
	stats->bytes = atomic_load_explicit(&file->bytes_done, memory_order_relaxed);
}

static void file_source_destroy(struct rouse_source *source)
{
	struct file_source *file = (struct file_source *)source;

	rouse_throttler_free(file->throttler);
	(void)close(file->fd);
	free(file);
}

static const struct rouse_source_ops file_source_ops = {
	.read = file_source_read,
	.size = file_source_size,
	.get_stats = file_source_get_stats,
	.destroy = file_source_destroy,
};

/* The size of a regular file or block device; -EINVAL for everything else. */
static int find_size(int fd, uint64_t *size)
{
	struct stat status;
	off_t end;

	if (fstat(fd, &status) < 0)
		return -errno;
	if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode))
		return -EINVAL;
	end = lseek(fd, 0, SEEK_END);
	if (end < 0)
		return -errno;
	*size = (uint64_t)end;
	return 0;
}

int rouse_file_source_open(const char *path, const struct rouse_throttle *throttle,
	struct rouse_source **source, struct rouse_error *error)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	cleanup_free struct file_source *file = NULL;
	int code;

	if (fd < 0)
		return rouse_error_errno(error, -errno, "cannot open %s", path);
	file = calloc(1, sizeof(*file));
	if (file == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot open %s", path);
	code = find_size(fd, &file->bytes);
	if (code == -EINVAL)
		return rouse_error_set(error, ROUSE_ERROR_USAGE, code,
			"%s is neither a regular file nor a block device", path);
	if (code < 0)
		return rouse_error_errno(error, code, "cannot find the size of %s", path);
	if (throttle != NULL && rouse_throttle_limits(throttle)) {
		code = rouse_throttler_new(throttle, &file->throttler);
		if (code < 0)
			return rouse_error_errno(error, code, "cannot open %s", path);
	}
	file->base.ops = &file_source_ops;
	file->fd = take_fd(&fd);
	*source = &take_ptr(&file)->base;
	return 0;
}
