/* SPDX-License-Identifier: MIT */
/* Past the page cache while nobody else reads the file. source.h has the drawing. */
#ifndef ROUSE_SOURCE_AUTO_SOURCE_H
#define ROUSE_SOURCE_AUTO_SOURCE_H

#include "source/source.h"

/**
 * Takes @direct (direct_source.h) over, also on an error. With the first bulk read that finds
 * somebody else reading the file it goes over to the page cache, for good. -ENOMEM.
 */
int rouse_auto_source_new(struct rouse_source *direct, struct rouse_source **source);

#endif
