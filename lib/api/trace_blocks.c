/* SPDX-License-Identifier: MIT */
#include "api/trace_blocks.h"

#include "base/cleanup.h"
#include "wset/trace_record.h"

#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#define WORTH_A_WARNING (1u << 20)
#define MAX_PAGES (UINT64_C(1) << 32)

enum { FLAG_DONT_FORK, FLAG_LOCKED, FLAG_HUGETLB, FLAG_COUNT };
static const char *const flag_names[FLAG_COUNT] = {"dc", "lo", "ht"};

/* Cuts the file's name off, which has none any more. False: it has. */
static bool cut_deleted(char *path)
{
	static const char mark[] = " (deleted)";
	const size_t length = strlen(path), mark_length = sizeof(mark) - 1;

	if (length < mark_length || strcmp(path + length - mark_length, mark) != 0)
		return false;
	*strrchr(path, '/') = '\0';
	return true;
}

bool trace_blocks_is_shmem(int pid, const char *name)
{
	char path[512];
	struct stat file;
	struct statfs system;

	if (strncmp(name, "/memfd:", 7) == 0 || strncmp(name, "/dev/zero ", 10) == 0 ||
		strncmp(name, "/SYSV", 5) == 0)
		return true;
	if (name[0] != '/')
		return false;
	(void)snprintf(path, sizeof(path), "/proc/%d/root%s", pid, name);
	if (stat(path, &file) == 0) {
		if (!S_ISREG(file.st_mode))
			return false;
	} else if (!cut_deleted(path)) {
		return false;
	}
	return statfs(path, &system) == 0 && system.f_type == TMPFS_MAGIC;
}

/* NULL: it can be traced; otherwise why not. */
static const char *why_not(const struct target *target, const struct target_map *map)
{
	if (!map->write || !map->read)
		return "it is not writable";
	if (!map->shared && map->inode != 0)
		return "it is a private mapping of a file";
	if (map->shared && !trace_blocks_is_shmem(target_pid(target), map->name))
		return "it is in a file on a disk";
	return NULL;
}

static int add_range(struct trace_blocks *blocks, const struct target *target, uint64_t start,
	uint64_t end, const struct target_map *map, uint64_t first_page, const char **why,
	struct rouse_error *error)
{
	struct trace_range *ranges;
	struct trace_place *places;
	uint32_t any, all;
	int code = target_flags(target, start, end, flag_names, FLAG_COUNT, &any, &all, error);

	if (code < 0)
		return code;
	if ((any >> FLAG_LOCKED & 1) != 0)
		*why = "it is locked (mem-lock=on)";
	if ((any >> FLAG_HUGETLB & 1) != 0)
		*why = "it is on hugetlbfs";
	if (blocks->range_count == TRACE_MAX_AREAS)
		*why = "there are too many mappings";
	if (*why != NULL)
		return 0;
	ranges = reallocarray(blocks->ranges, blocks->range_count + 1, sizeof(*ranges));
	if (ranges != NULL)
		blocks->ranges = ranges;
	places = reallocarray(blocks->places, blocks->range_count + 1, sizeof(*places));
	if (places != NULL)
		blocks->places = places;
	if (ranges == NULL || places == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot trace");
	ranges[blocks->range_count] = (struct trace_range){.address = start,
		.bytes = end - start,
		.shared = map->shared,
		.dont_fork = (all >> FLAG_DONT_FORK & 1) != 0};
	places[blocks->range_count++] = (struct trace_place){.first_page = (uint32_t)first_page};
	blocks->traced_bytes += end - start;
	return 0;
}

/* The ranges of one block: as many as there are mappings in it. */
static int add_block(struct trace_blocks *blocks, const struct target *target,
	const struct qemu_ram_block *block, uint64_t first_page, const struct target_map *maps,
	size_t map_count, const struct rouse_observer *observer, struct rouse_error *error)
{
	const uint64_t before = blocks->traced_bytes, end = block->host + block->used_bytes;
	const char *why = block->host == 0 ? "its address is not known" : NULL;
	uint64_t missing;
	int code = 0;

	for (size_t i = 0; i < map_count && code == 0 && block->host != 0; i++) {
		const uint64_t from = maps[i].start > block->host ? maps[i].start : block->host;
		const uint64_t to = maps[i].end < end ? maps[i].end : end;
		const char *not = from < to ? why_not(target, &maps[i]) : NULL;

		if (from >= to)
			continue;
		if (not == NULL)
			code = add_range(blocks, target, from, to, &maps[i],
				first_page + (from - block->host) / TRACE_PAGE, &not, error);
		if (not != NULL)
			why = not ;
	}
	missing = block->used_bytes - (blocks->traced_bytes - before);
	blocks->untraced_bytes += missing;
	if (missing > 0)
		rouse_log(observer,
			missing >= WORTH_A_WARNING ? ROUSE_LOG_WARNING : ROUSE_LOG_DEBUG,
			"%llu KiB of %s are not traced: %s", (unsigned long long)missing / 1024,
			block->name, why != NULL ? why : "they are not mapped");
	return code;
}

/* Of an ordinary process every mapping is a block. */
static int blocks_of_process(struct trace_blocks *blocks, const struct target *target,
	const struct target_map *maps, size_t count, uint64_t min_bytes, struct rouse_error *error)
{
	blocks->blocks = calloc(count, sizeof(*blocks->blocks));
	if (blocks->blocks == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot trace");
	for (size_t i = 0; i < count; i++) {
		const struct target_map *map = &maps[i];
		struct qemu_ram_block *block = &blocks->blocks[blocks->block_count];

		if (map->end - map->start < min_bytes || why_not(target, map) != NULL ||
			strcmp(map->name, "[stack]") == 0 || blocks->block_count == TRACE_MAX_AREAS)
			continue;
		(void)snprintf(block->name, sizeof(block->name), "%llx-%llx",
			(unsigned long long)map->start, (unsigned long long)map->end);
		block->host = map->start;
		block->used_bytes = map->end - map->start;
		blocks->block_count++;
	}
	return 0;
}

int trace_blocks_find(struct target *target, struct qmp *qmp, uint64_t min_bytes,
	const struct rouse_observer *observer, struct trace_blocks *blocks,
	struct rouse_error *error)
{
	cleanup_free struct target_map *maps = NULL;
	uint64_t page = 0;
	size_t count;
	int code;

	*blocks = (struct trace_blocks){0};
	code = target_maps(target, &maps, &count, error);
	if (code == 0 && qmp != NULL)
		code = qemu_ram_query(qmp, &blocks->blocks, &blocks->block_count, error);
	if (code == 0 && qmp != NULL)
		code = qemu_ram_query_vcpus(qmp, &blocks->vcpus, &blocks->vcpu_count, error);
	if (code == 0 && qmp == NULL)
		code = blocks_of_process(blocks, target, maps, count, min_bytes, error);
	for (size_t i = 0; i < blocks->block_count && code == 0; i++) {
		const struct qemu_ram_block *block = &blocks->blocks[i];

		if (block->used_bytes % TRACE_PAGE != 0 || block->host % TRACE_PAGE != 0 ||
			page + block->used_bytes / TRACE_PAGE > MAX_PAGES)
			code = rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, -ENOTSUP,
				"RAM block %s is not of whole pages", block->name);
		else
			code = add_block(blocks, target, block, page, maps, count, observer, error);
		page += block->used_bytes / TRACE_PAGE;
	}
	if (code == 0 && blocks->range_count == 0)
		code = rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, -ENOTSUP,
			"process %d has no memory that can be traced", target_pid(target));
	if (code < 0)
		trace_blocks_finish(blocks);
	return code;
}

void trace_blocks_finish(struct trace_blocks *blocks)
{
	free(blocks->blocks);
	free(blocks->ranges);
	free(blocks->places);
	free(blocks->vcpus);
	*blocks = (struct trace_blocks){0};
}
