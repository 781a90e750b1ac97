/* SPDX-License-Identifier: MIT */
/*
 * What the ways to read a file give on this machine, with and without Rouse's source layer:
 *
 *   bench-io FILE [SECONDS]
 *
 * One line of JSON each, of at most SECONDS (default: 2), from a page cache without the file:
 *
 *   stream   all of the file in order, in pieces in flight together: by pread(2) through the page
 *            cache or with O_DIRECT, by io_uring with O_DIRECT into registered buffers of huge or
 *            small pages, by Rouse's sources
 *   random   single reads at random places, one after the other
 *   beside   the same while a stream runs: what a guest's fault waits for
 */
#include "base/clock.h"
#include "source/source.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define DEPTH_MAX 32u
#define PIECE_MAX (1u << 20)
#define RANDOM_MAX 20000u
#define HUGE_PAGE ((size_t)2 << 20)

enum way { WAY_CACHED, WAY_DIRECT, WAY_URING, WAY_ROUSE_CACHED, WAY_ROUSE_DIRECT };

static const char *const way_names[] = {
	"cached", "direct", "uring", "rouse cached", "rouse direct"};

struct file {
	int fd;                      /* or -1 and */
	struct rouse_source *source; /* of Rouse */
};

struct bench {
	const char *path;
	uint64_t bytes, limit_ns;
	bool huge;
	uint8_t *buffer; /* DEPTH_MAX * PIECE_MAX, and a piece for the random reads */
};

struct stream {
	const struct bench *bench;
	enum way way;
	unsigned int depth;
	size_t piece;
	_Atomic bool stop;
	bool endless;
	uint64_t done, ns;
};

static void fail(const char *what)
{
	fprintf(stderr, "bench-io: %s: %s\n", what, strerror(errno));
	exit(1);
}

static struct file open_way(const struct bench *bench, enum way way)
{
	const bool cached = way == WAY_CACHED || way == WAY_ROUSE_CACHED;
	struct file file = {
		open(bench->path, O_RDONLY | O_CLOEXEC | (cached ? 0 : O_DIRECT)), NULL};

	if (file.fd < 0)
		fail(bench->path);
	(void)posix_fadvise(file.fd, 0, 0, POSIX_FADV_DONTNEED);
	if (way < WAY_ROUSE_CACHED)
		return file;
	(void)close(file.fd);
	file.fd = -1;
	if (rouse_source_open(bench->path, cached ? ROUSE_IO_CACHED : ROUSE_IO_DIRECT, NULL,
		    &file.source, NULL) < 0)
		fail(bench->path);
	return file;
}

static void close_file(const struct file *file)
{
	if (file->fd >= 0)
		(void)close(file->fd);
	rouse_source_destroy(file->source);
}

static void read_file(const struct file *file, void *buffer, size_t size, uint64_t offset,
	enum rouse_read_priority priority)
{
	if (file->source != NULL) {
		errno = -rouse_source_read(file->source, offset, buffer, size, priority);
		if (errno != 0)
			fail("reading");
	} else if (pread(file->fd, buffer, size, (off_t)offset) != (ssize_t)size) {
		fail("pread");
	}
}

static bool goes_on(struct stream *stream, uint64_t offset, uint64_t begun)
{
	return !stream->stop && offset + stream->piece <= stream->bench->bytes &&
	       rouse_clock_ns() - begun < stream->bench->limit_ns;
}

static void stream_in_order(struct stream *stream, const struct file *file, uint64_t begun)
{
	for (uint64_t at = 0; goes_on(stream, at, begun); at += stream->piece) {
		read_file(file, stream->bench->buffer, stream->piece, at, ROUSE_READ_BULK);
		stream->done += stream->piece;
	}
}

static void submit_piece(
	struct stream *stream, struct io_uring *ring, int fd, unsigned int slot, uint64_t at)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

	io_uring_prep_read_fixed(sqe, fd, stream->bench->buffer + (size_t)slot * PIECE_MAX,
		(unsigned int)stream->piece, at, 0);
	io_uring_sqe_set_data64(sqe, slot);
}

static void stream_uring(struct stream *stream, int fd, uint64_t begun)
{
	struct iovec all = {stream->bench->buffer, (size_t)DEPTH_MAX * PIECE_MAX};
	struct io_uring ring;
	struct io_uring_cqe *cqe;
	unsigned int flight = 0;
	uint64_t at = 0;

	errno = -io_uring_queue_init(DEPTH_MAX, &ring, 0);
	if (errno != 0 || io_uring_register_buffers(&ring, &all, 1) < 0)
		fail("io_uring");
	for (; flight < stream->depth && goes_on(stream, at, begun); flight++) {
		submit_piece(stream, &ring, fd, flight, at);
		at += stream->piece;
	}
	while (flight > 0) {
		unsigned int slot;

		if (io_uring_submit_and_wait(&ring, 1) < 0 || io_uring_peek_cqe(&ring, &cqe) < 0)
			fail("io_uring_enter");
		if (cqe->res != (int)stream->piece)
			fail("io_uring read");
		slot = (unsigned int)io_uring_cqe_get_data64(cqe);
		io_uring_cqe_seen(&ring, cqe);
		stream->done += stream->piece;
		if (goes_on(stream, at, begun)) {
			submit_piece(stream, &ring, fd, slot, at);
			at += stream->piece;
		} else {
			flight--;
		}
	}
	io_uring_queue_exit(&ring);
}

static void *stream_run(void *argument)
{
	struct stream *stream = argument;
	uint64_t begun = rouse_clock_ns();

	do {
		struct file file = open_way(stream->bench, stream->way);

		if (stream->way == WAY_URING)
			stream_uring(stream, file.fd, begun);
		else
			stream_in_order(stream, &file, begun);
		close_file(&file);
	} while (stream->endless && !stream->stop);
	stream->ns = rouse_clock_ns() - begun;
	return NULL;
}

static double cpu_s(void)
{
	struct rusage usage;

	(void)getrusage(RUSAGE_SELF, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void bench_stream(
	const struct bench *bench, enum way way, unsigned int depth, unsigned int kib)
{
	struct stream stream = {.bench = bench, .way = way, .depth = depth};
	double cpu = cpu_s();

	stream.piece = (size_t)kib << 10;
	(void)stream_run(&stream);
	cpu = cpu_s() - cpu;
	printf("{\"stream\": \"%s\", \"depth\": %u, \"kib\": %u, \"huge_pages\": %s, "
	       "\"mb_per_s\": %.1f, \"cpu_s_per_gib\": %.3f}\n",
		way_names[way], depth, kib, bench->huge ? "true" : "false",
		(double)stream.done * 1e3 / (double)stream.ns,
		cpu * (double)(1u << 30) / (double)stream.done);
}

static int compare(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Random reads; @pause_ns between them. */
static void bench_random(const struct bench *bench, enum way way, unsigned int kib,
	const char *beside, long pause_ns)
{
	static uint64_t took[RANDOM_MAX];
	uint8_t *buffer = bench->buffer + (size_t)DEPTH_MAX * PIECE_MAX;
	uint64_t begun = rouse_clock_ns(), x = begun | 1, sum = 0, median, most;
	const size_t size = (size_t)kib << 10;
	struct file file = open_way(bench, way);
	size_t count = 0;

	while (count < RANDOM_MAX && rouse_clock_ns() - begun < bench->limit_ns) {
		struct timespec pause = {.tv_nsec = pause_ns};
		uint64_t now;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		if (pause_ns > 0)
			(void)nanosleep(&pause, NULL);
		now = rouse_clock_ns();
		read_file(&file, buffer, size, x % (bench->bytes / size) * size, ROUSE_READ_URGENT);
		took[count] = rouse_clock_ns() - now;
		sum += took[count++];
	}
	close_file(&file);
	qsort(took, count, sizeof(took[0]), compare);
	median = took[count / 2];
	most = took[count - 1 - count / 100];
	printf("{\"random\": \"%s\", \"kib\": %u, \"beside\": \"%s\", \"reads\": %zu, "
	       "\"mean_us\": %.1f, \"p50_us\": %.1f, \"p99_us\": %.1f}\n",
		way_names[way], kib, beside, count, (double)sum / 1e3 / (double)count,
		(double)median / 1e3, (double)most / 1e3);
}

static void bench_beside(
	const struct bench *bench, enum way stream_way, unsigned int depth, enum way way)
{
	struct stream stream = {.bench = bench,
		.way = stream_way,
		.depth = depth,
		.piece = 256u << 10,
		.endless = true};
	struct bench endless = *bench;
	char name[32];
	pthread_t thread;

	endless.limit_ns = UINT64_MAX;
	stream.bench = &endless;
	(void)snprintf(name, sizeof(name), "%s %u", way_names[stream_way], depth);
	if (pthread_create(&thread, NULL, stream_run, &stream) != 0)
		fail("pthread_create");
	bench_random(bench, way, 64, name, 1000000);
	stream.stop = true;
	(void)pthread_join(thread, NULL);
	printf("{\"stream_beside\": \"%s\", \"mb_per_s\": %.1f}\n", name,
		(double)stream.done * 1e3 / (double)stream.ns);
}

/* Memory of huge pages has one segment for a disk's request, of others one each 4 KiB. */
static uint8_t *map(bool huge)
{
	const size_t bytes = (size_t)(DEPTH_MAX + 2) * PIECE_MAX;
	uint8_t *memory = aligned_alloc(HUGE_PAGE, bytes);

	if (memory == NULL)
		fail("memory");
	(void)madvise(memory, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	memset(memory, 1, bytes);
	return memory;
}

static void bench_streams(const struct bench *bench)
{
	bench_stream(bench, WAY_CACHED, 1, 256);
	bench_stream(bench, WAY_CACHED, 1, 1024);
	bench_stream(bench, WAY_DIRECT, 1, 256);
	bench_stream(bench, WAY_DIRECT, 1, 1024);
	for (unsigned int depth = 1; depth <= DEPTH_MAX; depth *= 2)
		bench_stream(bench, WAY_URING, depth, 256);
	bench_stream(bench, WAY_URING, 4, 1024);
	bench_stream(bench, WAY_ROUSE_CACHED, 0, 1024);
	bench_stream(bench, WAY_ROUSE_DIRECT, 0, 1024);
}

int main(int argc, char **argv)
{
	static const unsigned int random_kib[] = {4, 16, 64};
	struct bench bench = {.path = argv[1], .limit_ns = 2000000000};
	struct file file;

	if (argc != 2 && argc != 3) {
		fprintf(stderr, "usage: bench-io FILE [SECONDS]\n");
		return 2;
	}
	if (argc == 3)
		bench.limit_ns = strtoull(argv[2], NULL, 10) * 1000000000;
	file = open_way(&bench, WAY_CACHED);
	bench.bytes = (uint64_t)lseek(file.fd, 0, SEEK_END);
	close_file(&file);
	bench.buffer = map(false);
	bench_streams(&bench);
	free(bench.buffer);
	bench.huge = true;
	bench.buffer = map(true);
	bench_streams(&bench);
	for (size_t i = 0; i < sizeof(random_kib) / sizeof(random_kib[0]); i++) {
		bench_random(&bench, WAY_CACHED, random_kib[i], "nothing", 0);
		bench_random(&bench, WAY_DIRECT, random_kib[i], "nothing", 0);
		bench_random(&bench, WAY_ROUSE_DIRECT, random_kib[i], "nothing", 0);
	}
	bench_beside(&bench, WAY_CACHED, 1, WAY_CACHED);
	bench_beside(&bench, WAY_URING, 2, WAY_DIRECT);
	bench_beside(&bench, WAY_URING, 16, WAY_DIRECT);
	bench_beside(&bench, WAY_ROUSE_CACHED, 0, WAY_ROUSE_CACHED);
	bench_beside(&bench, WAY_ROUSE_DIRECT, 0, WAY_ROUSE_DIRECT);
	free(bench.buffer);
	return 0;
}
