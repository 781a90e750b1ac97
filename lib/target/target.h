/* SPDX-License-Identifier: MIT */
/*
 * Another process: its mappings, its threads, its memory, its descriptors, and system calls made
 * in it.
 *
 * A system call is made in it by ptrace(2): one of its threads is stopped, sent through a `syscall`
 * instruction that is there already, and put back. The process needs no preparation.
 *
 * It may be killed with SIGKILL at any moment of that, and the other process goes on as if nothing
 * had been: before a register is changed, a signal frame with all of them lies below the thread's
 * stack, and the instruction after the system call is a return into rt_sigreturn(2). With us gone
 * the thread makes the one call, takes its registers back out of the frame, and goes on where it
 * was. docs/estimators.md tells it step by step.
 *
 * x86-64 only: elsewhere the calls that change something are -ENOTSUP.
 *
 * A handle may be used by one thread at a time; between target_stop() and target_go() by the
 * thread that called target_stop(), because ptrace(2) belongs to a thread.
 */
#ifndef ROUSE_TARGET_TARGET_H
#define ROUSE_TARGET_TARGET_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct target;

/** A line of /proc/PID/maps. */
struct target_map {
	uint64_t start, end; /**< addresses, [start, end) */
	uint64_t offset;     /**< into the file */
	uint64_t inode;      /**< 0: no file */
	bool read, write, execute, shared;
	char name[240]; /**< a path, "[stack]" and the like, or ""; cut off if it is longer */
};

/**
 * Opens a process for all that follows. Nothing is changed in it. -ESRCH: there is none; -EPERM:
 * it is not ours to look into, or another debugger has it (the message says which); -ENOSYS: no
 * pidfd_getfd(2), which came with Linux 5.6; errors of open(2).
 */
int target_open(int pid, struct target **target, struct rouse_error *error);
/** NULL is fine. A stopped thread goes on. */
void target_close(struct target *target);
int target_pid(const struct target *target);
/** A pidfd, the handle's own: readable when the process has ended. */
int target_pidfd(const struct target *target);
bool target_alive(const struct target *target);

/* ---- Looking ------------------------------------------------------------------------------- */

/**
 * Parses one line of /proc/PID/maps, @length bytes without the newline. Pure. -EUCLEAN: it is none.
 */
int target_map_parse(const char *line, size_t length, struct target_map *map);
/** All mappings, by address. *maps is the caller's to free(3). -ESRCH, -EPERM, -ENOMEM. */
int target_maps(const struct target *target, struct target_map **maps, size_t *count,
	struct rouse_error *error);
/**
 * Which of @flags (two letters each, as "VmFlags" of /proc/PID/smaps has them, "dc" for one) the
 * mappings in [start, end) have: bit i of *any is set if one has flags[i], of *all if each has. It
 * takes milliseconds for a large process. -ESRCH, -EPERM, -ENOMEM.
 */
int target_flags(const struct target *target, uint64_t start, uint64_t end,
	const char *const *flags, unsigned int count, uint32_t *any, uint32_t *all,
	struct rouse_error *error);
/** Thread ids, the first thread's first. *tids is the caller's to free(3). -ESRCH, -ENOMEM. */
int target_threads(
	const struct target *target, int **tids, size_t *count, struct rouse_error *error);
/**
 * The text behind "@key:" in /proc/PID/status, blanks before it left out. -ESRCH: the process is
 * gone; -ENOENT: the kernel has no such line.
 */
int target_status(const struct target *target, const char *key, char *value, size_t size);

/**
 * Reads or writes its memory as it would itself: -EFAULT where it may not. A page that is not there
 * comes into being by it, and waits for whoever serves it. -ESRCH, -EPERM.
 */
int target_read(const struct target *target, uint64_t address, void *buffer, size_t size);
int target_write(const struct target *target, uint64_t address, const void *buffer, size_t size);

/**
 * A copy of its descriptor @fd in this process, close-on-exec, the caller's. Both then share one
 * open file. -EBADF: it has none; -EPERM; -ESRCH.
 */
int target_fetch_fd(const struct target *target, int fd);
/**
 * The lowest of its descriptors from @from on that /proc/PID/fd shows as a link to @name
 * ("/memfd:NAME (deleted)", "anon_inode:[userfaultfd]"). -ENOENT: there is none; -EPERM, -ESRCH.
 */
int target_find_fd(const struct target *target, const char *name, int from);
/** The same of a process that is not opened: it needs the right to look into it, and no more. */
int target_find_fd_in(int pid, const char *name);
/** Of a file whose name begins with @directory ("/dev/vfio/"). */
int target_find_fd_below(const struct target *target, const char *directory);

/* ---- System calls in it ---------------------------------------------------------------------- */

/**
 * Stops one thread of it, for target_call(): the first thread, because its stack is the largest; if
 * that has ended the oldest. The others run on. It should be for well below a millisecond.
 * Meanwhile no other Rouse can do this, and no call of one that was killed is still under way: what
 * is found out about the process stays true.
 *
 * Refused, with nothing changed:
 *   -EPERM    no right to, or a debugger has the process; seccomp's filter is on it, which might
 *             kill it for a system call that it never makes itself
 *   -EBUSY    it is stopped (SIGSTOP), or the thread cannot be stopped safely now (it is deep in
 * the kernel, or on a stack without a guard), or another Rouse has it -ENOTSUP  another machine
 * language (32 bit), a shadow stack, no `syscall` instruction found -ESRCH    it is gone
 */
int target_stop(struct target *target, struct rouse_error *error);
/**
 * Lets the thread go on as it was. Safe without a target_stop().
 *
 * Between the two SIGTSTP, SIGTTIN and SIGTTOU are blocked in the calling thread, so that Ctrl-Z
 * does not keep the other process still. A program with more threads must block them in those, if
 * it is to be stopped by them at all.
 */
void target_go(struct target *target);
/** The stopped thread, or 0. */
int target_stopped_tid(const struct target *target);

/**
 * Makes a system call in the stopped thread; *result is what it returned, a negative errno value
 * included. Signals to the thread wait meanwhile: it begins with all blocked. @data, of @data_bytes
 * (at most 256), is copied to below the thread's stack for the time of the call, and TARGET_DATA
 * among the arguments stands for its address there. The call should not sleep: there is nobody to
 * wake the thread. SIGSTOP stops the process, but this thread only after target_go().
 *
 *   -ESRCH    the process died
 *   -EIO      the thread met a fault instead
 *   -EBUSY    the thread did not come to run for some seconds: it is frozen
 *             (cgroup.freeze), gets no processor, or one SIGSTOP after another
 *
 * Unless the process died the call has not been made then, and the thread has been put back.
 */
int target_call(struct target *target, long number, const uint64_t arguments[6], const void *data,
	size_t data_bytes, int64_t *result, struct rouse_error *error);

/** Stands for the address of @data among the arguments of target_call(). */
#define TARGET_DATA UINT64_C(0x5ac0ffee0000da7a)

#endif
