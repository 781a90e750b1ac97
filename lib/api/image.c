/* SPDX-License-Identifier: MIT */
/* Images for the users of the library: opening and describing. Verifying is in verify.c. */
#include "api/image.h"

#include "base/error.h"

#include <stdlib.h>

int rouse_image_open(const char *path, struct rouse_image **image, struct rouse_error *error)
{
	struct rouse_image *new = calloc(1, sizeof(*new));
	int code;

	if (new == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot open %s", path);
	code = rouse_file_source_open(path, NULL, &new->source, error);
	if (code == 0) {
		code = rouse_reader_open(new->source, &new->reader, error);
		if (code < 0)
			(void)rouse_error_prefix(error, "%s", path);
	}
	if (code < 0) {
		rouse_image_close(new);
		return code;
	}
	*image = new;
	return 0;
}

void rouse_image_close(struct rouse_image *image)
{
	if (image == NULL)
		return;
	rouse_reader_close(image->reader);
	rouse_source_destroy(image->source);
	free(image);
}

void rouse_image_get_info(const struct rouse_image *image, struct rouse_image_info *info)
{
	const struct rouse_disk_superblock *superblock = rouse_reader_superblock(image->reader);
	const struct rouse_image_wset *wset = rouse_reader_wset(image->reader);
	size_t size;

	*info = (struct rouse_image_info){
		.version = le32_get(superblock->version),
		.compat = le64_get(superblock->compat),
		.incompat = le64_get(superblock->incompat),
		.page_size = le32_get(superblock->page_bytes),
		.chunk_pages = le32_get(superblock->chunk_pages),
		.block_count = le32_get(superblock->block_count),
		.file_bytes = le64_get(superblock->file_bytes),
		.front_bytes = le64_get(superblock->front_bytes),
		.ram_bytes = le64_get(superblock->page_count) * ROUSE_IMAGE_PAGE_BYTES,
		.device_bytes = le64_get(superblock->sections[ROUSE_SECTION_DEVICES].length),
		.pages = le64_get(superblock->page_count),
		.zero_pages = le64_get(superblock->zero_pages),
		.duplicate_pages = le64_get(superblock->duplicate_pages),
		.chunks = le64_get(superblock->chunk_count),
		.stored_bytes = le64_get(superblock->stored_bytes),
		.wset_pages = wset->page_count,
		.metadata = rouse_reader_section(image->reader, ROUSE_SECTION_METADATA, &size),
	};
	memcpy(info->id, superblock->id, sizeof(info->id));
	for (uint32_t i = 0; i < wset->chunk_count; i++)
		info->wset_stored_bytes += wset->chunks[i].stored_bytes;
}

int rouse_image_get_block(
	const struct rouse_image *image, uint32_t index, struct rouse_block_info *info)
{
	uint32_t count;
	const struct rouse_block *blocks = rouse_reader_blocks(image->reader, &count);

	if (index >= count)
		return -ERANGE;
	*info = (struct rouse_block_info){
		.name = blocks[index].name,
		.used_bytes = blocks[index].used_bytes,
		.first_page = blocks[index].first_page,
	};
	return 0;
}
