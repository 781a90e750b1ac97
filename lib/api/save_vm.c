/* SPDX-License-Identifier: MIT */
#include "api/save_vm.h"

#include "base/clock.h"

#include <poll.h>
#include <string.h>

/* For a migration's end: QEMU's thread waits for the main loop's lock there, no longer. */
#define FINISH_TIMEOUT_MS 10000
#define FINISH_PAUSE_MS 10

/* *finishing: a migration is at its end, and nobody else may start the VM. */
static int query(struct qmp *qmp, bool *running, bool *finishing, struct rouse_error *error)
{
	const char *state;
	json_t *status;
	int code = qmp_execute(qmp, "query-status", NULL, &status, error);

	if (code < 0)
		return code;
	state = json_string_value(json_object_get(status, "status"));
	*finishing = state != NULL && strcmp(state, "finish-migrate") == 0;
	*running = json_is_true(json_object_get(status, "running"));
	json_decref(status);
	return 0;
}

int save_vm_is_running(struct qmp *qmp, bool *running, struct rouse_error *error)
{
	bool finishing;

	return query(qmp, running, &finishing, error);
}

/*
 * 7.2 starts it by itself after a background snapshot's begin. And a migration that has failed, as
 * query-migrate says, may not be over: its thread still has to get the lock to leave
 * finish-migrate, in which QEMU refuses `cont`. Then it lets the VM run by itself, or leaves it in
 * postmigrate if we had stopped it: so ask again.
 */
int save_vm_continue(struct qmp *qmp, struct rouse_error *error)
{
	const uint64_t deadline_us = rouse_clock_us() + (uint64_t)FINISH_TIMEOUT_MS * 1000;

	for (;;) {
		bool running = false, finishing = false;
		int code = query(qmp, &running, &finishing, error);

		if (code == 0 && !running)
			code = qmp_execute(qmp, "cont", NULL, NULL, error);
		if (code != -EREMOTEIO || !finishing || rouse_clock_us() > deadline_us)
			return code;
		(void)poll(NULL, 0, FINISH_PAUSE_MS);
	}
}
