/* SPDX-License-Identifier: MIT */
/*
 * What the agent's files share. Only they include it: without a C library. trace_agent.c tells what
 * the agent is.
 */
#ifndef ROUSE_WSET_TRACE_AGENT_H
#define ROUSE_WSET_TRACE_AGENT_H

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
#define NOWHERE (UINT64_C(1) << 63) /* no address of a process */
#define MESSAGES 64
#define TRIES 64u
#define BUSY_TRIES 16u      /* for a huge page that is in use, with a nap before each */
#define BUSY_NAPS 1024u     /* of one arming; then what is in use is left at once */
#define CHILD_PIECE 256u    /* pages given to a child between two looks at the faults */
#define HANDSHAKE_WAITS 150 /* of 20 ms */
#define POLL_MOST_MS 1000
#define LINGER_MS 10000 /* so long a tracer may take to read the log */
#define SECOND_NS UINT64_C(1000000000)

enum {
	E_NOENT = 2,
	E_SRCH = 3,
	E_AGAIN = 11,
	E_NOMEM = 12,
	E_FAULT = 14,
	E_BUSY = 16,
	E_EXIST = 17,
};
enum {
	SYS_read = 0,
	SYS_close = 3,
	SYS_poll = 7,
	SYS_mmap = 9,
	SYS_munmap = 11,
	SYS_ioctl = 16,
	SYS_mremap = 25,
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
#define REMOVE 9
#define DONTFORK 10
#define DONTDUMP 16

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
	uint64_t grown_bytes; /* of the mapping that areas is, if there was no room; or 0 */
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
	void *slot;             /* for a child that there is no address space for; in the data */
	uint64_t slot_bytes;
	bool slot_used;
	bool scratch_registered;
	uint32_t naps; /* taken while arming, because of pages in use */
	bool hurry;    /* no more arming */
	bool ending;   /* no more tracing: there are too many areas */
	uint64_t looked_ns;
	uint64_t *gap_ns; /* where the longest time without a look is kept; or NULL */
	struct uffd_msg messages[MESSAGES];
};

/* ---- System calls -------------------------------------------------------------------------- */

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

/* Whether a result, of mmap(2) for one, is an error. */
static inline bool is_error(int64_t result)
{
	return result < 0 && result >= -4095;
}

static inline uint64_t word(const void *pointer)
{
	return (uint64_t)(uintptr_t)pointer;
}

static inline int64_t control(int fd, uint64_t request, void *argument)
{
	return call3(SYS_ioctl, (uint64_t)fd, request, word(argument));
}

static inline uint64_t now_ns(void)
{
	struct time now = {0, 0};

	(void)call3(SYS_clock_gettime, 1, word(&now), 0);
	return (uint64_t)now.s * SECOND_NS + (uint64_t)now.ns;
}

static inline void nap(void)
{
	struct time a_while = {0, 100000};

	(void)call3(SYS_nanosleep, word(&a_while), 0, 0);
}

static inline void close_fd(int32_t *fd)
{
	if (*fd >= 0)
		(void)call3(SYS_close, (uint64_t)*fd, 0, 0);
	*fd = -1;
}

static inline void set_state(struct trace_record *record, uint32_t state)
{
	__atomic_store_n(&record->state, state, __ATOMIC_SEQ_CST);
	(void)call3(SYS_futex, word(&record->state), FUTEX_WAKE, INT32_MAX);
}

static inline void fail(struct agent *agent, enum trace_step step, int64_t code)
{
	if (agent->record->failed_step != TRACE_STEP_NONE)
		return;
	agent->record->failed_step = step;
	agent->record->failed_code = (int32_t)code;
}

static inline bool get_bit(const uint64_t *bits, uint64_t index)
{
	return (bits[index / 64] >> (index % 64) & 1) != 0;
}

static inline void set_bit(uint64_t *bits, uint64_t index)
{
	bits[index / 64] |= UINT64_C(1) << (index % 64);
}

static inline void copy_words(void *to, const void *from, uint64_t bytes)
{
	for (uint64_t i = 0; i < bytes / 8; i++)
		((volatile uint64_t *)to)[i] = ((const uint64_t *)from)[i];
}

static inline void unmap_grown(const struct space *space)
{
	if (space->grown_bytes > 0)
		(void)call3(SYS_munmap, word(space->areas), space->grown_bytes, 0);
}

/* The first run of clear bits in [*from, to): false if there is none. */
static inline bool next_clear(const uint64_t *bits, uint64_t *from, uint64_t to, uint64_t *length)
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

/* ---- One page (trace_agent_page.c) ---------------------------------------------------------- */

/* 0 or a negative errno value, all of them. *moved: bytes. */
int64_t agent_move(int uffd, uint64_t to, uint64_t from, uint64_t bytes, uint64_t *moved);
int64_t agent_copy(int uffd, uint64_t to, uint64_t from);
int64_t agent_zero(int uffd, uint64_t to);
void agent_wake(int uffd, uint64_t address);

/* From now on nothing of the scratch area is watched: reading a hole in it gives zeros. */
void agent_unregister_scratch(struct agent *agent);

/*
 * Puts a page back by copying, where it could not be moved: the mapping was made another kind
 * (mprotect, mlock), or the page is in use by the kernel. What cannot be read is marked so, as it
 * was before. 0, -E_AGAIN: later; otherwise there is nothing to put it into.
 */
int64_t agent_put_back_copy(struct agent *agent, uint64_t to, uint64_t from);

/* ---- Children (trace_agent_child.c) --------------------------------------------------------- */

/* A fork: the child has the RAM without what is in our scratch area. It will be given that. */
void agent_add_child(struct agent *agent, const struct space *parent, int uffd);
/* Page @page leaves the scratch area: children that lack it get it before. */
void agent_give_children(struct agent *agent, uint64_t page);
/* Gives the youngest child its next pages. */
void agent_feed_child(struct agent *agent);

/* ---- Answering (trace_agent_serve.c) -------------------------------------------------------- */

/* Takes note of what a child does to its mappings. */
void agent_read_child(struct agent *agent, struct space *child);
/* Answers what has come for private memory. */
void agent_serve_private(struct agent *agent);
/* Answers all that has come, and gives a child some pages. */
void agent_serve(struct agent *agent);

/* ---- Arming and disarming (trace_agent_arm.c) ------------------------------------------------ */

/* False: it failed, what and why is in the record; disarming is due in either case. */
bool agent_arm(struct agent *agent);
/* Everything is as it was, when it returns. */
void agent_disarm(struct agent *agent);

#endif
