/* SPDX-License-Identifier: MIT */
/* Words of the page map and of the page flags: each page is asked for once, where its words are. */
#include "wset/scan_idle_rule.h"

#include <stdlib.h>
#include <string.h>

#define ITEMS 1024u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Pages that a scan would ask for: their words of the page map, and of the page flags. */
static size_t make_items(const uint8_t *data, size_t size, struct scan_idle_item *items)
{
	size_t count = 0;

	for (size_t at = 0; at + 16 <= size && count < ITEMS; at += 16) {
		struct scan_idle_entry entry;
		uint64_t words[2];

		memcpy(words, data + at, sizeof(words));
		entry = scan_idle_entry_parse(words[0]);
		if ((entry.where == SCAN_IDLE_SOMEWHERE) != (entry.pfn != 0))
			abort();
		if (entry.where == SCAN_IDLE_SOMEWHERE && entry.pfn < SCAN_IDLE_PFNS)
			items[count++] =
				(struct scan_idle_item){.pfn = entry.pfn, .flags = words[1]};
	}
	return count;
}

static void check_runs(
	const struct scan_idle_item *items, size_t count, unsigned int per_word, unsigned int gap)
{
	uint64_t words[SCAN_IDLE_RUN_WORDS];
	struct scan_idle_run run;

	for (size_t i = 0; i < count; i = run.end) {
		run = scan_idle_run_next(items, count, i, per_word, gap);
		if (run.end <= i || run.end > count || run.words == 0 ||
			run.words > SCAN_IDLE_RUN_WORDS)
			abort();
		memset(words, 0, sizeof(words));
		for (size_t j = i; j < run.end; j++) {
			if (items[j].pfn / per_word < run.first ||
				items[j].pfn / per_word - run.first >= run.words)
				abort();
			if (per_word != SCAN_IDLE_BITS)
				continue;
			scan_idle_bit_put(words, &run, items[j].pfn);
			if (scan_idle_bit_get(words, &run, run.words, items[j].pfn) !=
				SCAN_IDLE_SET)
				abort();
		}
	}
}

static void check_heads(struct scan_idle_item *items, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		uint64_t at = items[i].pfn;

		items[i].head = scan_idle_head(i > 0 ? &items[i - 1] : NULL, &items[i]);
		if (items[i].head != SCAN_IDLE_NO_HEAD && items[i].head > items[i].pfn)
			abort();
		for (unsigned int step = 0; at != SCAN_IDLE_NO_HEAD; step++) {
			const uint64_t next = scan_idle_head_candidate(items[i].pfn, step);

			if (next != SCAN_IDLE_NO_HEAD && next >= at)
				abort();
			at = next;
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct scan_idle_item items[ITEMS];
	const size_t count = make_items(data, size, items);

	scan_idle_sort(items, count);
	check_runs(items, count, SCAN_IDLE_BITS, 0);
	check_runs(items, count, SCAN_IDLE_BITS, 4);
	check_runs(items, count, 1, 16);
	check_heads(items, count);
	return 0;
}
