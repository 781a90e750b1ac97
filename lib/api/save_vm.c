/* SPDX-License-Identifier: MIT */
#include "api/save_vm.h"

#include "base/clock.h"

#include <poll.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* For a migration's end: QEMU's thread waits for the main loop's lock there, no longer. */
#define FINISH_TIMEOUT_MS 10000
#define FINISH_PAUSE_MS 10

int save_vm_get_state(struct qmp *qmp, struct save_vm_state *state, struct rouse_error *error)
{
	const char *name;
	json_t *status;
	int code = qmp_execute(qmp, "query-status", NULL, &status, error);

	if (code < 0)
		return code;
	name = json_string_value(json_object_get(status, "status"));
	if (name == NULL)
		name = "unknown";
	state->finishing = strcmp(name, "finish-migrate") == 0;
	state->running = json_is_true(json_object_get(status, "running"));
	state->paused = !state->running && !state->finishing && strcmp(name, "postmigrate") != 0 &&
			strcmp(name, "io-error") != 0;
	json_decref(status);
	return 0;
}

int save_vm_is_running(struct qmp *qmp, bool *running, struct rouse_error *error)
{
	struct save_vm_state state;
	int code = save_vm_get_state(qmp, &state, error);

	if (code == 0)
		*running = state.running;
	return code;
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
		struct save_vm_state state = {0};
		int code = save_vm_get_state(qmp, &state, error);

		if (code == 0 && !state.running)
			code = qmp_execute(qmp, "cont", NULL, NULL, error);
		if (code != -EREMOTEIO || !state.finishing || rouse_clock_us() > deadline_us)
			return code;
		(void)poll(NULL, 0, FINISH_PAUSE_MS);
	}
}

int save_vm_open_process(const struct qmp *qmp)
{
	const int pid = qmp_peer_pid(qmp);

	return pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
}

bool save_vm_wait_end(int process_fd, unsigned int timeout_ms)
{
	const uint64_t deadline_us = rouse_clock_us() + (uint64_t)timeout_ms * 1000;
	struct pollfd ended = {.fd = process_fd, .events = POLLIN};

	while (process_fd >= 0) {
		const uint64_t now_us = rouse_clock_us();
		const uint64_t left_us = now_us < deadline_us ? deadline_us - now_us : 0;

		if (poll(&ended, 1, (int)((left_us + 999) / 1000)) > 0)
			return true;
		if (left_us == 0)
			return false;
	}
	return false;
}
