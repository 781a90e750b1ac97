/* SPDX-License-Identifier: MIT */
#include "vmm/qemu_process.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/io.h"
#include "vmm/qemu_incoming.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define ADDED_ARGUMENTS 12
#define ADDED_TEXT 512

bool qemu_process_is_option(const char *argument, const char *name)
{
	if (argument[0] == '-' && argument[1] == '-')
		argument++;
	return argument[0] == '-' && strcmp(argument + 1, name) == 0;
}

/* How many arguments from here on belonged to an earlier restore or cannot be kept: 0, 1 or 2. */
static size_t unwanted(const char *const *argv)
{
	static const char *const ours[][2] = {
		{"chardev", "socket,id=rouse-"},
		{"mon", "chardev=rouse-"},
		{"global", "migration.x-postcopy-ram="},
	};

	/* With -S the VM would wait for a `cont`, and who is to send it may be killed before. */
	if (qemu_process_is_option(argv[0], "daemonize") || qemu_process_is_option(argv[0], "S"))
		return 1;
	if (argv[1] == NULL)
		return 0;
	if (qemu_process_is_option(argv[0], "incoming") ||
		qemu_process_is_option(argv[0], "loadvm"))
		return 2;
	for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
		if (qemu_process_is_option(argv[0], ours[i][0]) &&
			strncmp(argv[1], ours[i][1], strlen(ours[i][1])) == 0)
			return 2;
	}
	return 0;
}

char **qemu_process_argv(const struct qemu_process_config *config, int migration, int control)
{
	const char *const *from = config->argv;
	size_t count = 0, text_size = ADDED_TEXT + strlen(config->monitor);
	char **argv;
	char *text;

	while (from[count] != NULL)
		count++;
	argv = malloc((count + ADDED_ARGUMENTS + 1) * sizeof(*argv) + text_size);
	if (argv == NULL)
		return NULL;
	text = (char *)(argv + count + ADDED_ARGUMENTS + 1);
	count = 0;
	while (*from != NULL) {
		size_t skip = unwanted(from);

		if (skip == 0)
			argv[count++] = (char *)(uintptr_t)*from++;
		else
			from += skip;
	}

#define ADD(...)                                                    \
	do {                                                        \
		int used_ = snprintf(text, text_size, __VA_ARGS__); \
		argv[count++] = text;                               \
		text += used_ + 1;                                  \
		text_size -= (size_t)used_ + 1;                     \
	} while (0)
	ADD("-incoming");
	ADD("fd:%d", migration);
	ADD("-chardev");
	ADD("socket,id=rouse-control,fd=%d", control);
	ADD("-mon");
	ADD("chardev=rouse-control,mode=control");
	ADD("-chardev");
	ADD("socket,id=rouse-monitor,server=on,wait=off,path=%s", config->monitor);
	ADD("-mon");
	ADD("chardev=rouse-monitor,mode=control");
	if (config->postcopy) {
		ADD("-global");
		ADD("migration.x-postcopy-ram=on");
	}
#undef ADD
	argv[count] = NULL;
	return argv;
}

static int set_up_files(posix_spawn_file_actions_t *actions,
	const struct qemu_process_config *config, int log, int migration, int control)
{
	int failed = posix_spawn_file_actions_addopen(actions, 0, "/dev/null", O_RDONLY, 0);

	if (failed == 0)
		failed = posix_spawn_file_actions_adddup2(actions, log, 1);
	if (failed == 0)
		failed = posix_spawn_file_actions_adddup2(actions, log, 2);
	/* Onto themselves: that clears close-on-exec, in the child only. */
	if (failed == 0)
		failed = posix_spawn_file_actions_adddup2(actions, migration, migration);
	if (failed == 0)
		failed = posix_spawn_file_actions_adddup2(actions, control, control);
	if (failed == 0 && config->directory != NULL)
		failed = posix_spawn_file_actions_addchdir_np(actions, config->directory);
	return failed;
}

/* A session of its own: Ctrl-C at our terminal is not for the VM. */
static int set_up_attributes(posix_spawnattr_t *attributes)
{
	sigset_t none, defaults;
	int failed;

	(void)sigemptyset(&none);
	(void)sigemptyset(&defaults);
	(void)sigaddset(&defaults, SIGPIPE);
	(void)sigaddset(&defaults, SIGXFSZ);
	(void)sigaddset(&defaults, SIGHUP);
	failed = posix_spawnattr_setflags(
		attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	if (failed == 0)
		failed = posix_spawnattr_setsigmask(attributes, &none);
	if (failed == 0)
		failed = posix_spawnattr_setsigdefault(attributes, &defaults);
	return failed;
}

static int spawn(const struct qemu_process_config *config, char **argv, int log, int migration,
	int control, pid_t *pid)
{
	const char *program = config->executable != NULL ? config->executable : argv[0];
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	int failed = posix_spawn_file_actions_init(&actions);

	if (failed != 0)
		return -failed;
	failed = posix_spawnattr_init(&attributes);
	if (failed == 0) {
		failed = set_up_files(&actions, config, log, migration, control);
		if (failed == 0)
			failed = set_up_attributes(&attributes);
		if (failed == 0)
			failed = posix_spawnp(pid, program, &actions, &attributes, argv, environ);
		(void)posix_spawnattr_destroy(&attributes);
	}
	(void)posix_spawn_file_actions_destroy(&actions);
	return -failed;
}

int qemu_process_start(const struct qemu_process_config *config, struct qemu_process *process,
	struct rouse_error *error)
{
	cleanup_close int migration = -1;
	cleanup_close int control = -1;
	cleanup_free char **argv = NULL;
	int code;

	*process = QEMU_PROCESS_INIT;
	code = qemu_incoming_socketpair(&process->migration, &migration, error);
	if (code == 0)
		code = qemu_incoming_socketpair(&process->control, &control, error);
	if (code < 0) {
		qemu_process_finish(process);
		return code;
	}
	process->log = memfd_create("rouse-qemu-log", MFD_CLOEXEC);
	argv = qemu_process_argv(config, migration, control);
	if (process->log < 0 || argv == NULL)
		code = -ENOMEM;
	else
		code = spawn(config, argv, process->log, migration, control, &process->pid);
	if (code < 0) {
		process->pid = 0;
		qemu_process_finish(process);
		return rouse_error_errno(error, code, "cannot start %s",
			config->executable != NULL ? config->executable : config->argv[0]);
	}
	return 0;
}

void qemu_process_last_words(const struct qemu_process *process, char *text, size_t size)
{
	off_t end = process->log >= 0 ? lseek(process->log, 0, SEEK_CUR) : 0;
	off_t from = end > (off_t)size - 1 ? end - (off_t)size + 1 : 0;
	ssize_t n = 0;

	if (end > 0)
		n = pread(process->log, text, (size_t)(end - from), from);
	if (n < 0)
		n = 0;
	text[n] = '\0';
	while (n > 0 && text[n - 1] == '\n')
		text[--n] = '\0';
	for (char *c = text; *c != '\0'; c++) {
		if ((unsigned char)*c < ' ')
			*c = ' ';
	}
}

void qemu_process_kill(struct qemu_process *process)
{
	if (process->pid <= 0)
		return;
	(void)kill(process->pid, SIGKILL);
	while (waitpid(process->pid, NULL, 0) < 0 && errno == EINTR)
		;
	process->pid = 0;
}

void qemu_process_finish(struct qemu_process *process)
{
	cleanup_close_fn(&process->control);
	cleanup_close_fn(&process->migration);
	cleanup_close_fn(&process->log);
	process->control = -1;
	process->migration = -1;
	process->log = -1;
}
