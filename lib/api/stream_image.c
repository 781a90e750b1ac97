/* SPDX-License-Identifier: MIT */
#include "api/stream_image.h"

#include "api/wset_apply.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "vmm/qemu_stream.h"

#include <stdatomic.h>
#include <string.h>

struct stream_image {
	struct rouse_writer *writer;
	struct qemu_stream *stream;
	const char *wset_path;
	struct rouse_wset *wset;  /* or NULL */
	struct page_order *order; /* or NULL */
	/* Of a callback: the decoder hands on only its code. */
	bool callback_failed;
	struct rouse_error callback_error;
	atomic_uint_fast64_t done_pages, ram_bytes;
};

static int set_blocks(struct stream_image *image, const struct rouse_block *blocks, uint32_t count,
	struct rouse_error *error)
{
	cleanup_free struct rouse_writer_touch *touches = NULL;
	uint32_t touch_count = 0;
	int code = 0;

	if (image->wset != NULL) {
		code = rouse_wset_check_blocks(image->wset, blocks, count, image->wset_path, error);
		if (code == 0)
			code = rouse_wset_touches(image->wset, &touches, error);
		if (code < 0)
			return code;
		touch_count = image->wset->page_count;
	}
	return rouse_writer_set_blocks(image->writer, blocks, count, touches, touch_count, error);
}

static int on_blocks(void *user, const struct qemu_block *blocks, uint32_t count)
{
	struct stream_image *image = user;
	cleanup_free struct rouse_block *list = calloc(count, sizeof(*list));
	uint64_t bytes = 0;
	int code;

	if (list == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++) {
		memcpy(list[i].name, blocks[i].name, sizeof(list[i].name));
		list[i].used_bytes = blocks[i].used_bytes;
		list[i].page_bytes = QEMU_PAGE_BYTES;
		list[i].first_page = blocks[i].first_page;
		bytes += blocks[i].used_bytes;
	}
	atomic_store(&image->ram_bytes, bytes);
	code = set_blocks(image, list, count, &image->callback_error);
	image->callback_failed = code < 0;
	if (code == 0 && image->order != NULL)
		code = page_order_set_blocks(image->order, list, count);
	return code;
}

static int on_page(void *user, uint64_t page, const void *data)
{
	struct stream_image *image = user;
	int code = image->order != NULL ? page_order_note(image->order, page) : 0;

	if (code < 0)
		return code;
	(void)atomic_fetch_add_explicit(&image->done_pages, 1, memory_order_relaxed);
	return data != NULL ? rouse_writer_put_page(image->writer, page, data)
			    : rouse_writer_put_zero(image->writer, page);
}

int stream_image_new(const char *path, const struct rouse_layout *layout, const char *wset,
	struct page_order *order, struct stream_image **image, struct rouse_error *error)
{
	static const struct qemu_stream_ops ops = {.blocks = on_blocks, .page = on_page};
	struct stream_image *i = calloc(1, sizeof(*i));
	int code = i != NULL ? qemu_stream_new(&ops, i, &i->stream) : -ENOMEM;

	if (code < 0) {
		free(i);
		return rouse_error_errno(error, code, "cannot decode QEMU's stream");
	}
	i->wset_path = wset;
	i->order = order;
	code = wset != NULL ? rouse_wset_open(wset, &i->wset, error) : 0;
	if (code == 0)
		code = rouse_writer_create(path, layout, &i->writer, error);
	if (code < 0) {
		stream_image_free(i);
		return code;
	}
	*image = i;
	return 0;
}

int stream_image_feed(
	struct stream_image *image, const void *bytes, size_t size, struct rouse_error *error)
{
	int code = qemu_stream_feed(image->stream, bytes, size, error);

	if (code < 0 && image->callback_failed && error != NULL)
		*error = image->callback_error;
	return code;
}

int stream_image_end(struct stream_image *image, struct rouse_error *error)
{
	return qemu_stream_end(image->stream, error);
}

void stream_image_get_progress(const struct stream_image *image, uint64_t *done, uint64_t *total)
{
	*total = atomic_load(&image->ram_bytes);
	*done = atomic_load(&image->done_pages) * QEMU_PAGE_BYTES;
	if (*done > *total)
		*done = *total;
}

static int set_metadata(
	struct stream_image *image, struct rouse_metadata *metadata, struct rouse_error *error)
{
	cleanup_free char *text = NULL;
	size_t size;
	int code;

	free(metadata->machine);
	metadata->machine = strdup(qemu_stream_machine(image->stream));
	metadata->ram_bytes = atomic_load(&image->ram_bytes);
	code = rouse_metadata_build(metadata, &text, &size);
	if (code == 0)
		code = rouse_writer_set_section(image->writer, ROUSE_SECTION_METADATA, text, size);
	if (code < 0)
		return rouse_error_errno(error, code, "cannot write the image's metadata");
	return 0;
}

int stream_image_commit(struct stream_image *image, struct rouse_metadata *metadata,
	struct rouse_writer_stats *stats, struct rouse_error *error)
{
	const void *bytes;
	size_t size;
	int code = set_metadata(image, metadata, error);

	if (code < 0)
		return code;
	bytes = qemu_stream_config(image->stream, &size);
	code = rouse_writer_set_section(image->writer, ROUSE_SECTION_CONFIG, bytes, size);
	if (code == 0) {
		bytes = qemu_stream_devices(image->stream, &size);
		code = rouse_writer_set_section(image->writer, ROUSE_SECTION_DEVICES, bytes, size);
	}
	if (code < 0)
		return rouse_error_errno(error, code, "cannot write the device state");
	return rouse_writer_commit(take_ptr(&image->writer), stats, error);
}

void stream_image_free(struct stream_image *image)
{
	if (image == NULL)
		return;
	rouse_writer_abort(image->writer);
	qemu_stream_free(image->stream);
	if (image->wset != NULL)
		rouse_wset_close(image->wset);
	free(image);
}
