// SPDX-License-Identifier: MIT
#include "link.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define RING_RECORDS 4096    /* power of two: 20 s of requests at 5 ms each */
#define TEXT_BYTES 65536     /* replies that wait; they are few */
#define BATCH_BYTES 8192     /* what is written at once */
#define LINE_BYTES 256       /* the longest line */
#define WRITER_PAUSE_US 5000 /* how often the writer looks; also what a reply may wait */

struct record {
	uint64_t seq, start_us, end_us;
};

/* One producer (the CPU's request thread) and one consumer (the writer). */
struct ring {
	struct record record[RING_RECORDS];
	atomic_uint_fast64_t head, tail, dropped;
};

static struct {
	int fd;
	unsigned int cpus;
	struct ring *ring;
	atomic_int quiet;
	pthread_mutex_t lock; /* text and text_len */
	size_t text_len;
	char text[TEXT_BYTES];
	size_t input_len;
	char input[LINE_BYTES];
} channel = {.fd = -1, .lock = PTHREAD_MUTEX_INITIALIZER};

uint64_t link_now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

void link_set_quiet(int quiet)
{
	atomic_store(&channel.quiet, quiet);
}

void link_send(const char *format, ...)
{
	char line[LINE_BYTES];
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(line, sizeof(line) - 1, format, args);
	va_end(args);
	if (len < 0)
		return;
	if ((size_t)len > sizeof(line) - 2)
		len = (int)sizeof(line) - 2;
	line[len++] = '\n';
	pthread_mutex_lock(&channel.lock);
	if (channel.text_len + (size_t)len <= sizeof(channel.text)) {
		memcpy(channel.text + channel.text_len, line, (size_t)len);
		channel.text_len += (size_t)len;
	}
	pthread_mutex_unlock(&channel.lock);
}

void link_record(unsigned int cpu, uint64_t seq, uint64_t start_us, uint64_t end_us)
{
	struct ring *ring = &channel.ring[cpu];
	uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);

	if (atomic_load_explicit(&channel.quiet, memory_order_relaxed))
		return;
	if (head - atomic_load_explicit(&ring->tail, memory_order_acquire) >= RING_RECORDS) {
		atomic_fetch_add(&ring->dropped, 1);
		return;
	}
	ring->record[head % RING_RECORDS] = (struct record){seq, start_us, end_us};
	atomic_store_explicit(&ring->head, head + 1, memory_order_release);
}

static void write_all(const char *bytes, size_t len)
{
	while (len > 0) {
		ssize_t n = write(channel.fd, bytes, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		bytes += n;
		len -= (size_t)n;
	}
}

/* Formats records of one CPU while there is room. Returns the new length of the batch. */
static size_t drain_ring(unsigned int cpu, char *batch, size_t len)
{
	struct ring *ring = &channel.ring[cpu];
	uint64_t head = atomic_load_explicit(&ring->head, memory_order_acquire);
	uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
	uint64_t dropped = atomic_exchange(&ring->dropped, 0);

	while (tail != head && len + LINE_BYTES < BATCH_BYTES) {
		const struct record *r = &ring->record[tail % RING_RECORDS];

		len += (size_t)snprintf(batch + len, LINE_BYTES, "r %u %llu %llu %llu\n", cpu,
			(unsigned long long)r->seq, (unsigned long long)r->start_us,
			(unsigned long long)r->end_us);
		tail++;
	}
	atomic_store_explicit(&ring->tail, tail, memory_order_release);
	if (dropped)
		link_send("dropped %u %llu", cpu, (unsigned long long)dropped);
	return len;
}

static void *writer_main(void *unused)
{
	static char text[TEXT_BYTES];
	static char batch[BATCH_BYTES];

	(void)unused;
	for (;;) {
		size_t len;

		pthread_mutex_lock(&channel.lock);
		len = channel.text_len;
		memcpy(text, channel.text, len);
		channel.text_len = 0;
		pthread_mutex_unlock(&channel.lock);
		write_all(text, len);

		len = 0;
		for (unsigned int cpu = 0; cpu < channel.cpus; cpu++)
			len = drain_ring(cpu, batch, len);
		write_all(batch, len);
		if (len == 0)
			usleep(WRITER_PAUSE_US);
	}
	return NULL;
}

int link_open(const char *path, unsigned int cpus)
{
	struct termios tio;
	pthread_t writer;

	channel.cpus = cpus;
	channel.ring = calloc(cpus, sizeof(*channel.ring));
	if (!channel.ring)
		return -ENOMEM;
	channel.fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (channel.fd < 0)
		return -errno;
	if (tcgetattr(channel.fd, &tio) < 0)
		return -errno;
	cfmakeraw(&tio);
	tio.c_cflag |= CLOCAL | CREAD;
	cfsetspeed(&tio, B115200);
	if (tcsetattr(channel.fd, TCSANOW, &tio) < 0)
		return -errno;
	return -pthread_create(&writer, NULL, writer_main, NULL);
}

int link_read_line(char *line, size_t size)
{
	for (;;) {
		char *end = memchr(channel.input, '\n', channel.input_len);
		ssize_t n;

		if (end) {
			size_t len = (size_t)(end - channel.input);

			snprintf(line, size, "%.*s", (int)len, channel.input);
			channel.input_len -= len + 1;
			memmove(channel.input, end + 1, channel.input_len);
			return 0;
		}
		if (channel.input_len == sizeof(channel.input))
			channel.input_len = 0; /* no line is so long: noise */
		n = read(channel.fd, channel.input + channel.input_len,
			sizeof(channel.input) - channel.input_len);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0)
			channel.input_len += (size_t)n;
	}
}
