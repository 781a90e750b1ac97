/* SPDX-License-Identifier: MIT */
/* The QEMU whose memory a trace or a scan watches while its VM runs. */
#ifndef ROUSE_API_LIVE_QEMU_H
#define ROUSE_API_LIVE_QEMU_H

#include "vmm/qemu_tcg.h"
#include "vmm/qmp.h"

struct live_qemu {
	struct qmp *qmp; /**< NULL: an ordinary process */
	int pid;
	const struct rouse_observer *observer;
	struct qemu_tcg tcg;
	bool retranslated; /**< QEMU was made to read its guest's code again */
};

/**
 * Connects to the QEMU behind @socket and finds its process; with @socket NULL it is process @pid,
 * and no QEMU. To be closed also when it fails. -ESRCH: it runs where its process id is not known
 * (another pid namespace); errors of qmp_connect().
 */
int live_qemu_open(struct live_qemu *live, const char *socket, int pid,
	const struct rouse_observer *observer, struct rouse_error *error);
/** As qemu_tcg_begin(), until live_qemu_close(). Nothing for an ordinary process. */
void live_qemu_retranslate(struct live_qemu *live);
/** The same, for half a second only, by when it comes back: qemu_tcg_end_soon(). */
void live_qemu_retranslate_shortly(struct live_qemu *live);
/** Puts the translator back and closes the connection. */
void live_qemu_close(struct live_qemu *live);

#endif
