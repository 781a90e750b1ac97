/* SPDX-License-Identifier: MIT */
/*
 * Access-bit scanning: which pages of a live process were accessed since the scan before. Nothing
 * is asked of the process. docs/estimators.md tells how it works, what it sees and what it misses.
 *
 *	scan_start()   every page is taken as not accessed
 *	scan_take()    reads what was accessed since then, and takes it back; as often as one likes
 *	scan_free()    everything is as it was
 *
 * Three sources, enum rouse_scan_source; the first two need Linux 6.7:
 *
 *	presence   of shared memory (shmem): the process's page-table entries are dropped, which
 *	           come back with the next access; the page cache keeps the data. Reads and writes
 *	writes     of private memory: write protection that the kernel lifts alone. Writes only
 *	page_idle  of both: the processor's accessed bits, wset/scan_idle.h. Reads and writes
 *
 * No fault is ever delivered to us and no page ever missing: whatever happens to the caller, the
 * process loses nothing and does not wait.
 */
#ifndef ROUSE_WSET_SCAN_H
#define ROUSE_WSET_SCAN_H

#include "base/observer.h"
#include "wset/scan_idle.h"
#include "wset/scan_rule.h"
#include "wset/trace.h"

struct scan_report {
	uint32_t scans;
	uint64_t began_ns;       /**< CLOCK_MONOTONIC: all pages count as not accessed since then */
	uint64_t scan_ns;        /**< the sum of what the scans took */
	uint64_t reset_ns;       /**< what it took to begin */
	uint64_t stops;          /**< how often a thread of the process stood still */
	uint64_t stop_ns;        /**< for so long in all */
	uint64_t stop_max_ns;    /**< for so long at most */
	uint64_t presence_pages; /**< scanned by their page-table entries */
	uint64_t written_pages;  /**< scanned for writes only */
	uint64_t skipped_pages;  /**< of mappings that changed meanwhile: not scanned any more */
	uint64_t page_idle_pages;
	uint64_t huge_pages, unwatched_pages; /**< of those: the most that there were at a time */
};

struct scan_config {
	struct scan_rule rule;
	enum rouse_scan_source source;
	const struct scan_idle_kernel *kernel; /**< another page_idle than the kernel's; NULL */
	const struct rouse_observer *observer;
};

struct scan;

/**
 * Whether this kernel lets this user scan a process that is as its own, by presence and writes: by
 * trying (of page_idle: scan_idle_probe()). 0; -ENOTSUP: the kernel is older than 6.7; -EPERM and
 * others of userfaultfd(2) and of opening /proc/self/pagemap.
 */
int scan_probe(void);

/**
 * Begins to scan @ranges of @target, which must outlive the scan.
 *
 *   -EINVAL   ranges that overlap or are not of whole pages, none, or too many
 *   -EPERM    userfaultfd(2) is not allowed to it, or /proc/PID/pagemap to us
 *   -EBUSY    the memory has a userfaultfd already: it is being traced or scanned, QEMU is in a
 *             postcopy migration or background-snapshot
 *   -ENOTSUP  this kernel cannot do it (6.7 or later can), or not by the source asked for
 *   -ESRCH    the process ended; -ENOMEM, -ECANCELED; and those of target_stop() and target_call(),
 *             which are not called where everything is scanned by page_idle
 */
int scan_start(struct target *target, const struct trace_range *ranges, uint32_t count,
	const struct scan_config *config, struct scan **scan, struct rouse_error *error);

/**
 * Takes a scan. @last: there is none after it, and nothing is taken back; no thread is stopped.
 * -EINVAL: there were SCAN_RULE_MAX_SCANS already. -ESRCH, -ECANCELED, those of target_stop() and
 * target_call().
 */
int scan_take(struct scan *scan, bool last, struct rouse_error *error);

/** The pages of all ranges, in their order. Valid until scan_free(). */
const struct scan_page *scan_pages(const struct scan *scan, size_t *count);
void scan_get_report(const struct scan *scan, struct scan_report *report);
/** Takes everything back. NULL is fine. */
void scan_free(struct scan *scan);

/**
 * Takes out of the process what a scan that was killed while it began has left: at most two
 * descriptors that nobody uses. *found: whether there was anything. scan_start() does it, too.
 * Those of target_stop().
 */
int scan_clean(struct target *target, bool *found, struct rouse_error *error);

#endif
