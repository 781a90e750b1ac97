/* SPDX-License-Identifier: MIT */
/*
 * What the kernel says by a userfaultfd: pages that are missing, and memory that is given back.
 *
 *	kernel --read(2)--> given back: marked as placed, at once
 *	                    missing:    the inbox --> the thread that waits for faults
 *
 * While somebody gives memory back the kernel places nothing, until his message is read. So it is
 * read by whoever wants to place, too, above all by the thread that answers faults: nobody else
 * would.
 */
#ifndef ROUSE_SINK_UFFD_INBOX_H
#define ROUSE_SINK_UFFD_INBOX_H

#include "sink/uffd_sink.h"

/* The page at an address; false: it is of no area. */
bool uffd_page_at(const struct uffd_sink *sink, uint64_t address, uint64_t *page);
/* Pages that the kernel has placed, or that were given back. */
void uffd_mark(struct uffd_sink *sink, uint64_t page, uint64_t count);

/* Who waits for a page there asks again, unless it has come. -EPIPE, or others of UFFDIO_WAKE. */
int uffd_wake(const struct uffd_sink *sink, uint64_t address, uint64_t bytes);
/* Wakes uffd_receive(). */
void uffd_kick(struct uffd_sink *sink);

/* Waits for messages and reads them: as many as there are. Errors as ops->wait_fault. */
int uffd_receive(struct uffd_sink *sink);
/* A fault out of the inbox, the oldest; false: it is empty. */
bool uffd_take_fault(struct uffd_sink *sink, struct uffd_fault *fault);
/* Lets whoever gives memory back go on, and then some microseconds pass. 1, or the failure. */
int uffd_let_go_on(struct uffd_sink *sink);

#endif
