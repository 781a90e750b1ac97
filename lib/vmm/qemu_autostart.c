/* SPDX-License-Identifier: MIT */
#include "vmm/qemu_autostart.h"

#include "base/cleanup.h"
#include "base/io.h"

#include <stdio.h>
#include <string.h>

#define COMMAND_LINE_MAX (1u << 20)

bool qemu_autostart_is_off(const char *arguments, size_t size)
{
	for (size_t at = 0; at < size; at += strnlen(arguments + at, size - at) + 1) {
		const char *word = arguments + at;
		const size_t length = strnlen(word, size - at);

		/* QEMU takes options with one dash and with two. */
		if ((length == 2 && memcmp(word, "-S", 2) == 0) ||
			(length == 3 && memcmp(word, "--S", 3) == 0))
			return true;
	}
	return false;
}

/* Not knowing counts as off: being asked for what it does anyway changes little. */
static bool may_be_off(pid_t pid)
{
	cleanup_free char *arguments = NULL;
	char path[64];
	size_t size;

	(void)snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
	return pid <= 0 || rouse_io_read_file(path, COMMAND_LINE_MAX, &arguments, &size) < 0 ||
	       size == 0 || qemu_autostart_is_off(arguments, size);
}

int qemu_autostart_ensure(struct qmp *qmp, pid_t pid, const struct rouse_observer *observer,
	struct rouse_error *error)
{
	struct rouse_error why = {0};
	int code;

	if (!may_be_off(pid > 0 ? pid : qmp_peer_pid(qmp)))
		return 0;
	code = qmp_execute(qmp, "cont", NULL, NULL, &why);
	/* A disk is in use, perhaps not for long: who waits for the VM to run tries again. */
	if (code == -EREMOTEIO) {
		rouse_log(observer, ROUSE_LOG_INFO, "%s", why.message);
		return 0;
	}
	if (code < 0 && error != NULL)
		*error = why;
	return code;
}
