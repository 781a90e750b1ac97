/* SPDX-License-Identifier: MIT */
#include "vmm/qemu_tcg.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/io.h"

#include <poll.h>
#include <string.h>

#define COMMAND_LINE_MAX (1u << 20)
#define READ_MS 500
/* A set without translated code is better than none after half a minute. */
#define REPLY_MS 5000u

bool qemu_tcg_is_logging(const char *arguments, size_t size)
{
	for (size_t at = 0; at < size; at += strnlen(arguments + at, size - at) + 1) {
		const char *word = arguments + at;
		const size_t length = strnlen(word, size - at);

		/* QEMU takes options with one dash and with two. */
		if ((length == 2 && memcmp(word, "-d", 2) == 0) ||
			(length == 3 && memcmp(word, "--d", 3) == 0))
			return true;
	}
	return false;
}

/* Not knowing counts as logging: then nothing is changed. */
static bool may_be_logging(int pid)
{
	cleanup_free char *arguments = NULL;
	char path[64];
	size_t size;

	(void)snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
	return pid <= 0 || rouse_io_read_file(path, COMMAND_LINE_MAX, &arguments, &size) < 0 ||
	       qemu_tcg_is_logging(arguments, size);
}

static int ask_translates(struct qmp *qmp, bool *translates, struct rouse_error *error)
{
	json_t *result;
	int code = qmp_execute_within(qmp, REPLY_MS, "query-kvm", NULL, &result, error);

	if (code < 0)
		return code;
	*translates = json_is_false(json_object_get(result, "enabled"));
	json_decref(result);
	return 0;
}

static int set_log(struct qmp *qmp, const char *command, struct rouse_error *error)
{
	json_t *result = NULL;
	int code = qmp_execute_within(qmp, REPLY_MS, "human-monitor-command",
		json_pack("{s:s}", "command-line", command), &result, error);
	const char *said = json_string_value(result);

	if (code == 0 && said != NULL && said[0] != '\0')
		code = rouse_error_set(
			error, ROUSE_ERROR_VMM, -EREMOTEIO, "QEMU does not take `%s`", command);
	json_decref(result);
	return code;
}

static void note_failure(
	const struct rouse_observer *observer, const char *what, const struct rouse_error *why)
{
	rouse_log(observer, ROUSE_LOG_WARNING, "%s: %s", what, why->message);
}

bool qemu_tcg_begin(struct qemu_tcg *tcg, struct qmp *qmp, const struct rouse_observer *observer)
{
	static const char missing[] =
		"code that QEMU has translated already will be missing in the working set";
	struct rouse_error why = {0};
	bool translates;
	int code = ask_translates(qmp, &translates, &why);

	*tcg = (struct qemu_tcg){0};
	if (code == 0 && !translates)
		return false;
	if (code == 0 && may_be_logging(qmp_peer_pid(qmp))) {
		rouse_log(observer, ROUSE_LOG_WARNING,
			"%s: it logs (-d), and that is left as it is", missing);
		return false;
	}
	if (code == 0) {
		code = set_log(qmp, "log nochain", &why);
		/* Unless QEMU refused, it may have been done, or will be. */
		tcg->qmp = code == -EREMOTEIO || code == -ENOSYS ? NULL : qmp;
	}
	if (code < 0)
		note_failure(observer, missing, &why);
	return code == 0;
}

void qemu_tcg_end(struct qemu_tcg *tcg, const struct rouse_observer *observer)
{
	struct rouse_error why = {0};
	struct qmp *qmp = take_ptr(&tcg->qmp);
	int code;

	if (qmp == NULL)
		return;
	qmp_ignore_cancel(qmp);
	code = set_log(qmp, "log none", &why);
	if (code < 0 && code != -EPIPE) /* a QEMU that is gone is left with nothing */
		note_failure(observer,
			"QEMU may be left with `log nochain`, which makes its VM slower: "
			"`log none` in its monitor ends that",
			&why);
	qmp_heed_cancel(qmp, observer);
}

void qemu_tcg_end_soon(struct qemu_tcg *tcg, const struct rouse_observer *observer)
{
	struct pollfd cancel = {.fd = rouse_observer_cancel_fd(observer), .events = POLLIN};

	if (tcg->qmp == NULL)
		return;
	(void)poll(&cancel, 1, READ_MS);
	qemu_tcg_end(tcg, observer);
}
