/* SPDX-License-Identifier: MIT */
#include "api/restore_options.h"

#include "base/error.h"
#include "engine/policy_traits.h"

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
	else if (options->ttr.utilization <= 0 || options->ttr.utilization > 1 ||
		 options->ttr.window_us == 0)
		wrong = "a TTR needs a utilization above 0 and up to 1, and a window above 0";
	return wrong == NULL ? 0 : rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL, "%s", wrong);
}
