/* SPDX-License-Identifier: MIT */
/* The options of a save: what the caller knows of them, and what does not go together. */
#ifndef ROUSE_API_SAVE_OPTIONS_H
#define ROUSE_API_SAVE_OPTIONS_H

#include <rouse.h>

#include <stdbool.h>

/**
 * Those that were @given, whose size says which fields the caller knows; the others have their
 * defaults. -EINVAL, kind USAGE: *error says in a sentence what is wrong.
 */
int save_options_complete(const struct rouse_save_options *given,
	struct rouse_save_options *options, struct rouse_error *error);

/** Whether the working set is estimated by watching the VM from the checkpoint on. */
bool save_options_estimate_afterwards(const struct rouse_save_options *options);
/** By watching it up to the checkpoint. */
bool save_options_estimate_before(const struct rouse_save_options *options);

#endif
