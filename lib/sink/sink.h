/* SPDX-License-Identifier: MIT */
/*
 * Where pages go: the VM that is being restored. A sink knows how to place pages, how to start the
 * guest, and how to hear which pages it waits for. It does not decide anything.
 *
 *   prefetch*  ->  start  ->  place*  ->  finish
 *                  '--- wait_fault, place ---'
 *
 * prefetch, start and finish: one thread. A second thread waits for faults from before start is
 * called (loading the devices already touches pages) until wait_fault fails. Any number of threads
 * place pages. A page is placed once: placing it again is ignored.
 */
#ifndef ROUSE_SINK_SINK_H
#define ROUSE_SINK_SINK_H

#include <rouse.h>

struct rouse_sink;

/** A page to place. */
struct rouse_sink_page {
	uint64_t page;    /* number over all blocks */
	const void *data; /* ROUSE_IMAGE_PAGE_BYTES of it, or NULL: zeros */
};

/** Who asked for a page, and when. */
struct rouse_sink_asker {
	uint32_t thread;   /* as the VMM's own process sees its number; 0: not known */
	bool of_vmm;       /* it is one of the VMM's, as far as our pid namespace tells */
	uint64_t asked_ns; /* when the request was read, CLOCK_MONOTONIC */
};

enum rouse_sink_priority {
	ROUSE_SINK_URGENT,     /* a guest waits: before everything that has not begun */
	ROUSE_SINK_BACKGROUND, /* lets urgent ones pass between any two pages */
};

struct rouse_sink_ops {
	/** Places pages before the guest runs. Error codes as place(). */
	int (*prefetch)(struct rouse_sink *sink, const struct rouse_sink_page *pages, size_t count);

	/**
	 * Loads the device state and lets the guest run. Returns when it executes instructions
	 * (or is ready to, if it is to stay paused); *started_ns: when, CLOCK_MONOTONIC.
	 */
	int (*start)(struct rouse_sink *sink, uint64_t *started_ns, struct rouse_error *error);

	/**
	 * Waits until the guest asks for a page: its number in *page. Allocates nothing.
	 * -ESHUTDOWN: the guest will ask for nothing any more; -EPIPE: it is gone; -EPROTO: it
	 * asked for something that does not exist; -ECANCELED: rouse_sink_interrupt() was called.
	 */
	int (*wait_fault)(struct rouse_sink *sink, uint64_t *page);

	/**
	 * Who asked for the page that wait_fault has returned last. The thread that waits for
	 * faults. NULL: the sink does not know.
	 */
	void (*asker)(struct rouse_sink *sink, struct rouse_sink_asker *asker);

	/**
	 * Places pages of a running guest; returns when the bytes are handed over. *placed, which
	 * may be NULL: how many had not been placed before. -EPIPE: the guest is gone; -ECANCELED:
	 * its VMM took nothing, and the restore was cancelled meanwhile. A page of a call that
	 * failed may count as placed although it is not: the sink then places no more. Not so
	 * -ENOMEM, where a sink has it: nothing is lost, what was placed counts, in *placed too,
	 * and the call may be repeated with the same pages.
	 */
	int (*place)(struct rouse_sink *sink, const struct rouse_sink_page *pages, size_t count,
		enum rouse_sink_priority priority, size_t *placed);

	/** Whether the page has been handed over. Any thread. */
	bool (*is_placed)(struct rouse_sink *sink, uint64_t page);

	/** Says that every page has been placed or is zero, and waits until the guest agrees. */
	int (*finish)(struct rouse_sink *sink, struct rouse_error *error);

	/** Stops the guest for good or until someone resumes the restore: a damaged image. */
	int (*stop_guest)(struct rouse_sink *sink, struct rouse_error *error);

	/**
	 * How long the guest's processors were ready to run and waited for one of the host's, since
	 * they exist, the sum over them, in *wait_ns. It only grows. Returns how many processors
	 * that are, or -ENOTSUP: it cannot be seen. The thread that calls start. May be NULL.
	 */
	int (*guest_wait)(struct rouse_sink *sink, uint64_t *wait_ns);

	/** Makes wait_fault return -ECANCELED, and a start that waits for it fail. Any thread. */
	void (*interrupt)(struct rouse_sink *sink);

	void (*destroy)(struct rouse_sink *sink);
};

struct rouse_sink {
	const struct rouse_sink_ops *ops;
};

#endif
