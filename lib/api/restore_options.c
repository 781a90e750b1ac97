/* SPDX-License-Identifier: MIT */
#include "api/restore_options.h"

#include "base/error.h"
#include "base/io.h"
#include "engine/policy_traits.h"
#include "ttr/ttr.h"
#include "wset/wset.h"

#include <errno.h>

void rouse_restore_options_init(struct rouse_restore_options *options)
{
	*options = (struct rouse_restore_options){
		.size = sizeof(*options),
		.background = ROUSE_BACKGROUND_AUTO,
		.ttr = {.utilization = 0.9, .window_us = 100000},
		.learn_us = 5000000,
		.learn_stale = 0.5,
		.backend = ROUSE_BACKEND_AUTO,
	};
}

static bool may_use_set(enum rouse_policy policy)
{
	return policy == ROUSE_POLICY_AUTO ||
	       rouse_policy_traits(policy)->prefetch == ROUSE_PREFETCH_SET;
}

/* Before anything is started: what a restore has seen is written when it is over. */
static int check_places(const struct rouse_restore_options *options, struct rouse_error *error)
{
	const char *record = options->record, *learn = options->learn;
	const char *const kept[] = {options->image, options->flat, options->wset, learn, record};

	for (size_t i = 0; options->stall_log != NULL && i < sizeof(kept) / sizeof(kept[0]); i++) {
		if (kept[i] != NULL && rouse_io_is_same_file(options->stall_log, kept[i]))
			return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
				"the stall log would take the place of %s: name another file",
				kept[i]);
	}
	if (options->stall_log != NULL) {
		const int code = rouse_stalls_check_place(options->stall_log, error);

		if (code < 0)
			return code;
	}
	if (record == NULL)
		return 0;
	if (learn != NULL && rouse_io_is_same_file(record, learn))
		return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
			"record and learn into two files: what is recorded replaces what was "
			"learned");
	return rouse_wset_check_place(record, error);
}

int restore_options_check(const struct rouse_restore_options *options, struct rouse_error *error)
{
	const bool watching = options->record != NULL || options->learn != NULL;
	const char *wrong = NULL;

	if (options->image == NULL)
		wrong = "no image is given";
	else if ((unsigned int)options->policy >= ROUSE_POLICY_COUNT)
		wrong = "there is no such policy";
	else if (options->resume && options->qmp_socket == NULL)
		wrong = "taking over a restore needs the VM's QMP socket (--qmp)";
	else if (options->resume && options->paused)
		wrong = "a VM that is taken over runs, or is paused, as it was: QMP's stop pauses "
			"it";
	else if (options->qmp_socket != NULL && options->argv != NULL)
		wrong = "either a QEMU that waits (--qmp) or a command to start, not both";
	else if (options->wset != NULL && !may_use_set(options->policy))
		wrong = "this policy has no use for a working set: take auto, ws or paced";
	else if (watching && rouse_policy_traits(options->policy)->of_others)
		wrong = "how others restore is there to be compared with: record with policy lazy, "
			"learn with ws or lazy";
	else if (watching && options->policy == ROUSE_POLICY_PACED)
		wrong = "after a paced start pages come unasked, so that not all touches are seen: "
			"record with policy lazy, learn with ws or lazy";
	else if (options->record != NULL && options->policy == ROUSE_POLICY_EAGER)
		wrong = "an eager restore sees no touches to record: use policy lazy";
	else if (options->record != NULL && options->resume)
		wrong = "a restore that is taken over cannot be recorded: its beginning is lost";
	else if (options->learn != NULL && options->policy == ROUSE_POLICY_EAGER)
		wrong = "an eager restore sees no touches to learn from: use another policy";
	else if (options->learn != NULL && options->resume)
		wrong = "a restore that is taken over cannot be learned from: its beginning is "
			"lost";
	else if (options->learn != NULL && options->paused)
		wrong = "a VM that is left paused touches nothing to learn from";
	else if (options->learn != NULL && options->learn_us == 0)
		wrong = "learning needs a time during which nothing is delivered unasked";
	else if ((unsigned int)options->backend > ROUSE_BACKEND_AUTO)
		wrong = "there is no such backend";
	else if (!(options->learn_stale >= 0 && options->learn_stale <= 1))
		wrong = "the hit rate below which a set is stale is a number from 0 to 1";
	else if (!(options->ttr.utilization > 0 && options->ttr.utilization <= 1) ||
		 options->ttr.window_us == 0)
		wrong = "a TTR needs a utilization above 0 and up to 1, and a window above 0";
	if (wrong != NULL)
		return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL, "%s", wrong);
	return check_places(options, error);
}
