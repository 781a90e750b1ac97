/* SPDX-License-Identifier: MIT */
/* What a working set is: the questions that the public header has, and the histories of pages. */
#include "wset/wset.h"

#include "base/error.h"

#include <stdlib.h>
#include <string.h>

#define PAGE_BYTES 4096u

uint64_t rouse_wset_vm_pages(const struct rouse_wset *wset)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < wset->block_count; i++)
		bytes += wset->blocks[i].used_bytes;
	return bytes / PAGE_BYTES;
}

struct rouse_wset_page rouse_wset_adopt(
	const struct rouse_wset *wset, const struct rouse_wset_page *page)
{
	struct rouse_wset_page adopted = *page;

	if (wset->runs == 0) {
		adopted.last = 1;
		adopted.count = adopted.looks = 1;
		adopted.weight = ROUSE_WSET_WEIGHT_ONE;
	}
	return adopted;
}

int rouse_wset_new_like(const struct rouse_wset *like, struct rouse_wset **wset)
{
	struct rouse_wset *w = calloc(1, sizeof(*w));

	if (w == NULL)
		return -ENOMEM;
	w->blocks = calloc((size_t)like->block_count + 1, sizeof(*w->blocks));
	if (w->blocks == NULL) {
		free(w);
		return -ENOMEM;
	}
	memcpy(w->blocks, like->blocks, like->block_count * sizeof(*w->blocks));
	w->block_count = like->block_count;
	*wset = w;
	return 0;
}

void rouse_wset_get_info(const struct rouse_wset *wset, struct rouse_wset_info *info)
{
	*info = (struct rouse_wset_info){.pages = wset->page_count,
		.block_count = wset->block_count,
		.ram_bytes = rouse_wset_vm_pages(wset) * PAGE_BYTES,
		.complete = (wset->flags & ROUSE_WSET_FLAG_COMPLETE) != 0,
		.version = wset->runs > 0 ? 2 : 1,
		.runs = wset->runs > 0 ? wset->runs : 1,
		.waiting = wset->waiting_count,
		.prefetched = wset->look.prefetched,
		.sampled = wset->look.sampled,
		.used = wset->look.used,
		.missed = wset->look.missed};
	for (uint32_t i = 0; i < wset->page_count; i++) {
		if (wset->pages[i].time_us > info->span_us)
			info->span_us = wset->pages[i].time_us;
	}
}

int rouse_wset_get_block(
	const struct rouse_wset *wset, uint32_t index, struct rouse_block_info *info)
{
	uint64_t first_page = 0;

	if (index >= wset->block_count)
		return -ERANGE;
	for (uint32_t i = 0; i < index; i++)
		first_page += wset->blocks[i].used_bytes / PAGE_BYTES;
	*info = (struct rouse_block_info){.name = wset->blocks[index].name,
		.used_bytes = wset->blocks[index].used_bytes,
		.first_page = first_page};
	return 0;
}

int rouse_wset_get_page(
	const struct rouse_wset *wset, uint64_t index, uint64_t *page, uint64_t *time_us)
{
	if (index >= wset->page_count)
		return -ERANGE;
	*page = wset->pages[index].page;
	*time_us = wset->pages[index].time_us;
	return 0;
}

int rouse_wset_get_entry(
	const struct rouse_wset *wset, uint64_t index, struct rouse_wset_page_info *entry)
{
	const bool waiting = index >= wset->page_count;
	struct rouse_wset_page page;

	if (index >= (uint64_t)wset->page_count + wset->waiting_count)
		return -ERANGE;
	page = rouse_wset_adopt(
		wset, waiting ? &wset->waiting[index - wset->page_count] : &wset->pages[index]);
	*entry = (struct rouse_wset_page_info){.page = page.page,
		.time_us = page.time_us,
		.vcpu = page.vcpu == ROUSE_WSET_VCPU_UNKNOWN ? -1 : page.vcpu,
		.count = page.count,
		.looks = page.looks,
		.last = page.last,
		.weight = page.weight / (double)ROUSE_WSET_WEIGHT_ONE,
		.waiting = waiting};
	return 0;
}
