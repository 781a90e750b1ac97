/* SPDX-License-Identifier: MIT */
#include "wset/wset_compare.h"

#include "base/cleanup.h"

#include <errno.h>
#include <string.h>

/* A page and its place in its set's order. */
struct place {
	uint32_t page, place;
};

static int compare_pages(const void *x, const void *y)
{
	const struct place *a = x, *b = y;

	return (a->page > b->page) - (a->page < b->page);
}

static int compare_places(const void *x, const void *y)
{
	const struct place *a = x, *b = y;

	return (a->place > b->place) - (a->place < b->place);
}

/* The places of a set, in order of page numbers. */
static struct place *places_of(const struct rouse_wset *wset)
{
	struct place *list = malloc(((size_t)wset->page_count + 1) * sizeof(*list));

	if (list == NULL)
		return NULL;
	for (uint32_t i = 0; i < wset->page_count; i++)
		list[i] = (struct place){.page = wset->pages[i].page, .place = i};
	qsort(list, wset->page_count, sizeof(*list), compare_pages);
	return list;
}

/* Merges two sorted halves; the number of pairs that stood in the wrong order. */
static uint64_t merge_halves(uint32_t *list, size_t middle, size_t count, uint32_t *scratch)
{
	uint64_t wrong = 0;
	size_t a = 0, b = middle;

	for (size_t i = 0; i < count; i++) {
		if (b == count || (a < middle && list[a] <= list[b])) {
			scratch[i] = list[a++];
		} else {
			scratch[i] = list[b++];
			wrong += middle - a;
		}
	}
	memcpy(list, scratch, count * sizeof(*list));
	return wrong;
}

/* Pairs of @list that are not in order; sorts it on the way, from the small to the large. */
static uint64_t count_inversions(uint32_t *list, size_t count, uint32_t *scratch)
{
	uint64_t wrong = 0;

	for (size_t width = 1; width < count; width *= 2) {
		for (size_t i = 0; i + width < count; i += 2 * width) {
			size_t run = count - i < 2 * width ? count - i : 2 * width;

			wrong += merge_halves(list + i, width, run, scratch);
		}
	}
	return wrong;
}

/* @common: the place in a as the page, the place in b as the place. */
static int kendall(struct place *common, size_t count, double *tau)
{
	cleanup_free uint32_t *list = malloc((count + 1) * sizeof(*list));
	cleanup_free uint32_t *scratch = malloc((count + 1) * sizeof(*scratch));

	if (list == NULL || scratch == NULL)
		return -ENOMEM;
	*tau = 1;
	if (count < 2)
		return 0;
	qsort(common, count, sizeof(*common), compare_places);
	for (size_t i = 0; i < count; i++)
		list[i] = common[i].page;
	*tau -= 4.0 * (double)count_inversions(list, count, scratch) /
		((double)count * (double)(count - 1));
	return 0;
}

int rouse_wset_measure(const struct rouse_wset *a, const struct rouse_wset *b,
	struct rouse_wset_diff *diff, rouse_wset_diff_fn *only, void *user)
{
	cleanup_free struct place *of_a = places_of(a), *of_b = places_of(b);
	cleanup_free struct place *common = malloc(((size_t)a->page_count + 1) * sizeof(*common));
	size_t count = 0, i = 0, j = 0;

	if (of_a == NULL || of_b == NULL || common == NULL)
		return -ENOMEM;
	while (i < a->page_count || j < b->page_count) {
		bool has_a =
			i < a->page_count && (j == b->page_count || of_a[i].page <= of_b[j].page);
		bool has_b =
			j < b->page_count && (i == a->page_count || of_b[j].page <= of_a[i].page);

		if (has_a && has_b)
			common[count++] =
				(struct place){.page = of_a[i].place, .place = of_b[j].place};
		else if (only != NULL)
			only(user, has_a ? of_a[i].page : of_b[j].page, has_a);
		i += has_a;
		j += has_b;
	}
	*diff = (struct rouse_wset_diff){
		.pages_a = a->page_count, .pages_b = b->page_count, .common = count};
	diff->recall = a->page_count > 0 ? (double)count / a->page_count : 1;
	diff->precision = b->page_count > 0 ? (double)count / b->page_count : 1;
	return kendall(common, count, &diff->kendall);
}
