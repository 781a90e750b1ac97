/* SPDX-License-Identifier: MIT */
/*
 * Placing pages by userfaultfd(2), without a VMM in between: the half of a sink that every VMM has
 * in common, whose memory is registered (UFFDIO_REGISTER_MODE_MISSING) with a descriptor that we
 * hold. How it is registered and how the guest starts is the VMM's half: vmm/qemu_uffd.h.
 *
 *	wait_fault   <- read(2): a page that is missing, as many of them as there are at once
 *	place        -> UFFDIO_COPY, UFFDIO_ZEROPAGE: neighbours in one call
 *
 * The kernel decides what is there: it places only what is missing and says -EEXIST otherwise, so
 * that nothing the guest has written is ever overwritten, whoever else places. A page is marked as
 * placed after the kernel has placed it, never before: a missing page that is marked has been given
 * back by the guest (a balloon) and is zero from then on.
 *
 * Threads: wait_fault by one, place and interrupt by any.
 */
#ifndef ROUSE_SINK_UFFD_SINK_H
#define ROUSE_SINK_UFFD_SINK_H

#include "base/bitmap.h"
#include "sink/sink.h"

#include <pthread.h>
#include <stdatomic.h>

/**
 * What the descriptor must have been opened with (UFFDIO_API): UFFD_FEATURE_EVENT_REMOVE. Memory
 * that is given back (madvise) while nobody reads the descriptor waits to be so, and nothing can be
 * placed meanwhile: so the descriptor is read by whoever waits for faults or places.
 */
#define UFFD_SINK_FEATURES (UINT64_C(1) << 3)
/** And, where the kernel has it (Linux 4.14): UFFD_FEATURE_THREAD_ID, which tells who waits. */
#define UFFD_SINK_WANTED (UFFD_SINK_FEATURES | UINT64_C(1) << 8)

#define UFFD_SINK_PAGE UINT64_C(4096)

/** Registered memory: a part of one mapping. */
struct uffd_area {
	uint64_t address, first_page, pages;
};

/** Says to the kernel what the new descriptor is for (UFFDIO_API). -EINVAL: it lacks that. */
int uffd_sink_handshake(int fd);

/** A request that was read. */
struct uffd_fault {
	uint64_t address;
	struct rouse_sink_asker asker;
};

#define UFFD_SINK_FAULTS 64u

struct uffd_sink {
	int fd;         /* ours; O_NONBLOCK */
	int target_end; /* readable when the process has ended (a pidfd); the caller's; or -1 */
	int wake;       /* an eventfd, ours: interrupted, or something is in the inbox */
	const struct uffd_area *areas; /* the caller's, as is what placed points to */
	size_t area_count;
	struct rouse_bitmap placed; /* of all pages; those of no area are the caller's matter */
	atomic_bool interrupted;
	atomic_uint tries; /* to place beside somebody who gives memory back */

	/*
	 * Shared: from looking whether a page is marked to having placed it. Exclusive: from
	 * reading a message to having marked what was given back. So a page that was placed,
	 * written to and given back meanwhile never gets its old content again.
	 */
	pthread_rwlock_t messages;
	pthread_mutex_t inbox; /* faults that were read and not come to yet: it guards them */
	struct uffd_fault faults[UFFD_SINK_FAULTS];
	size_t count;
	struct rouse_sink_asker asker; /* of what wait_fault returned last; that thread's */
};

struct uffd_sink_config {
	int fd; /* the userfaultfd: uffd_sink_finish() closes it, and so does a failure */
	int target_end;
	const struct uffd_area *areas;
	size_t area_count;
	struct rouse_bitmap placed; /* may be shared with another process */
};

/** Errors of eventfd(2). */
int uffd_sink_init(struct uffd_sink *sink, const struct uffd_sink_config *config);
/** Closes our descriptors. What is registered stays so while another descriptor is open. */
void uffd_sink_finish(struct uffd_sink *sink);

/**
 * As ops->wait_fault. -ESHUTDOWN never comes: the guest may want more until the end. A failure
 * other than -EPIPE interrupts the sink, for nobody answers any more. That there is no memory for a
 * page that was given back is none: who waits for it asks again.
 */
int uffd_sink_wait_fault(struct uffd_sink *sink, uint64_t *page);
/**
 * As ops->place; pages of no area are left out. *placed grows by what was missing. -EPIPE: the
 * process has ended; -ECANCELED: interrupted; -ENOMEM: the kernel had no memory for a page, what
 * was placed before it is counted and marked, and no other page is: nothing is lost, and the call
 * may be repeated with the same pages; -EFAULT: a bad address of ours.
 */
int uffd_sink_place(
	struct uffd_sink *sink, const struct rouse_sink_page *pages, size_t count, size_t *placed);
/** Whether the page has been placed. Any thread. */
static inline bool uffd_sink_is_placed(const struct uffd_sink *sink, uint64_t page)
{
	return page < sink->placed.bits && rouse_bitmap_test(&sink->placed, page);
}
/** Whether the page is of an area. Any thread. */
bool uffd_sink_has(const struct uffd_sink *sink, uint64_t page);
/** The first page from @page on that is of no area: @page itself, or one behind areas. */
uint64_t uffd_sink_next_other(const struct uffd_sink *sink, uint64_t page);
/** As ops->interrupt. */
void uffd_sink_interrupt(struct uffd_sink *sink);

/**
 * Makes all who wait for a page ask again: what a handler that died had read is asked for by nobody
 * any more. -EPIPE, or others of UFFDIO_WAKE.
 */
int uffd_sink_wake_all(struct uffd_sink *sink);
/**
 * Ends it: what was not placed is zero from now on. -EPIPE: the process has ended, or others of
 * UFFDIO_UNREGISTER.
 */
int uffd_sink_unregister(struct uffd_sink *sink);

#endif
