/* SPDX-License-Identifier: MIT */
/*
 * The conversation with a QEMU that is to receive a VM, over QMP: is it the right machine, may it
 * use userfaultfd, where is the connection, does the guest run. One thread at a time.
 */
#ifndef ROUSE_VMM_QEMU_INCOMING_H
#define ROUSE_VMM_QEMU_INCOMING_H

#include "base/error.h"
#include "vmm/qmp.h"

#include <stdatomic.h>

/** What the image needs. Zero or NULL members are not compared. */
struct qemu_expectation {
	const char *machine; /* "pc-i440fx-7.2" */
	uint64_t ram_bytes;  /* as query-memory-size-summary counts: base and plugged memory */
	unsigned int vcpus;
};

/**
 * Compares a QEMU with what an image needs, before anything is sent. -EINVAL, kind MISMATCH: names
 * both sides; -EBUSY, kind REFUSED: it does not wait for a migration.
 */
int qemu_incoming_check(
	struct qmp *qmp, const struct qemu_expectation *expectation, struct rouse_error *error);

/**
 * Whether a QEMU that this process starts may use userfaultfd, as postcopy needs: faults of the
 * kernel included, because KVM and devices touch guest memory too. -EPERM, kind REFUSED: says what
 * would allow it; -ENOSYS: this kernel has no userfaultfd.
 */
int qemu_incoming_may_postcopy(struct rouse_error *error);

/**
 * Turns on what a restore needs: events, and for @postcopy postcopy-ram and, where QEMU has it,
 * postcopy-blocktime. -EPERM, kind REFUSED: QEMU may not use userfaultfd; the message says what
 * would allow it. -EINVAL, kind REFUSED: with a capability that is on (multifd, postcopy-preempt)
 * QEMU would wait for more connections than a restore makes, and read nothing: the message names
 * it, and nothing was turned on.
 */
int qemu_incoming_prepare(struct qmp *qmp, bool postcopy, struct rouse_error *error);

/**
 * Before the first byte: keeps the VM from running once it is loaded. QEMU would let it run,
 * however it was saved, unless it was started with -S.
 */
int qemu_incoming_hold(struct qmp *qmp, struct rouse_error *error);

/**
 * Notes in QEMU which checkpoint it gets, as an empty object of that name: a restore that breaks
 * off can then be taken over with the same checkpoint only. @checkpoint: any number that tells
 * checkpoints apart.
 */
int qemu_incoming_mark(struct qmp *qmp, uint64_t checkpoint, struct rouse_error *error);

/** Makes the connection of a QEMU that waits with -incoming defer; the caller closes *fd. */
int qemu_incoming_connect(struct qmp *qmp, int *fd, struct rouse_error *error);

/**
 * What is in a migration connection before QEMU gets it: @size bytes. Much less than a socket's
 * buffer: it is written without waiting.
 */
struct qemu_first_words {
	const void *bytes;
	size_t size;
};
int qemu_incoming_say_first(
	int fd, const struct qemu_first_words *first, struct rouse_error *error);

/**
 * Makes the connection of a VM whose postcopy broke off. Waits a little for QEMU to notice that.
 * -EBUSY, kind REFUSED: it is not in that state (the state is named). -EINVAL, kind MISMATCH: it is
 * not marked with @checkpoint: other pages than its own would be wrong memory.
 */
int qemu_incoming_recover(struct qmp *qmp, uint64_t checkpoint,
	const struct qemu_first_words *first, int *fd, struct rouse_error *error);

/** The error of a takeover with an image of another checkpoint: -EINVAL, kind MISMATCH. */
int qemu_incoming_other_checkpoint(struct rouse_error *error);

/**
 * A pair of connected sockets, for a migration. Both are close-on-exec: qemu_process.c clears that
 * of QEMU's in the child.
 */
int qemu_incoming_socketpair(int *ours, int *qemus, struct rouse_error *error);

/**
 * Waits until an ordinary (precopy) migration is loaded, and lets the guest run if @run.
 * *started_ns: when, by QEMU's own clock; set if it fails, too, but only if the guest may have run.
 * -EPIPE: QEMU ended; -EREMOTEIO: it could not load it.
 */
int qemu_incoming_wait_loaded(
	struct qmp *qmp, bool run, uint64_t *started_ns, struct rouse_error *error);
/** The same until *given_up, which another thread sets: -ECANCELED. QEMU is asked nothing then. */
int qemu_incoming_wait_loaded_unless(struct qmp *qmp, bool run, const atomic_bool *given_up,
	uint64_t *started_ns, struct rouse_error *error);

/**
 * Waits up to @timeout_ms for QEMU's RESUME event: 1 and *started_ns if the guest runs, 0 if the
 * event has not come. -EPIPE: QEMU ended; -EREMOTEIO: the migration failed; -ECANCELED.
 */
int qemu_incoming_wait_resume(
	struct qmp *qmp, int timeout_ms, uint64_t *started_ns, struct rouse_error *error);

/**
 * For who waits for a VM whose state has been sent: whether to go on in spite of @code, a cancel.
 * From then on QEMU lets the VM run by itself, so that ending it as one that never ran could end
 * one that has, and its disks would be ahead of the image. So the wait goes on without the cancel,
 * until *until_ns (clock_ns; 0 before the call): past that QEMU hangs. Once for each wait.
 */
bool qemu_incoming_outlasts_cancel(struct qmp *qmp, int code, uint64_t *until_ns);

/** The run state ("running", "paused", "inmigrate", ...) into @state. */
int qemu_incoming_run_state(struct qmp *qmp, char *state, size_t size, struct rouse_error *error);

/** Whether a run state is that of a VM that stands still until QMP's cont. */
bool qemu_incoming_is_paused(const char *state);

/**
 * Of a VM that was taken over and is complete. If it is paused, its user has paused it, as a rule,
 * or Rouse has for a damaged image. But if QEMU refused to let it run by itself, or was not asked
 * (by an older Rouse), it is the same if its restore broke off before it ran: the user is told.
 */
void qemu_incoming_tell_if_paused(struct qmp *qmp, const struct rouse_observer *observer);

/** The migration's status ("active", "postcopy-paused", ...), "none" if there is none. */
int qemu_incoming_status(struct qmp *qmp, char *status, size_t size, struct rouse_error *error);

/** The vCPUs' block time of a finished postcopy, summed, in microseconds; -1 if QEMU has none. */
int64_t qemu_incoming_blocktime(struct qmp *qmp);

/** The error of a restore that was cancelled before its VM ran: -ECANCELED, kind CANCELLED. */
int qemu_incoming_cancelled(struct rouse_error *error);

/**
 * Fills @error for a connection that broke with @code: asks QEMU whether it is still there and what
 * it has to say. Returns the error's code.
 */
int qemu_incoming_broken(struct qmp *qmp, int code, struct rouse_error *error);

#endif
