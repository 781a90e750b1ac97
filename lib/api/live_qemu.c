/* SPDX-License-Identifier: MIT */
#include "api/live_qemu.h"

#include "base/error.h"
#include "vmm/qemu_incoming.h"

#include <errno.h>
#include <string.h>

#define CONNECT_TIMEOUT_MS 3000

/*
 * A QEMU that awaits its VM registers its memory with a userfaultfd once pages come on demand. Ours
 * would be there before: its migration would fail, and the VM, which has left its source, be lost.
 */
static int check_has_vm(const struct live_qemu *live, struct rouse_error *error)
{
	char state[64];
	int code = qemu_incoming_run_state(live->qmp, state, sizeof(state), error);

	if (code == 0 && strcmp(state, "inmigrate") == 0)
		code = rouse_error_set(error, ROUSE_ERROR_REFUSED, -EBUSY,
			"that QEMU has no VM yet: a migration or a restore into it is under way, "
			"or "
			"awaited. Watch it when the VM runs");
	return code;
}

int live_qemu_open(struct live_qemu *live, const char *socket, int pid,
	const struct rouse_observer *observer, struct rouse_error *error)
{
	int code;

	*live = (struct live_qemu){.pid = pid, .observer = observer};
	if (socket == NULL)
		return 0;
	code = qmp_connect(socket, CONNECT_TIMEOUT_MS, observer, &live->qmp, error);
	if (code < 0)
		return code;
	live->pid = qmp_peer_pid(live->qmp);
	if (live->pid <= 0)
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -ESRCH,
			"QEMU's process id is not known here: use --pid");
	return check_has_vm(live, error);
}

void live_qemu_retranslate(struct live_qemu *live)
{
	live->retranslated =
		live->qmp != NULL && qemu_tcg_begin(&live->tcg, live->qmp, live->observer);
}

void live_qemu_retranslate_shortly(struct live_qemu *live)
{
	live_qemu_retranslate(live);
	qemu_tcg_end_soon(&live->tcg, live->observer);
}

void live_qemu_close(struct live_qemu *live)
{
	qemu_tcg_end(&live->tcg, live->observer);
	qmp_close(live->qmp);
	*live = (struct live_qemu){0};
}
