/* SPDX-License-Identifier: MIT */
/* rouse_pack(): an image laid out anew, for another working set, codec or size of chunks. */
#include "api/image_pages.h"
#include "api/wset_apply.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"

static void close_image(struct rouse_image **image)
{
	rouse_image_close(*image);
}

static void close_wset(struct rouse_wset **wset)
{
	if (*wset != NULL)
		rouse_wset_close(*wset);
}

static int put_page(void *user, uint64_t page, const void *data)
{
	return rouse_writer_put_page(user, page, data);
}

static int copy_sections(
	const struct rouse_reader *reader, struct rouse_writer *writer, struct rouse_error *error)
{
	static const enum rouse_section_type types[] = {
		ROUSE_SECTION_METADATA, ROUSE_SECTION_CONFIG, ROUSE_SECTION_DEVICES};

	for (unsigned int i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		size_t size;
		const void *bytes = rouse_reader_section(reader, types[i], &size);
		int code = rouse_writer_set_section(writer, types[i], bytes, size);

		if (code < 0)
			return rouse_error_errno(error, code, "cannot copy a section");
	}
	return 0;
}

/* Gives the writer the VM and the working set of the file @wset_path, if there is one. */
static int begin(const struct rouse_reader *reader, const char *wset_path,
	struct rouse_writer *writer, struct rouse_error *error)
{
	cleanup_with(close_wset) struct rouse_wset *wset = NULL;
	cleanup_free struct rouse_writer_touch *touches = NULL;
	const struct rouse_block *blocks;
	uint32_t count;
	int code = 0;

	blocks = rouse_reader_blocks(reader, &count);
	if (wset_path != NULL)
		code = rouse_wset_open(wset_path, &wset, error);
	if (code == 0 && wset != NULL)
		code = rouse_wset_check_blocks(wset, blocks, count, wset_path, error);
	if (code == 0 && wset != NULL)
		code = rouse_wset_touches(wset, &touches, error);
	if (code < 0)
		return code;
	return rouse_writer_set_blocks(
		writer, blocks, count, touches, wset != NULL ? wset->page_count : 0, error);
}

static int fill(const struct rouse_image *image, const char *wset, struct rouse_writer *writer,
	const struct rouse_observer *observer, struct rouse_error *error)
{
	int code = begin(image->reader, wset, writer, error);

	if (code == 0)
		code = rouse_image_each_page(
			image->source, image->reader, put_page, writer, "packing", observer, error);
	return code == 0 ? copy_sections(image->reader, writer, error) : code;
}

int rouse_pack(const char *image_path, const char *wset, const char *out,
	const struct rouse_layout *layout, struct rouse_write_report *report,
	const struct rouse_observer *observer, struct rouse_error *error)
{
	cleanup_with(close_image) struct rouse_image *image = NULL;
	uint64_t began = rouse_clock_us();
	struct rouse_writer_stats stats;
	struct rouse_writer *writer;
	int code = rouse_image_open(image_path, &image, error);

	if (code < 0)
		return code;
	code = rouse_writer_create(out, layout, &writer, error);
	if (code < 0)
		return code;
	code = fill(image, wset, writer, observer, error);
	if (code < 0) {
		rouse_writer_abort(writer);
		return code;
	}
	code = rouse_writer_commit(writer, &stats, error);
	if (code == 0 && report != NULL)
		*report = (struct rouse_write_report){
			.elapsed_us = rouse_clock_us() - began,
			.image_bytes = stats.image_bytes,
			.stored_bytes = stats.stored_bytes,
			.pages = stats.pages,
			.zero_pages = stats.zero_pages,
			.duplicate_pages = stats.duplicate_pages,
			.wset_pages = stats.wset_pages,
		};
	return code;
}
