/* SPDX-License-Identifier: MIT */
/* rouse wset show: a working set for people and for programs. */
#ifndef ROUSE_TOOL_WSET_SHOW_H
#define ROUSE_TOOL_WSET_SHOW_H

#include "tool.h"

/** An exit code. @pages: each page, too. */
int wset_show_json(const struct rouse_wset *wset, bool pages);
int wset_show_print(const struct rouse_wset *wset, bool pages);

#endif
