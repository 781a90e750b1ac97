/* SPDX-License-Identifier: MIT */
/*
 * `--backend map`: a restore whose memory is a private mapping of a flat file. There is nothing to
 * place and nobody to serve: the kernel reads what is touched, and Rouse only reads ahead of it.
 *
 *   warm the working set ------.
 *   start QEMU, mapping the file '-> send what the file is not, and the devices -> the guest runs
 *                                    -> warm the rest, while the vCPUs' stalls are sampled
 *
 * For rouse_restore() alone.
 */
#ifndef ROUSE_API_RESTORE_MAP_H
#define ROUSE_API_RESTORE_MAP_H

#include "api/metadata.h"
#include "image/image_reader.h"
#include "wset/wset.h"

struct restore_map_config {
	const struct rouse_restore_options *options; /* the caller's, as all below */
	const struct rouse_observer *observer;
	struct rouse_reader *reader;
	const struct rouse_metadata *metadata;
	const struct rouse_wset *wset; /* instead of the image's own, or NULL */
	uint64_t requested_ns;
};

/** What cannot be had with a mapped file. -EINVAL, kind USAGE. */
int restore_map_check(const struct rouse_restore_options *options, struct rouse_error *error);

/** Errors: those of rouse_restore(). A QEMU whose guest has not run is ended. */
int restore_map(const struct restore_map_config *config, struct rouse_restore_report *report,
	struct rouse_error *error);

#endif
