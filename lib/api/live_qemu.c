/* SPDX-License-Identifier: MIT */
#include "api/live_qemu.h"

#include "base/error.h"

#define CONNECT_TIMEOUT_MS 3000

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
	return 0;
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
