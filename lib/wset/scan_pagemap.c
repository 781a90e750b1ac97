/* SPDX-License-Identifier: MIT */
/*
 * The bits of a process's page tables, by PAGEMAP_SCAN on its /proc/PID/pagemap. See the kernel's
 * documentation, admin-guide/mm/pagemap. Debian 12's headers do not have it yet.
 */
#include "wset/scan_private.h"

#include <errno.h>
#include <sys/ioctl.h>

#define REGIONS 512u

struct pagemap_region {
	uint64_t start, end, categories;
};

struct pagemap_scan {
	uint64_t size, flags, start, end, walk_end, regions, region_count, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

#define PAGEMAP_SCAN_IOCTL _IOWR('f', 16, struct pagemap_scan)
#define FLAG_PROTECT_MATCHING 1u
#define FLAG_CHECK_WP_ASYNC 2u
#define CATEGORY_WRITTEN (UINT64_C(1) << 1)
#define CATEGORY_PRESENT (UINT64_C(1) << 3)

int scan_pagemap_read(int pagemap, enum scan_bits bits, bool protect, uint64_t start, uint64_t end,
	scan_found_fn *found, void *user)
{
	const uint64_t category = bits == SCAN_WRITTEN ? CATEGORY_WRITTEN : CATEGORY_PRESENT;
	struct pagemap_region regions[REGIONS];

	while (start < end) {
		struct pagemap_scan scan = {
			.size = sizeof(scan),
			.flags = FLAG_CHECK_WP_ASYNC | (protect ? FLAG_PROTECT_MATCHING : 0),
			.start = start,
			.end = end,
			.regions = (uintptr_t)regions,
			.region_count = REGIONS,
			.category_mask = category,
			.return_mask = category,
		};
		int count = ioctl(pagemap, PAGEMAP_SCAN_IOCTL, &scan);

		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0)
			return errno == ENOTTY || errno == EINVAL ? -ENOTSUP : -errno;
		for (int i = 0; i < count && found != NULL; i++)
			found(user, regions[i].start, regions[i].end - regions[i].start);
		if (scan.walk_end <= start)
			return -EIO;
		start = scan.walk_end;
	}
	return 0;
}
