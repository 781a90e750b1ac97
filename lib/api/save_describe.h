/* SPDX-License-Identifier: MIT */
/* What a running VM is, for the metadata of its image. */
#ifndef ROUSE_API_SAVE_DESCRIBE_H
#define ROUSE_API_SAVE_DESCRIBE_H

#include "api/metadata.h"
#include "vmm/qmp.h"

/**
 * Fills in version, vCPUs, command line, working directory, executable and the time. What cannot
 * be found out is left out, with a warning in the log.
 */
int save_describe(struct qmp *qmp, const struct rouse_observer *observer,
	struct rouse_metadata *metadata, struct rouse_error *error);

/**
 * The VM's run state: *running. -EBUSY, -ENOTSUP: a state that an image would not bring back.
 */
int save_check_state(struct qmp *qmp, bool *running, struct rouse_error *error);

#endif
