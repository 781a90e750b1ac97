/* SPDX-License-Identifier: MIT */
/*
 * What the tracer and the agent, a thread of ours in the traced process, have in common: a memfd
 * named "rouse-trace", mapped in both. The agent alone writes what it found; it is read as bytes
 * from outside, and nothing in it is believed unchecked.
 *
 *	code | record | stack | areas | gone | seen | log | child
 *	     ^ data begins here
 *
 * Included by the agent too, which is built without a C library: constants and layout only.
 */
#ifndef ROUSE_WSET_TRACE_RECORD_H
#define ROUSE_WSET_TRACE_RECORD_H

#include <stdint.h>

#define TRACE_MAGIC UINT64_C(0x3143525445535552) /* "RUSETRC1" */
#define TRACE_VERSION 1u
#define TRACE_PAGE 4096u
#define TRACE_STACK_BYTES 65536u
#define TRACE_MAX_AREAS 256u
/*
 * For areas that mremap(2) takes apart. When so many are used that looking for one takes long, the
 * trace ends. The others are for what the process does until everything is back.
 */
#define TRACE_SPARE_AREAS 16384u
#define TRACE_ENDING_AREAS 512u
#define TRACE_MAX_PAGES (UINT32_C(1) << 28)
#define TRACE_CHILD_HEAD_BYTES 256u

enum trace_state {
	TRACE_STATE_BEGIN,
	TRACE_STATE_WAITING, /* for the tracer to take the lifeline's other end */
	TRACE_STATE_ARMING,
	TRACE_STATE_TRACING,
	TRACE_STATE_DISARMING,
	TRACE_STATE_DONE,   /* everything is as it was */
	TRACE_STATE_FAILED, /* likewise; failed_step and failed_code say why */
};

/* Where the agent failed. */
enum trace_step {
	TRACE_STEP_NONE,
	TRACE_STEP_FILES, /* a table of descriptors of its own */
	TRACE_STEP_PIPE,
	TRACE_STEP_HANDSHAKE,
	TRACE_STEP_USERFAULTFD,
	TRACE_STEP_FEATURES,
	TRACE_STEP_SCRATCH,
	TRACE_STEP_REGISTER,
	TRACE_STEP_UNMAP,
};

enum trace_kind {
	TRACE_KIND_PRIVATE, /* anonymous: moved to the scratch area and back */
	TRACE_KIND_SHARED,  /* shmem: unmapped, the page cache keeps it */
};

/* A part of the traced memory. Its pages are numbered first_page, first_page + 1, ... */
struct trace_area {
	uint64_t ram, bytes; /* address */
	uint64_t scratch;    /* address of what corresponds to ram; 0: not mapped */
	uint64_t first_page;
	uint64_t armed_bytes; /* so much from the beginning has been moved or unmapped */
	uint32_t kind;
	uint16_t dont_fork; /* a child does not have it */
	uint8_t moved;      /* by mremap(2), while it was traced */
	uint8_t registered; /* with our userfaultfd, and nobody else's */
};

/* A first touch. */
struct trace_entry {
	uint32_t page; /* bit 31: TRACE_ENTRY_WRITE */
	uint32_t tid;
	uint64_t ns; /* CLOCK_MONOTONIC */
};
#define TRACE_ENTRY_WRITE (UINT32_C(1) << 31)

struct trace_counters {
	uint64_t faults;    /* all that were answered */
	uint64_t moved;     /* by moving the page back */
	uint64_t copied;    /* by copying it, where moving was refused */
	uint64_t zeroed;    /* there was no page */
	uint64_t continued; /* shared: it was in the page cache */
	uint64_t repeated;  /* the page had been answered before */
	uint64_t skipped;   /* pages that were not, or could not be, moved aside: not watched */
	uint64_t removed;   /* pages that the process gave back */
	uint64_t forks, remaps;
	uint64_t service_ns; /* from a read of faults to the last of them answered */
	uint64_t batches;
	uint64_t lost; /* touches that the log had no room for */
};

struct trace_record {
	uint64_t magic;
	uint32_t version;
	uint32_t state;   /* futex: enum trace_state */
	uint32_t tid;     /* futex: the agent; 0 when it has ended (CLONE_CHILD_CLEARTID) */
	uint32_t taken;   /* futex: the tracer has the lifeline */
	uint32_t emptied; /* only this page has its memory still: the log is gone */
	uint32_t beats;   /* how often the agent has come round: it is at work while that grows */
	uint32_t failed_step;
	int32_t failed_code;
	/* Descriptors of the agent, which has a table of its own: the process cannot close them. */
	int32_t lifeline[2]; /* a pipe. Its writer gone, or a byte in it: the end of the trace */
	int32_t uffd[2];     /* by enum trace_kind; -1: none */
	uint64_t code_address, code_bytes; /* in the traced process */
	uint64_t data_address, data_bytes;
	uint64_t areas_offset; /* from the record's beginning, all four */
	uint64_t gone_offset;  /* a bit for a page: what is in the scratch area is not wanted */
	uint64_t seen_offset;  /* a bit for a page: it is in the log */
	uint64_t log_offset;
	uint32_t area_count, area_room;
	uint64_t pages;
	uint64_t log_count, log_room;
	uint64_t deadline_ns; /* CLOCK_MONOTONIC: the trace ends then in any case */
	uint64_t arm_begin_ns, arm_end_ns, disarm_begin_ns, disarm_end_ns;
	uint64_t arm_gap_ns, disarm_gap_ns; /* the longest time that faults were not looked at */
	struct trace_counters counters;
};

/*
 * How many bytes at the data's end are for one child, if the process has no address space for it: a
 * structure of the agent, its bits "gone", its areas. Whole pages.
 */
static inline uint64_t trace_child_bytes(uint64_t pages, uint64_t areas)
{
	const uint64_t bytes =
		TRACE_CHILD_HEAD_BYTES + (pages + 63) / 64 * 8 + areas * sizeof(struct trace_area);

	return (bytes + TRACE_PAGE - 1) / TRACE_PAGE * TRACE_PAGE;
}

#endif
