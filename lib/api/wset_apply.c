/* SPDX-License-Identifier: MIT */
#include "api/wset_apply.h"

#include "base/error.h"

#include <stdlib.h>
#include <string.h>

int rouse_wset_check_blocks(const struct rouse_wset *wset, const struct rouse_block *blocks,
	uint32_t count, const char *path, struct rouse_error *error)
{
	if (wset->block_count != count)
		return rouse_error_set(error, ROUSE_ERROR_MISMATCH, -EINVAL,
			"%s is of another VM: it has %u RAM blocks, the image has %u", path,
			wset->block_count, count);
	for (uint32_t i = 0; i < count; i++) {
		if (strcmp(wset->blocks[i].name, blocks[i].name) != 0 ||
			wset->blocks[i].used_bytes != blocks[i].used_bytes)
			return rouse_error_set(error, ROUSE_ERROR_MISMATCH, -EINVAL,
				"%s is of another VM: its RAM block %s has %llu bytes, the image's "
				"%s has %llu",
				path, wset->blocks[i].name,
				(unsigned long long)wset->blocks[i].used_bytes, blocks[i].name,
				(unsigned long long)blocks[i].used_bytes);
	}
	return 0;
}

int rouse_wset_touches(const struct rouse_wset *wset, struct rouse_writer_touch **touches,
	struct rouse_error *error)
{
	struct rouse_writer_touch *list = calloc((size_t)wset->page_count + 1, sizeof(*list));

	if (list == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot use the working set");
	for (uint32_t i = 0; i < wset->page_count; i++)
		list[i] = (struct rouse_writer_touch){
			.page = wset->pages[i].page, .time_us = wset->pages[i].time_us};
	*touches = list;
	return 0;
}
