/* SPDX-License-Identifier: MIT */
/* A real userfaultfd on memory of this process, threads that touch it, and one that answers. */
#ifndef ROUSE_TESTS_UFFD_SINK_FIXTURE_H
#define ROUSE_TESTS_UFFD_SINK_FIXTURE_H

#include "../unit.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "sink/uffd_sink.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#define PAGES 64u
#define FIRST 7u /* the number of the first page of the memory */

struct memory {
	unsigned char *bytes;
	struct uffd_area area;
	struct uffd_sink sink;
	struct rouse_bitmap placed;
	unsigned char *contents; /* what the pages are to get */
};

static inline unsigned char pattern(uint64_t page)
{
	return (unsigned char)(page * 37 + 11);
}

static inline int open_uffd(void)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0) {
		print_message("this user may not use userfaultfd\n");
		skip();
	}
	assert_int_equal(uffd_sink_handshake(fd), 0);
	return fd;
}

static inline void setup(struct memory *m)
{
	const size_t size = PAGES * UFFD_SINK_PAGE;
	struct uffdio_register what = {.mode = UFFDIO_REGISTER_MODE_MISSING};
	int fd = open_uffd();

	m->bytes = mmap(NULL, size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_ptr_not_equal(m->bytes, MAP_FAILED);
	what.range.start = (uint64_t)(uintptr_t)m->bytes;
	what.range.len = size;
	assert_int_equal(ioctl(fd, UFFDIO_REGISTER, &what), 0);
	m->area = (struct uffd_area){what.range.start, FIRST, PAGES};
	assert_int_equal(rouse_bitmap_init(&m->placed, FIRST + PAGES + 5), 0);
	m->contents = malloc(size);
	assert_non_null(m->contents);
	for (uint64_t i = 0; i < PAGES; i++)
		memset(m->contents + i * UFFD_SINK_PAGE, pattern(i), UFFD_SINK_PAGE);
	const struct uffd_sink_config config = {.fd = fd,
		.target_end = -1,
		.areas = &m->area,
		.area_count = 1,
		.placed = m->placed};
	assert_int_equal(uffd_sink_init(&m->sink, &config), 0);
}

static inline void teardown(struct memory *m)
{
	uffd_sink_finish(&m->sink);
	(void)munmap(m->bytes, PAGES * UFFD_SINK_PAGE);
	rouse_bitmap_finish(&m->placed);
	free(m->contents);
}

static inline struct rouse_sink_page content(const struct memory *m, uint64_t i)
{
	return (struct rouse_sink_page){FIRST + i, m->contents + i * UFFD_SINK_PAGE};
}

static inline size_t place_range(struct memory *m, uint64_t from, uint64_t count)
{
	struct rouse_sink_page pages[PAGES];
	size_t placed = 0;

	for (uint64_t i = 0; i < count; i++)
		pages[i] = content(m, from + i);
	assert_int_equal(uffd_sink_place(&m->sink, pages, count, &placed), 0);
	return placed;
}

/* Answers faults until it is interrupted: what was asked for goes to asked[]. */
struct server {
	struct memory *m;
	pthread_t thread;
	uint64_t asked[PAGES * 4];
	size_t count;
	int code;
};

static inline void *serve(void *argument)
{
	struct server *s = argument;
	uint64_t page;

	while ((s->code = uffd_sink_wait_fault(&s->m->sink, &page)) == 0) {
		const struct rouse_sink_page one = content(s->m, page - FIRST);

		s->asked[s->count++] = page - FIRST;
		s->code = uffd_sink_place(&s->m->sink, &one, 1, NULL);
		if (s->code < 0)
			break;
	}
	return NULL;
}

static inline void server_start(struct server *s, struct memory *m)
{
	*s = (struct server){.m = m};
	assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static inline void server_end(struct server *s)
{
	uffd_sink_interrupt(&s->m->sink);
	assert_int_equal(pthread_join(s->thread, NULL), 0);
	assert_int_equal(s->code, -ECANCELED);
}

/* Of another thread than ours: what it reads. */
struct toucher {
	pthread_t thread;
	const volatile unsigned char *at;
	unsigned char seen;
	uint32_t tid;
};

static inline void *touch(void *argument)
{
	struct toucher *t = argument;

	t->tid = (uint32_t)gettid();
	t->seen = *t->at;
	return NULL;
}

static inline void toucher_start(struct toucher *t, const struct memory *m, uint64_t page)
{
	t->at = m->bytes + page * UFFD_SINK_PAGE + 5;
	assert_int_equal(pthread_create(&t->thread, NULL, touch, t), 0);
}

static inline unsigned char toucher_end(struct toucher *t)
{
	assert_int_equal(pthread_join(t->thread, NULL), 0);
	return t->seen;
}

#endif
