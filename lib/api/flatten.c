/* SPDX-License-Identifier: MIT */
/* rouse_flatten(): an image's memory as a file to map. */
#include "api/image_pages.h"
#include "api/metadata.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/io.h"
#include "base/observer.h"
#include "image/flat.h"
#include "image/temp_file.h"

#include <string.h>
#include <sys/stat.h>

static void close_image(struct rouse_image **image)
{
	rouse_image_close(*image);
}

static void finish_metadata(struct rouse_metadata *metadata)
{
	rouse_metadata_finish(metadata);
}

/* The block that is the VM's memory: the largest, and all of it. */
static int find_main(const struct rouse_reader *reader, const struct rouse_block **main_block,
	struct rouse_error *error)
{
	cleanup_with(finish_metadata) struct rouse_metadata metadata = {0};
	const struct rouse_block *blocks;
	uint32_t count;
	size_t size;
	const char *text = rouse_reader_section(reader, ROUSE_SECTION_METADATA, &size);
	int code = rouse_metadata_parse(text, size, &metadata, error);

	if (code < 0)
		return code;
	blocks = rouse_reader_blocks(reader, &count);
	*main_block = &blocks[0];
	for (uint32_t i = 0; i < count; i++) {
		if (blocks[i].used_bytes > (*main_block)->used_bytes)
			*main_block = &blocks[i];
		if (blocks[i].page_bytes > ROUSE_IMAGE_PAGE_BYTES)
			return rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, -ENOTSUP,
				"RAM block %s has huge pages, which a flat file cannot stand for",
				blocks[i].name);
	}
	if (metadata.memory_bytes == 0 || metadata.memory_bytes == (*main_block)->used_bytes)
		return 0;
	return rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, -ENOTSUP,
		"the VM's memory is in several RAM blocks (the largest, %s, has %llu of %llu MiB), "
		"and only one can be mapped",
		(*main_block)->name, (unsigned long long)(*main_block)->used_bytes >> 20,
		(unsigned long long)metadata.memory_bytes >> 20);
}

static int put_page(void *user, uint64_t page, const void *data)
{
	return rouse_flat_writer_page(user, page, data);
}

static void describe(const struct rouse_reader *reader, const struct rouse_block *main_block,
	struct rouse_flat *flat)
{
	const struct rouse_disk_superblock *superblock = rouse_reader_superblock(reader);

	*flat = (struct rouse_flat){
		.checkpoint = le64_get(superblock->sections[ROUSE_SECTION_DEVICES].checksum),
		.blocks_checksum = le64_get(superblock->sections[ROUSE_SECTION_BLOCKS].checksum),
		.page_count = rouse_reader_page_count(reader),
		.main_first = main_block->first_page,
		.main_pages = main_block->used_bytes / ROUSE_IMAGE_PAGE_BYTES,
	};
	memcpy(flat->id, superblock->id, sizeof(flat->id));
}

static int write_flat(const struct rouse_image *image, const struct rouse_flat *flat, int fd,
	struct rouse_write_report *report, const struct rouse_observer *observer,
	struct rouse_error *error)
{
	struct rouse_flat_writer writer;
	int code = rouse_flat_writer_begin(fd, flat, &writer);

	if (code < 0)
		(void)rouse_error_errno(error, code, "cannot write the flat file");
	if (code == 0)
		code = rouse_image_each_page(image->source, image->reader, put_page, &writer,
			"converting", observer, error);
	if (code == 0) {
		code = rouse_flat_writer_end(&writer);
		if (code < 0)
			(void)rouse_error_errno(error, code, "cannot write the flat file");
	}
	report->image_bytes = writer.flat.file_bytes;
	report->pages = flat->page_count;
	report->zero_pages = writer.flat.zero_pages;
	report->stored_bytes = (flat->page_count - writer.flat.zero_pages) * ROUSE_IMAGE_PAGE_BYTES;
	rouse_flat_writer_finish(&writer);
	return code;
}

int rouse_flatten(const char *image, const char *out, struct rouse_write_report *report,
	const struct rouse_observer *observer, struct rouse_error *error)
{
	cleanup_with(close_image) struct rouse_image *opened = NULL;
	const uint64_t began_us = rouse_clock_us();
	const struct rouse_block *main_block = NULL;
	struct rouse_write_report unused;
	struct rouse_temp_file file;
	struct rouse_flat flat;
	int code = rouse_image_open(image, &opened, error);

	if (report == NULL)
		report = &unused;
	*report = (struct rouse_write_report){0};
	/* A flat file has the memory and nothing else of the VM. */
	if (code == 0 && rouse_io_is_same_file(image, out))
		code = rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
			"%s would be replaced by its flat file, and the VM's devices be lost: give "
			"another name",
			image);
	if (code == 0)
		code = find_main(opened->reader, &main_block, error);
	/* Every image has a block; the analyzer cannot see that find_main() found one. */
	if (code < 0 || main_block == NULL)
		return code < 0 ? code : -EUCLEAN;
	describe(opened->reader, main_block, &flat);
	code = rouse_temp_file_open(out, &file, error);
	if (code < 0)
		return code;
	code = write_flat(opened, &flat, file.fd, report, observer, error);
	if (code == 0)
		code = rouse_temp_file_commit(&file, error);
	rouse_temp_file_discard(&file);
	report->elapsed_us = rouse_clock_us() - began_us;
	return code;
}
