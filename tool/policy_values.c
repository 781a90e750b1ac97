/* SPDX-License-Identifier: MIT */
/* The policies by name: for the option that takes one, and for reports. */
#include "options.h"
#include "tool.h"

#include <rouse.h>
#include <stddef.h>

const struct option_value policy_values[] = {
	{"auto", ROUSE_POLICY_AUTO},
	{"eager", ROUSE_POLICY_EAGER},
	{"lazy", ROUSE_POLICY_LAZY},
	{"ws", ROUSE_POLICY_WS},
	{"paced", ROUSE_POLICY_PACED},
	{"reap", ROUSE_POLICY_REAP},
	{"faasnap", ROUSE_POLICY_FAASNAP},
	{"lazy-background", ROUSE_POLICY_LAZY_BACKGROUND},
	{NULL, 0},
};

bool policy_needs_set(enum rouse_policy policy)
{
	switch (policy) {
	case ROUSE_POLICY_WS:
	case ROUSE_POLICY_PACED:
	case ROUSE_POLICY_REAP:
	case ROUSE_POLICY_FAASNAP:
		return true;
	case ROUSE_POLICY_AUTO:
	case ROUSE_POLICY_EAGER:
	case ROUSE_POLICY_LAZY:
	case ROUSE_POLICY_LAZY_BACKGROUND:
		break;
	}
	return false;
}
