/* SPDX-License-Identifier: MIT */
/* Which of QEMU's memory a userfaultfd can be put on. */
#include "vmm/qemu_hold_private.h"

#include "base/cleanup.h"
#include "vmm/qemu_ram.h"
#include "vmm/qemu_writer.h"

#include <string.h>

/* Smaller blocks are ROMs and tables: sent with the devices they cost less than being asked for. */
#define LARGE_BYTES (UINT64_C(2) << 20)
/* What is sent with the devices is sent before the guest runs: no more than this of one block. */
#define MAX_SENT_BYTES (UINT64_C(64) << 20)

enum { FLAG_LOCKED, FLAG_HUGETLB, FLAG_COUNT };
static const char *const flag_names[FLAG_COUNT] = {"lo", "ht"};

/* NULL: it can be held; otherwise why not. */
static const char *why_not(const struct target_map *map)
{
	if (map->shared)
		return "is shared memory, which other processes may use, too";
	if (map->inode != 0)
		return "is a private mapping of a file";
	return map->read && map->write ? NULL : "is not writable";
}

/* The areas of a block: as many as there are mappings in it. *why: NULL, or why it cannot be. */
static int add_block(struct qemu_hold *hold, const struct qemu_block *block, uint64_t host,
	const struct target_map *maps, size_t map_count, const char **why,
	struct rouse_error *error)
{
	const uint64_t end = host + block->used_bytes;
	uint64_t at = host;
	uint32_t any, all;
	size_t count = hold->area_count;
	int code = target_flags(hold->target, host, end, flag_names, FLAG_COUNT, &any, &all, error);

	if (code < 0)
		return code;
	if ((any >> FLAG_LOCKED & 1) != 0)
		*why = "is locked (mem-lock=on)";
	if ((any >> FLAG_HUGETLB & 1) != 0)
		*why = "is on hugetlbfs";
	for (size_t i = 0; i < map_count && at < end && *why == NULL; i++) {
		const uint64_t to = maps[i].end < end ? maps[i].end : end;

		if (maps[i].start > at || maps[i].end <= at)
			continue;
		*why = count < UFFD_RECORD_AREAS ? why_not(&maps[i]) : "has too many mappings";
		if (*why != NULL)
			break;
		hold->areas[count++] = (struct uffd_area){.address = at,
			.first_page = block->first_page + (at - host) / QEMU_PAGE_BYTES,
			.pages = (to - at) / QEMU_PAGE_BYTES};
		at = to;
	}
	if (at < end && *why == NULL)
		*why = "is not where QEMU says";
	if (*why == NULL)
		hold->area_count = count;
	return 0;
}

/* Where QEMU has a block; 0: it does not say, or has another one. */
static uint64_t address_of(
	const struct qemu_block *block, const struct qemu_ram_block *there, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (strcmp(there[i].name, block->name) == 0 &&
			there[i].used_bytes == block->used_bytes &&
			there[i].host % QEMU_PAGE_BYTES == 0)
			return there[i].host;
	}
	return 0;
}

static bool is_pinned(const struct target *target)
{
	static const char *const keys[] = {"VmLck", "VmPin"};
	char value[64];

	for (size_t i = 0; i < 2; i++) {
		if (target_status(target, keys[i], value, sizeof(value)) == 0 &&
			strcmp(value, "0 kB") != 0)
			return true;
	}
	return false;
}

int qemu_hold_choose(struct qemu_hold *hold, struct qmp *qmp, const struct qemu_block *blocks,
	uint32_t count, struct rouse_error *error)
{
	cleanup_free struct target_map *maps = NULL;
	cleanup_free struct qemu_ram_block *there = NULL;
	size_t map_count, there_count;
	int code = qemu_ram_query(qmp, &there, &there_count, error);

	if (code == 0)
		code = target_maps(hold->target, &maps, &map_count, error);
	if (code == 0 && is_pinned(hold->target))
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -ENOTSUP,
			"QEMU has memory that is locked or that a device uses (VFIO): use "
			"--backend postcopy");
	for (uint32_t i = 0; code == 0 && i < count; i++) {
		const uint64_t host = address_of(&blocks[i], there, there_count);
		const char *why = host == 0 ? "is at an address that QEMU does not tell" : NULL;

		if (blocks[i].used_bytes < LARGE_BYTES)
			continue;
		if (why == NULL)
			code = add_block(hold, &blocks[i], host, maps, map_count, &why, error);
		if (code == 0 && why != NULL && blocks[i].used_bytes > MAX_SENT_BYTES)
			code = rouse_error_set(error, ROUSE_ERROR_REFUSED, -ENOTSUP,
				"RAM block %s %s: use --backend postcopy", blocks[i].name, why);
	}
	if (code == 0 && hold->area_count == 0)
		code = rouse_error_set(error, ROUSE_ERROR_REFUSED, -ENOTSUP,
			"this QEMU has no memory that a userfaultfd can be put on: use --backend "
			"postcopy");
	return code;
}
