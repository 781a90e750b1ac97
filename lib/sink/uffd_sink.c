/* SPDX-License-Identifier: MIT */
#include "sink/uffd_sink.h"

#include "base/cleanup.h"
#include "sink/uffd_inbox.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#define PAGE_BYTES UFFD_SINK_PAGE
/* The most that one call places: the kernel cannot be interrupted in it, and nobody is woken. */
#define RUN_PAGES 256u

int uffd_sink_init(struct uffd_sink *sink, const struct uffd_sink_config *config)
{
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
	return 0;
}

void uffd_sink_finish(struct uffd_sink *sink)
{
	cleanup_close_fn(&sink->fd);
	cleanup_close_fn(&sink->wake);
	(void)pthread_mutex_destroy(&sink->inbox);
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

/* Places @count pages that lie one behind the other, there and, unless NULL, at @data. */
static int place_run(struct uffd_sink *sink, uint64_t page, uint64_t address,
	const unsigned char *data, size_t count, size_t *placed)
{
	uint64_t piece = count;

	while (count > 0) {
		int64_t done = place_bytes(
			sink, address, data, (piece < count ? piece : count) * PAGE_BYTES);
		uint64_t pages = done > 0 ? (uint64_t)done / PAGE_BYTES : 0;

		/* Mappings may have been cut since: page by page it is right whatever they are. */
		if (done == -ENOENT && piece > 1) {
			piece = 1;
			continue;
		}
		if (done <= 0) {
			int code = judge(sink, (int)done, address);

			if (code < 0)
				return code;
			if (code == 1 && !uffd_sink_is_placed(sink, page))
				continue;
			/*
			 * What was given back meanwhile is zero: not what we have for it. Who waits
			 * for it asks again, and is told so.
			 */
			if (code == 1 && uffd_wake(sink, address, PAGE_BYTES) == -EPIPE)
				return -EPIPE;
			pages = 1;
		} else {
			*placed += pages;
		}
		uffd_mark(sink, page, pages);
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
	const struct uffd_area *area = area_of(sink, page);
	size_t ignored = 0;

	return place_run(sink, page, address_of(area, page), NULL, 1, &ignored);
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

int uffd_sink_wait_fault(struct uffd_sink *sink, uint64_t *page)
{
	for (;;) {
		uint64_t address;
		int code;

		if (atomic_load(&sink->interrupted))
			return -ECANCELED;
		code = uffd_take_fault(sink, &address) ? note_fault(sink, address, page)
						       : uffd_receive(sink);
		if (code != 0)
			return code < 0 ? code : 0;
	}
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
	for (size_t i = 0; i < sink->area_count; i++) {
		struct uffdio_range range = {
			.start = sink->areas[i].address, .len = sink->areas[i].pages * PAGE_BYTES};

		/* EINVAL: of an area that is no longer mapped. */
		if (ioctl(sink->fd, UFFDIO_UNREGISTER, &range) < 0 && errno != EINVAL)
			return errno == ESRCH ? -EPIPE : -errno;
	}
	return let_all_go_on(sink);
}
