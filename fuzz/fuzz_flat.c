/* SPDX-License-Identifier: MIT */
/* A flat file's footer: what is accepted lies inside the file, and each page has one place. */
#include "image/flat.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct rouse_flat *flat, uint64_t file_bytes)
{
	const uint64_t pages[] = {0, flat->main_first, flat->main_first + flat->main_pages - 1,
		flat->main_pages, flat->page_count - 1};

	if (flat->table_offset / ROUSE_IMAGE_PAGE_BYTES != flat->page_count ||
		flat->table_offset + flat->page_count * 8 > file_bytes - ROUSE_FLAT_FOOTER_BYTES)
		abort();
	for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
		if (pages[i] >= flat->page_count)
			continue;
		if (rouse_flat_index(flat, pages[i]) >= flat->page_count ||
			rouse_flat_page(flat, rouse_flat_index(flat, pages[i])) != pages[i])
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct rouse_disk_flat disk = {0};
	struct rouse_error error;
	struct rouse_flat flat;

	(void)rouse_flat_parse(data, size, size, &flat, &error);
	/* As a file of the length that it says, with a checksum that is right. */
	memcpy(&disk, data, size < sizeof(disk) ? size : sizeof(disk));
	disk.checksum = le64_make(XXH3_64bits(&disk, offsetof(struct rouse_disk_flat, checksum)));
	if (rouse_flat_parse(&disk, sizeof(disk), le64_get(disk.file_bytes), &flat, &error) == 0)
		check(&flat, flat.file_bytes);
	return 0;
}
