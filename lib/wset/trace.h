/* SPDX-License-Identifier: MIT */
/*
 * Memory tracing: which pages of a live process are touched, in the order of first touch. Nothing
 * is asked of the process. docs/estimators.md tells how it works, what it sees and what it misses.
 *
 *	trace_start()   an agent (a thread of ours in the process) moves the memory aside
 *	trace_wait()    the agent answers first touches and logs them
 *	trace_stop()    the agent moves the rest back and ends; the log is read
 *
 * Whatever happens to the caller meanwhile, the process loses nothing: the agent notices that it is
 * alone, puts everything back and ends.
 */
#ifndef ROUSE_WSET_TRACE_H
#define ROUSE_WSET_TRACE_H

#include "base/observer.h"
#include "target/target.h"

/** A part of the process's memory to trace. */
struct trace_range {
	uint64_t address, bytes; /**< in whole pages, inside one mapping */
	bool shared;             /**< shmem (memfd, /dev/shm); otherwise private and anonymous */
	bool dont_fork;          /**< MADV_DONTFORK is on it: no child has it */
};

/** A first touch. */
struct trace_touch {
	uint64_t page; /**< counted over all ranges, in their order */
	uint64_t ns;   /**< CLOCK_MONOTONIC */
	uint32_t tid;  /**< as the process's own gettid(2) gives it */
	bool write; /**< the touch was a write; what was read first may have been written later */
};

struct trace_report {
	uint64_t stop_ns;      /**< the thread that started the agent stood still for so long */
	uint64_t arm_ns;       /**< from the first page moved aside to the last */
	uint64_t arm_pause_ns; /**< the longest that one touch could wait meanwhile */
	uint64_t disarm_ns, disarm_pause_ns;
	uint64_t armed_at_ns; /**< CLOCK_MONOTONIC: all memory is watched since then */
	uint64_t ended_at_ns; /**< disarming began */
	uint64_t faults;      /**< touches that waited for the agent */
	uint64_t service_ns;  /**< the sum of what it took to answer them */
	uint64_t pages;       /**< traced */
	uint64_t skipped; /**< not moved aside: pinned, shared, mapped anew, cut short by a fork */
	uint64_t copied;  /**< pages put back by copying */
	uint64_t removed; /**< pages that the process gave back (MADV_DONTNEED) */
	uint64_t forks, remaps;
	uint64_t lost; /**< touches that the log had no room for */
};

struct trace;

/**
 * Starts to trace @ranges of @target, for @limit_us at most, and returns when all are watched.
 * @target is used only during this and the other calls, and must outlive the trace.
 *
 *   -EINVAL   ranges that overlap or are not of whole pages, none, or too many
 *   -EALREADY it is being traced, or what an earlier trace left must be cleaned up: trace_disarm()
 *   -EPERM    userfaultfd(2) is not allowed to it; it may fork, and only a process with
 *             CAP_SYS_PTRACE can be told of that
 *   -EBUSY    the memory has a userfaultfd already (postcopy, background-snapshot)
 *   -ENOTSUP  this kernel's userfaultfd cannot move pages (6.8 or later can)
 *   -ETIMEDOUT the agent does not get on: what it moves is pinned, or the process gets no processor
 *   -ESRCH    the process ended; -ECANCELED; and those of target_stop()
 */
int trace_start(struct target *target, const struct trace_range *ranges, uint32_t count,
	uint64_t limit_us, const struct rouse_observer *observer, struct trace **trace,
	struct rouse_error *error);

/**
 * Waits @us, or until the trace ended otherwise. 0: the time is over; 1: the trace has ended (its
 * limit, or trace_disarm() by another); -ECANCELED; -ESRCH: the process is gone.
 */
int trace_wait(struct trace *trace, uint64_t us, struct rouse_error *error);

/**
 * Ends the trace and takes its agent out of the process. Then the touches and the report are there.
 * -EBUSY: the process is stopped; -ETIMEDOUT: the agent does not get on. It puts everything back as
 * soon as it can go on. -ESRCH; -ECANCELED: another has ended the trace, and the log is gone.
 */
int trace_stop(struct trace *trace, struct rouse_error *error);

/** Of a trace that trace_stop() returned 0 for; valid until trace_free(). */
const struct trace_touch *trace_touches(const struct trace *trace, size_t *count);
void trace_get_report(const struct trace *trace, struct trace_report *report);

/** Frees it, and ends it like a death of the caller would if it was not stopped. NULL is fine. */
void trace_free(struct trace *trace);

/**
 * Ends whatever trace of @target there is, and cleans up what one has left. *found: whether there
 * was anything. -EBUSY: the process is stopped, or does not come to it; -EUCLEAN: what is there
 * makes no sense, and was left alone; those of target_stop().
 */
int trace_disarm(struct target *target, const struct rouse_observer *observer, bool *found,
	struct rouse_error *error);

#endif
