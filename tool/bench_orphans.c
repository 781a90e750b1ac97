/* SPDX-License-Identifier: MIT */
#include "bench_orphans.h"

#include <errno.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* What an orphan leaves becomes an orphan, too. */
#define GENERATIONS 8

static const struct bench_step kind_steps[] = {{0, 2000}, {SIGTERM, 5000}, {SIGKILL, 10000}};
static const struct bench_step hard_steps[] = {{SIGTERM, 2000}, {SIGKILL, 10000}};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Those that do not fit are not told. */
static unsigned int list_children(pid_t children[BENCH_MAX_CHILDREN])
{
	FILE *file = fopen("/proc/thread-self/children", "re");
	unsigned int count = 0;

	while (file != NULL && count < BENCH_MAX_CHILDREN &&
		fscanf(file, "%d", &children[count]) == 1) /* NOLINT(cert-err34-c) */
		count++;
	if (file != NULL)
		(void)fclose(file);
	return count;
}

int bench_orphans_begin(struct bench_orphans *orphans)
{
	orphans->count = list_children(orphans->before);
	return prctl(PR_SET_CHILD_SUBREAPER, 1) < 0 ? -errno : 0;
}

static bool is_ours(const struct bench_orphans *orphans, pid_t pid)
{
	for (unsigned int i = 0; i < orphans->count; i++) {
		if (orphans->before[i] == pid)
			return false;
	}
	/* So many that not all are known: no risk is taken. */
	return orphans->count < BENCH_MAX_CHILDREN && getsid(pid) != getsid(0);
}

static bool end_one(struct bench_signals *signals, pid_t pid, bool kindly)
{
	struct bench_process process;
	bool ended = bench_process_take(&process, pid) == 0 &&
		     bench_process_end(&process, signals, kindly ? kind_steps : hard_steps,
			     kindly ? COUNT(kind_steps) : COUNT(hard_steps));

	bench_process_close(&process);
	if (ended)
		(void)waitpid(pid, NULL, 0);
	return ended;
}

bool bench_orphans_end(
	const struct bench_orphans *orphans, struct bench_signals *signals, bool kindly)
{
	bool ended = true;

	for (int i = 0; i < GENERATIONS; i++) {
		pid_t children[BENCH_MAX_CHILDREN];
		const unsigned int count = list_children(children);
		unsigned int found = 0;

		for (unsigned int child = 0; child < count; child++) {
			if (!is_ours(orphans, children[child]))
				continue;
			found++;
			ended = end_one(signals, children[child], kindly) && ended;
		}
		if (found == 0 || !ended)
			break;
	}
	return ended;
}
