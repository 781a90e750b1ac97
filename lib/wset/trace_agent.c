/* SPDX-License-Identifier: MIT */
/*
 * The agent: a thread of ours inside the traced process. It moves the memory aside, answers each
 * first touch and writes it down, and moves the rest back. It does so from within because
 * UFFDIO_MOVE works from within only, and because then nobody outside has to survive: the agent
 * dies with the process and not before, and when the tracer is gone (its end of a pipe closes) it
 * puts everything back by itself.
 *
 * It is built without a C library into one piece of code that runs at any address
 * (scripts/make-agent.py): no data, no calls out of this file, no floating point. All signals are
 * blocked before it begins.
 *
 * Where a page of private memory is, at any moment:
 *
 *	                        gone    RAM         scratch
 *	not armed yet           0       page/hole   hole        (beyond armed_bytes)
 *	armed, not touched      0       missing     page/hole   a touch waits for us
 *	touched, or skipped     1       page        hole
 *	given back (madvise)    1       missing     stale       a touch gets zeros
 *
 * Every change of a page is one ioctl(2), which the kernel does wholly or not at all, and which it
 * refuses (EAGAIN) while the process changes its mappings and we have not been told yet.
 */
#include "wset/trace_record.h"

#include <linux/close_range.h>
#include <linux/futex.h>
#include <linux/ioctl.h>
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stddef.h>

/* Later than Debian 12's headers; from the kernel's documentation of userfaultfd. */
#ifndef UFFD_FEATURE_POISON
#define UFFD_FEATURE_POISON (1 << 14)
#endif
#ifndef UFFDIO_MOVE
#define UFFD_FEATURE_MOVE (1 << 16)
struct uffdio_move {
	uint64_t dst, src, len, mode;
	int64_t move;
};
#define UFFDIO_MOVE _IOWR(0xaa, 0x05, struct uffdio_move)
#define UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES (1ull << 1)
#endif
#ifndef UFFDIO_POISON
struct uffdio_poison {
	struct uffdio_range range;
	uint64_t mode;
	int64_t updated;
};
#define UFFDIO_POISON _IOWR(0xaa, 0x08, struct uffdio_poison)
#endif

#define PAGE ((uint64_t)TRACE_PAGE)
#define CHUNK (UINT64_C(8) << 20) /* moved between two looks at the faults */
#define HUGE (UINT64_C(2) << 20)
#define MESSAGES 64
#define TRIES 64u
#define CHILD_PIECE 256u    /* pages given to a child between two looks at the faults */
#define HANDSHAKE_WAITS 150 /* of 20 ms */
#define POLL_MOST_MS 1000
#define SECOND_NS UINT64_C(1000000000)

enum {
	E_NOENT = 2,
	E_SRCH = 3,
	E_AGAIN = 11,
	E_NOMEM = 12,
	E_FAULT = 14,
	E_EXIST = 17,
};
enum {
	SYS_read = 0,
	SYS_close = 3,
	SYS_poll = 7,
	SYS_mmap = 9,
	SYS_munmap = 11,
	SYS_ioctl = 16,
	SYS_madvise = 28,
	SYS_nanosleep = 35,
	SYS_open = 2,
	SYS_prctl = 157,
	SYS_futex = 202,
	SYS_clock_gettime = 228,
	SYS_pipe2 = 293,
	SYS_userfaultfd = 323,
	SYS_close_range = 436,
};
#define FLAGS_NONBLOCK 04000
#define FLAGS_CLOEXEC 02000000
#define DONTNEED 4
#define DONTFORK 10

struct time {
	int64_t s, ns;
};

struct poll {
	int fd;
	short events, revents;
};

/* An address space with a userfaultfd: the traced process, or a child that it forked. */
struct space {
	int uffd;
	uint64_t *gone;
	struct trace_area *areas;
	uint32_t area_count;
	uint32_t area_room;
	/* Of a child: */
	struct space *next;
	uint64_t next_page; /* it has been given all before */
	uint64_t bytes;     /* of the mapping that this structure begins, gone and areas in it */
};

struct agent {
	struct trace_record *record;
	struct space self;
	uint64_t *seen;
	struct trace_entry *log;
	struct space *children; /* the youngest first */
	bool scratch_registered;
	bool hurry; /* no more arming */
	uint64_t looked_ns;
	uint64_t *gap_ns; /* where the longest time without a look is kept; or NULL */
	struct uffd_msg messages[MESSAGES];
};

/* ---- Entry --------------------------------------------------------------------------------- */

/* The word on the stack is the record's address. */
__asm__(".section .text.start, \"ax\"\n"
	"pop %rdi\n"
	"call agent_main\n"
	"hlt\n"
	".text\n");

static inline int64_t call6(
	int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f)
{
	register uint64_t r10 __asm__("r10") = d;
	register uint64_t r8 __asm__("r8") = e;
	register uint64_t r9 __asm__("r9") = f;
	int64_t result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

static inline int64_t call3(int64_t number, uint64_t a, uint64_t b, uint64_t c)
{
	return call6(number, a, b, c, 0, 0, 0);
}

static inline uint64_t word(const void *pointer)
{
	return (uint64_t)(uintptr_t)pointer;
}

static int64_t control(int fd, uint64_t request, void *argument)
{
	return call3(SYS_ioctl, (uint64_t)fd, request, word(argument));
}

static uint64_t now_ns(void)
{
	struct time now;

	(void)call3(SYS_clock_gettime, 1, word(&now), 0);
	return (uint64_t)now.s * SECOND_NS + (uint64_t)now.ns;
}

static void nap(void)
{
	struct time a_while = {0, 100000};

	(void)call3(SYS_nanosleep, word(&a_while), 0, 0);
}

static void close_fd(int32_t *fd)
{
	if (*fd >= 0)
		(void)call3(SYS_close, (uint64_t)*fd, 0, 0);
	*fd = -1;
}

static void set_state(struct trace_record *record, uint32_t state)
{
	__atomic_store_n(&record->state, state, __ATOMIC_SEQ_CST);
	(void)call3(SYS_futex, word(&record->state), FUTEX_WAKE, INT32_MAX);
}

static void fail(struct agent *agent, enum trace_step step, int64_t code)
{
	if (agent->record->failed_step != TRACE_STEP_NONE)
		return;
	agent->record->failed_step = step;
	agent->record->failed_code = (int32_t)code;
}

static bool get_bit(const uint64_t *bits, uint64_t index)
{
	return (bits[index / 64] >> (index % 64) & 1) != 0;
}

static void set_bit(uint64_t *bits, uint64_t index)
{
	bits[index / 64] |= UINT64_C(1) << (index % 64);
}

/* The first run of clear bits in [*from, to): false if there is none. */
static bool next_clear(const uint64_t *bits, uint64_t *from, uint64_t to, uint64_t *length)
{
	uint64_t i = *from;

	while (i < to && get_bit(bits, i))
		i += i % 64 == 0 && bits[i / 64] == ~UINT64_C(0) ? 64 : 1;
	if (i >= to)
		return false;
	*from = i;
	while (i < to && !get_bit(bits, i))
		i += i % 64 == 0 && bits[i / 64] == 0 ? 64 : 1;
	*length = (i < to ? i : to) - *from;
	return true;
}

/* ---- One page ------------------------------------------------------------------------------ */

static int64_t move(int uffd, uint64_t to, uint64_t from, uint64_t bytes, uint64_t *moved)
{
	struct uffdio_move order = {.dst = to,
		.src = from,
		.len = bytes,
		.mode = bytes > PAGE ? UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES : 0};
	int64_t code = control(uffd, UFFDIO_MOVE, &order);

	*moved = code == 0 ? bytes : order.move > 0 ? (uint64_t)order.move : 0;
	return code;
}

static int64_t copy(int uffd, uint64_t to, uint64_t from)
{
	struct uffdio_copy order = {.dst = to, .src = from, .len = PAGE};

	return control(uffd, UFFDIO_COPY, &order);
}

static int64_t zero(int uffd, uint64_t to)
{
	struct uffdio_zeropage order = {.range = {.start = to, .len = PAGE}};

	return control(uffd, UFFDIO_ZEROPAGE, &order);
}

static void wake(int uffd, uint64_t address)
{
	struct uffdio_range order = {.start = address, .len = PAGE};

	(void)control(uffd, UFFDIO_WAKE, &order);
}

static struct trace_area *find_area(struct space *space, uint64_t address)
{
	for (uint32_t i = 0; i < space->area_count; i++) {
		struct trace_area *area = &space->areas[i];

		if (address - area->ram < area->bytes)
			return area;
	}
	return NULL;
}

/* From now on nothing of the scratch area is watched: reading a hole in it gives zeros. */
static void unregister_scratch(struct agent *agent)
{
	for (uint32_t i = 0; agent->scratch_registered && i < agent->self.area_count; i++) {
		struct uffdio_range order = {
			.start = agent->self.areas[i].scratch, .len = agent->self.areas[i].bytes};

		if (order.start != 0)
			(void)control(agent->self.uffd, UFFDIO_UNREGISTER, &order);
	}
	agent->scratch_registered = false;
}

/*
 * Puts a page back by copying, where it could not be moved: the mapping was made another kind
 * (mprotect, mlock), or the page is in use by the kernel. What cannot be read is marked so, as it
 * was before. 0, -E_AGAIN: later; otherwise there is nothing to put it into.
 */
static int64_t put_back_copy(struct agent *agent, uint64_t to, uint64_t from)
{
	int64_t code;

	/* A hole, if we must read one, would wait for ourselves. */
	if (agent->scratch_registered) {
		agent->hurry = true;
		unregister_scratch(agent);
	}
	for (;;) {
		code = copy(agent->self.uffd, to, from);
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

/* ---- Children ------------------------------------------------------------------------------ */

static void read_space(struct agent *agent, struct space *space);

static bool is_zero(const uint64_t *at)
{
	for (uint64_t i = 0; i < PAGE / 8; i++) {
		if (at[i] != 0)
			return false;
	}
	return true;
}

/* Gives a page to a child that lacks it. Its own changes are taken note of meanwhile. */
static void give_page(
	struct agent *agent, struct space *child, const struct trace_area *area, uint64_t page)
{
	const uint64_t offset = (page - area->first_page) * PAGE;
	const uint64_t *from = (const uint64_t *)(uintptr_t)(area->scratch + offset);

	if (get_bit(child->gone, page) || offset >= area->armed_bytes)
		return;
	while (!get_bit(child->gone, page) && !is_zero(from)) {
		int64_t code = copy(child->uffd, area->ram + offset, word(from));

		if (code == -E_NOMEM)
			nap();
		else if (code == -E_AGAIN)
			read_space(agent, child);
		else
			break;
	}
	set_bit(child->gone, page);
}

/* Page @page leaves the scratch area: children that lack it get it before. */
static void give_children(struct agent *agent, uint64_t page)
{
	for (struct space *child = agent->children; child != NULL; child = child->next) {
		for (uint32_t j = 0; j < child->area_count; j++) {
			const struct trace_area *area = &child->areas[j];

			if (page - area->first_page < area->bytes / PAGE)
				give_page(agent, child, area, page);
		}
	}
}

/* The child has all: what it still waits for are pages that are zero. */
static void end_child(struct agent *agent, struct space *child)
{
	struct space **link = &agent->children;

	while (*link != child)
		link = &(*link)->next;
	*link = child->next;
	for (uint32_t i = 0; i < child->area_count; i++) {
		struct uffdio_range order = {
			.start = child->areas[i].ram, .len = child->areas[i].bytes};

		(void)control(child->uffd, UFFDIO_UNREGISTER, &order);
	}
	(void)call3(SYS_close, (uint64_t)child->uffd, 0, 0);
	(void)call3(SYS_munmap, word(child), child->bytes, 0);
}

/* Gives a child its next pages. Its own children may join the list meanwhile; none leaves it. */
static void feed_child(struct agent *agent, struct space *child, uint64_t pages)
{
	for (; pages > 0 && child->next_page < agent->record->pages; child->next_page++) {
		for (uint32_t i = 0; i < child->area_count; i++) {
			const struct trace_area *area = &child->areas[i];

			if (child->next_page - area->first_page < area->bytes / PAGE &&
				area->kind == TRACE_KIND_PRIVATE && area->dont_fork == 0)
				give_page(agent, child, area, child->next_page);
		}
		pages--;
	}
	if (child->next_page >= agent->record->pages)
		end_child(agent, child);
}

static void copy_words(void *to, const void *from, uint64_t bytes)
{
	for (uint64_t i = 0; i < bytes / 8; i++)
		((volatile uint64_t *)to)[i] = ((const uint64_t *)from)[i];
}

/* A fork: the child has the RAM without what is in our scratch area. */
static void add_child(struct agent *agent, const struct space *parent, int uffd)
{
	const uint64_t gone_bytes = (agent->record->pages + 63) / 64 * 8;
	const uint64_t area_bytes = parent->area_room * sizeof(struct trace_area);
	const uint64_t bytes = sizeof(struct space) + gone_bytes + area_bytes;
	struct space *child;
	int64_t memory;

	agent->record->counters.forks++;
	agent->hurry = true; /* what is not aside yet the child has */
	unregister_scratch(agent);
	for (;;) {
		memory = call6(SYS_mmap, 0, bytes, 3, 0x22, (uint64_t)-1, 0);
		if (memory != -E_NOMEM)
			break;
		nap();
	}
	(void)call3(SYS_madvise, (uint64_t)memory, bytes, DONTFORK);
	child = (struct space *)(uintptr_t)memory;
	child->uffd = uffd;
	child->gone = (uint64_t *)(uintptr_t)((uint64_t)memory + sizeof(struct space));
	child->areas = (struct trace_area *)(uintptr_t)(word(child->gone) + gone_bytes);
	child->area_count = parent->area_count;
	child->area_room = parent->area_room;
	child->bytes = bytes;
	copy_words(child->gone, parent->gone, gone_bytes);
	copy_words(child->areas, parent->areas, area_bytes);
	child->next = agent->children;
	agent->children = child;
}

/* ---- Messages ------------------------------------------------------------------------------ */

/* madvise(2) gave pages back: what is in the scratch area must not come back. */
static void note_remove(struct agent *agent, struct space *space, uint64_t start, uint64_t end)
{
	for (uint32_t i = 0; i < space->area_count; i++) {
		const struct trace_area *area = &space->areas[i];
		uint64_t from = start > area->ram ? start - area->ram : 0;
		uint64_t to = end > area->ram ? end - area->ram : 0;

		if (to > area->bytes)
			to = area->bytes;
		for (; from < to; from += PAGE) {
			const uint64_t page = area->first_page + from / PAGE;

			if (space == &agent->self) {
				give_children(agent, page);
				agent->record->counters.removed++;
			}
			set_bit(space->gone, page);
		}
	}
}

/* Takes a part out of an area into one of its own; false: no room for another. */
static bool split_area(struct space *space, uint32_t index, uint64_t offset)
{
	struct trace_area *first = &space->areas[index], *second;

	if (offset == 0 || offset >= first->bytes)
		return true;
	if (space->area_count == space->area_room)
		return false;
	second = &space->areas[space->area_count++];
	second->ram = first->ram + offset;
	second->bytes = first->bytes - offset;
	second->scratch = first->scratch != 0 ? first->scratch + offset : 0;
	second->first_page = first->first_page + offset / PAGE;
	second->armed_bytes = first->armed_bytes > offset ? first->armed_bytes - offset : 0;
	second->kind = first->kind;
	second->dont_fork = first->dont_fork;
	first->bytes = offset;
	if (first->armed_bytes > offset)
		first->armed_bytes = offset;
	return true;
}

/* mremap(2) took memory elsewhere, without its pages: their place is another now. */
static void note_remap(
	struct agent *agent, struct space *space, uint64_t from, uint64_t to, uint64_t bytes)
{
	agent->record->counters.remaps++;
	if (space == &agent->self) {
		agent->hurry = true;
		unregister_scratch(agent);
	}
	for (uint32_t i = 0; i < space->area_count; i++) {
		struct trace_area *area = &space->areas[i];

		if (area->ram < from && from - area->ram < area->bytes)
			(void)split_area(space, i, from - area->ram);
		if (area->ram >= from && area->ram < from + bytes)
			(void)split_area(space, i, from + bytes - area->ram);
	}
	for (uint32_t i = 0; i < space->area_count; i++) {
		struct trace_area *area = &space->areas[i];

		if (area->ram >= from && area->ram + area->bytes <= from + bytes)
			area->ram += to - from;
	}
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
	int64_t code = zero(agent->self.uffd, address);

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
	give_children(agent, page);
	code = move(agent->self.uffd, address, from, PAGE, &moved);
	if (code == 0) {
		counters->moved++;
	} else if (code == -E_NOENT) {
		code = zero(agent->self.uffd, address);
		counters->zeroed += code == 0;
	} else if (code != -E_AGAIN && code != -E_EXIST) {
		code = put_back_copy(agent, address, from);
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
		code = zero(uffd, address);
	if (code < 0)
		wake(uffd, address);
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
		if (zero(space->uffd, address) < 0)
			wake(space->uffd, address);
		return;
	}
	page = area->first_page + (address - area->ram) / PAGE;
	note_touch(agent, page, message, ns);
	code = answer_private(agent, area, page, address);
	if (code < 0)
		wake(space->uffd, address);
}

static void take_event(struct agent *agent, struct space *space, const struct uffd_msg *message)
{
	switch (message->event) {
	case UFFD_EVENT_FORK:
		add_child(agent, space, (int)message->arg.fork.ufd);
		break;
	case UFFD_EVENT_REMOVE:
		note_remove(agent, space, message->arg.remove.start, message->arg.remove.end);
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
static void read_space(struct agent *agent, struct space *space)
{
	struct uffd_msg message;

	while (call3(SYS_read, (uint64_t)space->uffd, word(&message), sizeof(message)) ==
		sizeof(message))
		take_event(agent, space, &message);
}

/* Answers what has come. Changes first: an answer would be wrong that knows nothing of them. */
static void serve_private(struct agent *agent)
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

static void serve(struct agent *agent)
{
	const uint64_t ns = now_ns();

	if (agent->gap_ns != NULL && ns - agent->looked_ns > *agent->gap_ns)
		*agent->gap_ns = ns - agent->looked_ns;
	if (agent->record->uffd[TRACE_KIND_PRIVATE] >= 0)
		serve_private(agent);
	if (agent->record->uffd[TRACE_KIND_SHARED] >= 0)
		serve_shared(agent);
	if (agent->children != NULL)
		feed_child(agent, agent->children, CHILD_PIECE);
	agent->looked_ns = now_ns();
}

/* ---- Arming -------------------------------------------------------------------------------- */

static int64_t open_uffd(uint64_t features, int32_t *fd)
{
	struct uffdio_api api = {.api = UFFD_API, .features = features};
	int64_t code = call3(SYS_userfaultfd, FLAGS_CLOEXEC | FLAGS_NONBLOCK, 0, 0);

	if (code < 0)
		return code;
	*fd = (int32_t)code;
	return control(*fd, UFFDIO_API, &api);
}

static bool has_kind(const struct agent *agent, uint32_t kind)
{
	for (uint32_t i = 0; i < agent->self.area_count; i++) {
		if (agent->self.areas[i].kind == kind)
			return true;
	}
	return false;
}

/* EVENT_FORK wants a privilege; without it only memory that no child has can be traced. */
static bool fork_matters(const struct agent *agent)
{
	for (uint32_t i = 0; i < agent->self.area_count; i++) {
		if (agent->self.areas[i].kind == TRACE_KIND_PRIVATE &&
			agent->self.areas[i].dont_fork == 0)
			return true;
	}
	return false;
}

static bool open_uffds(struct agent *agent)
{
	const uint64_t private_features = UFFD_FEATURE_MOVE | UFFD_FEATURE_THREAD_ID |
					  UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_REMAP;
	const uint64_t shared_features =
		UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_THREAD_ID;
	int32_t *uffd = agent->record->uffd;
	int64_t code = 0;

	if (has_kind(agent, TRACE_KIND_PRIVATE))
		code = open_uffd(
			private_features | (fork_matters(agent) ? UFFD_FEATURE_EVENT_FORK : 0),
			&uffd[TRACE_KIND_PRIVATE]);
	agent->self.uffd = uffd[TRACE_KIND_PRIVATE];
	if (code < 0) {
		fail(agent, agent->self.uffd < 0 ? TRACE_STEP_USERFAULTFD : TRACE_STEP_FEATURES,
			code);
		return false;
	}
	if (has_kind(agent, TRACE_KIND_SHARED))
		code = open_uffd(shared_features, &uffd[TRACE_KIND_SHARED]);
	if (code < 0)
		fail(agent,
			uffd[TRACE_KIND_SHARED] < 0 ? TRACE_STEP_USERFAULTFD : TRACE_STEP_FEATURES,
			code);
	return code >= 0;
}

/*
 * A scratch area as large as the area, and as far from a border of huge pages, so that they move
 * whole. What is left of the mapping in front is given back.
 */
static bool map_scratch(struct agent *agent, struct trace_area *area)
{
	const uint64_t room = area->bytes + HUGE;
	int64_t got = call6(SYS_mmap, 0, room, 3, 0x4022, (uint64_t)-1, 0); /* NORESERVE */
	uint64_t start, before;

	if (got < 0 && got > -TRACE_PAGE) {
		fail(agent, TRACE_STEP_SCRATCH, got);
		return false;
	}
	start = (uint64_t)got;
	before = (area->ram - start) % HUGE;
	if (before > 0)
		(void)call3(SYS_munmap, start, before, 0);
	if (room > before + area->bytes)
		(void)call3(
			SYS_munmap, start + before + area->bytes, room - before - area->bytes, 0);
	area->scratch = start + before;
	(void)call3(SYS_madvise, area->scratch, area->bytes, DONTFORK);
	return true;
}

static bool register_range(
	struct agent *agent, int uffd, uint64_t start, uint64_t bytes, uint64_t mode)
{
	struct uffdio_register order = {.range = {.start = start, .len = bytes}, .mode = mode};
	int64_t code = control(uffd, UFFDIO_REGISTER, &order);

	if (code < 0)
		fail(agent, TRACE_STEP_REGISTER, code);
	return code >= 0;
}

static bool prepare(struct agent *agent)
{
	if (!open_uffds(agent))
		return false;
	for (uint32_t i = 0; i < agent->self.area_count; i++) {
		struct trace_area *area = &agent->self.areas[i];

		if (area->kind == TRACE_KIND_PRIVATE && !map_scratch(agent, area))
			return false;
	}
	for (uint32_t i = 0; i < agent->self.area_count; i++) {
		const struct trace_area *area = &agent->self.areas[i];

		if (area->kind == TRACE_KIND_SHARED) {
			if (!register_range(agent, agent->record->uffd[TRACE_KIND_SHARED],
				    area->ram, area->bytes,
				    UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR))
				return false;
			continue;
		}
		agent->scratch_registered = true;
		if (!register_range(agent, agent->self.uffd, area->scratch, area->bytes,
			    UFFDIO_REGISTER_MODE_MISSING) ||
			!register_range(agent, agent->self.uffd, area->ram, area->bytes,
				UFFDIO_REGISTER_MODE_MISSING))
			return false;
	}
	return true;
}

/*
 * Moves pages aside, as many of a run as one call takes; how many are settled. 0: not now. A page
 * that cannot be moved is left, and not watched.
 */
static uint64_t move_aside(struct agent *agent, const struct trace_area *area, uint64_t page,
	uint64_t pages, unsigned int *again)
{
	const uint64_t offset = (page - area->first_page) * PAGE;
	uint64_t moved;
	int64_t code = move(
		agent->self.uffd, area->scratch + offset, area->ram + offset, pages * PAGE, &moved);

	if (moved > 0)
		return moved / PAGE;
	if (code == -E_AGAIN && (*again)++ < TRIES)
		return 0;
	*again = 0;
	if (pages > 1)
		code = move(
			agent->self.uffd, area->scratch + offset, area->ram + offset, PAGE, &moved);
	if (code < 0 && code != -E_NOENT) { /* ENOENT: a hole */
		set_bit(agent->self.gone, page);
		agent->record->counters.skipped++;
	}
	return 1;
}

static void arm_private(struct agent *agent, struct trace_area *area)
{
	unsigned int again = 0;

	while (area->armed_bytes < area->bytes && !agent->hurry) {
		const uint64_t left = area->bytes - area->armed_bytes;
		uint64_t page = area->first_page + area->armed_bytes / PAGE, pages;
		const uint64_t end = page + (left < CHUNK ? left : CHUNK) / PAGE;

		/* Before they go: what happens to them meanwhile happens to armed pages. */
		area->armed_bytes += (end - page) * PAGE;
		/* A page that was touched meanwhile must stay: so the bits are looked at anew. */
		while (!agent->hurry && next_clear(agent->self.gone, &page, end, &pages)) {
			const uint64_t settled = move_aside(agent, area, page, pages, &again);

			page += settled;
			if (settled == 0)
				serve_private(agent);
		}
		serve(agent);
	}
}

static bool arm_shared(struct agent *agent, struct trace_area *area)
{
	while (area->armed_bytes < area->bytes) {
		uint64_t bytes = area->bytes - area->armed_bytes;
		int64_t code;

		if (bytes > CHUNK)
			bytes = CHUNK;
		code = call3(SYS_madvise, area->ram + area->armed_bytes, bytes, DONTNEED);
		if (code < 0) {
			fail(agent, TRACE_STEP_UNMAP, code);
			return false;
		}
		area->armed_bytes += bytes;
		serve(agent);
	}
	return true;
}

static bool arm(struct agent *agent)
{
	struct trace_record *record = agent->record;

	set_state(record, TRACE_STATE_ARMING);
	record->arm_begin_ns = now_ns();
	agent->looked_ns = record->arm_begin_ns;
	agent->gap_ns = &record->arm_gap_ns;
	if (!prepare(agent))
		return false;
	for (uint32_t i = 0; i < agent->self.area_count; i++) {
		struct trace_area *area = &agent->self.areas[i];

		if (area->kind == TRACE_KIND_PRIVATE)
			arm_private(agent, area);
		else if (!arm_shared(agent, area))
			return false;
	}
	unregister_scratch(agent);
	agent->gap_ns = NULL;
	record->arm_end_ns = now_ns();
	return true;
}

/* ---- Disarming ----------------------------------------------------------------------------- */

/* A page that could not be moved back. False: not now. */
static bool put_back_one(struct agent *agent, uint64_t to, uint64_t from)
{
	uint64_t moved;
	int64_t code = move(agent->self.uffd, to, from, PAGE, &moved);

	/* EEXIST: RAM has a page already, and that one is right. ENOENT: a hole. */
	if (code == 0 || code == -E_EXIST || code == -E_NOENT)
		return true;
	code = put_back_copy(agent, to, from);
	agent->record->counters.copied += code == 0;
	return code != -E_AGAIN;
}

/* Moves pages back, as many of a run as one call takes; how many are settled. 0: not now. */
static uint64_t move_back(
	struct agent *agent, const struct trace_area *area, uint64_t page, uint64_t pages)
{
	const uint64_t offset = (page - area->first_page) * PAGE;
	uint64_t moved;
	int64_t code = move(
		agent->self.uffd, area->ram + offset, area->scratch + offset, pages * PAGE, &moved);

	if (moved > 0)
		return moved / PAGE;
	/* The copy that it ends with is refused only while the process changes its mappings. */
	(void)code;
	return put_back_one(agent, area->ram + offset, area->scratch + offset) ? 1 : 0;
}

static void feed_all(struct agent *agent)
{
	while (agent->children != NULL)
		feed_child(agent, agent->children, CHILD_PIECE);
}

/* Areas that are split meanwhile go to the list's end: they are met there. */
static void disarm_private(struct agent *agent)
{
	for (uint32_t i = 0; i < agent->self.area_count; i++) {
		const struct trace_area *area = &agent->self.areas[i];
		uint64_t page = area->first_page, pages;

		if (area->kind != TRACE_KIND_PRIVATE || area->scratch == 0)
			continue;
		while (next_clear(agent->self.gone, &page,
			area->first_page + area->armed_bytes / PAGE, &pages)) {
			uint64_t settled;

			feed_all(agent);
			if (pages > CHUNK / PAGE)
				pages = CHUNK / PAGE;
			settled = move_back(agent, area, page, pages);
			for (; settled > 0; settled--)
				set_bit(agent->self.gone, page++);
			serve(agent);
		}
	}
	feed_all(agent);
}

static void unregister_all(struct agent *agent)
{
	for (uint32_t i = 0; i < agent->self.area_count; i++) {
		const struct trace_area *area = &agent->self.areas[i];
		struct uffdio_range order = {.start = area->ram, .len = area->bytes};

		if (agent->record->uffd[area->kind] >= 0)
			(void)control(agent->record->uffd[area->kind], UFFDIO_UNREGISTER, &order);
	}
}

static void disarm(struct agent *agent)
{
	struct trace_record *record = agent->record;

	set_state(record, TRACE_STATE_DISARMING);
	record->disarm_begin_ns = now_ns();
	agent->looked_ns = record->disarm_begin_ns;
	agent->gap_ns = &record->disarm_gap_ns;
	unregister_scratch(agent);
	disarm_private(agent);
	/* Twice: memory may move (mremap) between the last look and the first time. */
	for (unsigned int i = 0; i < 2; i++) {
		unregister_all(agent);
		serve(agent);
		feed_all(agent);
	}
	for (uint32_t i = 0; i < agent->self.area_count; i++) {
		const struct trace_area *area = &agent->self.areas[i];

		if (area->scratch != 0)
			(void)call3(SYS_munmap, area->scratch, area->bytes, 0);
	}
	close_fd(&record->uffd[TRACE_KIND_PRIVATE]);
	close_fd(&record->uffd[TRACE_KIND_SHARED]);
	record->disarm_end_ns = now_ns();
}

/* ---- Its life ------------------------------------------------------------------------------ */

/* Makes the lifeline, and waits until the tracer has taken its end. */
static bool shake_hands(struct agent *agent)
{
	struct trace_record *record = agent->record;
	struct time limit = {0, 20000000};
	int64_t code = call3(SYS_pipe2, word(record->lifeline), FLAGS_CLOEXEC | FLAGS_NONBLOCK, 0);

	if (code < 0) {
		record->lifeline[0] = -1;
		record->lifeline[1] = -1;
		fail(agent, TRACE_STEP_PIPE, code);
		return false;
	}
	set_state(record, TRACE_STATE_WAITING);
	for (unsigned int i = 0; i < HANDSHAKE_WAITS; i++) {
		struct poll told = {record->lifeline[0], 1, 0};

		(void)call6(SYS_futex, word(&record->taken), FUTEX_WAIT, 0, word(&limit), 0, 0);
		(void)call3(SYS_poll, word(&told), 1, 0);
		if (told.revents != 0 || __atomic_load_n(&record->taken, __ATOMIC_SEQ_CST) != 0)
			break;
	}
	close_fd(&record->lifeline[1]);
	if (__atomic_load_n(&record->taken, __ATOMIC_SEQ_CST) != 0)
		return true;
	fail(agent, TRACE_STEP_HANDSHAKE, 0);
	return false;
}

/* Answers until the tracer is gone, or says so, or time is up. */
static void trace(struct agent *agent)
{
	struct trace_record *record = agent->record;

	for (;;) {
		struct poll fds[3] = {{record->lifeline[0], 1, 0},
			{record->uffd[TRACE_KIND_PRIVATE], 1, 0},
			{record->uffd[TRACE_KIND_SHARED], 1, 0}};
		const uint64_t ns = now_ns();
		const uint64_t deadline_ns =
			__atomic_load_n(&record->deadline_ns, __ATOMIC_RELAXED);
		uint64_t wait_ms = deadline_ns > ns ? (deadline_ns - ns) / 1000000 + 1 : 0;

		if (wait_ms > POLL_MOST_MS)
			wait_ms = POLL_MOST_MS;
		if (agent->children != NULL)
			wait_ms = 0;
		(void)call3(SYS_poll, word(fds), 3, wait_ms);
		serve(agent);
		if (fds[0].revents != 0 || ns >= deadline_ns)
			return;
	}
}

/* Without a stack, which is in what it unmaps. Only the code remains. */
static _Noreturn void vanish(const struct trace_record *record)
{
	__asm__ volatile("mov $11, %%eax\n" /* munmap */
			 "syscall\n"
			 "xor %%edi, %%edi\n"
			 "mov $60, %%eax\n" /* exit: of this thread */
			 "syscall\n"
			 "hlt\n"
			 :
			 : "D"(record->data_address), "S"(record->data_bytes)
			 : "rax", "rcx", "r11", "memory");
	__builtin_unreachable();
}

static _Noreturn void leave(struct trace_record *record)
{
	close_fd(&record->lifeline[0]);
	close_fd(&record->lifeline[1]);
	set_state(record,
		record->failed_step == TRACE_STEP_NONE ? TRACE_STATE_DONE : TRACE_STATE_FAILED);
	if (__atomic_load_n(&record->orderly, __ATOMIC_SEQ_CST) == 0)
		vanish(record);
	for (;;)
		(void)call3(60, 0, 0, 0);
}

void agent_main(struct trace_record *record);
void agent_main(struct trace_record *record)
{
	char *const base = (char *)record;
	struct agent agent;
	int64_t code;

	/* Not by an initialiser, which might become a call of memset(3). */
	agent.record = record;
	agent.self.uffd = -1;
	agent.self.gone = (uint64_t *)(void *)(base + record->gone_offset);
	agent.self.areas = (struct trace_area *)(void *)(base + record->areas_offset);
	agent.self.area_count = record->area_count;
	agent.self.area_room = record->area_room;
	agent.seen = (uint64_t *)(void *)(base + record->seen_offset);
	agent.log = (struct trace_entry *)(void *)(base + record->log_offset);
	agent.children = NULL;
	agent.scratch_registered = false;
	agent.hurry = false;
	agent.looked_ns = 0;
	agent.gap_ns = NULL;

	/*
	 * A table of descriptors of our own, empty: the process could close ours (closefrom(3)),
	 * and would hand them to its children.
	 */
	code = call3(SYS_close_range, 0, UINT32_MAX, CLOSE_RANGE_UNSHARE);
	if (code < 0)
		fail(&agent, TRACE_STEP_FILES, code);
	(void)call3(SYS_prctl, 15, word("rouse-trace"), 0); /* PR_SET_NAME */
	if (code == 0 && shake_hands(&agent)) {
		if (arm(&agent)) {
			set_state(record, TRACE_STATE_TRACING);
			trace(&agent);
		}
		disarm(&agent);
	}
	leave(record);
}
