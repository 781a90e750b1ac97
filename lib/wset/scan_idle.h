/* SPDX-License-Identifier: MIT */
/*
 * Scanning by the processor's own accessed bits: the kernel's idle page tracking
 * (CONFIG_IDLE_PAGE_TRACKING). The process that is watched does not stop, takes no fault and is not
 * changed; what the kernel keeps is a flag of each page of the machine's memory.
 *
 *	mark   where the pages are -> their heads -> set the idle bits -> which of them stayed?
 *	       pagemap               kpageflags     bitmap                kpageflags
 *	...    an access clears the idle bit, the kernel's and KVM's included
 *	read   the bits -> are the huge pages still whole? -> are the pages still there?
 *	       bitmap      kpageflags                         pagemap
 *
 * A page that reads as idle still is marked: only the others are marked again, and no access
 * between reading and marking is lost but of a page that is in the scan anyway. All is read before
 * anything is marked, because a huge page has one bit for all.
 */
#ifndef ROUSE_WSET_SCAN_IDLE_H
#define ROUSE_WSET_SCAN_IDLE_H

#include "base/error.h"
#include "base/observer.h"
#include "wset/scan_idle_rule.h"

#include <sys/types.h>

enum scan_idle_file { SCAN_IDLE_BITMAP, SCAN_IDLE_PAGEMAP, SCAN_IDLE_PAGEFLAGS, SCAN_IDLE_FILES };

/**
 * The kernel, as page_idle needs it. Both calls are as pread(2) and pwrite(2), with -errno: they
 * may move less than was asked for, offsets and sizes are multiples of 8, and 0 is the end.
 */
struct scan_idle_kernel {
	void *user;
	ssize_t (*read)(
		void *user, enum scan_idle_file file, void *buffer, size_t bytes, uint64_t offset);
	/** Of the bitmap. */
	ssize_t (*write)(void *user, const void *buffer, size_t bytes, uint64_t offset);
};

/* ---- The real one (scan_idle_files.c) -------------------------------------------------------- */

struct scan_idle_paths {
	const char *names[SCAN_IDLE_FILES];
};

struct scan_idle_files {
	int fds[SCAN_IDLE_FILES];
};

/**
 * Opens this machine's files for process @pid; @paths, which may be NULL, are others to open. One
 * scan of a process at a time: two would mark each other's pages.
 *
 *   -ENOTSUP  the kernel has no idle page tracking
 *   -EPERM    they are not for this user: that takes root (CAP_SYS_ADMIN)
 *   -EBUSY    another Rouse scans the process in this way
 *   errors of open(2)
 */
int scan_idle_files_open(int pid, const struct scan_idle_paths *paths,
	struct scan_idle_files *files, struct rouse_error *error);
/** Safe on files that were not opened, after scan_idle_files_init(). */
void scan_idle_files_close(struct scan_idle_files *files);
void scan_idle_files_init(struct scan_idle_files *files);
/** The kernel by these files, which must outlive it. */
struct scan_idle_kernel scan_idle_files_kernel(struct scan_idle_files *files);
/** Whether this user can scan so: by looking for a page of our own. As scan_idle_files_open(). */
int scan_idle_probe(const struct scan_idle_paths *paths, struct rouse_error *error);

/* ---- Scanning (scan_idle.c) ------------------------------------------------------------------ */

struct scan_idle;

struct scan_idle_counts {
	uint64_t watched, unwatched; /**< pages: see enum scan_idle_state */
	uint64_t huge;               /**< of the watched, pages that share one bit with others */
};

/** For @pages pages, 8 bytes each. @kernel is copied. -ENOMEM. */
int scan_idle_new(const struct scan_idle_kernel *kernel, uint64_t pages,
	const struct rouse_observer *observer, struct scan_idle **idle);
/** NULL is fine. Marks that are left do nothing; the kernel forgets them with the next access. */
void scan_idle_free(struct scan_idle *idle);

/**
 * Marks those of the pages @first and up, which are at @address and up, that need it.
 * -EPERM (the kernel does not say where pages are), -ESRCH (the process's memory is gone),
 * -ECANCELED, and errors of the files.
 */
int scan_idle_mark(struct scan_idle *idle, uint64_t first, uint64_t address, uint64_t pages,
	struct rouse_error *error);
/** Tells @found which of them were accessed since they were marked. Errors: the same. */
int scan_idle_read(struct scan_idle *idle, uint64_t first, uint64_t address, uint64_t pages,
	void (*found)(void *user, uint64_t address, uint64_t bytes), void *user,
	struct rouse_error *error);
/** Adds to @counts what these pages are now. */
void scan_idle_count(const struct scan_idle *idle, uint64_t first, uint64_t pages,
	struct scan_idle_counts *counts);

#endif
