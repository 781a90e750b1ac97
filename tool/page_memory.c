/* SPDX-License-Identifier: MIT */
/*
 * The map of the guest's memory: in each cell of it, how many pages were
 *
 *                      touched          not touched
 *   prefetched         used             in vain
 *   not prefetched     faulted          untouched
 *
 * Cells follow each other by page numbers; a cell is a run of pages.
 */
#include "page.h"

#include <stdlib.h>

#define MAX_CELLS 4096u
#define PAGE_BYTES 4096u

enum fate { FATE_USED, FATE_VAIN, FATE_FAULTED, FATE_UNTOUCHED, FATE_COUNT };

static const char *const fate_names[FATE_COUNT] = {"used", "vain", "faulted", "untouched"};

struct map {
	uint64_t pages, cell_pages, cell_count;
	uint64_t cells[MAX_CELLS][FATE_COUNT];
	uint64_t totals[FATE_COUNT];
};

/* A working set as page numbers that rise. */
struct pages {
	uint64_t *numbers;
	size_t count;
};

static int compare_numbers(const void *a, const void *b)
{
	const uint64_t *p = a, *q = b;

	return (*p > *q) - (*p < *q);
}

static bool list_pages(const struct rouse_wset *wset, struct pages *pages)
{
	struct rouse_wset_info info;
	uint64_t time_us;

	rouse_wset_get_info(wset, &info);
	pages->numbers = calloc((size_t)info.pages + 1, sizeof(*pages->numbers));
	if (pages->numbers == NULL)
		return false;
	while (pages->count < info.pages && rouse_wset_get_page(wset, pages->count,
						    &pages->numbers[pages->count], &time_us) == 0)
		pages->count++;
	qsort(pages->numbers, pages->count, sizeof(*pages->numbers), compare_numbers);
	return true;
}

static void mark(struct map *map, uint64_t page, enum fate fate)
{
	if (page >= map->pages)
		return;
	map->cells[page / map->cell_pages][fate]++;
	map->totals[fate]++;
}

/* Walks through both lists at once. */
static void mark_all(struct map *map, const struct pages *prefetched, const struct pages *touched)
{
	size_t p = 0, t = 0;

	while (p < prefetched->count || t < touched->count) {
		uint64_t page = UINT64_MAX;
		bool in_prefetched, in_touched;

		if (p < prefetched->count)
			page = prefetched->numbers[p];
		if (t < touched->count && touched->numbers[t] < page)
			page = touched->numbers[t];
		in_prefetched = p < prefetched->count && prefetched->numbers[p] == page;
		in_touched = t < touched->count && touched->numbers[t] == page;
		mark(map, page, !in_prefetched ? FATE_FAULTED : in_touched ? FATE_USED : FATE_VAIN);
		p += in_prefetched;
		t += in_touched;
	}
}

/* The pages that are left are untouched. */
static void fill_up(struct map *map)
{
	for (uint64_t cell = 0; cell < map->cell_count; cell++) {
		uint64_t left = map->pages - cell * map->cell_pages;
		uint64_t *counts = map->cells[cell];

		if (left > map->cell_pages)
			left = map->cell_pages;
		counts[FATE_UNTOUCHED] =
			left - counts[FATE_USED] - counts[FATE_VAIN] - counts[FATE_FAULTED];
		map->totals[FATE_UNTOUCHED] += counts[FATE_UNTOUCHED];
	}
}

static json_t *map_json(
	const struct map *map, const struct rouse_wset *wset, const struct rouse_wset *touched)
{
	struct rouse_wset_info info = {.complete = true};
	json_t *cells = json_array(), *totals = json_object();

	for (uint64_t cell = 0; cell < map->cell_count; cell++)
		(void)json_array_append_new(
			cells, json_pack("[I, I, I, I]", (json_int_t)map->cells[cell][FATE_USED],
				       (json_int_t)map->cells[cell][FATE_VAIN],
				       (json_int_t)map->cells[cell][FATE_FAULTED],
				       (json_int_t)map->cells[cell][FATE_UNTOUCHED]));
	for (unsigned int fate = 0; fate < FATE_COUNT; fate++)
		(void)json_object_set_new(
			totals, fate_names[fate], json_integer((json_int_t)map->totals[fate]));
	if (touched != NULL)
		rouse_wset_get_info(touched, &info);
	return json_pack("{s:i, s:I, s:I, s:b, s:b, s:b, s:o, s:o}", "page_bytes", PAGE_BYTES,
		"pages", (json_int_t)map->pages, "cell_pages", (json_int_t)map->cell_pages,
		"has_wset", wset != NULL, "has_touched", touched != NULL, "complete", info.complete,
		"totals", totals, "cells", cells);
}

static int draw(json_t *data, const struct rouse_wset *wset, const struct rouse_wset *touched)
{
	struct pages prefetched_pages = {0}, touched_pages = {0};
	struct map *map = calloc(1, sizeof(*map));
	struct rouse_wset_info info;
	bool good = map != NULL && (wset == NULL || list_pages(wset, &prefetched_pages)) &&
		    (touched == NULL || list_pages(touched, &touched_pages));

	rouse_wset_get_info(wset != NULL ? wset : touched, &info);
	if (good) {
		map->pages = info.ram_bytes / PAGE_BYTES;
		map->cell_pages = map->pages > 0 ? (map->pages - 1) / MAX_CELLS + 1 : 1;
		map->cell_count = (map->pages + map->cell_pages - 1) / map->cell_pages;
		mark_all(map, &prefetched_pages, &touched_pages);
		fill_up(map);
		(void)json_object_set_new(data, "memory", map_json(map, wset, touched));
	} else {
		message(MESSAGE_ERROR, "not enough memory for the map of the memory");
	}
	free(prefetched_pages.numbers);
	free(touched_pages.numbers);
	free(map);
	return good ? EXIT_SUCCESS : EXIT_FAILURE;
}

int page_add_memory(json_t *data, const char *wset_path, const char *touched_path)
{
	struct rouse_wset *wset = NULL, *touched = NULL;
	struct rouse_wset_diff diff;
	struct rouse_error error = {0};
	int code = 0, exit_code;

	if (wset_path != NULL)
		code = rouse_wset_open(wset_path, &wset, &error);
	if (code == 0 && touched_path != NULL)
		code = rouse_wset_open(touched_path, &touched, &error);
	/* It refuses sets of different VMs. */
	if (code == 0 && wset != NULL && touched != NULL)
		code = rouse_wset_compare(touched, wset, &diff, NULL, NULL, &error);
	if (code < 0)
		exit_code = report_error(&error, code);
	else
		exit_code = draw(data, wset, touched);
	rouse_wset_close(wset);
	rouse_wset_close(touched);
	return exit_code;
}
