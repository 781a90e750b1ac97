/* SPDX-License-Identifier: MIT */
/*
 * The agent: a thread of ours inside the traced process. It moves the memory aside, answers each
 * first touch and writes it down, and moves the rest back. It does so from within because
 * UFFDIO_MOVE works from within only, and because then nobody outside has to survive: the agent
 * dies with the process and not before, and when the tracer is gone (its end of a pipe closes) it
 * puts everything back by itself.
 *
 * It is built without a C library into one piece of code that runs at any address
 * (scripts/make-agent.py): no data, no calls out of its files, no floating point. All signals are
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
#include "wset/trace_agent.h"

/* The word on the stack is the record's address. */
__asm__(".section .text.start, \"ax\"\n"
	"pop %rdi\n"
	"call agent_main\n"
	"hlt\n"
	".text\n");

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
		agent_serve(agent);
		if (fds[0].revents != 0 || ns >= deadline_ns || agent->ending)
			return;
	}
}

_Static_assert(sizeof(struct trace_record) <= PAGE, "what stays is one page");

/*
 * Gives all memory back but the code and the record, and ends. Without a stack, which is in what
 * goes. The memory is that of a file, which lives as long as anything of it is mapped: to unmap it
 * would free nothing. And the record stays mapped for what the kernel writes when a thread ends: a
 * zero to where its number was, which must not meet other memory.
 */
static _Noreturn void vanish(const struct trace_record *record, uint64_t data_bytes)
{
	__asm__ volatile("mov $28, %%eax\n" /* madvise */
			 "syscall\n"
			 "xor %%edi, %%edi\n"
			 "mov $60, %%eax\n" /* exit: of this thread */
			 "syscall\n"
			 "hlt\n"
			 :
			 : "D"(word(record) + PAGE), "S"(data_bytes - PAGE), "d"(REMOVE)
			 : "rax", "rcx", "r11", "memory");
	__builtin_unreachable();
}

/*
 * Everything is as it was. The log is there until the tracer has read it, which it tells by closing
 * its end of the lifeline; if it is gone the kernel does.
 */
static void leave(struct trace_record *record)
{
	struct poll told = {record->lifeline[0], 0, 0};

	close_fd(&record->lifeline[1]);
	set_state(record,
		record->failed_step == TRACE_STEP_NONE ? TRACE_STATE_DONE : TRACE_STATE_FAILED);
	if (told.fd >= 0)
		(void)call3(SYS_poll, word(&told), 1, LINGER_MS);
	close_fd(&record->lifeline[0]);
	__atomic_store_n(&record->emptied, 1, __ATOMIC_SEQ_CST);
}

void agent_main(struct trace_record *record);
void agent_main(struct trace_record *record)
{
	char *const base = (char *)record;
	const uint64_t data_bytes = record->data_bytes; /* as the tracer wrote it */
	struct agent agent;
	int64_t code;

	/* Not by an initialiser, which might become a call of memset(3). */
	agent.record = record;
	agent.self.uffd = -1;
	agent.self.gone = (uint64_t *)(void *)(base + record->gone_offset);
	agent.self.areas = (struct trace_area *)(void *)(base + record->areas_offset);
	agent.self.area_count = record->area_count;
	agent.self.area_room = record->area_room;
	agent.self.grown_bytes = 0;
	agent.seen = (uint64_t *)(void *)(base + record->seen_offset);
	agent.log = (struct trace_entry *)(void *)(base + record->log_offset);
	agent.children = NULL;
	agent.slot_bytes = trace_child_bytes(
		record->pages, record->area_room - TRACE_SPARE_AREAS + TRACE_ENDING_AREAS);
	agent.slot = base + record->data_bytes - agent.slot_bytes;
	agent.slot_used = false;
	agent.scratch_registered = false;
	agent.naps = 0;
	agent.hurry = false;
	agent.ending = false;
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
		if (agent_arm(&agent)) {
			set_state(record, TRACE_STATE_TRACING);
			trace(&agent);
		}
		agent_disarm(&agent);
	}
	leave(record);
	vanish(record, data_bytes);
}
