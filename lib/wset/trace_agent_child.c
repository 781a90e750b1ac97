/* SPDX-License-Identifier: MIT */
/* The agent: children that the traced process forks. */
#include "wset/trace_agent.h"

static bool is_zero(const uint64_t *at)
{
	for (uint64_t i = 0; i < PAGE / 8; i++) {
		if (at[i] != 0)
			return false;
	}
	return true;
}

/* The area of a child that has a page, as a child can have it. */
static const struct trace_area *find_page(const struct space *child, uint64_t page)
{
	for (uint32_t i = 0; i < child->area_count; i++) {
		const struct trace_area *area = &child->areas[i];

		if (page - area->first_page < area->bytes / PAGE &&
			area->kind == TRACE_KIND_PRIVATE && area->dont_fork == 0)
			return area;
	}
	return NULL;
}

/*
 * Gives a page to a child that lacks it. While the child changes its mappings it cannot be: then
 * what it does is taken note of, and the page may have another address, or not be wanted, when it
 * is tried again.
 */
static void give_page(struct agent *agent, struct space *child, uint64_t page)
{
	while (!get_bit(child->gone, page)) {
		const struct trace_area *area = find_page(child, page);
		const uint64_t offset = area != NULL ? (page - area->first_page) * PAGE : 0;
		int64_t code;

		if (area == NULL || offset >= area->armed_bytes ||
			is_zero((const uint64_t *)(uintptr_t)(area->scratch + offset)))
			break;
		code = agent_copy(child->uffd, area->ram + offset, area->scratch + offset);
		if (code == -E_AGAIN)
			agent_read_child(agent, child);
		else if (code != -E_NOMEM)
			break;
		if (code < 0)
			nap();
	}
	set_bit(child->gone, page);
}

void agent_give_children(struct agent *agent, uint64_t page)
{
	const struct space *youngest;

	/* While one is given a page it may be seen to have forked: its child joins in front. */
	do {
		youngest = agent->children;
		for (struct space *child = agent->children; child != NULL; child = child->next)
			give_page(agent, child, page);
	} while (agent->children != youngest);
}

/*
 * The child has all: what it still waits for are pages that are zero. Only what it has from us is
 * unregistered: see unregister_all().
 */
static void end_child(struct agent *agent, struct space *child)
{
	struct space **link = &agent->children;

	while (*link != child)
		link = &(*link)->next;
	*link = child->next;
	for (uint32_t i = 0; i < child->area_count; i++) {
		const struct trace_area *area = &child->areas[i];
		struct uffdio_range order = {.start = area->ram, .len = area->bytes};

		if (area->registered != 0 && area->kind == TRACE_KIND_PRIVATE)
			(void)control(child->uffd, UFFDIO_UNREGISTER, &order);
	}
	(void)call3(SYS_close, (uint64_t)child->uffd, 0, 0);
	unmap_grown(child);
	if (child == agent->slot)
		agent->slot_used = false;
	else
		(void)call3(SYS_munmap, word(child), child->bytes, 0);
}

/* Its own children may join the list meanwhile; none leaves it. */
void agent_feed_child(struct agent *agent)
{
	struct space *child = agent->children;
	uint64_t pages = CHILD_PIECE;

	for (; pages > 0 && child->next_page < agent->record->pages; child->next_page++) {
		give_page(agent, child, child->next_page);
		pages--;
	}
	if (child->next_page >= agent->record->pages)
		end_child(agent, child);
}

_Static_assert(sizeof(struct space) <= TRACE_CHILD_HEAD_BYTES, "the head of a child");

/*
 * Memory for a child. If the process has no more address space there is a slot, which another child
 * may have: of the process's own children that one is given all that it lacks. A child's child must
 * wait for address space: its parent may be the one with the slot, and is in use.
 */
static struct space *get_child(struct agent *agent, const struct space *parent, uint64_t *bytes)
{
	const uint64_t pages = agent->record->pages;

	for (;;) {
		int64_t memory;

		*bytes = trace_child_bytes(pages, parent->area_count + TRACE_ENDING_AREAS);
		memory = call6(SYS_mmap, 0, *bytes, 3, 0x22, (uint64_t)-1, 0);
		if (!is_error(memory)) {
			(void)call3(SYS_madvise, (uint64_t)memory, *bytes, DONTFORK);
			return (struct space *)(uintptr_t)memory;
		}
		*bytes = agent->slot_bytes;
		if (!agent->slot_used &&
			trace_child_bytes(pages, parent->area_count + 2) <= *bytes) {
			agent->slot_used = true;
			return agent->slot;
		}
		if (parent == &agent->self && agent->children != NULL)
			agent_feed_child(agent);
		else
			nap();
	}
}

void agent_add_child(struct agent *agent, const struct space *parent, int uffd)
{
	const uint64_t gone_bytes = (agent->record->pages + 63) / 64 * 8;
	struct space *child;
	uint64_t bytes;

	agent->record->counters.forks++;
	agent->hurry = true; /* what is not aside yet the child has */
	agent_unregister_scratch(agent);
	child = get_child(agent, parent, &bytes);
	child->uffd = uffd;
	child->gone = (uint64_t *)(uintptr_t)(word(child) + TRACE_CHILD_HEAD_BYTES);
	child->areas = (struct trace_area *)(uintptr_t)(word(child->gone) + gone_bytes);
	child->area_count = parent->area_count;
	child->area_room = (uint32_t)((bytes - TRACE_CHILD_HEAD_BYTES - gone_bytes) /
				      sizeof(struct trace_area));
	child->grown_bytes = 0;
	child->next_page = 0;
	child->bytes = bytes;
	copy_words(child->gone, parent->gone, gone_bytes);
	copy_words(child->areas, parent->areas, parent->area_count * sizeof(struct trace_area));
	child->next = agent->children;
	agent->children = child;
}
