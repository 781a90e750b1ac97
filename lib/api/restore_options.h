/* SPDX-License-Identifier: MIT */
/* The options of a restore: what they are when nobody says, and what does not go together. */
#ifndef ROUSE_API_RESTORE_OPTIONS_H
#define ROUSE_API_RESTORE_OPTIONS_H

#include <rouse.h>

/**
 * What every backend refuses; what one of them refuses, it says itself. -EINVAL: *error says in a
 * sentence what is wrong, of the kind ROUSE_ERROR_USAGE.
 */
int restore_options_check(const struct rouse_restore_options *options, struct rouse_error *error);

#endif
