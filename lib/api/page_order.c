/* SPDX-License-Identifier: MIT */
#include "api/page_order.h"

#include "base/bitmap.h"
#include "base/clock.h"
#include "base/error.h"

#include <stdlib.h>
#include <string.h>

#define PAGE_BYTES 4096u

struct page_order {
	struct rouse_bitmap sent;
	uint64_t next; /* where the walk is; below it may be unsent pages, after a jump */
	uint64_t began_us;
	struct rouse_wset *wset; /* the result, growing */
	size_t room;
};

int page_order_new(struct page_order **order)
{
	struct page_order *o = calloc(1, sizeof(*o));

	if (o == NULL)
		return -ENOMEM;
	o->wset = calloc(1, sizeof(*o->wset));
	if (o->wset == NULL) {
		free(o);
		return -ENOMEM;
	}
	*order = o;
	return 0;
}

int page_order_set_blocks(
	struct page_order *order, const struct rouse_block *blocks, uint32_t count)
{
	struct rouse_wset *wset = order->wset;
	uint64_t pages = 0;

	wset->blocks = calloc(count, sizeof(*wset->blocks));
	if (wset->blocks == NULL)
		return -ENOMEM;
	wset->block_count = count;
	for (uint32_t i = 0; i < count; i++) {
		memcpy(wset->blocks[i].name, blocks[i].name, sizeof(wset->blocks[i].name));
		wset->blocks[i].used_bytes = blocks[i].used_bytes;
		pages += blocks[i].used_bytes / PAGE_BYTES;
	}
	order->began_us = rouse_clock_us();
	return rouse_bitmap_init(&order->sent, pages);
}

static int add(struct page_order *order, uint64_t page)
{
	struct rouse_wset *wset = order->wset;
	const uint64_t us = rouse_clock_us() - order->began_us;

	if (wset->page_count == order->room) {
		const size_t room = order->room > 0 ? order->room * 2 : 4096;
		struct rouse_wset_page *larger = reallocarray(wset->pages, room, sizeof(*larger));

		if (larger == NULL)
			return -ENOMEM;
		wset->pages = larger;
		order->room = room;
	}
	wset->pages[wset->page_count++] = (struct rouse_wset_page){
		.page = (uint32_t)page,
		.time_us = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX,
		.vcpu = ROUSE_WSET_VCPU_UNKNOWN,
		.flags = ROUSE_WSET_PAGE_FAULTED,
	};
	return 0;
}

/* The next unsent page from @from on, around the end; the number of pages if all are sent. */
static uint64_t next_unsent(const struct page_order *order, uint64_t from)
{
	const uint64_t pages = order->sent.bits;

	for (unsigned int round = 0; round < 2; round++) {
		uint64_t page = round == 0 ? from : 0;

		while (page < pages && rouse_bitmap_test(&order->sent, page))
			page += page % 64 == 0 && order->sent.words[page / 64] == UINT64_MAX ? 64
											     : 1;
		if (page < pages)
			return page;
	}
	return pages;
}

int page_order_note(struct page_order *order, uint64_t page)
{
	uint64_t expected;

	if (page >= order->sent.bits || rouse_bitmap_test(&order->sent, page))
		return 0;
	expected = next_unsent(order, order->next);
	rouse_bitmap_set(&order->sent, page);
	order->next = page + 1 < order->sent.bits ? page + 1 : 0;
	return page == expected ? 0 : add(order, page);
}

int page_order_wset(const struct page_order *order, struct rouse_wset **wset)
{
	const struct rouse_wset *from = order->wset;
	struct rouse_wset *w = calloc(1, sizeof(*w));

	if (w != NULL) {
		w->blocks = calloc(from->block_count + 1, sizeof(*w->blocks));
		w->pages = calloc((size_t)from->page_count + 1, sizeof(*w->pages));
	}
	if (w == NULL || w->blocks == NULL || w->pages == NULL) {
		rouse_wset_close(w);
		return -ENOMEM;
	}
	w->block_count = from->block_count;
	w->page_count = from->page_count;
	memcpy(w->blocks, from->blocks, from->block_count * sizeof(*w->blocks));
	if (from->page_count > 0)
		memcpy(w->pages, from->pages, from->page_count * sizeof(*w->pages));
	*wset = w;
	return 0;
}

void page_order_free(struct page_order *order)
{
	if (order == NULL)
		return;
	rouse_bitmap_finish(&order->sent);
	rouse_wset_close(order->wset);
	free(order);
}
