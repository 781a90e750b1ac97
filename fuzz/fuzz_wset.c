/* SPDX-License-Identifier: MIT */
/* The reader of working-set files. The length and the checksum are put right before it sees the
 * bytes: no fuzzer finds a checksum, and what is behind it would never be tried. */
#include "base/cleanup.h"
#include "wset/wset.h"

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
