/* SPDX-License-Identifier: MIT */
#include "agent_probe.h"

/* Its place is taken below. */
#define control control_kernel
#include "wset/trace_agent.h"
#undef control

#include <stdlib.h>

static struct agent_probe *current;

static uint64_t moved_by(uint64_t request, const void *argument, int64_t result)
{
	const struct uffdio_move *move = argument;

	if (request != UFFDIO_MOVE)
		return 0;
	if (result == 0)
		return move->len;
	return move->move > 0 ? (uint64_t)move->move : 0;
}

static struct agent_probe_call describe(int fd, uint64_t request, const void *argument)
{
	/* All others begin with a range. */
	const struct uffdio_range *range = argument;
	const struct uffdio_move *move = argument;
	const struct uffdio_copy *copy = argument;
	struct agent_probe_call call = {
		.request = request, .is_move = request == UFFDIO_MOVE, .fd = fd};

	if (request == UFFDIO_MOVE) {
		call.address = move->src;
		call.bytes = move->len;
	} else if (request == UFFDIO_COPY) {
		call.address = copy->dst;
		call.bytes = copy->len;
	} else if (request != UFFDIO_API) {
		call.address = range->start;
		call.bytes = range->len;
	}
	return call;
}

static int64_t control(int fd, uint64_t request, void *argument)
{
	struct agent_probe_call call = describe(fd, request, argument);

	if (current->before == NULL || !current->before(current, &call))
		call.result = control_kernel(fd, request, argument);
	call.moved = moved_by(request, argument, call.result);
	if (current->call_count < AGENT_PROBE_CALLS)
		current->calls[current->call_count++] = call;
	return call.result;
}

/* NOLINTBEGIN(bugprone-suspicious-include) */
#include "wset/trace_agent_arm.c"
#include "wset/trace_agent_child.c"
#include "wset/trace_agent_page.c"
#include "wset/trace_agent_serve.c"
/* NOLINTEND(bugprone-suspicious-include) */

static void *get(uint64_t count, uint64_t bytes)
{
	void *memory = calloc(count + 1, bytes);

	if (memory == NULL)
		abort();
	return memory;
}

void agent_probe_begin(
	struct agent_probe *probe, const struct agent_probe_range *ranges, uint32_t count)
{
	struct agent *agent = get(1, sizeof(*agent));
	struct trace_record *record = get(1, sizeof(*record));
	uint64_t pages = 0;

	record->area_count = count;
	record->area_room = count + TRACE_SPARE_AREAS;
	record->uffd[0] = record->uffd[1] = -1;
	agent->self.areas = get(record->area_room, sizeof(struct trace_area));
	for (uint32_t i = 0; i < count; i++) {
		agent->self.areas[i] = (struct trace_area){.ram = word(ranges[i].address),
			.bytes = ranges[i].bytes,
			.first_page = pages,
			.kind = ranges[i].shared ? TRACE_KIND_SHARED : TRACE_KIND_PRIVATE};
		pages += ranges[i].bytes / PAGE;
	}
	record->pages = record->log_room = pages;
	agent->record = record;
	agent->self.uffd = -1;
	agent->self.gone = get((pages + 63) / 64, 8);
	agent->self.area_count = count;
	agent->self.area_room = record->area_room;
	agent->seen = get((pages + 63) / 64, 8);
	agent->log = get(pages, sizeof(struct trace_entry));
	agent->slot_bytes = trace_child_bytes(pages, count + TRACE_ENDING_AREAS);
	agent->slot = get(1, agent->slot_bytes);
	probe->agent = agent;
	probe->call_count = 0;
	current = probe;
}

static void tell(struct agent_probe *probe, const struct trace_record *record)
{
	probe->failed_code = record->failed_code;
	probe->skipped = record->counters.skipped;
	probe->forks = record->counters.forks;
}

bool agent_probe_arm(struct agent_probe *probe)
{
	struct agent *agent = probe->agent;
	bool armed = agent_arm(agent);

	tell(probe, agent->record);
	return armed;
}

void agent_probe_disarm(struct agent_probe *probe)
{
	struct agent *agent = probe->agent;
	/* Disarming unmaps what it grew to. */
	struct trace_area *areas = agent->self.areas;

	agent_disarm(agent);
	tell(probe, agent->record);
	free(areas);
	free(agent->self.gone);
	free(agent->seen);
	free(agent->log);
	free(agent->slot);
	free(agent->record);
	free(agent);
	probe->agent = NULL;
}

size_t agent_probe_count(
	const struct agent_probe *probe, uint64_t request, const void *address, uint64_t bytes)
{
	const uint64_t start = word(address);
	size_t count = 0;

	for (size_t i = 0; i < probe->call_count; i++) {
		const struct agent_probe_call *call = &probe->calls[i];

		count += call->request == request && call->address < start + bytes &&
			 start < call->address + call->bytes;
	}
	return count;
}
