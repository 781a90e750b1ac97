/* SPDX-License-Identifier: MIT */
#include "api/restore_record.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <string.h>

static void close_wset(struct rouse_wset **wset)
{
	rouse_wset_close(*wset);
}

static int compare_times(const void *a, const void *b)
{
	const struct rouse_wset_page *x = a, *y = b;

	return x->time_us < y->time_us ? -1 : x->time_us > y->time_us;
}

/* A set of the image's VM, with room for @room pages. */
static int new_set(const struct rouse_reader *reader, uint64_t room, struct rouse_wset **wset)
{
	cleanup_with(close_wset) struct rouse_wset *w = calloc(1, sizeof(*w));
	const struct rouse_block *blocks;

	if (room > ROUSE_WSET_MAX_PAGES)
		return -EFBIG;
	if (w == NULL)
		return -ENOMEM;
	blocks = rouse_reader_blocks(reader, &w->block_count);
	w->blocks = calloc((size_t)w->block_count + 1, sizeof(*w->blocks));
	w->pages = calloc(room + 1, sizeof(*w->pages));
	if (w->blocks == NULL || w->pages == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < w->block_count; i++) {
		memcpy(w->blocks[i].name, blocks[i].name, sizeof(w->blocks[i].name));
		w->blocks[i].used_bytes = blocks[i].used_bytes;
	}
	*wset = take_ptr(&w);
	return 0;
}

/*
 * The time of a page is that of its touch in a VM that never waits, as it will be once the set is
 * prefetched: what earlier faults took is left out, by what Rouse saw and what QEMU saw besides.
 * All of them, though other vCPUs went on meanwhile: too early is the safe side, for who must bring
 * the page in time. Their order stays.
 */
uint64_t restore_record_touch_us(
	struct restore_record_clock *clock, uint64_t after_ns, uint64_t service_ns)
{
	const uint64_t time_us =
		(after_ns > clock->waited_ns ? after_ns - clock->waited_ns : 0) / 1000;

	clock->waited_ns += service_ns + clock->transport_ns;
	if (time_us > clock->last_us)
		clock->last_us = time_us;
	return clock->last_us;
}

/* Returns what they have waited together, in nanoseconds. */
static uint64_t add_faults(struct rouse_wset *wset, const struct rouse_engine *engine,
	uint64_t until_us, uint64_t transport_ns)
{
	struct restore_record_clock clock = {.transport_ns = transport_ns};
	struct rouse_engine_stats stats;
	uint64_t count;
	const struct rouse_fault *faults = rouse_engine_faults(engine, &count);

	rouse_engine_get_stats(engine, &stats);
	for (uint64_t i = 0; i < count; i++) {
		uint64_t time_us = 0;

		if (faults[i].asked_ns > stats.started_ns) {
			const uint64_t after_ns = faults[i].asked_ns - stats.started_ns;

			if (after_ns / 1000 > until_us)
				continue;
			time_us = restore_record_touch_us(&clock, after_ns, faults[i].service_ns);
		}
		wset->pages[wset->page_count++] = (struct rouse_wset_page){
			.page = faults[i].page,
			.time_us = time_us < UINT32_MAX ? (uint32_t)time_us : UINT32_MAX,
			.vcpu = ROUSE_WSET_VCPU_UNKNOWN,
			.flags = ROUSE_WSET_PAGE_FAULTED,
		};
	}
	return clock.waited_ns;
}

int restore_record_faults(const struct rouse_engine *engine, const struct rouse_reader *reader,
	uint64_t until_us, uint64_t transport_ns, struct rouse_wset **trace)
{
	uint64_t count;
	int code;

	(void)rouse_engine_faults(engine, &count);
	code = new_set(reader, count, trace);
	if (code < 0)
		return code;
	(void)add_faults(*trace, engine, until_us, transport_ns);
	return 0;
}

static struct rouse_wset_page own_page(const struct rouse_image_wset *own, uint32_t index)
{
	return (struct rouse_wset_page){.page = (uint32_t)own->pages[index].page,
		.time_us = own->pages[index].time_us,
		.vcpu = ROUSE_WSET_VCPU_UNKNOWN};
}

int restore_record_own(const struct rouse_reader *reader, struct rouse_wset **wset)
{
	const struct rouse_image_wset *own = rouse_reader_wset(reader);
	int code = new_set(reader, own->page_count, wset);

	if (code < 0)
		return code;
	for (uint32_t i = 0; i < own->page_count; i++)
		(*wset)->pages[(*wset)->page_count++] = own_page(own, i);
	return 0;
}

static void add_prefetched(struct rouse_wset *wset, const struct restore_record *record)
{
	const struct rouse_image_wset *own = rouse_reader_wset(record->reader);
	const struct rouse_wset *given = record->prefetched;
	uint32_t count = given != NULL ? given->page_count : own->page_count;

	for (uint32_t i = 0; i < count; i++) {
		struct rouse_wset_page page = given != NULL ? given->pages[i] : own_page(own, i);

		/* If it was touched there is a fault of it. */
		if (record->left_out != NULL && rouse_bitmap_test(record->left_out, page.page))
			continue;
		wset->pages[wset->page_count++] = (struct rouse_wset_page){
			.page = page.page, .time_us = page.time_us, .vcpu = page.vcpu};
	}
}

int restore_record_write(const struct restore_record *record, const char *path, uint64_t *waited_ns,
	struct rouse_error *error)
{
	cleanup_with(close_wset) struct rouse_wset *wset = NULL;
	struct rouse_engine_stats stats;
	uint64_t count;
	int code;

	rouse_engine_get_stats(record->engine, &stats);
	(void)rouse_engine_faults(record->engine, &count);
	code = new_set(record->reader, count + stats.prefetched_pages, &wset);
	if (code < 0)
		return rouse_error_errno(error, code, "cannot record the working set");
	if (record->policy == ROUSE_POLICY_WS)
		add_prefetched(wset, record);
	*waited_ns = add_faults(wset, record->engine, record->until_us, record->transport_ns);
	qsort(wset->pages, wset->page_count, sizeof(*wset->pages), compare_times);
	wset->flags = record->complete ? ROUSE_WSET_FLAG_COMPLETE : 0;
	return rouse_wset_write(wset, path, error);
}
