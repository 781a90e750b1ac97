/* SPDX-License-Identifier: MIT */
#include "sink/uffd_sink.h"

#include "base/cleanup.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <time.h>

#define PAGE_BYTES UFFD_SINK_PAGE
/* The most that one call places: the kernel cannot be interrupted in it, and nobody is woken. */
#define RUN_PAGES 256u
#define RETRY_NS 20000

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

static bool page_at(const struct uffd_sink *sink, uint64_t address, uint64_t *page)
{
	for (size_t i = 0; i < sink->area_count; i++) {
		const struct uffd_area *area = &sink->areas[i];

		if (address < area->address || address - area->address >= area->pages * PAGE_BYTES)
			continue;
		*page = area->first_page + (address - area->address) / PAGE_BYTES;
		return true;
	}
	return false;
}

static void mark(struct uffd_sink *sink, uint64_t page, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		rouse_bitmap_set(&sink->placed, page + i);
}

/* ---- Messages ------------------------------------------------------------------------------- */

static int wake(const struct uffd_sink *sink, uint64_t address, uint64_t bytes)
{
	struct uffdio_range range = {.start = address, .len = bytes};

	if (ioctl(sink->fd, UFFDIO_WAKE, &range) == 0)
		return 0;
	return errno == ESRCH ? -EPIPE : -errno;
}

/* Memory that was given back while pages are still missing. Never again what it was. */
static void note_removed(struct uffd_sink *sink, uint64_t from, uint64_t to)
{
	for (uint64_t address = from; address < to; address += PAGE_BYTES) {
		uint64_t page;

		if (page_at(sink, address, &page))
			mark(sink, page, 1);
	}
}

/* Of a full inbox: it is emptied, and who waits asks again. */
static int ask_again(struct uffd_sink *sink)
{
	int code = 0;

	while (code == 0 && sink->count > 0)
		code = wake(sink, sink->faults[--sink->count], PAGE_BYTES);
	return code;
}

/*
 * Reads what there is, and waits for nothing. Who gives memory back goes on when his message is
 * read; faults stay in the inbox, which is locked.
 */
static int read_messages(struct uffd_sink *sink)
{
	struct uffd_msg messages[UFFD_SINK_FAULTS];
	int code = sink->count < UFFD_SINK_FAULTS ? 0 : ask_again(sink);
	ssize_t n;

	if (code < 0)
		return code;
	n = read(sink->fd, messages, (UFFD_SINK_FAULTS - sink->count) * sizeof(messages[0]));
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : errno == ESRCH ? -EPIPE : -errno;
	for (size_t i = 0; i < (size_t)n / sizeof(messages[0]); i++) {
		const struct uffd_msg *message = &messages[i];

		if (message->event == UFFD_EVENT_REMOVE)
			note_removed(sink, message->arg.remove.start, message->arg.remove.end);
		else if (message->event == UFFD_EVENT_PAGEFAULT)
			sink->faults[sink->count++] =
				message->arg.pagefault.address & ~(PAGE_BYTES - 1);
	}
	return 0;
}

static void kick(struct uffd_sink *sink)
{
	const uint64_t one = 1;

	(void)!write(sink->wake, &one, sizeof(one));
}

/*
 * While somebody gives memory back the kernel places nothing, until his message is read. So whoever
 * wants to place reads it, above all the thread that answers faults: nobody else would.
 */
static int read_while_placing(struct uffd_sink *sink)
{
	bool faults;
	int code;

	(void)pthread_mutex_lock(&sink->inbox);
	code = read_messages(sink);
	faults = sink->count > 0;
	(void)pthread_mutex_unlock(&sink->inbox);
	if (faults)
		kick(sink);
	return code;
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

/* Whoever gives memory back. 1, or the failure. */
static int let_go_on(struct uffd_sink *sink)
{
	const struct timespec nap = {.tv_nsec = RETRY_NS};
	int code = read_while_placing(sink);

	(void)nanosleep(&nap, NULL);
	return code < 0 ? code : 1;
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
		return wake(sink, address, PAGE_BYTES) == -EPIPE ? -EPIPE : 0;
	case -ENOENT:
		/* No longer mapped (memory that was unplugged): nobody can wait for it. */
		return 0;
	case -EAGAIN:
		if (atomic_load(&sink->interrupted))
			return -ECANCELED;
		return let_go_on(sink);
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
			if (code == 1 && wake(sink, address, PAGE_BYTES) == -EPIPE)
				return -EPIPE;
			pages = 1;
		} else {
			*placed += pages;
		}
		mark(sink, page, pages);
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
	if (!page_at(sink, address, page))
		return -EPROTO;
	if (!uffd_sink_is_placed(sink, *page))
		return 1;
	return answer_placed(sink, *page);
}

/* Waits for messages and reads them: as many as there are. */
static int receive(struct uffd_sink *sink)
{
	struct pollfd fds[] = {
		{.fd = sink->fd, .events = POLLIN},
		{.fd = sink->wake, .events = POLLIN},
		{.fd = sink->target_end, .events = POLLIN},
	};
	uint64_t kicks;
	int code;

	if (poll(fds, 3, -1) < 0 && errno != EINTR)
		return -errno;
	if (atomic_load(&sink->interrupted))
		return -ECANCELED;
	if (fds[2].revents != 0)
		return -EPIPE;
	(void)!read(sink->wake, &kicks, sizeof(kicks));
	(void)pthread_mutex_lock(&sink->inbox);
	code = read_messages(sink);
	(void)pthread_mutex_unlock(&sink->inbox);
	return code;
}

static bool take_fault(struct uffd_sink *sink, uint64_t *address)
{
	bool taken;

	(void)pthread_mutex_lock(&sink->inbox);
	taken = sink->count > 0;
	if (taken) {
		*address = sink->faults[0];
		sink->count--;
		memmove(sink->faults, sink->faults + 1, sink->count * sizeof(sink->faults[0]));
	}
	(void)pthread_mutex_unlock(&sink->inbox);
	return taken;
}

int uffd_sink_wait_fault(struct uffd_sink *sink, uint64_t *page)
{
	for (;;) {
		uint64_t address;
		int code;

		if (atomic_load(&sink->interrupted))
			return -ECANCELED;
		code = take_fault(sink, &address) ? note_fault(sink, address, page) : receive(sink);
		if (code != 0)
			return code < 0 ? code : 0;
	}
}

void uffd_sink_interrupt(struct uffd_sink *sink)
{
	atomic_store(&sink->interrupted, true);
	kick(sink);
}

/* ---- Its beginning and its end -------------------------------------------------------------- */

int uffd_sink_wake_all(struct uffd_sink *sink)
{
	for (size_t i = 0; i < sink->area_count; i++) {
		int code = wake(sink, sink->areas[i].address, sink->areas[i].pages * PAGE_BYTES);

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
			code = let_go_on(sink);
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
