/* SPDX-License-Identifier: MIT */
/* The parts of a process that are scanned, and by what. */
#include "base/cleanup.h"
#include "base/error.h"
#include "wset/scan_private.h"
#include "wset/trace_record.h"

/* The mapping that the whole area lies in. */
static const struct target_map *map_of(
	const struct scan_area *area, const struct target_map *maps, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (maps[i].start <= area->address && area->address < maps[i].end)
			return area->address + area->bytes <= maps[i].end ? &maps[i] : NULL;
	}
	return NULL;
}

bool scan_area_is_same(const struct scan_area *area, const struct target_map *maps, size_t count)
{
	const struct target_map *map = map_of(area, maps, count);

	if (map == NULL || map->shared != area->shared)
		return false;
	return !area->shared || (map->inode == area->inode &&
					map->offset + (area->address - map->start) == area->offset);
}

static int check_range(const struct trace_range *ranges, uint32_t i, struct rouse_error *error)
{
	const struct trace_range *range = &ranges[i];

	if (range->bytes == 0 || range->bytes % SCAN_PAGE != 0 || range->address % SCAN_PAGE != 0 ||
		range->address + range->bytes < range->address)
		return rouse_error_set(
			error, ROUSE_ERROR_USAGE, -EINVAL, "memory to scan must be in whole pages");
	for (uint32_t j = 0; j < i; j++) {
		if (range->address < ranges[j].address + ranges[j].bytes &&
			ranges[j].address < range->address + range->bytes)
			return rouse_error_set(
				error, ROUSE_ERROR_USAGE, -EINVAL, "memory to scan is named twice");
	}
	return 0;
}

static int add_area(struct scan_areas *areas, const struct trace_range *range,
	const struct target_map *maps, size_t map_count, struct rouse_error *error)
{
	struct scan_area *area = &areas->list[areas->count];
	const struct target_map *map;

	*area = (struct scan_area){.address = range->address,
		.bytes = range->bytes,
		.first_page = areas->pages,
		.shared = range->shared};
	map = map_of(area, maps, map_count);
	if (map == NULL || map->shared != area->shared)
		return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
			"%llx is not memory of that kind", (unsigned long long)area->address);
	if (area->shared) {
		area->inode = map->inode;
		area->offset = map->offset + (area->address - map->start);
	}
	areas->count++;
	areas->pages += area->bytes / SCAN_PAGE;
	return 0;
}

int scan_areas_init(struct scan_areas *areas, const struct target *target,
	const struct trace_range *ranges, uint32_t count, struct rouse_error *error)
{
	cleanup_free struct target_map *maps = NULL;
	size_t map_count;
	int code;

	if (count == 0 || count > TRACE_MAX_AREAS)
		return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
			"%u mappings cannot be scanned: 1 to %u can", count, TRACE_MAX_AREAS);
	areas->list = calloc(count, sizeof(*areas->list));
	if (areas->list == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot scan");
	code = target_maps(target, &maps, &map_count, error);
	for (uint32_t i = 0; i < count && code == 0; i++) {
		code = check_range(ranges, i, error);
		if (code == 0)
			code = add_area(areas, &ranges[i], maps, map_count, error);
	}
	if (code == 0 && areas->pages > TRACE_MAX_PAGES)
		code = rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, -EINVAL,
			"more than 1 TiB cannot be scanned");
	return code;
}

void scan_areas_finish(struct scan_areas *areas)
{
	free(areas->list);
	*areas = (struct scan_areas){0};
}

int scan_area_source(enum rouse_scan_source wanted, bool shared, bool page_idle, bool page_tables,
	enum rouse_scan_source *source)
{
	const enum rouse_scan_source by_tables = shared ? ROUSE_SCAN_PRESENCE : ROUSE_SCAN_WRITES;
	/* Presence costs less and sees as much; writes see less. */
	const bool prefer_tables = shared;

	if (wanted == ROUSE_SCAN_PAGE_IDLE || wanted == by_tables)
		*source = wanted;
	else if (page_idle && !(prefer_tables && page_tables))
		*source = ROUSE_SCAN_PAGE_IDLE;
	else
		*source = by_tables;
	return (*source == ROUSE_SCAN_PAGE_IDLE ? page_idle : page_tables) ? 0 : -ENOTSUP;
}
