/* SPDX-License-Identifier: MIT */
/* The agent: what is done to a page. */
#include "wset/trace_agent.h"

int64_t agent_move(int uffd, uint64_t to, uint64_t from, uint64_t bytes, uint64_t *moved)
{
	struct uffdio_move order = {.dst = to,
		.src = from,
		.len = bytes,
		.mode = bytes > PAGE ? UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES : 0};
	int64_t code = control(uffd, UFFDIO_MOVE, &order);

	*moved = code == 0 ? bytes : order.move > 0 ? (uint64_t)order.move : 0;
	return code;
}

int64_t agent_copy(int uffd, uint64_t to, uint64_t from)
{
	struct uffdio_copy order = {.dst = to, .src = from, .len = PAGE};

	return control(uffd, UFFDIO_COPY, &order);
}

int64_t agent_zero(int uffd, uint64_t to)
{
	struct uffdio_zeropage order = {.range = {.start = to, .len = PAGE}};

	return control(uffd, UFFDIO_ZEROPAGE, &order);
}

void agent_wake(int uffd, uint64_t address)
{
	struct uffdio_range order = {.start = address, .len = PAGE};

	(void)control(uffd, UFFDIO_WAKE, &order);
}

void agent_unregister_scratch(struct agent *agent)
{
	for (uint32_t i = 0; agent->scratch_registered && i < agent->self.area_count; i++) {
		struct uffdio_range order = {
			.start = agent->self.areas[i].scratch, .len = agent->self.areas[i].bytes};

		if (order.start != 0)
			(void)control(agent->self.uffd, UFFDIO_UNREGISTER, &order);
	}
	agent->scratch_registered = false;
}

int64_t agent_put_back_copy(struct agent *agent, uint64_t to, uint64_t from)
{
	int64_t code;

	/* A hole, if we must read one, would wait for ourselves. */
	if (agent->scratch_registered) {
		agent->hurry = true;
		agent_unregister_scratch(agent);
	}
	for (;;) {
		code = agent_copy(agent->self.uffd, to, from);
		if (code != -E_NOMEM)
			break;
		nap();
	}
	if (code == -E_FAULT) {
		struct uffdio_poison order = {.range = {.start = to, .len = PAGE}};

		code = control(agent->self.uffd, UFFDIO_POISON, &order);
	}
	return code;
}
