/* SPDX-License-Identifier: MIT */
#include "bench.h"

#include "bench_cold.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* A restore that is told to end cleans up behind it. */
static const struct bench_step end_steps[] = {{SIGTERM, 10000}, {SIGKILL, 10000}};
#define END_STEPS (sizeof(end_steps) / sizeof(end_steps[0]))
/* Before QEMU's own words. */
#define OPTIONS 16u

/* ---- The benchmark's own folder -------------------------------------------------------------- */

/* A socket's path is short, and a comma ends it in QEMU's options. */
static bool make_folder(struct bench *bench, const char *base)
{
	return base != NULL && base[0] == '/' && strchr(base, ',') == NULL &&
	       snprintf(bench->folder, sizeof(bench->folder), "%s/rouse-bench-XXXXXX", base) <
		       (int)sizeof(bench->folder) &&
	       mkdtemp(bench->folder) != NULL;
}

int bench_open(struct bench *bench)
{
	int code;

	if (!make_folder(bench, getenv("XDG_RUNTIME_DIR")) &&
		!make_folder(bench, getenv("TMPDIR")) && !make_folder(bench, "/tmp")) {
		message(MESSAGE_ERROR,
			"cannot make a folder for QEMU's monitor in "
			"$XDG_RUNTIME_DIR, $TMPDIR or /tmp: %s",
			strerror(errno));
		bench->folder[0] = '\0';
		return EXIT_FAILURE;
	}
	(void)snprintf(bench->monitor, sizeof(bench->monitor), "%s/qmp", bench->folder);
	code = bench_signals_begin(&bench->signals);
	/* Before those who are our children already are noted: it is none to be ended. */
	if (code == 0)
		code = bench_guard_begin(&bench->guard, bench->folder, bench->monitor);
	if (code == 0)
		code = bench_orphans_begin(&bench->orphans);
	if (code < 0)
		message(MESSAGE_ERROR, "cannot watch processes: %s", strerror(-code));
	return code < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

void bench_close(struct bench *bench)
{
	bench_signals_end(&bench->signals);
	if (bench->folder[0] == '\0')
		return;
	(void)unlink(bench->monitor);
	(void)rmdir(bench->folder);
	bench_guard_end(&bench->guard);
}

/* ---- One restore ----------------------------------------------------------------------------- */

static char **restore_argv(const struct bench *bench, const struct bench_way *way)
{
	const char *const options[] = {"rouse", "restore", "--json", "--quiet", "--policy",
		way->policy, "--monitor", bench->monitor};
	size_t count = 0, words = 0;
	char **argv;

	while (bench->command != NULL && bench->command[words] != NULL)
		words++;
	argv = calloc(OPTIONS + words, sizeof(*argv));
	if (argv == NULL)
		return NULL;
	/* execve(2) takes them without const, and leaves them alone. */
	for (; count < sizeof(options) / sizeof(options[0]); count++)
		argv[count] = (char *)(uintptr_t)options[count];
	if (way->storage->throttle[0] != '\0') {
		argv[count++] = (char *)(uintptr_t) "--throttle";
		argv[count++] = (char *)(uintptr_t)way->storage->throttle;
	}
	argv[count++] = (char *)(uintptr_t)bench->image;
	if (bench->command != NULL)
		argv[count++] = (char *)(uintptr_t) "--";
	for (size_t i = 0; i < words; i++)
		argv[count++] = bench->command[i];
	return argv;
}

/* The last line of what it said, without what messages begin with. */
static void last_words(int fd, char *text, size_t size)
{
	static const char begin[] = "rouse restore: ";
	char said[2048];
	const off_t end = lseek(fd, 0, SEEK_END);
	const off_t from = end > (off_t)sizeof(said) - 1 ? end - (off_t)sizeof(said) + 1 : 0;
	ssize_t n = pread(fd, said, sizeof(said) - 1, from);
	char *line;

	said[n > 0 ? n : 0] = '\0';
	while (n > 0 && said[n - 1] == '\n')
		said[--n] = '\0';
	line = strrchr(said, '\n');
	line = line != NULL ? line + 1 : said;
	if (strncmp(line, begin, strlen(begin)) == 0)
		line += strlen(begin);
	(void)snprintf(text, size, "%.*s", (int)size - 1, line);
}

static void explain(const struct bench *bench, const struct bench_process *process, int status,
	bool timely, struct bench_run *run)
{
	char *reason = run->reason;
	const size_t size = sizeof(run->reason);

	if (!timely) {
		(void)snprintf(
			reason, size, "it was not complete after %u s (--watch)", bench->watch_s);
	} else if (WIFSIGNALED(status)) {
		(void)snprintf(reason, size, "rouse restore was ended by signal %d: %s",
			WTERMSIG(status), strsignal(WTERMSIG(status)));
	} else {
		last_words(process->err, reason, size);
		if (reason[0] == '\0')
			(void)snprintf(
				reason, size, "rouse restore: exit code %d", WEXITSTATUS(status));
	}
}

/* Waits for its end, or brings it about. */
static void attend(struct bench *bench, const struct bench_process *process, struct bench_run *run)
{
	enum bench_wake wake =
		bench_process_wait(process, &bench->signals, (int)bench->watch_s * 1000);
	int status = 0;

	if (wake != BENCH_ENDED)
		(void)bench_process_end(process, &bench->signals, end_steps, END_STEPS);
	(void)waitpid(process->pid, &status, 0);
	if (wake == BENCH_SIGNAL || bench->signals.count > 0) {
		run->outcome = BENCH_INTERRUPTED;
		return;
	}
	if (wake == BENCH_ENDED && WIFEXITED(status) && WEXITSTATUS(status) == 0) {
		(void)lseek(process->out, 0, SEEK_SET);
		run->report = json_loadfd(process->out, 0, NULL);
		if (run->report != NULL)
			run->outcome = BENCH_MEASURED;
		else
			(void)snprintf(run->reason, sizeof(run->reason),
				"what rouse restore printed is no report");
		return;
	}
	explain(bench, process, status, wake == BENCH_ENDED, run);
}

static void restore_cold(struct bench *bench, struct bench_run *run)
{
	struct bench_process process = BENCH_NO_PROCESS;
	char **argv = restore_argv(bench, &run->way);
	int code = argv != NULL ? bench_process_start(&process, argv, &bench->signals) : -ENOMEM;
	const bool started = code == 0;
	bool ended, kindly;

	if (started)
		attend(bench, &process, run);
	else
		(void)snprintf(run->reason, sizeof(run->reason), "cannot start rouse restore: %s",
			strerror(-code));
	bench_process_close(&process);
	free(argv);
	if (!started)
		return;
	kindly = run->outcome == BENCH_MEASURED;
	ended = bench_qemu_end(&bench->signals, bench->monitor, kindly, &run->qemu);
	ended = bench_orphans_end(&bench->orphans, &bench->signals, kindly) && ended;
	if (!ended)
		message(MESSAGE_WARNING, "a process of %s, %s did not end, and is left",
			run->way.storage->name, run->way.policy);
}

void bench_restore(
	struct bench *bench, struct bench_way way, unsigned int round, struct bench_run *run)
{
	int code;

	*run = (struct bench_run){.way = way, .round = round, .outcome = BENCH_FAILED};
	code = bench_make_cold(bench->image, &run->cached_bytes);
	if (code < 0)
		(void)snprintf(run->reason, sizeof(run->reason),
			"cannot drop the image from the page cache: %s", strerror(-code));
	else
		restore_cold(bench, run);
}

void bench_run_finish(struct bench_run *run)
{
	json_decref(run->report);
	run->report = NULL;
}
