/* SPDX-License-Identifier: MIT */
#include "vmm/uffd_record.h"

#include <errno.h>

_Static_assert(sizeof(struct uffd_record) <= UFFD_RECORD_BITMAP, "the bitmap lies behind it");

uint64_t uffd_record_bytes(uint64_t pages)
{
	const uint64_t words = (pages + 63) / 64;

	return UFFD_RECORD_BITMAP + (words * 8 + 4095) / 4096 * 4096;
}

static bool is_sound(const struct uffd_area *area, uint64_t pages)
{
	return area->pages > 0 && area->first_page < pages &&
	       area->pages <= pages - area->first_page && area->address % UFFD_SINK_PAGE == 0 &&
	       area->address != 0 && area->address <= UINT64_MAX - area->pages * UFFD_SINK_PAGE;
}

int uffd_record_check(const struct uffd_record *record, uint64_t bytes)
{
	if (record->magic != UFFD_RECORD_MAGIC)
		return -EUCLEAN;
	if (record->version != UFFD_RECORD_VERSION)
		return -EPROTONOSUPPORT;
	if (record->state > UFFD_COMPLETE || record->uffd < 0 || record->pages == 0 ||
		record->pages > UFFD_RECORD_MAX_PAGES || bytes < uffd_record_bytes(record->pages) ||
		record->area_count == 0 || record->area_count > UFFD_RECORD_AREAS)
		return -EUCLEAN;
	for (uint64_t i = 0; i < record->area_count; i++) {
		if (!is_sound(&record->areas[i], record->pages))
			return -EUCLEAN;
	}
	return 0;
}
