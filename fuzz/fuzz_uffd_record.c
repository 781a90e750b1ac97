/* SPDX-License-Identifier: MIT */
/* What lies in a QEMU that is to be taken over: the first eight bytes are the memfd's size. */
#include "vmm/uffd_record.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct uffd_record record = {0};
	uint64_t bytes = 0;

	if (size < sizeof(bytes))
		return 0;
	memcpy(&bytes, data, sizeof(bytes));
	size -= sizeof(bytes);
	memcpy(&record, data + sizeof(bytes), size < sizeof(record) ? size : sizeof(record));
	if (uffd_record_check(&record, bytes) < 0)
		return 0;
	/* What was accepted can be used without a look: every bit lies in the memfd. */
	if (uffd_record_bytes(record.pages) > bytes)
		abort();
	for (uint64_t i = 0; i < record.area_count; i++) {
		const struct uffd_area *area = &record.areas[i];

		if (area->first_page + area->pages > record.pages ||
			area->address + area->pages * UFFD_SINK_PAGE <= area->address)
			abort();
	}
	return 0;
}
