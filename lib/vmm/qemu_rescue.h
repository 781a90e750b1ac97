/* SPDX-License-Identifier: MIT */
/*
 * A way into a QEMU whose main loop stands still.
 *
 * A device that waits for a page keeps QEMU's main loop waiting, and with it everything that a new
 * monitor connection needs. Out-of-band commands work, on a connection that was negotiated before.
 * So a restore on demand leaves its own monitor connection in QEMU: a duplicate of *our* end, by
 * `getfd`. When we die, our end stays open there, and the next Rouse takes it out again:
 *
 *	Rouse --- our end ======= QEMU's end --- monitor
 *	             |                             |
 *	             '---- getfd: a duplicate ---- QEMU's table of files
 *	                                           |
 *	next Rouse <------- pidfd_getfd(2) --------'
 *
 * The connection is found by the abstract address that our end is bound to. It is visible to all in
 * /proc/net/unix, and nobody can connect to it. It says which VM's socket the connection is for, of
 * which checkpoint the VM is, and which process is QEMU. Whether the Rouse that it belonged to
 * still lives is kept by the kernel, in the socket's owner (F_SETOWN): that cannot name another
 * process that got the same number later. A restore that breaks off in a process that lives on (a
 * daemon with the library) gives the connection up: then it has no owner.
 *
 * One thread at a time.
 */
#ifndef ROUSE_VMM_QEMU_RESCUE_H
#define ROUSE_VMM_QEMU_RESCUE_H

#include "base/error.h"
#include "vmm/qemu_incoming.h"
#include "vmm/qmp.h"

#include <stddef.h>
#include <stdint.h>

/** What the address of a connection says. */
struct qemu_rescue_name {
	uint64_t device, inode; /* of the VM's QMP socket in the file system */
	uint64_t checkpoint;    /* the number that qemu_incoming_mark() got */
	uint64_t nonce;         /* two connections never have the same address */
	int pid;                /* QEMU's */
};

/** A whole address, with its NUL; less than an AF_UNIX address has room for. */
#define QEMU_RESCUE_TEXT 100

/** The address as text, without the NUL byte that begins an abstract one. */
void qemu_rescue_name_format(const struct qemu_rescue_name *name, char text[QEMU_RESCUE_TEXT]);

/**
 * Takes a line of /proc/net/unix apart, for untrusted names: pure. *inode: the socket's own.
 * -ENOENT: it is no such address.
 */
int qemu_rescue_parse_line(const char *line, struct qemu_rescue_name *name, uint64_t *inode);

/**
 * Leaves @qmp's connection in QEMU. @socket: the QMP socket by which the VM will be looked for;
 * @pid: QEMU. Tries at once what a takeover will do, so that nothing stays in QEMU that could not
 * be taken out: a connection that is left there keeps the monitor of @socket taken if it came by
 * it. -EPERM: this user may not take descriptors out of QEMU; -ENOENT: there is no @socket, or @pid
 * is not that QEMU; -ENOSYS: a kernel before 5.6; or an error of qmp_send_fd().
 */
int qemu_rescue_deposit(struct qmp *qmp, const char *socket, int pid, uint64_t checkpoint,
	struct rouse_error *error);

/** Removes what qemu_rescue_deposit() left. On the connection itself; its main loop must run. */
void qemu_rescue_withdraw(struct qmp *qmp);

/**
 * Gives up a connection that is ours by qemu_rescue_deposit() or qemu_rescue_find(): whoever takes
 * over next, this process too, need not wait for our death. Afterwards nothing may be sent by @fd;
 * the caller closes it. One that is not ours stays as it is.
 */
void qemu_rescue_disown(int fd);

/**
 * Takes out the connection of a Rouse that died or gave it up, for the VM at @socket; from now on
 * it is ours, until qemu_rescue_disown(). *fd is the caller's. -ENOENT: there is none, @error is
 * not set. -EBUSY, kind REFUSED: the Rouse that it belongs to lives, which may be this process.
 * -EPERM, kind REFUSED: this user may not.
 */
int qemu_rescue_find(
	const char *socket, struct qemu_rescue_name *name, int *fd, struct rouse_error *error);

/**
 * Makes the connection for the pages of a VM whose postcopy broke off, out of band: QEMU listens in
 * a new directory beside @socket (or in /tmp) that nobody else may enter, and which is removed
 * again; @first is written together with connecting, which no SIGKILL parts where there is
 * io_uring. Waits a little for QEMU to notice that its Rouse has died. The caller closes *fd.
 * -EBUSY, kind REFUSED: nothing broke off, or QEMU is not ready for it.
 */
int qemu_rescue_recover(struct qmp *qmp, const char *socket, const struct qemu_rescue_name *name,
	const struct qemu_first_words *first, int *fd, struct rouse_error *error);

#endif
