/* SPDX-License-Identifier: MIT */
#include <rouse.h>

const char *rouse_version(void)
{
	return ROUSE_VERSION;
}
