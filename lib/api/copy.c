/* SPDX-License-Identifier: MIT */
/*
 * rouse_copy(): a file through the throttle to a descriptor, for a reader beside Rouse at equal
 * terms. A thread reads ahead, as the kernel would for that reader: were reading and writing to
 * take turns, the reader would see a slower disk than the throttle says.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "base/io.h"
#include "base/observer.h"
#include "source/source.h"

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <sys/uio.h>

#define PIECE_BYTES ROUSE_SOURCE_BULK
#define PIECES 16u /* 4 MiB read ahead */

/* Piece n is in buffers[n % PIECES]; taken <= ready <= taken + PIECES. */
struct copy {
	struct rouse_source *source;
	uint64_t total; /* bytes */
	unsigned char *buffers;
	pthread_mutex_t lock; /* for all that follows */
	pthread_cond_t change;
	uint64_t ready, taken;
	int error; /* of reading */
	bool stop;
};

static unsigned char *buffer_of(const struct copy *copy, uint64_t piece)
{
	return copy->buffers + piece % PIECES * PIECE_BYTES;
}

static size_t size_of(const struct copy *copy, uint64_t piece)
{
	uint64_t left = copy->total - piece * PIECE_BYTES;

	return left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
}

static uint64_t count_pieces(const struct copy *copy)
{
	return (copy->total + PIECE_BYTES - 1) / PIECE_BYTES;
}

/* The reading thread. */
static void *read_pieces(void *argument)
{
	struct copy *copy = argument;
	int code = 0;

	for (uint64_t piece = 0; code == 0 && piece < count_pieces(copy); piece++) {
		bool stop;

		(void)pthread_mutex_lock(&copy->lock);
		while (piece == copy->taken + PIECES && !copy->stop)
			(void)pthread_cond_wait(&copy->change, &copy->lock);
		stop = copy->stop;
		(void)pthread_mutex_unlock(&copy->lock);
		if (stop)
			break;
		code = rouse_source_read(copy->source, piece * PIECE_BYTES, buffer_of(copy, piece),
			size_of(copy, piece), ROUSE_READ_BULK);
		(void)pthread_mutex_lock(&copy->lock);
		copy->ready += code == 0;
		copy->error = code;
		(void)pthread_cond_signal(&copy->change);
		(void)pthread_mutex_unlock(&copy->lock);
	}
	return NULL;
}

static int wait_for_piece(struct copy *copy, uint64_t piece)
{
	int code;

	(void)pthread_mutex_lock(&copy->lock);
	while (copy->ready <= piece && copy->error == 0)
		(void)pthread_cond_wait(&copy->change, &copy->lock);
	code = copy->ready > piece ? 0 : copy->error;
	(void)pthread_mutex_unlock(&copy->lock);
	return code;
}

static void give_back_piece(struct copy *copy)
{
	(void)pthread_mutex_lock(&copy->lock);
	copy->taken++;
	(void)pthread_cond_signal(&copy->change);
	(void)pthread_mutex_unlock(&copy->lock);
}

/*
 * Writes a part, and waits only where a cancel ends it: a write(2) into a full pipe goes on after
 * a signal. Where the kernel cannot write without waiting (pipes before Linux 6.4), so much goes
 * into a pipe that has any room.
 */
static ssize_t write_some(
	int fd, const unsigned char *bytes, size_t size, const struct rouse_observer *observer)
{
	const struct iovec part = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = size};
	ssize_t n = pwritev2(fd, &part, 1, -1, RWF_NOWAIT);
	int code;

	if (n >= 0 || (errno != EAGAIN && errno != EOPNOTSUPP))
		return n >= 0 ? n : -errno;
	code = rouse_io_await_room(fd, rouse_observer_cancel_fd(observer));
	if (code < 0)
		return code;
	n = write(fd, bytes, size < PIPE_BUF ? size : PIPE_BUF);
	return n >= 0 ? n : -errno;
}

/* Like rouse_io_write(), but a cancel ends it: the other end may read nothing any more. */
static int write_piece(
	int fd, const unsigned char *bytes, size_t size, const struct rouse_observer *observer)
{
	while (size > 0) {
		ssize_t n = rouse_cancelled(observer) ? -ECANCELED
						      : write_some(fd, bytes, size, observer);

		if (n < 0 && n != -EINTR)
			return (int)n;
		if (n > 0) {
			bytes += n;
			size -= (size_t)n;
		}
	}
	return 0;
}

static int write_pieces(struct copy *copy, const char *path, int fd,
	const struct rouse_observer *observer, struct rouse_error *error)
{
	for (uint64_t piece = 0; piece < count_pieces(copy); piece++) {
		size_t size = size_of(copy, piece);
		int code = wait_for_piece(copy, piece);

		if (code < 0)
			return rouse_error_errno(error, code, "cannot read %s", path);
		code = write_piece(fd, buffer_of(copy, piece), size, observer);
		if (code < 0)
			return rouse_error_errno(error, code, "cannot write the copy of %s", path);
		give_back_piece(copy);
		rouse_progress(observer, "copying", piece * PIECE_BYTES + size, copy->total);
	}
	return 0;
}

/* Signals are for the thread that called the library. */
static int start_reading(struct copy *copy, pthread_t *thread)
{
	sigset_t all, old;
	int code;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	code = -pthread_create(thread, NULL, read_pieces, copy);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	return code;
}

static int run(struct copy *copy, const char *path, int fd, const struct rouse_observer *observer,
	struct rouse_error *error)
{
	pthread_t thread;
	int code = start_reading(copy, &thread);

	if (code < 0)
		return rouse_error_errno(error, code, "cannot copy %s", path);
	code = write_pieces(copy, path, fd, observer, error);
	(void)pthread_mutex_lock(&copy->lock);
	copy->stop = true;
	(void)pthread_cond_signal(&copy->change);
	(void)pthread_mutex_unlock(&copy->lock);
	(void)pthread_join(thread, NULL);
	return code;
}

int rouse_copy(const char *path, int fd, const struct rouse_throttle *throttle,
	const struct rouse_observer *observer, struct rouse_error *error)
{
	cleanup_free unsigned char *buffers = malloc((size_t)PIECES * PIECE_BYTES);
	struct copy copy = {.buffers = buffers};
	int code;

	if (buffers == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot copy %s", path);
	code = rouse_file_source_open(path, throttle, &copy.source, error);
	if (code < 0)
		return code;
	copy.total = rouse_source_size(copy.source);
	(void)pthread_mutex_init(&copy.lock, NULL);
	(void)pthread_cond_init(&copy.change, NULL);
	code = run(&copy, path, fd, observer, error);
	(void)pthread_cond_destroy(&copy.change);
	(void)pthread_mutex_destroy(&copy.lock);
	rouse_source_destroy(copy.source);
	return code;
}
