/* SPDX-License-Identifier: MIT */
/* The reader of working-set files. The length and the checksum are put right before it sees the
 * bytes: no fuzzer finds a checksum, and what is behind it would never be tried. */
#include "base/cleanup.h"
#include "wset/wset_merge.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fix(uint8_t *bytes, size_t size)
{
	struct rouse_disk_wset_header header;

	memcpy(&header, bytes, sizeof(header));
	header.body_bytes = le64_make(size - sizeof(header));
	header.checksum = le64_make(
		rouse_wset_checksum(&header, bytes + sizeof(header), size - sizeof(header)));
	memcpy(bytes, &header, sizeof(header));
}

static void check_histories(const struct rouse_wset *wset, const struct rouse_wset_info *info)
{
	const uint64_t count = info->pages + info->waiting;
	struct rouse_wset_page_info page;

	for (uint64_t i = 0; i < count; i++) {
		if (rouse_wset_get_entry(wset, i, &page) < 0 || page.count == 0 ||
			page.count > page.looks || page.looks > info->runs || page.last == 0 ||
			page.last > info->runs || page.waiting != (i >= info->pages))
			abort();
	}
}

/* Whatever is merged can be written and read again, and is within the budget. */
static void check_merging(const struct rouse_wset *wset)
{
	struct rouse_wset_rules rules = {.budget_bytes = 100 * 4096};
	cleanup_free char *bytes = NULL;
	struct rouse_wset *merged = NULL, *again = NULL;
	size_t size = 0;

	if (rouse_wset_rules_complete(&rules, rouse_wset_vm_pages(wset), NULL) < 0 ||
		rouse_wset_combine(wset, wset, NULL, &rules, &merged) < 0)
		abort();
	if (merged->page_count > 100 || merged->waiting_count > 100 ||
		rouse_wset_encode(merged, &bytes, &size, NULL) < 0 ||
		rouse_wset_parse(bytes, size, &again, NULL) < 0)
		abort();
	rouse_wset_close(merged);
	rouse_wset_close(again);
}

/* What rouse_wset_parse() promises, and that writing is its inverse. */
static void check(const struct rouse_wset *wset)
{
	cleanup_free char *bytes = NULL;
	struct rouse_wset *again = NULL;
	struct rouse_wset_info info;
	size_t size = 0;

	rouse_wset_get_info(wset, &info);
	for (uint64_t i = 0; i < info.pages; i++) {
		uint64_t page, time_us;

		if (rouse_wset_get_page(wset, i, &page, &time_us) < 0 ||
			page >= info.ram_bytes / 4096 || time_us > info.span_us)
			abort();
	}
	check_histories(wset, &info);
	check_merging(wset);
	if (rouse_wset_encode(wset, &bytes, &size, NULL) < 0 ||
		rouse_wset_parse(bytes, size, &again, NULL) < 0)
		abort();
	rouse_wset_close(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct rouse_wset *wset = NULL;
	cleanup_free uint8_t *copy = malloc(size > 0 ? size : 1);

	if (copy == NULL)
		return 0;
	memcpy(copy, data, size);
	if (size >= sizeof(struct rouse_disk_wset_header))
		fix(copy, size);
	if (rouse_wset_parse(copy, size, &wset, NULL) == 0)
		check(wset);
	rouse_wset_close(wset);
	return 0;
}
