/* SPDX-License-Identifier: MIT */
/* The tracer: starts the agent, waits, reads what it found. */
#include "base/cleanup.h"
#include "base/clock.h"
#include "wset/trace_private.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>

/* Made by scripts/make-agent.py out of trace_agent.c. */
#include <trace_agent_code.h>

/* The agent ends the trace by itself so much later than it should have been told to. */
#define DEADLINE_SPARE_NS UINT64_C(30000000000)
#define DEATH_TIMEOUT_MS 1000
/* What the agent does between two looks around takes milliseconds; when it waits, a second. */
#define SILENCE_S 20
#define ALIGN_PAGE(bytes_) (((bytes_) + TRACE_PAGE - 1) / TRACE_PAGE * TRACE_PAGE)

struct trace {
	struct target *target;
	const struct rouse_observer *observer;
	struct target_agent agent;
	struct trace_record *record;  /* in the agent's memory */
	struct trace_record laid_out; /* what it was at first: the process cannot change this */
	struct trace_record end;      /* a copy, of when it had ended */
	uint64_t pages;
	int lifeline; /* its closing ends the trace */
	uint64_t stop_ns;
	struct trace_touch *touches;
	size_t touch_count;
};

static int check_ranges(const struct trace_range *ranges, uint32_t count, uint64_t *pages,
	struct rouse_error *error)
{
	*pages = 0;
	if (count == 0 || count > TRACE_MAX_AREAS)
		return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
			"%u mappings cannot be traced: 1 to %u can", count, TRACE_MAX_AREAS);
	for (uint32_t i = 0; i < count; i++) {
		const struct trace_range *range = &ranges[i];

		if (range->bytes == 0 || range->bytes % TRACE_PAGE != 0 ||
			range->address % TRACE_PAGE != 0 ||
			range->address + range->bytes < range->address)
			return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
				"memory to trace must be in whole pages");
		*pages += range->bytes / TRACE_PAGE;
		for (uint32_t j = 0; j < i; j++) {
			if (range->address < ranges[j].address + ranges[j].bytes &&
				ranges[j].address < range->address + range->bytes)
				return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
					"memory to trace is named twice");
		}
		if (*pages > TRACE_MAX_PAGES)
			return rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, -EINVAL,
				"more than 1 TiB cannot be traced");
	}
	return 0;
}

/* Where everything is in the agent's data; the sum of it. */
static size_t lay_out(struct trace_record *record, uint32_t count, uint64_t pages)
{
	const uint64_t bitmap = ALIGN_PAGE((pages + 63) / 64 * 8);
	uint64_t at = ALIGN_PAGE(sizeof(*record)) + TRACE_STACK_BYTES;

	record->area_count = count;
	record->area_room = count + TRACE_SPARE_AREAS;
	record->areas_offset = at;
	at += ALIGN_PAGE(record->area_room * sizeof(struct trace_area));
	record->gone_offset = at;
	at += bitmap;
	record->seen_offset = at;
	at += bitmap;
	record->log_offset = at;
	record->log_room = pages;
	record->pages = pages;
	at += ALIGN_PAGE(pages * sizeof(struct trace_entry));
	return at + trace_child_bytes(pages, count + TRACE_ENDING_AREAS);
}

static void fill_record(struct trace *trace, const struct trace_record *layout,
	const struct trace_range *ranges, uint64_t limit_us)
{
	const struct target_agent *agent = &trace->agent;
	struct trace_record *record = trace->record;
	struct trace_area *areas = (void *)(agent->data + layout->areas_offset);
	uint64_t first = 0;

	trace->laid_out = *layout;
	trace->laid_out.version = TRACE_VERSION;
	trace->laid_out.lifeline[0] = trace->laid_out.lifeline[1] = -1;
	trace->laid_out.uffd[0] = trace->laid_out.uffd[1] = -1;
	trace->laid_out.code_address = agent->code_address;
	trace->laid_out.code_bytes = agent->code_bytes;
	trace->laid_out.data_address = agent->data_address;
	trace->laid_out.data_bytes = agent->data_bytes;
	trace->laid_out.deadline_ns = rouse_clock_ns() + limit_us * 1000 + DEADLINE_SPARE_NS;
	*record = trace->laid_out;
	for (uint32_t i = 0; i < layout->area_count; i++) {
		areas[i] = (struct trace_area){
			.ram = ranges[i].address,
			.bytes = ranges[i].bytes,
			.first_page = first,
			.kind = ranges[i].shared ? TRACE_KIND_SHARED : TRACE_KIND_PRIVATE,
			.dont_fork = ranges[i].dont_fork,
		};
		first += ranges[i].bytes / TRACE_PAGE;
	}
	/* Last: a record is whole, or is none. */
	__atomic_store_n(&record->magic, TRACE_MAGIC, __ATOMIC_SEQ_CST);
}

/* An earlier trace that runs on, or has left something. */
static int check_alone(const struct target *target, struct rouse_error *error)
{
	cleanup_free struct target_map *maps = NULL;
	size_t count;
	int code = target_maps(target, &maps, &count, error);

	for (size_t i = 0; code == 0 && i < count; i++) {
		if (trace_is_agents(&maps[i]))
			return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EALREADY,
				"process %d is being traced, or was and is not cleaned up: "
				"rouse trace --disarm --pid %d",
				target_pid(target), target_pid(target));
	}
	return code;
}

/* Puts the agent into the process and lets it begin. One thread of the process stands still. */
static int insert_agent(struct trace *trace, const struct trace_range *ranges, uint32_t count,
	uint64_t limit_us, struct rouse_error *error)
{
	struct trace_record layout = {0};
	const size_t bytes = lay_out(&layout, count, trace->pages);
	uint64_t began_ns;
	int code = target_stop(trace->target, error);

	if (code < 0)
		return code;
	began_ns = rouse_clock_ns();
	code = check_alone(trace->target, error);
	if (code == 0)
		code = target_agent_load(trace->target, TRACE_MEMFD_NAME, trace_agent_code,
			sizeof(trace_agent_code), bytes, &trace->agent, error);
	if (code == 0) {
		/* All its memory now: the agent must never wait for any, or die of the lack. */
		code = -posix_fallocate(trace->agent.fd, 0,
			(off_t)(trace->agent.code_bytes + trace->agent.data_bytes));
		if (code < 0)
			(void)rouse_error_errno(error, code, "cannot get memory for the trace");
		trace->record = (void *)trace->agent.data;
		fill_record(trace, &layout, ranges, limit_us);
		if (code == 0)
			code = target_agent_start(trace->target, &trace->agent,
				ALIGN_PAGE(sizeof(layout)) + TRACE_STACK_BYTES,
				offsetof(struct trace_record, tid), error);
		if (code < 0)
			(void)target_agent_unload(trace->target, &trace->agent, NULL);
	}
	target_go(trace->target);
	trace->stop_ns = rouse_clock_ns() - began_ns;
	return code;
}

static bool is_done(const struct trace *trace)
{
	const uint32_t state = trace_load(&trace->record->state);

	return state == TRACE_STATE_DONE || state == TRACE_STATE_FAILED;
}

static bool is_stopped(const struct trace *trace)
{
	char value[64];

	return target_status(trace->target, "State", value, sizeof(value)) == 0 && value[0] == 'T';
}

/* It cannot run: the agent in it will clean up alone. */
static int refuse_stopped(const struct trace *trace, struct rouse_error *error)
{
	return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EBUSY,
		"process %d is stopped: the trace ends, and nothing is lost, when it goes on "
		"(SIGCONT)",
		target_pid(trace->target));
}

/* How long the agent has not come round. Zeros at first. */
struct silence {
	uint32_t beats;
	uint64_t since_ns;
};

static bool is_silent(const struct trace *trace, struct silence *silence)
{
	const uint32_t beats = trace_load(&trace->record->beats);
	const uint64_t ns = rouse_clock_ns();

	if (silence->since_ns == 0 || beats != silence->beats)
		*silence = (struct silence){.beats = beats, .since_ns = ns};
	return ns - silence->since_ns > SILENCE_S * UINT64_C(1000000000);
}

/* It goes on by itself if it can, and cleans up alone. */
static int refuse_silent(const struct trace *trace, struct rouse_error *error)
{
	return rouse_error_set(error, ROUSE_ERROR_REFUSED, -ETIMEDOUT,
		"the trace in process %d has not moved for %d s: the process gets no processor or "
		"memory, or a device (VFIO, io_uring) pins what is to be moved. When that is over "
		"the trace ends by itself, and nothing is lost: rouse trace --disarm --pid %d",
		target_pid(trace->target), SILENCE_S, target_pid(trace->target));
}

/* The agent has not begun to wait for us, or not got so far; whether to go on waiting. */
static int still_coming(const struct trace *trace, struct rouse_error *error)
{
	if (!target_alive(trace->target))
		return rouse_error_set(error, ROUSE_ERROR_SYSTEM, -ESRCH, "process %d has ended",
			target_pid(trace->target));
	if (rouse_cancelled(trace->observer))
		return rouse_error_set(
			error, ROUSE_ERROR_CANCELLED, -ECANCELED, "the trace was cancelled");
	return is_stopped(trace) ? refuse_stopped(trace, error) : 0;
}

static int take_lifeline(struct trace *trace, struct rouse_error *error)
{
	int code;

	while (trace_load(&trace->record->state) == TRACE_STATE_BEGIN) {
		code = still_coming(trace, error);
		if (code < 0)
			return code;
		trace_sleep(&trace->record->state, TRACE_STATE_BEGIN);
	}
	if (trace_load(&trace->record->state) != TRACE_STATE_WAITING)
		return 0; /* it failed: that is told later */
	trace->lifeline = trace_open_lifeline(trace->target, trace->record->lifeline[1]);
	if (trace->lifeline < 0)
		return rouse_error_errno(
			error, trace->lifeline, "cannot hold the trace's lifeline");
	__atomic_store_n(&trace->record->taken, 1, __ATOMIC_SEQ_CST);
	trace_wake(&trace->record->taken);
	return 0;
}

static int explain_features(int32_t code, struct rouse_error *error)
{
	if (code == -EPERM)
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EPERM,
			"the process could fork, and has not the privilege (CAP_SYS_PTRACE) that "
			"following its children takes");
	return rouse_error_set(error, ROUSE_ERROR_REFUSED, -ENOTSUP,
		"this kernel's userfaultfd cannot do it (private memory: Linux 6.8 or later; "
		"shared memory: 5.14 or later)");
}

/* What the agent failed at. */
static int explain(const struct trace_record *record, struct rouse_error *error)
{
	const int32_t code = record->failed_code;

	switch ((enum trace_step)record->failed_step) {
	case TRACE_STEP_USERFAULTFD:
		if (code == -EPERM)
			return rouse_error_set(error, ROUSE_ERROR_REFUSED, code,
				"the process may not use userfaultfd: set "
				"vm.unprivileged_userfaultfd=1, or run it with CAP_SYS_PTRACE");
		return rouse_error_errno(error, code, "cannot use userfaultfd");
	case TRACE_STEP_FEATURES:
		return explain_features(code, error);
	case TRACE_STEP_REGISTER:
		if (code == -EBUSY)
			return rouse_error_set(error, ROUSE_ERROR_REFUSED, code,
				"the memory has a userfaultfd already: QEMU is in a postcopy "
				"migration or background-snapshot, or another tool has it");
		return rouse_error_errno(error, code < 0 ? code : -EIO, "cannot watch the memory");
	case TRACE_STEP_UNMAP:
		return rouse_error_errno(
			error, code < 0 ? code : -EIO, "cannot unmap the memory (is it locked?)");
	case TRACE_STEP_SCRATCH:
		return rouse_error_errno(error, code < 0 ? code : -EIO,
			"the process has no address space to move its memory to");
	default:
		return rouse_error_errno(
			error, code < 0 ? code : -EIO, "the trace could not be started");
	}
}

static int wait_armed(const struct trace *trace, struct rouse_error *error)
{
	struct silence silence = {0};

	for (;;) {
		const uint32_t state = trace_load(&trace->record->state);
		int code;

		if (state == TRACE_STATE_TRACING)
			return 0;
		if (state == TRACE_STATE_FAILED || trace->record->failed_step != TRACE_STEP_NONE)
			return explain(trace->record, error);
		if (state == TRACE_STATE_DONE)
			return rouse_error_set(error, ROUSE_ERROR_REFUSED, -ECANCELED,
				"the trace was ended by somebody else");
		code = still_coming(trace, error);
		if (code == 0 && is_silent(trace, &silence))
			code = refuse_silent(trace, error);
		if (code < 0)
			return code;
		trace_sleep(&trace->record->state, state);
	}
}

int trace_start(struct target *target, const struct trace_range *ranges, uint32_t count,
	uint64_t limit_us, const struct rouse_observer *observer, struct trace **trace,
	struct rouse_error *error)
{
	struct trace *t;
	uint64_t pages;
	int code = check_ranges(ranges, count, &pages, error);

	if (code < 0)
		return code;
	t = calloc(1, sizeof(*t));
	if (t == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot trace");
	*t = (struct trace){.target = target,
		.observer = observer,
		.agent = {.fd = -1},
		.pages = pages,
		.lifeline = -1};
	code = insert_agent(t, ranges, count, limit_us, error);
	if (code < 0 || t->record == NULL) {
		target_agent_finish(&t->agent);
		free(t);
		return code < 0 ? code : -EIO;
	}
	code = take_lifeline(t, error);
	if (code == 0)
		code = wait_armed(t, error);
	if (code < 0) {
		(void)trace_stop(t, NULL);
		trace_free(t);
		return code;
	}
	*trace = t;
	return 0;
}

/*
 * The agent is gone. One that did not come to its end went with the process, which may take a
 * moment to be seen; or the process executes another program.
 */
static int was_ended(const struct trace *trace, struct rouse_error *error)
{
	struct pollfd ended = {.fd = target_pidfd(trace->target), .events = POLLIN};
	int code = 0;

	if (!is_done(trace) && poll(&ended, 1, DEATH_TIMEOUT_MS) > 0)
		code = still_coming(trace, error);
	return code < 0 ? code : 1;
}

int trace_wait(struct trace *trace, uint64_t us, struct rouse_error *error)
{
	const uint64_t end_us = rouse_clock_us() + us;

	for (;;) {
		struct pollfd fds[] = {
			{.fd = trace->lifeline, .events = 0}, /* POLLERR: nobody reads it */
			{.fd = target_pidfd(trace->target), .events = POLLIN},
			{.fd = rouse_observer_cancel_fd(trace->observer), .events = POLLIN},
		};
		const uint64_t now_us = rouse_clock_us();
		const uint64_t left_ms = now_us < end_us ? (end_us - now_us + 999) / 1000 : 0;

		if (left_ms == 0)
			return 0;
		rouse_progress_in(trace->observer, ROUSE_PROGRESS_MICROSECONDS, "tracing",
			us - (end_us - now_us), us);
		if (poll(fds, 3, left_ms < 200 ? (int)left_ms : 200) < 0 && errno != EINTR)
			return rouse_error_errno(error, -errno, "cannot wait");
		if (fds[1].revents != 0 || fds[2].revents != 0)
			return still_coming(trace, error);
		if (fds[0].revents != 0 || trace_load(&trace->record->tid) == 0 || is_done(trace))
			return was_ended(trace, error);
	}
}

static int read_log(struct trace *trace, struct rouse_error *error)
{
	const struct trace_entry *log = (void *)(trace->agent.data + trace->laid_out.log_offset);
	const uint64_t count = trace->end.log_count;

	/*
	 * The process could have changed the record. That it makes sense in itself is not enough:
	 * only the data is mapped here.
	 */
	if (trace_record_check_end(&trace->end, &trace->laid_out) < 0)
		return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
			"the trace's record was changed by the process");
	trace->touches = calloc(count > 0 ? count : 1, sizeof(*trace->touches));
	if (trace->touches == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot read the trace");
	for (uint64_t i = 0; i < count; i++) {
		/* Once: the process may still have the memory somewhere, and change it. */
		const uint32_t word = trace_load(&log[i].page);
		const uint32_t page = word & ~TRACE_ENTRY_WRITE;

		if (page < trace->pages)
			trace->touches[trace->touch_count++] = (struct trace_touch){.page = page,
				.ns = log[i].ns,
				.tid = log[i].tid,
				.write = (word & TRACE_ENTRY_WRITE) != 0};
	}
	return 0;
}

/*
 * Waits until the agent has put everything back, or, if @gone, until its thread has ended: then the
 * kernel clears its number. -ESRCH; -EBUSY: the process is stopped; -ETIMEDOUT: the agent does not
 * get on.
 */
static int wait_ended(struct trace *trace, bool gone)
{
	struct trace_record *record = trace->record;
	struct silence silence = {0};

	for (;;) {
		const uint32_t tid = trace_load(&record->tid), state = trace_load(&record->state);

		if (tid == 0 || (!gone && is_done(trace)))
			return 0;
		if (!target_alive(trace->target))
			return -ESRCH;
		if (is_stopped(trace))
			return -EBUSY;
		if (is_silent(trace, &silence))
			return -ETIMEDOUT;
		if (gone)
			trace_sleep(&record->tid, tid);
		else
			trace_sleep(&record->state, state);
	}
}

/* Lets the agent go, and takes out what it leaves. */
static void clean_up(struct trace *trace)
{
	struct rouse_error why = {.message = "its thread does not end"};
	int code;

	if (trace->lifeline >= 0)
		(void)close(take_fd(&trace->lifeline));
	code = wait_ended(trace, true);
	if (code == 0)
		code = target_stop(trace->target, &why);
	if (code == 0)
		code = target_agent_unload(trace->target, &trace->agent, &why);
	target_go(trace->target);
	if (code < 0 && code != -ESRCH)
		rouse_log(trace->observer, ROUSE_LOG_WARNING,
			"some KiB of the trace stay in process %d (%s): rouse trace --disarm --pid "
			"%d takes them out",
			target_pid(trace->target), why.message, target_pid(trace->target));
}

/* The agent waits meanwhile, but not for ever, and leaves no log to read when it goes. */
static int read_end(struct trace *trace, struct rouse_error *error)
{
	int code;

	trace->end = *trace->record;
	code = read_log(trace, error);
	if (code == 0 && trace_load(&trace->record->emptied) != 0)
		code = rouse_error_set(error, ROUSE_ERROR_REFUSED, -ECANCELED,
			"the trace was ended by somebody else, and its log is gone");
	return code;
}

int trace_stop(struct trace *trace, struct rouse_error *error)
{
	int code;

	if (trace->lifeline >= 0)
		trace_tell(trace->lifeline);
	code = wait_ended(trace, false);
	if (code == 0 && !target_alive(trace->target))
		code = -ESRCH;
	if (code == 0) {
		code = read_end(trace, error);
		clean_up(trace);
		return code;
	}
	/* The agent cleans up alone, when it can. */
	if (trace->lifeline >= 0)
		(void)close(take_fd(&trace->lifeline));
	if (code == -EBUSY)
		return refuse_stopped(trace, error);
	if (code == -ETIMEDOUT)
		return refuse_silent(trace, error);
	return rouse_error_set(
		error, ROUSE_ERROR_SYSTEM, code, "process %d has ended", target_pid(trace->target));
}

const struct trace_touch *trace_touches(const struct trace *trace, size_t *count)
{
	*count = trace->touch_count;
	return trace->touches;
}

void trace_get_report(const struct trace *trace, struct trace_report *report)
{
	const struct trace_record *end = &trace->end;

	*report = (struct trace_report){
		.stop_ns = trace->stop_ns,
		.arm_ns = end->arm_end_ns - end->arm_begin_ns,
		.arm_pause_ns = end->arm_gap_ns,
		.disarm_ns = end->disarm_end_ns - end->disarm_begin_ns,
		.disarm_pause_ns = end->disarm_gap_ns,
		.armed_at_ns = end->arm_end_ns,
		.ended_at_ns = end->disarm_begin_ns,
		.faults = end->counters.faults,
		.service_ns = end->counters.service_ns,
		.pages = trace->pages,
		.skipped = end->counters.skipped,
		.copied = end->counters.copied,
		.removed = end->counters.removed,
		.forks = end->counters.forks,
		.remaps = end->counters.remaps,
		.lost = end->counters.lost,
	};
}

void trace_free(struct trace *trace)
{
	if (trace == NULL)
		return;
	if (trace->lifeline >= 0)
		(void)close(trace->lifeline);
	target_agent_finish(&trace->agent);
	free(trace->touches);
	free(trace);
}
