/* SPDX-License-Identifier: MIT */
/* What of a file is in memory already. */
#ifndef ROUSE_SOURCE_PAGE_CACHE_H
#define ROUSE_SOURCE_PAGE_CACHE_H

/**
 * Percent of a file that is in the page cache, by a sample of its pages (mincore(2)). For a file
 * that the caller may neither write nor owns, Linux does not tell and says that all is there.
 * -errno: cannot be found out.
 */
int rouse_page_cache_percent(const char *path);

#endif
