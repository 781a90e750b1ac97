/* SPDX-License-Identifier: MIT */
#include "api/save_describe.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/io.h"

#include <limits.h>
#include <string.h>
#include <time.h>

#define COMMAND_LINE_MAX (512u << 10)

static char *process_link(int pid, const char *name)
{
	char path[64], target[PATH_MAX];
	ssize_t size;

	(void)snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	size = readlink(path, target, sizeof(target) - 1);
	if (size <= 0)
		return NULL;
	target[size] = '\0';
	return strdup(target);
}

/* The arguments, each with its NUL behind it, as an array. */
static int split_arguments(const char *text, size_t size, struct rouse_metadata *metadata)
{
	size_t count = 0;

	for (size_t i = 0; i < size; i++)
		count += text[i] == '\0';
	if (count == 0 || count > ROUSE_METADATA_MAX_ARGUMENTS)
		return -EINVAL;
	metadata->command_line = calloc(count + 1, sizeof(*metadata->command_line));
	if (metadata->command_line == NULL)
		return -ENOMEM;
	for (size_t at = 0; at < size; at += strlen(text + at) + 1) {
		char *argument = strdup(text + at);

		if (argument == NULL)
			return -ENOMEM;
		metadata->command_line[metadata->argument_count++] = argument;
	}
	return 0;
}

static int read_command_line(int pid, struct rouse_metadata *metadata)
{
	cleanup_free char *text = NULL;
	char path[64];
	size_t size;
	int code;

	if (pid <= 0)
		return -ESRCH;
	(void)snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
	code = rouse_io_read_file(path, COMMAND_LINE_MAX, &text, &size);
	if (code < 0)
		return code;
	if (size == 0 || text[size - 1] != '\0')
		return -EINVAL;
	return split_arguments(text, size, metadata);
}

/* What `-m` and plugged DIMMs give; a restore compares it with the QEMU that it finds. */
static int read_memory_size(
	struct qmp *qmp, struct rouse_metadata *metadata, struct rouse_error *error)
{
	json_t *summary;
	int code = qmp_execute(qmp, "query-memory-size-summary", NULL, &summary, error);

	if (code < 0)
		return code;
	metadata->memory_bytes =
		(uint64_t)json_integer_value(json_object_get(summary, "base-memory")) +
		(uint64_t)json_integer_value(json_object_get(summary, "plugged-memory"));
	json_decref(summary);
	return 0;
}

static char *time_now(void)
{
	char text[32];
	time_t now = time(NULL);
	struct tm utc;

	(void)gmtime_r(&now, &utc);
	(void)strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &utc);
	return strdup(text);
}

int save_describe(struct qmp *qmp, const struct rouse_observer *observer,
	struct rouse_metadata *metadata, struct rouse_error *error)
{
	int pid = qmp_peer_pid(qmp);
	json_t *cpus;
	int code = qmp_execute(qmp, "query-cpus-fast", NULL, &cpus, error);

	if (code < 0)
		return code;
	metadata->vcpus = (unsigned int)json_array_size(cpus);
	json_decref(cpus);
	code = read_memory_size(qmp, metadata, error);
	if (code < 0)
		return code;
	metadata->vmm = strdup("qemu");
	metadata->qemu_version = strdup(qmp_version(qmp));
	metadata->saved_at = time_now();
	code = read_command_line(pid, metadata);
	if (code == -ENOMEM)
		return rouse_error_errno(error, code, "cannot keep QEMU's command line");
	if (code == 0) {
		metadata->cwd = process_link(pid, "cwd");
		metadata->executable = process_link(pid, "exe");
	} else {
		rouse_log(observer, ROUSE_LOG_WARNING,
			"QEMU's command line cannot be read (%s): to restore the image it must be "
			"given",
			strerrordesc_np(-code));
	}
	return 0;
}

/* Run states in which vCPUs stand still as they do in one that was paused. */
static bool state_is_paused(const char *state)
{
	return strcmp(state, "paused") == 0 || strcmp(state, "prelaunch") == 0 ||
	       strcmp(state, "debug") == 0;
}

static int error_state(const char *state, struct rouse_error *error)
{
	if (strcmp(state, "postmigrate") == 0)
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EBUSY,
			"the VM's state has been sent already (run state postmigrate): QEMU sends "
			"it again only after `cont`");
	if (strcmp(state, "inmigrate") == 0)
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EBUSY,
			"the VM is being restored: save it when it runs");
	return rouse_error_set(error, ROUSE_ERROR_REFUSED, -ENOTSUP,
		"the VM's run state is '%s': only a running or paused VM can be saved", state);
}

int save_check_state(struct qmp *qmp, bool *running, struct rouse_error *error)
{
	const char *state;
	json_t *status;
	int code = qmp_execute(qmp, "query-status", NULL, &status, error);

	if (code < 0)
		return code;
	state = json_string_value(json_object_get(status, "status"));
	if (state == NULL)
		state = "unknown";
	*running = strcmp(state, "running") == 0;
	if (!*running && !state_is_paused(state))
		code = error_state(state, error);
	json_decref(status);
	return code;
}
