// SPDX-License-Identifier: MIT
/* A program that walks all of its memory, over and over: the worst case for a working set. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "workload.h"

#define PAGES_PER_REQUEST 128
#define WORDS_PER_STEP 64 /* eight reads in a page */

struct walker {
	_Alignas(64) uint64_t position;
};

static struct walker *walker;
static unsigned int walkers;

static int scan_start(size_t mb, unsigned int cpus)
{
	walkers = cpus;
	walker = aligned_alloc(64, cpus * sizeof(*walker));
	if (!walker)
		return -ENOMEM;
	memset(walker, 0, cpus * sizeof(*walker));
	return stamp_region_new(NULL, mb, "anonymous");
}

/* Each CPU walks a part of its own, from its beginning to its end. */
static void scan_request(unsigned int cpu, uint64_t chance)
{
	uint64_t part = stamp_pages() / walkers;
	volatile uint64_t sum = 0;

	(void)chance;
	for (uint64_t i = 0; i < PAGES_PER_REQUEST; i++) {
		uint64_t index = cpu * part + walker[cpu].position++ % part;
		const volatile uint64_t *page = stamp_page(index);

		for (unsigned int word = 0; word < STAMP_PAGE / sizeof(*page);
			word += WORDS_PER_STEP)
			sum += page[word];
	}
}

const struct workload workload_scan = {
	.name = "scan",
	.start = scan_start,
	.request = scan_request,
};
