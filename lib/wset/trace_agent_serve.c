/* SPDX-License-Identifier: MIT */
/* The agent: answers touches, and takes note of what becomes of the mappings. */
#include "wset/trace_agent.h"

static struct trace_area *find_area(struct space *space, uint64_t address)
{
	for (uint32_t i = 0; i < space->area_count; i++) {
		struct trace_area *area = &space->areas[i];

		if (address - area->ram < area->bytes)
			return area;
	}
	return NULL;
}

/* The process gave pages of an area back: what is in the scratch area must not come back. */
static void give_back(struct agent *agent, struct space *space, const struct trace_area *area,
	uint64_t start, uint64_t end)
{
	uint64_t from = start > area->ram ? start - area->ram : 0;
	uint64_t to = end > area->ram ? end - area->ram : 0;

	if (to > area->bytes)
		to = area->bytes;
	for (; from < to; from += PAGE) {
		const uint64_t page = area->first_page + from / PAGE;

		if (space == &agent->self) {
			agent_give_children(agent, page);
			agent->record->counters.removed++;
		}
		set_bit(space->gone, page);
	}
}

/* madvise(2) */
static void note_remove(struct agent *agent, struct space *space, uint64_t start, uint64_t end)
{
	for (uint32_t i = 0; i < space->area_count; i++)
		give_back(agent, space, &space->areas[i], start, end);
}

/*
 * munmap(2), or a mapping over it: a mapping may grow into its place (mremap(2)), with zeros. But
 * the word may come late. If one thread unmaps memory, and another at once moves other memory to
 * its place, which the kernel may choose, that may be told first. So memory that was moved is let
 * be.
 */
static void note_unmap(struct agent *agent, struct space *space, uint64_t start, uint64_t end)
{
	for (uint32_t i = 0; i < space->area_count; i++) {
		const struct trace_area *area = &space->areas[i];

		if (area->kind == TRACE_KIND_PRIVATE && area->moved == 0)
			give_back(agent, space, area, start, end);
	}
}

/*
 * Room for twice as many areas. A part without an area of its own would be lost: better that the
 * process waits, if there is no memory.
 */
static void grow_areas(struct space *space)
{
	const uint64_t used = space->area_count * sizeof(struct trace_area);
	const uint64_t bytes = (2 * used + PAGE - 1) / PAGE * PAGE;
	int64_t memory;

	for (;;) {
		memory = call6(SYS_mmap, 0, bytes, 3, 0x22, (uint64_t)-1, 0);
		if (!is_error(memory))
			break;
		nap();
	}
	(void)call3(SYS_madvise, (uint64_t)memory, bytes, DONTFORK);
	copy_words((void *)(uintptr_t)memory, space->areas, used);
	unmap_grown(space);
	space->areas = (struct trace_area *)(uintptr_t)memory;
	space->area_room = (uint32_t)(bytes / sizeof(struct trace_area));
	space->grown_bytes = bytes;
}

/* Takes a part out of an area into one of its own, at the end of the list. It may move the list. */
static void split_area(struct space *space, uint32_t index, uint64_t offset)
{
	struct trace_area *first, *second;

	if (offset == 0 || offset >= space->areas[index].bytes)
		return;
	if (space->area_count == space->area_room)
		grow_areas(space);
	first = &space->areas[index];
	second = &space->areas[space->area_count++];
	second->ram = first->ram + offset;
	second->bytes = first->bytes - offset;
	second->scratch = first->scratch != 0 ? first->scratch + offset : 0;
	second->first_page = first->first_page + offset / PAGE;
	second->armed_bytes = first->armed_bytes > offset ? first->armed_bytes - offset : 0;
	second->kind = first->kind;
	second->dont_fork = first->dont_fork;
	second->moved = first->moved;
	second->registered = first->registered;
	first->bytes = offset;
	if (first->armed_bytes > offset)
		first->armed_bytes = offset;
}

/* Makes [start, start + bytes) begin and end at borders of areas. */
static void split_at(struct space *space, uint64_t start, uint64_t bytes)
{
	for (uint32_t i = 0; i < space->area_count; i++) {
		const uint64_t ram = space->areas[i].ram;

		if (ram < start && start - ram < space->areas[i].bytes)
			split_area(space, i, start - ram);
		if (ram >= start && ram < start + bytes)
			split_area(space, i, start + bytes - ram);
	}
}

static bool is_within(const struct trace_area *area, uint64_t start, uint64_t bytes)
{
	return area->ram >= start && area->ram + area->bytes <= start + bytes;
}

/* What an area was of is not there any more. */
static void drop_area(struct agent *agent, struct space *space, struct trace_area *area)
{
	for (uint64_t i = 0; i < area->bytes / PAGE; i++) {
		if (space == &agent->self)
			agent_give_children(agent, area->first_page + i);
		set_bit(space->gone, area->first_page + i);
	}
	area->ram = NOWHERE;
}

/*
 * mremap(2) took memory elsewhere, without its pages: their place is another now. What was there
 * before is gone.
 */
static void note_remap(
	struct agent *agent, struct space *space, uint64_t from, uint64_t to, uint64_t bytes)
{
	agent->record->counters.remaps++;
	if (space == &agent->self) {
		agent->hurry = true;
		agent_unregister_scratch(agent);
	}
	split_at(space, from, bytes);
	split_at(space, to, bytes);
	for (uint32_t i = 0; i < space->area_count; i++) {
		struct trace_area *area = &space->areas[i];

		if (is_within(area, from, bytes)) {
			area->ram += to - from;
			area->moved = 1;
		} else if (is_within(area, to, bytes)) {
			drop_area(agent, space, area);
		}
	}
	if (space->area_count > agent->record->area_room - TRACE_SPARE_AREAS + TRACE_ENDING_AREAS)
		agent->ending = true;
}

static void note_touch(
	struct agent *agent, uint64_t page, const struct uffd_msg *message, uint64_t ns)
{
	struct trace_record *record = agent->record;
	struct trace_entry *entry;

	if (get_bit(agent->seen, page))
		return;
	set_bit(agent->seen, page);
	if (record->log_count >= record->log_room) {
		record->counters.lost++;
		return;
	}
	entry = &agent->log[record->log_count];
	entry->page = (uint32_t)page;
	if ((message->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE) != 0)
		entry->page |= TRACE_ENTRY_WRITE;
	entry->tid = message->arg.pagefault.feat.ptid;
	entry->ns = ns;
	__atomic_store_n(&record->log_count, record->log_count + 1, __ATOMIC_RELEASE);
}

/* A touch of a page that is not in the scratch area. */
static int64_t answer_gone(struct agent *agent, uint64_t address)
{
	int64_t code = agent_zero(agent->self.uffd, address);

	if (code == 0)
		agent->record->counters.zeroed++;
	else
		agent->record->counters.repeated++;
	return code;
}

static int64_t answer_private(
	struct agent *agent, const struct trace_area *area, uint64_t page, uint64_t address)
{
	struct trace_counters *counters = &agent->record->counters;
	const uint64_t from = area->scratch + (address - area->ram);
	uint64_t moved;
	int64_t code;

	if (get_bit(agent->self.gone, page))
		return answer_gone(agent, address);
	agent_give_children(agent, page);
	code = agent_move(agent->self.uffd, address, from, PAGE, &moved);
	if (code == 0) {
		counters->moved++;
	} else if (code == -E_NOENT) {
		code = agent_zero(agent->self.uffd, address);
		counters->zeroed += code == 0;
	} else if (code != -E_AGAIN && code != -E_EXIST) {
		code = agent_put_back_copy(agent, address, from);
		counters->copied += code == 0;
	}
	if (code == 0 || code == -E_EXIST)
		set_bit(agent->self.gone, page);
	return code;
}

static void answer_shared(struct agent *agent, uint64_t address)
{
	const int uffd = agent->record->uffd[TRACE_KIND_SHARED];
	struct uffdio_continue order = {.range = {.start = address, .len = PAGE}};
	int64_t code = control(uffd, UFFDIO_CONTINUE, &order);

	if (code == 0)
		agent->record->counters.continued++;
	else if (code == -E_FAULT) /* not in the page cache: a hole */
		code = agent_zero(uffd, address);
	if (code < 0)
		agent_wake(uffd, address);
}

static void answer(
	struct agent *agent, struct space *space, const struct uffd_msg *message, uint64_t ns)
{
	const uint64_t address = message->arg.pagefault.address & ~(PAGE - 1);
	const struct trace_area *area = find_area(space, address);
	uint64_t page;
	int64_t code;

	agent->record->counters.faults++;
	if (area == NULL) {
		/*
		 * Left behind by mremap(2): empty. While the process is still at it, EAGAIN. The
		 * thread tries again then.
		 */
		if (agent_zero(space->uffd, address) < 0)
			agent_wake(space->uffd, address);
		return;
	}
	page = area->first_page + (address - area->ram) / PAGE;
	note_touch(agent, page, message, ns);
	code = answer_private(agent, area, page, address);
	if (code < 0)
		agent_wake(space->uffd, address);
}

static void take_event(struct agent *agent, struct space *space, const struct uffd_msg *message)
{
	switch (message->event) {
	case UFFD_EVENT_FORK:
		agent_add_child(agent, space, (int)message->arg.fork.ufd);
		break;
	case UFFD_EVENT_REMOVE:
		note_remove(agent, space, message->arg.remove.start, message->arg.remove.end);
		break;
	case UFFD_EVENT_UNMAP:
		note_unmap(agent, space, message->arg.remove.start, message->arg.remove.end);
		break;
	case UFFD_EVENT_REMAP:
		note_remap(agent, space, message->arg.remap.from, message->arg.remap.to,
			message->arg.remap.len);
		break;
	default:
		break;
	}
}

/* The changes of a child. Its touches need no answer: it gets everything. */
void agent_read_child(struct agent *agent, struct space *space)
{
	struct uffd_msg message;

	while (call3(SYS_read, (uint64_t)space->uffd, word(&message), sizeof(message)) ==
		sizeof(message))
		take_event(agent, space, &message);
}

/* Answers what has come. Changes first: an answer would be wrong that knows nothing of them. */
void agent_serve_private(struct agent *agent)
{
	for (;;) {
		int64_t bytes = call3(SYS_read, (uint64_t)agent->self.uffd, word(agent->messages),
			sizeof(agent->messages));
		int64_t count = bytes / (int64_t)sizeof(agent->messages[0]);
		uint64_t ns;

		if (bytes <= 0)
			return;
		ns = now_ns();
		for (int64_t i = 0; i < count; i++)
			take_event(agent, &agent->self, &agent->messages[i]);
		for (int64_t i = 0; i < count; i++) {
			if (agent->messages[i].event == UFFD_EVENT_PAGEFAULT)
				answer(agent, &agent->self, &agent->messages[i], ns);
		}
		agent->record->counters.service_ns += now_ns() - ns;
		agent->record->counters.batches++;
	}
}

static void serve_shared(struct agent *agent)
{
	const int uffd = agent->record->uffd[TRACE_KIND_SHARED];

	for (;;) {
		int64_t bytes = call3(
			SYS_read, (uint64_t)uffd, word(agent->messages), sizeof(agent->messages));
		int64_t count = bytes / (int64_t)sizeof(agent->messages[0]);
		uint64_t ns;

		if (bytes <= 0)
			return;
		ns = now_ns();
		for (int64_t i = 0; i < count; i++) {
			const struct uffd_msg *message = &agent->messages[i];
			const uint64_t address = message->arg.pagefault.address & ~(PAGE - 1);
			const struct trace_area *area = find_area(&agent->self, address);

			if (message->event != UFFD_EVENT_PAGEFAULT)
				continue;
			agent->record->counters.faults++;
			if (area != NULL)
				note_touch(agent, area->first_page + (address - area->ram) / PAGE,
					message, ns);
			answer_shared(agent, address);
		}
		agent->record->counters.service_ns += now_ns() - ns;
		agent->record->counters.batches++;
	}
}

void agent_serve(struct agent *agent)
{
	const uint64_t ns = now_ns();

	if (agent->gap_ns != NULL && ns - agent->looked_ns > *agent->gap_ns)
		*agent->gap_ns = ns - agent->looked_ns;
	if (agent->record->uffd[TRACE_KIND_PRIVATE] >= 0)
		agent_serve_private(agent);
	if (agent->record->uffd[TRACE_KIND_SHARED] >= 0)
		serve_shared(agent);
	if (agent->children != NULL)
		agent_feed_child(agent);
	agent->looked_ns = now_ns();
	__atomic_store_n(&agent->record->beats, agent->record->beats + 1, __ATOMIC_RELAXED);
}
