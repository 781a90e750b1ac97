/* SPDX-License-Identifier: MIT */
/*
 * A file past the page cache. An urgent read is one pread(2) by the thread that wants the bytes,
 * unless they have been read ahead already: no other thread has to wake up for it, and it stands in
 * no queue of ours. Bulk reads go through read_ahead.h.
 *
 * Direct I/O wants aligned offsets, sizes and memory. So all of it goes to memory of the source:
 *
 *   | pieces of the stream (8 MiB) | places for single reads (4 x 512 KiB) |
 *
 * and is copied from there. The copy is what the page cache would cost, too; the memory is of huge
 * pages where possible, for which the disk needs fewer segments.
 */
#include "source/direct_source.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "source/medium.h"

#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ALIGN UINT64_C(4096)
#define HUGE_PAGE ((size_t)2 << 20)
#define PLACES 4u
#define PLACE_BYTES ((size_t)512 << 10)
#define MEMORY_BYTES (ROUSE_READ_AHEAD_BYTES + PLACES * PLACE_BYTES)

struct direct_source {
	struct rouse_source base;
	int fd;
	uint64_t bytes;
	void *mapped; /* MEMORY_BYTES + HUGE_PAGE */
	uint8_t *memory;
	struct rouse_read_ahead *ahead;

	pthread_mutex_t lock;
	pthread_cond_t given_back;
	unsigned int taken; /* places in use, by bit */

	_Atomic uint64_t reads_done, bytes_done;
};

/* ---- Single reads ---------------------------------------------------------------------------- */

static unsigned int take_place(struct direct_source *direct)
{
	unsigned int place = 0;

	(void)pthread_mutex_lock(&direct->lock);
	while (direct->taken == (1u << PLACES) - 1)
		(void)pthread_cond_wait(&direct->given_back, &direct->lock);
	while ((direct->taken >> place & 1) != 0)
		place++;
	direct->taken |= 1u << place;
	(void)pthread_mutex_unlock(&direct->lock);
	return place;
}

static void give_place_back(struct direct_source *direct, unsigned int place)
{
	(void)pthread_mutex_lock(&direct->lock);
	direct->taken &= ~(1u << place);
	(void)pthread_cond_signal(&direct->given_back);
	(void)pthread_mutex_unlock(&direct->lock);
}

/* Reads an aligned span, of which @wanted bytes must be there: the file's end need not be aligned.
 */
static int read_aligned(
	struct direct_source *direct, uint64_t offset, uint8_t *memory, size_t span, size_t wanted)
{
	size_t have = 0;

	while (have < wanted) {
		ssize_t n = pread(direct->fd, memory + have, span - have, (off_t)(offset + have));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		atomic_fetch_add_explicit(&direct->reads_done, 1, memory_order_relaxed);
		atomic_fetch_add_explicit(&direct->bytes_done, (uint64_t)n, memory_order_relaxed);
		have += (size_t)n;
		/* An odd number of bytes: the file has become shorter. */
		if (have < wanted && (n == 0 || have % ALIGN != 0))
			return -ENODATA;
	}
	return 0;
}

static int read_now(void *user, uint64_t offset, void *buffer, size_t size)
{
	struct direct_source *direct = user;
	const unsigned int place = take_place(direct);
	uint8_t *memory = direct->memory + ROUSE_READ_AHEAD_BYTES + place * PLACE_BYTES;
	int code = 0;

	while (code == 0 && size > 0) {
		const size_t lead = (size_t)(offset % ALIGN);
		const size_t part = size < PLACE_BYTES - lead ? size : PLACE_BYTES - lead;
		const size_t span = (lead + part + ALIGN - 1) / ALIGN * ALIGN;

		code = read_aligned(direct, offset - lead, memory, span, lead + part);
		if (code == 0)
			memcpy(buffer, memory + lead, part);
		offset += part;
		buffer = (uint8_t *)buffer + part;
		size -= part;
	}
	give_place_back(direct, place);
	return rouse_medium_code(code);
}

static int read_urgent(struct direct_source *direct, uint64_t offset, void *buffer, size_t size)
{
	const uint64_t begun = rouse_clock_ns();
	int code;

	if (rouse_read_ahead_take(direct->ahead, offset, buffer, size))
		return 0;
	rouse_read_ahead_urgent_begin(direct->ahead);
	code = read_now(direct, offset, buffer, size);
	rouse_read_ahead_urgent_end(direct->ahead, rouse_clock_ns() - begun);
	return code;
}

/* ---- The source ------------------------------------------------------------------------------ */

static int direct_source_read(struct rouse_source *source, uint64_t offset, void *buffer,
	size_t size, enum rouse_read_priority priority)
{
	struct direct_source *direct = (struct direct_source *)source;
	int code = rouse_medium_check(direct->bytes, offset, size);

	if (code < 0 || size == 0)
		return code;
	if (priority == ROUSE_READ_URGENT)
		return read_urgent(direct, offset, buffer, size);
	if (!rouse_read_ahead_is_stream(direct->ahead, offset, size))
		return rouse_read_ahead_read_single(direct->ahead, offset, buffer, size);
	return rouse_read_ahead_read(direct->ahead, offset, buffer, size);
}

static uint64_t direct_source_size(const struct rouse_source *source)
{
	return ((const struct direct_source *)source)->bytes;
}

static void direct_source_get_stats(struct rouse_source *source, struct rouse_source_stats *stats)
{
	struct direct_source *direct = (struct direct_source *)source;

	*stats = (struct rouse_source_stats){
		.reads = atomic_load_explicit(&direct->reads_done, memory_order_relaxed),
		.bytes = atomic_load_explicit(&direct->bytes_done, memory_order_relaxed),
		.io = ROUSE_IO_DIRECT,
		.io_uring = rouse_read_ahead_has_ring(direct->ahead),
	};
	rouse_read_ahead_add_stats(direct->ahead, stats);
}

static void direct_source_destroy(struct rouse_source *source)
{
	struct direct_source *direct = (struct direct_source *)source;

	rouse_read_ahead_free(direct->ahead);
	(void)pthread_cond_destroy(&direct->given_back);
	(void)pthread_mutex_destroy(&direct->lock);
	if (direct->mapped != NULL)
		(void)munmap(direct->mapped, MEMORY_BYTES + HUGE_PAGE);
	(void)close(direct->fd);
	free(direct);
}

static const struct rouse_source_ops direct_source_ops = {
	.read = direct_source_read,
	.size = direct_source_size,
	.get_stats = direct_source_get_stats,
	.destroy = direct_source_destroy,
};

/* ---- Opening --------------------------------------------------------------------------------- */

static int open_file(const char *path, int flags)
{
	return open(path, flags);
}

const struct rouse_direct_kernel rouse_direct_kernel = {
	.open = open_file,
	.queue_init = io_uring_queue_init,
	.queue_submit = io_uring_submit_and_wait,
};

static int map_memory(struct direct_source *direct)
{
	void *mapped = mmap(NULL, MEMORY_BYTES + HUGE_PAGE, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (mapped == MAP_FAILED)
		return -ENOMEM;
	direct->mapped = mapped;
	direct->memory = (uint8_t *)mapped + (HUGE_PAGE - (uintptr_t)mapped % HUGE_PAGE);
	/* A child must not get these pages: writes of the disk could end in its copy (open(2)). */
	(void)madvise(mapped, MEMORY_BYTES + HUGE_PAGE, MADV_DONTFORK);
	(void)madvise(direct->memory, MEMORY_BYTES, MADV_HUGEPAGE);
	return 0;
}

bool rouse_direct_source_is_shared(const struct rouse_source *source)
{
	return rouse_medium_is_shared(((const struct direct_source *)source)->fd);
}

int rouse_direct_source_open_cached(
	const struct rouse_source *source, struct rouse_source **cached, struct rouse_error *error)
{
	char path[64];

	(void)snprintf(
		path, sizeof(path), "/proc/self/fd/%d", ((const struct direct_source *)source)->fd);
	return rouse_file_source_open(path, NULL, cached, error);
}

/* Some file systems take the flag and refuse the read, and some devices want more than ALIGN. */
static int try_read(struct direct_source *direct)
{
	uint64_t wanted = direct->bytes < ALIGN ? direct->bytes : ALIGN;
	int code = read_aligned(direct, 0, direct->memory, ALIGN, (size_t)wanted);

	/* Whatever else is wrong the first real read will say. */
	return code == -EINVAL || code == -EOPNOTSUPP ? -EOPNOTSUPP : 0;
}

static int begin(struct direct_source *direct, const struct rouse_direct_kernel *kernel)
{
	int code = map_memory(direct);

	if (code == 0)
		code = try_read(direct);
	if (code < 0)
		return code;
	return rouse_read_ahead_new(
		&(struct rouse_read_ahead_config){
			.fd = direct->fd,
			.bytes = direct->bytes,
			.memory = direct->memory,
			.queue_init = kernel->queue_init,
			.queue_submit = kernel->queue_submit,
			.read_now = read_now,
			.user = direct,
		},
		&direct->ahead);
}

/*
 * Opening must not wait for the other end of a pipe; reading must. On a file that is not to wait
 * io_uring gives up (EAGAIN) where the file system cannot start a read without waiting (network
 * file systems): each would be read by pread(2) then, one piece at a time.
 */
static void let_wait(int fd)
{
	const int flags = fcntl(fd, F_GETFL);

	if (flags >= 0)
		(void)fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
}

int rouse_direct_source_open(const char *path, const struct rouse_direct_kernel *kernel,
	struct rouse_source **source, struct rouse_error *error)
{
	cleanup_close int fd = kernel->open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_DIRECT);
	struct direct_source *direct;
	uint64_t bytes;
	int code;

	if (fd < 0 && (errno == EINVAL || errno == EOPNOTSUPP))
		return -EOPNOTSUPP;
	if (fd < 0)
		return rouse_error_errno(error, -errno, "cannot open %s", path);
	code = rouse_medium_size(fd, &bytes);
	if (code < 0)
		return rouse_medium_refuse(path, code, error);
	direct = calloc(1, sizeof(*direct));
	if (direct == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot open %s", path);
	direct->base.ops = &direct_source_ops;
	let_wait(fd);
	direct->fd = take_fd(&fd);
	direct->bytes = bytes;
	rouse_medium_join(direct->fd);
	(void)pthread_mutex_init(&direct->lock, NULL);
	(void)pthread_cond_init(&direct->given_back, NULL);
	code = begin(direct, kernel);
	if (code < 0) {
		direct_source_destroy(&direct->base);
		return code == -EOPNOTSUPP ? code
					   : rouse_error_errno(error, code, "cannot open %s", path);
	}
	*source = &direct->base;
	return 0;
}
