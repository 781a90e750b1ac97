/* SPDX-License-Identifier: MIT */
#include "api/save_pack.h"

#include "api/stream_image.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

/* The most that is decoded before the buffer is given back. */
#define PIECE_BYTES (1u << 20)

struct save_pack {
	struct save_pack_config config;
	struct save_drain *drain;
	pthread_t thread;
	bool joined;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct stream_image *image; /* NULL: not there yet, or given up */
	uint64_t done, total;       /* of it, as last seen */
	bool ready;                 /* the writer is there, or there is an error */
	int created;                /* set before ready */
	int code;                   /* set before ended */
	struct rouse_error error;
	atomic_bool ended, streaming;
	atomic_uint_fast64_t failed_us; /* when; 0: it has not */
};

static void pack_notify(const struct save_pack *pack)
{
	uint64_t one = 1;

	(void)!write(pack->config.notify_fd, &one, sizeof(one));
}

static void pack_note_streaming(struct save_pack *pack)
{
	uint64_t done, total;

	stream_image_get_progress(pack->image, &done, &total);
	if (done > 0 && !atomic_exchange(&pack->streaming, true))
		pack_notify(pack);
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
			return stream_image_end(pack->image, error);
		if (size > PIECE_BYTES)
			size = PIECE_BYTES;
		code = stream_image_feed(pack->image, bytes, size, error);
		save_drain_release(pack->drain, size);
		if (code < 0)
			return code;
		if (!save_pack_streaming(pack))
			pack_note_streaming(pack);
	}
}

/* Only for the thread that calls it; threads that it starts inherit it. */
static void stand_back(void)
{
	struct sched_param param = {0};

	(void)sched_setscheduler(0, SCHED_BATCH, &param);
	(void)setpriority(PRIO_PROCESS, 0, 19);
}

/* The image is given up: what it took of the disk is free, as long as nobody has its name. */
static void pack_drop_image(struct save_pack *pack)
{
	struct stream_image *image;

	(void)pthread_mutex_lock(&pack->lock);
	image = take_ptr(&pack->image);
	(void)pthread_mutex_unlock(&pack->lock);
	stream_image_free(image);
}

static void *pack_run(void *argument)
{
	struct save_pack *pack = argument;
	struct stream_image *image = NULL;
	int code;

	if (pack->config.low_priority)
		stand_back();
	code = stream_image_new(pack->config.image, pack->config.layout, pack->config.wset,
		pack->config.order, &image, &pack->error);
	(void)pthread_mutex_lock(&pack->lock);
	pack->image = image;
	pack->created = code;
	pack->ready = true;
	(void)pthread_cond_broadcast(&pack->changed);
	(void)pthread_mutex_unlock(&pack->lock);
	if (code == 0) {
		code = pack_stream(pack, &pack->error);
		/*
		 * A VM whose disk is on the same file system runs again when the stream breaks off:
		 * if that were still full, it would stop again, with an I/O error.
		 */
		if (code < 0) {
			atomic_store(&pack->failed_us, rouse_clock_us());
			pack_drop_image(pack);
			save_drain_abort(pack->drain);
		}
	}
	pack->code = code;
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
	code = pack->created;
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

void save_pack_get_progress(struct save_pack *pack, uint64_t *done, uint64_t *total)
{
	(void)pthread_mutex_lock(&pack->lock);
	if (pack->image != NULL)
		stream_image_get_progress(pack->image, &pack->done, &pack->total);
	*done = pack->done;
	*total = pack->total;
	(void)pthread_mutex_unlock(&pack->lock);
}

bool save_pack_has_failed(const struct save_pack *pack, unsigned int ms)
{
	const uint64_t failed_us = atomic_load(&pack->failed_us);

	return failed_us != 0 && rouse_clock_us() - failed_us >= (uint64_t)ms * 1000;
}

void save_pack_give_up(struct save_pack *pack, unsigned int timeout_ms)
{
	const uint64_t deadline_us = rouse_clock_us() + (uint64_t)timeout_ms * 1000;

	while (!save_pack_ended(pack) && rouse_clock_us() < deadline_us)
		(void)poll(NULL, 0, 1);
	if (save_pack_ended(pack))
		pack_drop_image(pack);
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

int save_pack_commit(struct save_pack *pack, struct rouse_metadata *metadata,
	struct rouse_writer_stats *stats, struct rouse_error *error)
{
	return stream_image_commit(pack->image, metadata, stats, error);
}

void save_pack_free(struct save_pack *pack)
{
	if (pack == NULL)
		return;
	if (!pack->joined)
		(void)pthread_join(pack->thread, NULL);
	stream_image_free(pack->image);
	(void)pthread_mutex_destroy(&pack->lock);
	(void)pthread_cond_destroy(&pack->changed);
	free(pack);
}
