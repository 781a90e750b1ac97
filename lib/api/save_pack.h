/* SPDX-License-Identifier: MIT */
/*
 * The thread of a save that decodes QEMU's stream and writes the image. It is a thread of its own
 * also because its priority is inherited by the image writer's compressing threads: they stand
 * back while the guest runs.
 */
#ifndef ROUSE_API_SAVE_PACK_H
#define ROUSE_API_SAVE_PACK_H

#include "api/metadata.h"
#include "api/page_order.h"
#include "api/save_drain.h"
#include "image/image_writer.h"

struct save_pack;

struct save_pack_config {
	const char *image;
	const char *wset; /**< or NULL */
	const struct rouse_layout *layout;
	struct page_order *order; /**< is told of every page, or NULL */
	const struct rouse_observer *observer;
	bool low_priority; /**< the guest goes before it */
	int notify_fd;     /**< an eventfd: written to at the first page, and when all is packed */
};

/**
 * Creates the image's temporary file, then starts taking the stream from @drain. @config's
 * contents must outlive it, @drain too. When it fails later, it removes that file, then aborts the
 * drain.
 */
int save_pack_start(const struct save_pack_config *config, struct save_drain *drain,
	struct save_pack **pack, struct rouse_error *error);

/** Pages have come: the VM's state is fixed, and QEMU tracks what it writes. */
bool save_pack_streaming(const struct save_pack *pack);
bool save_pack_ended(const struct save_pack *pack);
/** Bytes of RAM packed so far, and of all RAM (0: not known yet). */
void save_pack_get_progress(struct save_pack *pack, uint64_t *done, uint64_t *total);

/** It failed so long ago, and is still giving its file up. */
bool save_pack_has_failed(const struct save_pack *pack, unsigned int ms);
/**
 * Removes the temporary file, for a VM that is to run on and may need its room. The drain must have
 * been aborted or ended. A thread that hangs in a slow disk is waited for only so long.
 */
void save_pack_give_up(struct save_pack *pack, unsigned int timeout_ms);

/** Waits for its end. What went wrong, if anything did. */
int save_pack_finish(struct save_pack *pack, struct rouse_error *error);

/**
 * After save_pack_finish() returned 0: adds the sections and commits the image. machine and
 * ram_bytes of @metadata are filled in.
 */
int save_pack_commit(struct save_pack *pack, struct rouse_metadata *metadata,
	struct rouse_writer_stats *stats, struct rouse_error *error);

/** Aborts the image if it was not committed. The drain must have been aborted or ended. */
void save_pack_free(struct save_pack *pack);

#endif
