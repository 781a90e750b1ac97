/* SPDX-License-Identifier: MIT */
/* Every page of an image, for laying it out anew or turning it into something else. */
#ifndef ROUSE_API_IMAGE_PAGES_H
#define ROUSE_API_IMAGE_PAGES_H

#include "api/image.h"

/** A page that is not zero. A negative return ends the walk with that code. */
typedef int rouse_page_fn(void *user, uint64_t page, const void *data);

/**
 * Calls @page for each page that is not zero, once; zero pages are passed over. Pages come in
 * stretches of 1 GiB of the VM, within them in the order in which they are stored, so that each
 * chunk is read and decompressed once for each stretch that has pages in it.
 * @phase: for the progress. -EUCLEAN (what is damaged is named), -ENOMEM, -ECANCELED, the
 * source's, and what @page returned.
 */
int rouse_image_each_page(struct rouse_source *source, struct rouse_reader *reader,
	rouse_page_fn *page, void *user, const char *phase, const struct rouse_observer *observer,
	struct rouse_error *error);

/**
 * The same for @count pages in the order of @pages, one for each stored page of them. A chunk is
 * read again whenever another came in between. -ERANGE: there is no such page.
 */
int rouse_image_some_pages(struct rouse_source *source, struct rouse_reader *reader,
	const uint64_t *pages, size_t count, rouse_page_fn *page, void *user, const char *phase,
	const struct rouse_observer *observer, struct rouse_error *error);

#endif
