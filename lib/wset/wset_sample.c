/* SPDX-License-Identifier: MIT */
#include "wset/wset_sample.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

/* splitmix64 (Steele, Lea, Flood, OOPSLA 2014): good enough to choose pages by, not for secrets. */
static uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static uint32_t sample_size(uint32_t count, uint32_t one_in)
{
	uint32_t size,
		least = count / 4 < ROUSE_WSET_SAMPLE_MIN ? count / 4 : ROUSE_WSET_SAMPLE_MIN;

	if (one_in == ROUSE_LEARN_NO_SAMPLE)
		return 0;
	if (one_in > 0)
		return count / one_in;
	size = count / ROUSE_WSET_SAMPLE_ONE_IN;
	if (size < least)
		size = least;
	return size < ROUSE_WSET_SAMPLE_MAX ? size : ROUSE_WSET_SAMPLE_MAX;
}

static int compare_pages(const void *x, const void *y)
{
	const uint32_t *a = x, *b = y;

	return (*a > *b) - (*a < *b);
}

/* Every set of @size pages is equally likely: selection sampling (Knuth, TAOCP 2, 3.4.2, S). */
static void draw(struct rouse_wset_sample *sample, uint32_t size, uint64_t seed)
{
	uint64_t state = seed;

	for (uint32_t i = 0; i < sample->count && sample->drawn_count < size; i++) {
		const uint32_t left = sample->count - i, wanted = size - sample->drawn_count;

		/* 32 random bits, scaled: the bias is below 2^-32 times the number of pages. */
		if ((next_random(&state) >> 32) * left >> 32 >= wanted)
			continue;
		rouse_bitmap_set(&sample->drawn, sample->pages[i]);
		rouse_bitmap_set(&sample->left_out, sample->pages[i]);
		sample->drawn_count++;
	}
	sample->left_out_count = sample->drawn_count;
}

static int compare_weight(const void *x, const void *y)
{
	const struct rouse_wset_page *a = x, *b = y;

	if (a->weight != b->weight)
		return a->weight < b->weight ? -1 : 1;
	return (a->page > b->page) - (a->page < b->page);
}

/* As many doubtful pages as were drawn, the least likely first. */
static int add_doubtful(struct rouse_wset_sample *sample, const struct rouse_wset_page *pages,
	uint32_t count, uint64_t until_us)
{
	struct rouse_wset_page *doubtful = malloc(((size_t)count + 1) * sizeof(*doubtful));
	uint32_t found = 0;

	if (doubtful == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++) {
		/* A weight of 0: a plain set, whose pages have no history. */
		if (pages[i].time_us <= until_us && pages[i].weight > 0 &&
			pages[i].weight < ROUSE_WSET_DOUBT * ROUSE_WSET_WEIGHT_ONE)
			doubtful[found++] = pages[i];
	}
	qsort(doubtful, found, sizeof(*doubtful), compare_weight);
	for (uint32_t i = 0; i < found && i < sample->drawn_count; i++)
		sample->left_out_count +=
			!rouse_bitmap_test_and_set(&sample->left_out, doubtful[i].page);
	free(doubtful);
	return 0;
}

int rouse_wset_sample_draw(struct rouse_wset_sample *sample, const struct rouse_wset_page *pages,
	uint32_t count, const struct rouse_wset_sample_config *config)
{
	int code;

	*sample = (struct rouse_wset_sample){0};
	sample->pages = malloc(((size_t)count + 1) * sizeof(*sample->pages));
	code = sample->pages == NULL ? -ENOMEM
				     : rouse_bitmap_init(&sample->drawn, config->vm_pages);
	if (code == 0)
		code = rouse_bitmap_init(&sample->left_out, config->vm_pages);
	for (uint32_t i = 0; code == 0 && i < count; i++) {
		if (pages[i].time_us <= config->until_us)
			sample->pages[sample->count++] = pages[i].page;
	}
	if (code == 0) {
		draw(sample, sample_size(sample->count, config->one_in), config->seed);
		code = add_doubtful(sample, pages, count, config->until_us);
	}
	if (code < 0)
		rouse_wset_sample_finish(sample);
	return code;
}

void rouse_wset_sample_finish(struct rouse_wset_sample *sample)
{
	free(sample->pages);
	rouse_bitmap_finish(&sample->drawn);
	rouse_bitmap_finish(&sample->left_out);
	*sample = (struct rouse_wset_sample){0};
}

struct rouse_wset_share rouse_wset_share_of(uint64_t used, uint64_t sampled, double z)
{
	const double n = (double)sampled, p = (double)used / fmax(n, 1), z2 = z * z;
	double middle, half;

	if (sampled == 0)
		return (struct rouse_wset_share){.value = -1, .low = 0, .high = 1};
	middle = (p + z2 / (2 * n)) / (1 + z2 / n);
	half = z / (1 + z2 / n) * sqrt(p * (1 - p) / n + z2 / (4 * n * n));
	return (struct rouse_wset_share){
		.value = p, .low = fmax(middle - half, 0), .high = fmin(middle + half, 1)};
}

int rouse_wset_sample_groups(struct rouse_wset_sample *sample, const struct rouse_bitmap *touched,
	struct rouse_wset_group **groups, size_t *group_count)
{
	const size_t most = sample->drawn_count / ROUSE_WSET_GROUP_SAMPLES;
	uint32_t sampled = 0, used = 0;
	size_t count = 0;

	*group_count = 0;
	*groups = calloc(most + 1, sizeof(**groups));
	if (*groups == NULL)
		return -ENOMEM;
	/* Only now: the guest need not wait for it. */
	qsort(sample->pages, sample->count, sizeof(*sample->pages), compare_pages);
	for (uint32_t i = 0; i < sample->count && count < most; i++) {
		const uint32_t page = sample->pages[i];

		if (!rouse_bitmap_test(&sample->drawn, page))
			continue;
		sampled++;
		used += rouse_bitmap_test(touched, page);
		/* The last group takes what is left. */
		if (sampled < ROUSE_WSET_GROUP_SAMPLES || count == most - 1)
			continue;
		(*groups)[count++] = (struct rouse_wset_group){
			.end_page = page + 1, .rate = rouse_wset_share_of(used, sampled, 1).high};
		sampled = used = 0;
	}
	if (sampled > 0 && most > 0)
		(*groups)[count++] = (struct rouse_wset_group){
			.end_page = UINT32_MAX, .rate = rouse_wset_share_of(used, sampled, 1).high};
	*group_count = count;
	return 0;
}

uint32_t rouse_wset_sample_used(
	const struct rouse_wset_sample *sample, const struct rouse_bitmap *touched)
{
	uint32_t used = 0;

	for (uint32_t i = 0; i < sample->count; i++)
		used += rouse_bitmap_test(&sample->drawn, sample->pages[i]) &&
			rouse_bitmap_test(touched, sample->pages[i]);
	return used;
}
