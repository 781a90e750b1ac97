// SPDX-License-Identifier: MIT
#include "stamp.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "content.h"
#include "link.h"

#define REGIONS_MAX 8
#define REPORT_PAGES 16384 /* progress is told this often */
#define RENEW_STRIDE 8     /* stamp_renew() takes every so many-th page */

/* The part that is renewed again and again: RENEW_SET pages, RENEW_BATCH of them at a time. */
#define RENEW_SET 512
#define RENEW_BATCH 4
#define RENEW_PAUSE_US 20000

struct region {
	unsigned char *base;
	size_t pages;
	uint64_t first;       /* number of its first page, over all regions; the content's id */
	uint32_t *generation; /* of each page */
	pthread_mutex_t lock; /* content and generation of a page change together */
};

static struct region regions[REGIONS_MAX];
static unsigned int region_count;
static pthread_t renewer;
static int renewer_runs;

static void stamp_one(struct region *region, size_t page, uint32_t generation)
{
	pthread_mutex_lock(&region->lock);
	region->generation[page] = generation;
	content_fill(
		region->base + page * STAMP_PAGE, STAMP_PAGE, region->first + page, generation);
	pthread_mutex_unlock(&region->lock);
}

static int map_region(struct region *region, const char *path)
{
	size_t bytes = region->pages * STAMP_PAGE;
	int flags = path ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
	int fd = -1;
	int err;

	if (path) {
		fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd < 0)
			return -errno;
		if (ftruncate(fd, (off_t)bytes) < 0) {
			err = -errno;
			close(fd);
			return err;
		}
	}
	region->base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
	err = region->base == MAP_FAILED ? -errno : 0;
	if (fd >= 0)
		close(fd);
	return err;
}

int stamp_region_new(const char *path, size_t mb, const char *label)
{
	struct region *region = &regions[region_count];
	int err;

	if (region_count == REGIONS_MAX)
		return -ENOSPC;
	region->pages = mb * (1048576 / STAMP_PAGE);
	region->first = stamp_pages();
	region->generation = calloc(region->pages, sizeof(*region->generation));
	if (!region->generation)
		return -ENOMEM;
	err = map_region(region, path);
	if (err)
		return err;
	pthread_mutex_init(&region->lock, NULL);
	for (size_t page = 0; page < region->pages; page++) {
		stamp_one(region, page, 1);
		if (page % REPORT_PAGES == 0)
			link_send("progress %s %zu %zu", label, page, region->pages);
	}
	region_count++;
	return 0;
}

uint64_t stamp_pages(void)
{
	uint64_t pages = 0;

	for (unsigned int i = 0; i < region_count; i++)
		pages += regions[i].pages;
	return pages;
}

static struct region *find_region(uint64_t index, size_t *page)
{
	for (unsigned int i = 0; i < region_count; i++) {
		if (index < regions[i].first + regions[i].pages) {
			*page = index - regions[i].first;
			return &regions[i];
		}
	}
	return NULL;
}

const volatile uint64_t *stamp_page(uint64_t index)
{
	size_t page = 0;
	struct region *region = find_region(index, &page);

	return region ? (const volatile uint64_t *)(region->base + page * STAMP_PAGE) : NULL;
}

/* The set that is renewed: groups of eight neighbours, spread evenly over all regions. */
static uint64_t renew_index(uint64_t step)
{
	uint64_t groups = RENEW_SET / 8;
	uint64_t stride = stamp_pages() / groups;

	return (step / 8 % groups) * stride + step % 8;
}

static void *renewer_main(void *unused)
{
	(void)unused;
	for (uint64_t step = 0;; step++) {
		size_t page = 0;
		struct region *region = find_region(renew_index(step), &page);

		if (region)
			stamp_one(region, page, region->generation[page] + 1);
		if (step % RENEW_BATCH == 0)
			usleep(RENEW_PAUSE_US);
	}
	return NULL;
}

uint64_t stamp_renew(void)
{
	for (unsigned int i = 0; i < region_count; i++) {
		struct region *region = &regions[i];

		for (size_t page = 0; page < region->pages; page += RENEW_STRIDE)
			stamp_one(region, page, region->generation[page] + 1);
	}
	if (!renewer_runs && stamp_pages() >= RENEW_SET)
		renewer_runs = pthread_create(&renewer, NULL, renewer_main, NULL) == 0;
	return stamp_pages();
}

struct stamp_result stamp_verify(void)
{
	struct stamp_result result = {0};

	for (unsigned int i = 0; i < region_count; i++) {
		struct region *region = &regions[i];

		for (size_t page = 0; page < region->pages; page++) {
			const unsigned char *base = region->base + page * STAMP_PAGE;

			pthread_mutex_lock(&region->lock);
			if (!content_check(base, STAMP_PAGE, region->first + page,
				    region->generation[page]))
				result.errors++;
			pthread_mutex_unlock(&region->lock);
			result.pages++;
		}
	}
	return result;
}
