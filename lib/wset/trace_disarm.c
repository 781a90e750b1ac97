/* SPDX-License-Identifier: MIT */
/*
 * Ending a trace from anywhere, and cleaning up after a tracer that died. What is there is found in
 * /proc/PID/maps; nothing of ours need have survived.
 */
#include "base/cleanup.h"
#include "base/clock.h"
#include "wset/trace_private.h"

#include <dirent.h>
#include <string.h>
#include <sys/syscall.h>

#define WAIT_NS UINT64_C(60000000000)
#define NAP_NS 2000000

/* What an agent has left, or has. */
struct remains {
	struct target_agent agent; /* for target_agent_unload(); addresses 0: not there */
	struct trace_record record;
	bool any, has_record;
};

/* The mappings of the first agent that is found. */
static int look(struct target *target, struct remains *remains, struct rouse_error *error)
{
	cleanup_free struct target_map *maps = NULL;
	struct target_agent *agent = &remains->agent;
	size_t count;
	int code = target_maps(target, &maps, &count, error);

	*remains = (struct remains){.agent = {.fd = -1}};
	for (size_t i = 0; code == 0 && i < count; i++) {
		const struct target_map *map = &maps[i];

		if (!trace_is_agents(map) || (remains->any && map->inode != agent->inode))
			continue;
		remains->any = true;
		agent->inode = map->inode;
		if (map->execute) {
			agent->code_address = map->start;
			agent->code_bytes = map->end - map->start;
		} else {
			agent->data_address = map->start;
			agent->data_bytes = map->end - map->start;
		}
	}
	if (code < 0 || agent->data_address == 0)
		return code;
	if (target_read(target, agent->data_address, &remains->record, sizeof(remains->record)) < 0)
		return 0;
	/* A record of zeros: its tracer died before it wrote one. */
	remains->has_record = remains->record.magic != 0;
	if (remains->has_record &&
		trace_record_check(&remains->record, agent->code_bytes + agent->data_bytes) < 0)
		return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
			"process %d has a record of a trace that makes no sense: it is left alone",
			target_pid(target));
	return 0;
}

/* Tells the agent to end. It may not have come to listen yet, or not any more. */
static void tell_agent(const struct target *target, const struct remains *remains)
{
	cleanup_close int lifeline = -1;

	if (!remains->has_record || remains->record.lifeline[0] < 0)
		return;
	lifeline = trace_open_lifeline(target, remains->record.lifeline[0]);
	if (lifeline >= 0)
		trace_tell(lifeline);
}

static int check_waiting(const struct target *target, uint64_t limit_ns,
	const struct rouse_observer *observer, struct rouse_error *error)
{
	char state[64];

	if (!target_alive(target))
		return rouse_error_set(error, ROUSE_ERROR_SYSTEM, -ESRCH, "process %d has ended",
			target_pid(target));
	if (target_status(target, "State", state, sizeof(state)) == 0 && state[0] == 'T')
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EBUSY,
			"process %d is stopped: the trace ends, and nothing is lost, when it goes "
			"on (SIGCONT)",
			target_pid(target));
	if (rouse_cancelled(observer))
		return rouse_error_set(
			error, ROUSE_ERROR_CANCELLED, -ECANCELED, "disarming was cancelled");
	if (rouse_clock_ns() > limit_ns)
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EBUSY,
			"the trace in process %d does not end: try again", target_pid(target));
	return 0;
}

/* A descriptor that was made for the mappings, and not closed: its tracer died in between. */
static int close_files(struct target *target, struct rouse_error *error)
{
	static const char name[] = "/memfd:" TRACE_MEMFD_NAME " ";
	const struct dirent *entry;
	char path[64], link[64];
	int code = 0, directory;
	DIR *list;

	(void)snprintf(path, sizeof(path), "/proc/%d/fd", target_pid(target));
	list = opendir(path);
	if (list == NULL)
		return 0;
	directory = dirfd(list);
	while (code == 0 && (entry = readdir(list)) != NULL) {
		ssize_t size = readlinkat(directory, entry->d_name, link, sizeof(link));

		if (size > (ssize_t)strlen(name) && memcmp(link, name, strlen(name)) == 0) {
			const uint64_t arguments[6] = {strtoull(entry->d_name, NULL, 10)};
			int64_t result;

			code = target_call(target, SYS_close, arguments, NULL, 0, &result, error);
		}
	}
	(void)closedir(list);
	return code;
}

/*
 * One look with the process held: cleans up if nobody is at work there any more. 1: there is an
 * agent at work.
 */
static int clean_up(struct target *target, struct remains *remains, struct rouse_error *error)
{
	int code = target_stop(target, error);

	if (code < 0)
		return code;
	code = look(target, remains, error);
	if (code == 0) {
		/* Its first and last instructions run without a record, or without its name. */
		if (trace_find_thread(target) != 0 ||
			(remains->has_record && remains->record.tid != 0))
			code = 1;
		else
			code = target_agent_unload(target, &remains->agent, error);
		if (code == 0)
			code = close_files(target, error);
	}
	target_go(target);
	return code;
}

int trace_disarm(struct target *target, const struct rouse_observer *observer, bool *found,
	struct rouse_error *error)
{
	const uint64_t limit_ns = rouse_clock_ns() + WAIT_NS;

	*found = false;
	for (;;) {
		const struct timespec nap = {.tv_nsec = NAP_NS};
		struct remains remains;
		int code = look(target, &remains, error);

		if (code == 0 && remains.any) {
			tell_agent(target, &remains);
			code = check_waiting(target, limit_ns, observer, error);
		}
		/* Also if nothing is seen: a call may be under way that would make something. */
		if (code == 0)
			code = clean_up(target, &remains, error);
		if (code < 0)
			return code;
		*found |= remains.any;
		if (code == 0)
			return 0;
		(void)nanosleep(&nap, NULL);
	}
}
