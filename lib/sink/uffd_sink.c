/* SPDX-License-Identifier: MIT */
#include "sink/uffd_sink.h"

#include "base/cleanup.h"
#include "sink/uffd_inbox.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <time.h>

#define PAGE_BYTES UFFD_SINK_PAGE
#define RUN_PAGES 256u
/*
 * The most that one call places, some 20 us: the kernel cannot be interrupted in it, nobody is
 * woken, and nobody reads messages meanwhile.
 */
#define CALL_PAGES 32u
/* When the kernel has no memory for a page. */
#define NO_MEMORY_NS 10000000

int uffd_sink_handshake(int fd)
{
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_SINK_WANTED};

	if (ioctl(fd, UFFDIO_API, &api) == 0)
		return 0;
	/* The kernel has cleared it, and can be asked again. */
	api = (struct uffdio_api){.api = UFFD_API, .features = UFFD_SINK_FEATURES};
	return ioctl(fd, UFFDIO_API, &api) == 0 ? 0 : -errno;
}

int uffd_sink_init(struct uffd_sink *sink, const struct uffd_sink_config *config)
{
	pthread_rwlockattr_t fair;

	*sink = (struct uffd_sink){
		.fd = config->fd,
		.target_end = config->target_end,
		.areas = config->areas,
		.area_count = config->area_count,
		.placed = config->placed,
		.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
	};
	if (sink->wake < 0) {
		int code = -errno;

		cleanup_close_fn(&sink->fd);
		return code;
	}
	(void)pthread_mutex_init(&sink->inbox, NULL);
	/* Who reads does so for a guest that waits: before the next who places. */
	(void)pthread_rwlockattr_init(&fair);
	(void)pthread_rwlockattr_setkind_np(&fair, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	(void)pthread_rwlock_init(&sink->messages, &fair);
	(void)pthread_rwlockattr_destroy(&fair);
	return 0;
}

void uffd_sink_finish(struct uffd_sink *sink)
{
	cleanup_close_fn(&sink->fd);
	cleanup_close_fn(&sink->wake);
	(void)pthread_mutex_destroy(&sink->inbox);
	(void)pthread_rwlock_destroy(&sink->messages);
	sink->fd = -1;
	sink->wake = -1;
}

/* ---- Addresses ------------------------------------------------------------------------------ */

/* There are few areas: as many as a VM has memory devices, more or less. */
static const struct uffd_area *area_of(const struct uffd_sink *sink, uint64_t page)
{
	for (size_t i = 0; i < sink->area_count; i++) {
		const struct uffd_area *area = &sink->areas[i];

		if (page >= area->first_page && page - area->first_page < area->pages)
			return area;
	}
	return NULL;
}

bool uffd_sink_has(const struct uffd_sink *sink, uint64_t page)
{
	return area_of(sink, page) != NULL;
}

uint64_t uffd_sink_next_other(const struct uffd_sink *sink, uint64_t page)
{
	const struct uffd_area *area;

	while ((area = area_of(sink, page)) != NULL)
		page = area->first_page + area->pages;
	return page;
}

static uint64_t address_of(const struct uffd_area *area, uint64_t page)
{
	return area->address + (page - area->first_page) * PAGE_BYTES;
}

/* ---- Placing -------------------------------------------------------------------------------- */

/* Places @bytes at @address, zeros if @data is NULL. How many bytes that were, or -errno. */
static int64_t place_bytes(
	const struct uffd_sink *sink, uint64_t address, const void *data, uint64_t bytes)
{
	struct uffdio_zeropage zero = {.range = {.start = address, .len = bytes}};
	struct uffdio_copy copy = {.dst = address, .src = (uint64_t)(uintptr_t)data, .len = bytes};
	int64_t done;

	if (data != NULL)
		done = ioctl(sink->fd, UFFDIO_COPY, &copy) == 0 ? (int64_t)bytes : copy.copy;
	else
		done = ioctl(sink->fd, UFFDIO_ZEROPAGE, &zero) == 0 ? (int64_t)bytes
								    : zero.zeropage;
	/* The kernel has not come to telling how far it got. */
	return done != 0 ? done : -errno;
}

/*
 * One call that did not place a page: what to do about the first page of the rest. 0: go on behind
 * it; 1: try again; or the failure.
 */
static int judge(struct uffd_sink *sink, int code, uint64_t address)
{
	switch (code) {
	case -EEXIST:
		/* Who waits for it has missed that it came: a race in the kernel's favour. */
		return uffd_wake(sink, address, PAGE_BYTES) == -EPIPE ? -EPIPE : 0;
	case -ENOENT:
		/* No longer mapped (memory that was unplugged): nobody can wait for it. */
		return 0;
	case -EAGAIN:
		if (atomic_load(&sink->interrupted))
			return -ECANCELED;
		return uffd_let_go_on(sink);
	case -ESRCH:
	case -ENOSPC: /* what Linux before 4.13 said for it */
		return -EPIPE;
	default:
		return code;
	}
}

/* How many of @count pages, from @page on, are not marked: no more than one call places. */
static uint64_t unmarked(const struct uffd_sink *sink, uint64_t page, uint64_t count)
{
	uint64_t n = 0;

	while (n < count && n < CALL_PAGES && !uffd_sink_is_placed(sink, page + n))
		n++;
	return n;
}

/*
 * One call, for at most @count pages. How many pages have been placed, which are marked then, or
 * -errno; 0: the first one is marked already. What is given back while others place must never get
 * our content: so nobody reads of it between the look at the marks and the call.
 */
static int64_t place_unmarked(
	struct uffd_sink *sink, uint64_t page, uint64_t address, const void *data, uint64_t count)
{
	int64_t done = 0;

	(void)pthread_rwlock_rdlock(&sink->messages);
	count = unmarked(sink, page, count);
	if (count > 0)
		done = place_bytes(sink, address, data, count * PAGE_BYTES);
	if (done > 0)
		uffd_mark(sink, page, (uint64_t)done / PAGE_BYTES);
	(void)pthread_rwlock_unlock(&sink->messages);
	return done > 0 ? done / (int64_t)PAGE_BYTES : done;
}

/* Places @count pages that lie one behind the other, there and, unless NULL, at @data. */
static int place_run(struct uffd_sink *sink, uint64_t page, uint64_t address,
	const unsigned char *data, size_t count, size_t *placed)
{
	uint64_t piece = count;

	while (count > 0) {
		int64_t done =
			place_unmarked(sink, page, address, data, piece < count ? piece : count);
		uint64_t pages = done > 0 ? (uint64_t)done : 1;

		/* Mappings may have been cut since: page by page it is right whatever they are. */
		if (done == -ENOENT && piece > 1) {
			piece = 1;
			continue;
		}
		if (done < 0) {
			int code = judge(sink, (int)done, address);

			if (code < 0)
				return code;
			if (code == 1)
				continue;
			uffd_mark(sink, page, 1);
		}
		if (done > 0)
			*placed += pages;
		page += pages;
		address += pages * PAGE_BYTES;
		data = data != NULL ? data + pages * PAGE_BYTES : NULL;
		count -= pages;
	}
	return 0;
}

/* How many of @pages can be placed together with the first one. */
static size_t run_length(const struct uffd_sink *sink, const struct uffd_area *area,
	const struct rouse_sink_page *pages, size_t count)
{
	const uint64_t left = area->pages - (pages[0].page - area->first_page);
	size_t n = 1;

	if (count > RUN_PAGES)
		count = RUN_PAGES;
	if (count > left)
		count = (size_t)left;
	while (n < count && pages[n].page == pages[0].page + n &&
		!uffd_sink_is_placed(sink, pages[n].page) &&
		(pages[0].data == NULL ? pages[n].data == NULL
				       : pages[n].data == (const unsigned char *)pages[0].data +
								  n * PAGE_BYTES))
		n++;
	return n;
}

int uffd_sink_place(
	struct uffd_sink *sink, const struct rouse_sink_page *pages, size_t count, size_t *placed)
{
	size_t ignored = 0;

	if (placed == NULL)
		placed = &ignored;
	for (size_t i = 0; i < count;) {
		const struct uffd_area *area;
		size_t run;
		int code;

		if (pages[i].page >= sink->placed.bits)
			return -ERANGE;
		area = area_of(sink, pages[i].page);
		if (area == NULL || uffd_sink_is_placed(sink, pages[i].page)) {
			i++;
			continue;
		}
		run = run_length(sink, area, pages + i, count - i);
		code = place_run(sink, pages[i].page, address_of(area, pages[i].page),
			pages[i].data, run, placed);
		if (code < 0)
			return code;
		i += run;
	}
	return 0;
}

/* ---- Faults --------------------------------------------------------------------------------- */

/*
 * A fault at a page that we have placed. Either the fault is older than that, and then the page is
 * there; or it was given back since, and is zero.
 */
static int answer_placed(struct uffd_sink *sink, uint64_t page)
{
	const uint64_t address = address_of(area_of(sink, page), page);
	int64_t done = place_bytes(sink, address, NULL, PAGE_BYTES);
	int code = done > 0 ? 0 : judge(sink, (int)done, address);

	if (code == -ENOMEM) {
		const struct timespec nap = {.tv_nsec = NO_MEMORY_NS};

		(void)nanosleep(&nap, NULL);
		code = 1;
	}
	/* While memory is being given back, or there is none, who waits asks again. */
	if (code == 1)
		code = uffd_wake(sink, address, PAGE_BYTES) == -EPIPE ? -EPIPE : 0;
	return code;
}

/* 1: *page is missing; 0: go on. */
static int note_fault(struct uffd_sink *sink, uint64_t address, uint64_t *page)
{
	if (!uffd_page_at(sink, address, page))
		return -EPROTO;
	if (!uffd_sink_is_placed(sink, *page))
		return 1;
	return answer_placed(sink, *page);
}

static int next_fault(struct uffd_sink *sink, uint64_t *page)
{
	for (;;) {
		struct uffd_fault fault;
		int code;

		if (atomic_load(&sink->interrupted))
			return -ECANCELED;
		if (uffd_take_fault(sink, &fault)) {
			sink->asker = fault.asker;
			code = note_fault(sink, fault.address, page);
		} else {
			code = uffd_receive(sink);
		}
		if (code != 0)
			return code < 0 ? code : 0;
	}
}

int uffd_sink_wait_fault(struct uffd_sink *sink, uint64_t *page)
{
	const int code = next_fault(sink, page);

	/*
	 * Nobody answers any more: as if we had been interrupted, so that whoever waits for the
	 * guest hears of it. Of a process that has ended he hears anyway, and what it said.
	 */
	if (code < 0 && code != -EPIPE)
		uffd_sink_interrupt(sink);
	return code;
}

void uffd_sink_interrupt(struct uffd_sink *sink)
{
	atomic_store(&sink->interrupted, true);
	uffd_kick(sink);
}

/* ---- Its beginning and its end -------------------------------------------------------------- */

int uffd_sink_wake_all(struct uffd_sink *sink)
{
	for (size_t i = 0; i < sink->area_count; i++) {
		int code =
			uffd_wake(sink, sink->areas[i].address, sink->areas[i].pages * PAGE_BYTES);

		if (code < 0)
			return code;
	}
	return 0;
}

/*
 * Who gave memory back just before the end waits until his message is read, registered or not. A
 * call that places nothing, since it is of no bytes, tells whether there is one.
 */
static int let_all_go_on(struct uffd_sink *sink)
{
	int code = 1;

	while (code == 1) {
		struct uffdio_zeropage none = {.range = {.start = 0, .len = 0}};

		code = 0;
		if (ioctl(sink->fd, UFFDIO_ZEROPAGE, &none) < 0 && errno == EAGAIN)
			code = uffd_let_go_on(sink);
	}
	return code;
}

int uffd_sink_unregister(struct uffd_sink *sink)
{
	int code;

	for (size_t i = 0; i < sink->area_count; i++) {
		struct uffdio_range range = {
			.start = sink->areas[i].address, .len = sink->areas[i].pages * PAGE_BYTES};

		/* EINVAL: of an area that is no longer mapped. */
		if (ioctl(sink->fd, UFFDIO_UNREGISTER, &range) < 0 && errno != EINVAL)
			return errno == ESRCH ? -EPIPE : -errno;
	}
	/*
	 * The kernel wakes who waits, and then ends the registration: a fault that comes in between
	 * waits until every descriptor is closed. Linux 6.18: one in a hundred of those that come
	 * while this call is made.
	 */
	code = uffd_sink_wake_all(sink);
	return code == 0 ? let_all_go_on(sink) : code;
}
