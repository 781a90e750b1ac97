/* SPDX-License-Identifier: MIT */
#include "api/save_pack.h"

#include "api/wset_apply.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/observer.h"
#include "vmm/qemu_stream.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* The most that is decoded before the buffer is given back. */
#define PIECE_BYTES (1u << 20)

struct save_pack {
	struct save_pack_config config;
	struct save_drain *drain;
	struct rouse_writer *writer;
	struct qemu_stream *stream;
	pthread_t thread;
	bool joined;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool ready; /* the writer is there, or there is an error */
	int code;   /* set before ready, or before ended */
	struct rouse_error error;
	/* Set by a callback of the decoder, which knows no struct rouse_error. */
	bool have_callback_error;
	struct rouse_error callback_error;
	atomic_bool ended, streaming;
	atomic_uint_fast64_t done_pages;
	atomic_uint_fast64_t ram_bytes;
};

static void pack_notify(const struct save_pack *pack)
{
	uint64_t one = 1;

	(void)!write(pack->config.notify_fd, &one, sizeof(one));
}

static void close_wset(struct rouse_wset **wset)
{
	if (*wset != NULL)
		rouse_wset_close(*wset);
}

static int pack_set_blocks(struct save_pack *pack, const struct rouse_block *blocks, uint32_t count,
	struct rouse_error *error)
{
	cleanup_with(close_wset) struct rouse_wset *wset = NULL;
	cleanup_free struct rouse_writer_touch *touches = NULL;
	struct rouse_wset_info info = {0};
	int code = 0;

	if (pack->config.wset != NULL) {
		code = rouse_wset_open(pack->config.wset, &wset, error);
		if (code == 0)
			code = rouse_wset_check_blocks(
				wset, blocks, count, pack->config.wset, error);
		if (code == 0)
			code = rouse_wset_touches(wset, &touches, error);
		if (code < 0)
			return code;
		rouse_wset_get_info(wset, &info);
	}
	return rouse_writer_set_blocks(
		pack->writer, blocks, count, touches, (uint32_t)info.pages, error);
}

static int on_blocks(void *user, const struct qemu_block *blocks, uint32_t count)
{
	struct save_pack *pack = user;
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
	atomic_store(&pack->ram_bytes, bytes);
	code = pack_set_blocks(pack, list, count, &pack->callback_error);
	pack->have_callback_error = code < 0;
	return code;
}

static int on_page(void *user, uint64_t page, const void *data)
{
	struct save_pack *pack = user;

	if (!atomic_load_explicit(&pack->streaming, memory_order_relaxed)) {
		atomic_store(&pack->streaming, true);
		pack_notify(pack);
	}
	(void)atomic_fetch_add_explicit(&pack->done_pages, 1, memory_order_relaxed);
	return data != NULL ? rouse_writer_put_page(pack->writer, page, data)
			    : rouse_writer_put_zero(pack->writer, page);
}

static int pack_stream(struct save_pack *pack, struct rouse_error *error)
{
	for (;;) {
		const void *bytes;
		size_t size;
		int code = save_drain_next(pack->drain, &bytes, &size);

		if (code < 0)
			return rouse_error_errno(error, code, "cannot read QEMU's stream");
		if (size == 0)
			return qemu_stream_end(pack->stream, error);
		if (size > PIECE_BYTES)
			size = PIECE_BYTES;
		code = qemu_stream_feed(pack->stream, bytes, size, error);
		save_drain_release(pack->drain, size);
		if (code < 0 && pack->have_callback_error && error != NULL)
			*error = pack->callback_error;
		if (code < 0)
			return code;
	}
}

/* Only for the thread that calls it; threads that it starts inherit it. */
static void stand_back(void)
{
	struct sched_param param = {0};

	(void)sched_setscheduler(0, SCHED_BATCH, &param);
	(void)setpriority(PRIO_PROCESS, 0, 19);
}

static int pack_create(struct save_pack *pack)
{
	static const struct qemu_stream_ops ops = {.blocks = on_blocks, .page = on_page};
	int code = qemu_stream_new(&ops, pack, &pack->stream);

	if (code < 0)
		return rouse_error_errno(&pack->error, code, "cannot decode QEMU's stream");
	return rouse_writer_create(
		pack->config.image, pack->config.layout, &pack->writer, &pack->error);
}

static void *pack_run(void *argument)
{
	struct save_pack *pack = argument;
	int code;

	if (pack->config.low_priority)
		stand_back();
	code = pack_create(pack);
	(void)pthread_mutex_lock(&pack->lock);
	pack->code = code;
	pack->ready = true;
	(void)pthread_cond_broadcast(&pack->changed);
	(void)pthread_mutex_unlock(&pack->lock);
	if (code == 0) {
		code = pack_stream(pack, &pack->error);
		if (code < 0)
			save_drain_abort(pack->drain);
		pack->code = code;
	}
	atomic_store(&pack->ended, true);
	pack_notify(pack);
	return NULL;
}

static int pack_wait_ready(struct save_pack *pack, struct rouse_error *error)
{
	int code;

	(void)pthread_mutex_lock(&pack->lock);
	while (!pack->ready)
		(void)pthread_cond_wait(&pack->changed, &pack->lock);
	(void)pthread_mutex_unlock(&pack->lock);
	/* ->code may change from now on, but not if it is an error already. */
	code = pack->writer == NULL ? pack->code : 0;
	if (code < 0 && error != NULL)
		*error = pack->error;
	return code;
}

int save_pack_start(const struct save_pack_config *config, struct save_drain *drain,
	struct save_pack **pack, struct rouse_error *error)
{
	struct save_pack *p = calloc(1, sizeof(*p));
	int code;

	if (p == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot start packing");
	p->config = *config;
	p->drain = drain;
	(void)pthread_mutex_init(&p->lock, NULL);
	(void)pthread_cond_init(&p->changed, NULL);
	code = -pthread_create(&p->thread, NULL, pack_run, p);
	if (code < 0) {
		free(p);
		return rouse_error_errno(error, code, "cannot start packing");
	}
	code = pack_wait_ready(p, error);
	if (code < 0) {
		save_pack_free(p);
		return code;
	}
	*pack = p;
	return 0;
}

bool save_pack_streaming(const struct save_pack *pack)
{
	return atomic_load(&pack->streaming);
}

bool save_pack_ended(const struct save_pack *pack)
{
	return atomic_load(&pack->ended);
}

void save_pack_get_progress(const struct save_pack *pack, uint64_t *done, uint64_t *total)
{
	*total = atomic_load(&pack->ram_bytes);
	*done = atomic_load(&pack->done_pages) * QEMU_PAGE_BYTES;
	if (*done > *total) /* a live stream sends some pages again */
		*done = *total;
}

int save_pack_finish(struct save_pack *pack, struct rouse_error *error)
{
	if (!pack->joined)
		(void)pthread_join(pack->thread, NULL);
	pack->joined = true;
	if (pack->code < 0 && error != NULL)
		*error = pack->error;
	return pack->code;
}

static int pack_set_metadata(
	struct save_pack *pack, struct rouse_metadata *metadata, struct rouse_error *error)
{
	cleanup_free char *text = NULL;
	size_t size;
	int code;

	free(metadata->machine);
	metadata->machine = strdup(qemu_stream_machine(pack->stream));
	metadata->ram_bytes = atomic_load(&pack->ram_bytes);
	code = rouse_metadata_build(metadata, &text, &size);
	if (code == 0)
		code = rouse_writer_set_section(pack->writer, ROUSE_SECTION_METADATA, text, size);
	if (code < 0)
		return rouse_error_errno(error, code, "cannot write the image's metadata");
	return 0;
}

int save_pack_commit(struct save_pack *pack, struct rouse_metadata *metadata,
	struct rouse_writer_stats *stats, struct rouse_error *error)
{
	struct rouse_writer *writer;
	const void *bytes;
	size_t size;
	int code = pack_set_metadata(pack, metadata, error);

	if (code < 0)
		return code;
	bytes = qemu_stream_config(pack->stream, &size);
	code = rouse_writer_set_section(pack->writer, ROUSE_SECTION_CONFIG, bytes, size);
	if (code == 0) {
		bytes = qemu_stream_devices(pack->stream, &size);
		code = rouse_writer_set_section(pack->writer, ROUSE_SECTION_DEVICES, bytes, size);
	}
	if (code < 0)
		return rouse_error_errno(error, code, "cannot write the device state");
	writer = take_ptr(&pack->writer);
	return rouse_writer_commit(writer, stats, error);
}

void save_pack_free(struct save_pack *pack)
{
	if (pack == NULL)
		return;
	if (!pack->joined)
		(void)pthread_join(pack->thread, NULL);
	rouse_writer_abort(pack->writer);
	qemu_stream_free(pack->stream);
	(void)pthread_mutex_destroy(&pack->lock);
	(void)pthread_cond_destroy(&pack->changed);
	free(pack);
}
