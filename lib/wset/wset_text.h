/* SPDX-License-Identifier: MIT */
/*
 * The text form of a working set, for other tools. Pure, without I/O.
 *
 *   # a comment, or an empty line
 *   block USED_BYTES NAME         the VM's RAM blocks, in its order; NAME goes to the line's end
 *
 *   runs N                        restores that the set comes from
 *
 *   complete                      a touch of any page would have been seen
 *
 *   PAGE TIME_US [VCPU [COUNT]]   VCPU "-": unknown; COUNT: restores that touched it, up to N
 *
 * Numbers are decimal, without sign; words are parted by spaces or tabs; lines end with \n. Pages
 * come last, each once; where times are equal their order stands. Without `runs` and COUNT it is
 * the set of one restore. What a learned set knows beyond that (pages that wait, the latest
 * restore that touched a page, weights other than COUNT / N) is not in the text.
 */
#ifndef ROUSE_WSET_WSET_TEXT_H
#define ROUSE_WSET_WSET_TEXT_H

#include "wset/wset.h"

#define ROUSE_WSET_TEXT_MAX_LINE 511u

/**
 * Parses the text form from untrusted bytes. @like: a set of the same VM, whose blocks a text
 * without any gets; or NULL. -EUCLEAN: a line makes no sense, the message names it; -EINVAL: there
 * are no blocks, or others than @like's; -ENOMEM.
 */
int rouse_wset_text_parse(const char *text, size_t size, const struct rouse_wset *like,
	struct rouse_wset **wset, struct rouse_error *error);

/** *text is the caller's to free(3). -ENOMEM; -EINVAL: a name would not stand in one line. */
int rouse_wset_text_encode(
	const struct rouse_wset *wset, char **text, size_t *size, struct rouse_error *error);

#endif
