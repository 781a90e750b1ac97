/* SPDX-License-Identifier: MIT */
/*
 * What the order of the pages in a background snapshot tells. QEMU walks through the RAM blocks
 * from the first page to the last. A page that the guest is about to write is write-protected until
 * it is sent, so it is sent at once, out of turn, and the walk goes on behind it. So: a page that
 * is not the next unsent one behind the page before was written by the guest.
 *
 * It misses pages that are only read, pages that the walk had passed before they were written, and
 * a written page that was the next one anyway.
 */
#ifndef ROUSE_API_PAGE_ORDER_H
#define ROUSE_API_PAGE_ORDER_H

#include "image/image_writer.h"
#include "wset/wset.h"

struct page_order;

/** -ENOMEM. Free with page_order_free(). */
int page_order_new(struct page_order **order);
/** The blocks, before the first page. -ENOMEM. */
int page_order_set_blocks(
	struct page_order *order, const struct rouse_block *blocks, uint32_t count);
/** The next page of the stream. -ENOMEM. A page that comes twice is ignored the second time. */
int page_order_note(struct page_order *order, uint64_t page);
/** The pages that came out of turn, as a working set, the caller's. -ENOMEM. */
int page_order_wset(const struct page_order *order, struct rouse_wset **wset);
/** NULL is fine. */
void page_order_free(struct page_order *order);

#endif
