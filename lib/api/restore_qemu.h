/* SPDX-License-Identifier: MIT */
/*
 * The QEMU of a restore: one that waits, one that is started, or one whose restore broke off; and
 * the sink to it. For rouse_restore() alone.
 */
#ifndef ROUSE_API_RESTORE_QEMU_H
#define ROUSE_API_RESTORE_QEMU_H

#include "api/metadata.h"
#include "api/monitor_path.h"
#include "image/image_reader.h"
#include "sink/sink.h"
#include "vmm/qemu_hold.h"
#include "vmm/qemu_map.h"
#include "vmm/qemu_process.h"
#include "vmm/qmp.h"

/** How the VM's memory and devices are handed over. */
enum restore_way {
	RESTORE_PRECOPY, /* by QEMU's stream, all that is sent before the start; also with a map */
	RESTORE_POSTCOPY,
	RESTORE_UFFD,
};

struct restore_qemu {
	enum restore_way way;
	struct qemu_process process; /* pid 0: it is not ours */
	struct qmp *qmp;
	struct rouse_sink *sink;
	struct qemu_block *blocks; /* of the image, as the sink wants them */
	uint32_t block_count;
	unsigned int vcpus; /* 0 until known */
	uint32_t *threads;  /* of the vCPUs, as vcpu_threads_list(); or NULL */
	size_t thread_count;
	struct qemu_hold hold;           /* for RESTORE_UFFD, until there is a sink */
	const struct qemu_map_file *map; /* of restore_qemu_open_map(), or NULL */
	bool deposited; /* QEMU holds a duplicate of our end of qmp: see vmm/qemu_rescue.h */
	char monitor[ROUSE_MONITOR_BYTES];
};

/** None yet, for cleanup. */
#define RESTORE_QEMU_INIT \
	((struct restore_qemu){.process = QEMU_PROCESS_INIT, .hold = QEMU_HOLD_INIT})

/**
 * Gets hold of a QEMU as @options say, checks it against the image, makes the connection and the
 * sink. In a takeover the way is found out, and @way is not used. Whatever it returns,
 * restore_qemu_finish() cleans up. Errors: those of rouse_restore().
 */
int restore_qemu_open(struct restore_qemu *qemu, const struct rouse_restore_options *options,
	enum restore_way way, const struct rouse_metadata *metadata, struct rouse_reader *reader,
	const struct rouse_observer *observer, struct rouse_error *error);

/**
 * The same with a QEMU that is started with a file as its memory. The sink sends what is placed
 * before its start and the devices; the rest of the block stays what the file has.
 * -ENOTSUP: its command line cannot be rewritten for that.
 */
int restore_qemu_open_map(struct restore_qemu *qemu, const struct rouse_restore_options *options,
	const struct qemu_map_file *map, const struct rouse_metadata *metadata,
	struct rouse_reader *reader, const struct rouse_observer *observer,
	struct rouse_error *error);

/** Whether the VM is to run. Without metadata (a converted image) the wish is all there is. */
bool restore_qemu_shall_run(
	const struct rouse_restore_options *options, const struct rouse_metadata *metadata);

/**
 * Puts into @error, of @code, what QEMU has to say: why the connection broke, or that it is gone.
 * An error that says more than that while QEMU lives stays. Returns the error's code.
 */
int restore_qemu_explain(struct restore_qemu *qemu, int code, struct rouse_error *error);

/** The VM has all pages: takes back what was left in QEMU for another Rouse. */
void restore_qemu_complete(struct restore_qemu *qemu);

/**
 * @keep: a QEMU that was started lives on; otherwise it is ended. A VM that lacks pages can be
 * taken over from then on, by this process as well.
 */
void restore_qemu_finish(struct restore_qemu *qemu, bool keep);

#endif
