/* SPDX-License-Identifier: MIT */
/* What is traced in a process: the parts of its blocks that are memory of a kind that can be. */
#ifndef ROUSE_API_TRACE_BLOCKS_H
#define ROUSE_API_TRACE_BLOCKS_H

#include "target/target.h"
#include "vmm/qemu_ram.h"
#include "wset/trace.h"

/** Where a range belongs. */
struct trace_place {
	uint32_t first_page; /**< its page number over all blocks */
};

struct trace_blocks {
	struct qemu_ram_block *blocks; /**< in the order of page numbers */
	size_t block_count;
	struct trace_range *ranges;
	struct trace_place *places; /**< one for each range */
	uint32_t range_count;
	uint64_t traced_bytes, untraced_bytes;
	uint32_t *vcpus; /**< thread ids by vCPU, as the process numbers them */
	size_t vcpu_count;
};

/**
 * Finds out what can be traced. @qmp: as in trace_session_config. Every block of 1 MiB or more that
 * is left out is logged. -ENOTSUP: nothing can be traced; -ENOMEM, and errors of the process or of
 * QEMU.
 */
int trace_blocks_find(struct target *target, struct qmp *qmp, uint64_t min_bytes,
	const struct rouse_observer *observer, struct trace_blocks *blocks,
	struct rouse_error *error);
/**
 * Whether a shared mapping of this @name in /proc/@pid/maps is of the page cache that userfaultfd
 * knows: shmem. Of a file without a name any more (QEMU unlinks those that it makes in a directory)
 * its directory tells. A device is none, although /dev has the looks of a tmpfs.
 */
bool trace_blocks_is_shmem(int pid, const char *name);
void trace_blocks_finish(struct trace_blocks *blocks);

#endif
