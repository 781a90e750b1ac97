/* SPDX-License-Identifier: MIT */
/* What the files of this room share. */
#ifndef ROUSE_TARGET_TARGET_PRIVATE_H
#define ROUSE_TARGET_TARGET_PRIVATE_H

#include "target/target.h"

#include <signal.h>
#include <sys/user.h>

/* Instructions that a process has anyway, and that are used as they lie there. */
struct target_gadgets {
	uint64_t syscall;   /* syscall; ret */
	uint64_t sigreturn; /* mov $15, %rax; syscall (or %eax) */
};

struct target {
	int pid, pidfd;
	struct target_gadgets gadgets; /* 0: not looked for yet */

	/* Of the stopped thread. */
	int tid;  /* 0: none is stopped */
	int lock; /* of those who change something in it; -1 */
#ifdef __x86_64__
	struct user_regs_struct registers; /* what it goes on with */
	uint64_t signal_mask;
	uint64_t stack_low; /* the lowest address of its stack's mapping */
	bool is_late;       /* it did not come to run when it was to make a call */

	sigset_t held_signals; /* those that we block in our own thread meanwhile */
#endif
};

/* Finds the gadgets by their bytes. -ENOTSUP: there are none. */
int target_find_gadgets(struct target *target, struct rouse_error *error);

#ifdef __x86_64__
/* Whether a mapped file is the C library, by its name: one of libcurl's is not. Pure. */
bool target_is_c_library(const char *path);

/* What a frame is made of. */
struct target_frame_source {
	const struct user_regs_struct *registers;
	uint64_t signal_mask;
	const void *xstate; /* as PTRACE_GETREGSET gives it for NT_X86_XSTATE */
	size_t xstate_bytes;
	uint64_t sigreturn; /* address of the gadget */
	const void *data;
	size_t data_bytes;
};

#define TARGET_FRAME_MAX 20480u
#define TARGET_FRAME_DATA_MAX 256u

/*
 * Builds, for placing it below the address @top, what makes a thread whose stack pointer is at its
 * beginning and that executes `ret` go on with @source's registers. Pure.
 *
 *	lower addresses                                                       @top
 *	data | address of sigreturn | ucontext | pad to 64 | xstate | magic2 | pad
 *	^ *address  ^ *stack
 *
 * @buffer has room for TARGET_FRAME_MAX bytes, *size: how many to write to *address.
 * -E2BIG: the thread's state is larger than that; -EINVAL: @xstate is too short.
 */
int target_frame_build(const struct target_frame_source *source, uint64_t top, void *buffer,
	size_t *size, uint64_t *address, uint64_t *stack);
#endif

#endif
