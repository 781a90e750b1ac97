/* SPDX-License-Identifier: MIT */
/* What the tracer's files share. */
#ifndef ROUSE_WSET_TRACE_PRIVATE_H
#define ROUSE_WSET_TRACE_PRIVATE_H

#include "target/agent.h"
#include "wset/trace.h"
#include "wset/trace_record.h"

#define TRACE_MEMFD_NAME "rouse-trace"

/*
 * Whether a record makes sense for a memfd of @memfd_bytes bytes in which it lies at
 * @record->code_bytes: every size and offset is inside, and nothing overlaps the record. Pure: for
 * bytes that the traced process could have changed. -EUCLEAN, -EPROTONOSUPPORT (another version).
 */
int trace_record_check(const struct trace_record *record, uint64_t memfd_bytes);

/*
 * Whether a record, read when the trace has ended, still has the sizes and places of @laid_out, the
 * tracer's own copy of what it wrote at first: it has mapped those, and nothing else. Pure.
 * -EUCLEAN: the process has changed it.
 */
int trace_record_check_end(const struct trace_record *record, const struct trace_record *laid_out);

/* A loaded value of a word that the agent changes. */
static inline uint32_t trace_load(const uint32_t *word)
{
	return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

/* Wakes who waits for @word with futex(2), in any process. */
void trace_wake(uint32_t *word);

/*
 * Waits until @word is not @value any more, at most 20 ms. It may return earlier.
 */
void trace_sleep(uint32_t *word, uint32_t value);

/* The agent's thread in the process, by its name, as numbered here; 0: there is none. */
int trace_find_thread(const struct target *target);

/*
 * A writing end of the agent's pipe @fd, the caller's. -ESRCH: there is no agent (any more), or @fd
 * is no pipe: it comes from the traced process, and any other file would be opened with our rights.
 * Errors of open(2).
 */
int trace_open_lifeline(const struct target *target, int fd);

/* Tells the agent by a writing end of its pipe that the trace is to end. It may be gone. */
void trace_tell(int lifeline);

/* Whether a mapping is an agent's. */
bool trace_is_agents(const struct target_map *map);

#endif
