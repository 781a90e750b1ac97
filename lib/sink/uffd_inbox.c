/* SPDX-License-Identifier: MIT */
#include "sink/uffd_inbox.h"

#include "base/clock.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define PAGE_BYTES UFFD_SINK_PAGE
/* See uffd_let_go_on(). */
#define TRIES_PER_NAP 8u
#define NAPS 4u
#define NAP_STEP_NS 5000

bool uffd_page_at(const struct uffd_sink *sink, uint64_t address, uint64_t *page)
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

void uffd_mark(struct uffd_sink *sink, uint64_t page, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		rouse_bitmap_set(&sink->placed, page + i);
}

int uffd_wake(const struct uffd_sink *sink, uint64_t address, uint64_t bytes)
{
	struct uffdio_range range = {.start = address, .len = bytes};

	if (ioctl(sink->fd, UFFDIO_WAKE, &range) == 0)
		return 0;
	return errno == ESRCH ? -EPIPE : -errno;
}

/*
 * Memory that was given back while pages are still missing. Never again what it was: who has asked
 * for what it was asks again, and gets zeros.
 */
static void note_removed(struct uffd_sink *sink, uint64_t from, uint64_t to)
{
	for (uint64_t address = from; address < to; address += PAGE_BYTES) {
		uint64_t page;

		if (uffd_page_at(sink, address, &page))
			uffd_mark(sink, page, 1);
	}
	(void)uffd_wake(sink, from, to - from);
}

/* Of a full inbox: it is emptied, and who waits asks again. */
static int ask_again(struct uffd_sink *sink)
{
	int code = 0;

	while (code == 0 && sink->count > 0)
		code = uffd_wake(sink, sink->faults[--sink->count].address, PAGE_BYTES);
	return code;
}

/* With both locks. */
static int read_locked(struct uffd_sink *sink)
{
	struct uffd_msg messages[UFFD_SINK_FAULTS];
	int code = sink->count < UFFD_SINK_FAULTS ? 0 : ask_again(sink);
	uint64_t now_ns;
	ssize_t n;

	if (code < 0)
		return code;
	n = read(sink->fd, messages, (UFFD_SINK_FAULTS - sink->count) * sizeof(messages[0]));
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : errno == ESRCH ? -EPIPE : -errno;
	now_ns = rouse_clock_ns();
	for (size_t i = 0; i < (size_t)n / sizeof(messages[0]); i++) {
		const struct uffd_msg *message = &messages[i];

		if (message->event == UFFD_EVENT_REMOVE)
			note_removed(sink, message->arg.remove.start, message->arg.remove.end);
		else if (message->event == UFFD_EVENT_PAGEFAULT)
			sink->faults[sink->count++] = (struct uffd_fault){
				.address = message->arg.pagefault.address & ~(PAGE_BYTES - 1),
				.asker = {.thread = message->arg.pagefault.feat.ptid,
					.asked_ns = now_ns},
			};
	}
	return 0;
}

/*
 * Reads what there is, and waits for nothing but a call that places. Who gives memory back goes on
 * when his message is read; faults go to the inbox. *faults: whether there are any in it.
 */
static int read_messages(struct uffd_sink *sink, bool *faults)
{
	int code;

	(void)pthread_rwlock_wrlock(&sink->messages);
	(void)pthread_mutex_lock(&sink->inbox);
	code = read_locked(sink);
	*faults = sink->count > 0;
	(void)pthread_mutex_unlock(&sink->inbox);
	(void)pthread_rwlock_unlock(&sink->messages);
	return code;
}

void uffd_kick(struct uffd_sink *sink)
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
	int code = read_messages(sink, &faults);

	if (faults)
		uffd_kick(sink);
	return code;
}

/*
 * Whoever gives memory back. 1, or the failure.
 *
 * Who gives back page after page, as a balloon does, is let on by the read, goes on for a few
 * microseconds, and stands there again with the next page. In between there is something to be
 * placed, and after a nap of always the same length never: so mostly there is none, and where there
 * must be one, for a giver that lacks a processor, its length varies.
 */
int uffd_let_go_on(struct uffd_sink *sink)
{
	const unsigned int tries = atomic_fetch_add(&sink->tries, 1);
	int code = read_while_placing(sink);

	if (tries % TRIES_PER_NAP == 0) {
		const unsigned int length = tries / TRIES_PER_NAP % NAPS + 1;
		const struct timespec nap = {.tv_nsec = (long)length * NAP_STEP_NS};

		(void)nanosleep(&nap, NULL);
	}
	return code < 0 ? code : 1;
}

/* Waits for messages and reads them: as many as there are. */
int uffd_receive(struct uffd_sink *sink)
{
	struct pollfd fds[] = {
		{.fd = sink->fd, .events = POLLIN},
		{.fd = sink->wake, .events = POLLIN},
		{.fd = sink->target_end, .events = POLLIN},
	};
	uint64_t kicks;
	bool faults;

	if (poll(fds, 3, -1) < 0 && errno != EINTR)
		return -errno;
	if (atomic_load(&sink->interrupted))
		return -ECANCELED;
	if (fds[2].revents != 0)
		return -EPIPE;
	(void)!read(sink->wake, &kicks, sizeof(kicks));
	return read_messages(sink, &faults);
}

bool uffd_take_fault(struct uffd_sink *sink, struct uffd_fault *fault)
{
	bool taken;

	(void)pthread_mutex_lock(&sink->inbox);
	taken = sink->count > 0;
	if (taken) {
		*fault = sink->faults[0];
		sink->count--;
		memmove(sink->faults, sink->faults + 1, sink->count * sizeof(sink->faults[0]));
	}
	(void)pthread_mutex_unlock(&sink->inbox);
	return taken;
}
