/* SPDX-License-Identifier: MIT */
/*
 * The eager sink: an ordinary migration. What goes over the connection:
 *
 *   header config | ram START | ram PART: every page, zero pages too | ram END | devices | EOF
 *   | VMDESC of length 0: QEMU waits for one, though it only skips it
 *
 * Zero pages are sent because memory of a fresh QEMU need not be zero (ROMs, files as memory);
 * QEMU only writes them where it finds something else.
 */
#include "vmm/qemu_sink.h"

#include "base/bitmap.h"
#include "base/cleanup.h"
#include "vmm/qemu_incoming.h"
#include "vmm/qemu_writer.h"

#include <stdlib.h>

struct precopy_sink {
	struct rouse_sink sink;
	struct qemu_sink_config config;
	struct qemu_writer writer;
	struct rouse_bitmap placed;
	uint64_t placed_count;
	bool begun; /* the header has been sent, and a PART section is open */
};

static int precopy_begin(struct precopy_sink *s)
{
	int code;

	if (s->begun)
		return 0;
	s->begun = true;
	qemu_writer_set_buffer(&s->writer, QEMU_WRITER_BULK_BUFFER);
	code = qemu_writer_header(&s->writer, s->config.config, s->config.config_size);
	if (code == 0)
		code = qemu_writer_ram_start(&s->writer);
	if (code == 0)
		code = qemu_writer_part_begin(&s->writer);
	return code;
}

static int precopy_prefetch(
	struct rouse_sink *sink, const struct rouse_sink_page *pages, size_t count)
{
	struct precopy_sink *s = (struct precopy_sink *)sink;
	int code = precopy_begin(s);

	while (code == 0 && count > 0) {
		size_t n = count < QEMU_WRITER_BATCH ? count : QEMU_WRITER_BATCH;

		for (size_t i = 0; i < n; i++) {
			if (pages[i].page >= s->placed.bits)
				return -ERANGE;
			rouse_bitmap_set(&s->placed, pages[i].page);
		}
		code = qemu_writer_pages(&s->writer, pages, n);
		s->placed_count += n;
		pages += n;
		count -= n;
	}
	return code;
}

int qemu_precopy_send(struct rouse_sink *sink)
{
	static const uint8_t end[] = {QEMU_VM_EOF, QEMU_VM_VMDESCRIPTION, 0, 0, 0, 0};
	struct precopy_sink *s = (struct precopy_sink *)sink;
	int code = precopy_begin(s);

	if (code == 0)
		code = qemu_writer_part_end(&s->writer);
	if (code == 0)
		code = qemu_writer_ram_end(&s->writer);
	if (code == 0)
		code = qemu_writer_raw(&s->writer, s->config.devices, s->config.devices_size);
	if (code == 0)
		code = qemu_writer_raw(&s->writer, end, sizeof(end));
	return code;
}

static int precopy_start(struct rouse_sink *sink, uint64_t *started_ns, struct rouse_error *error)
{
	struct precopy_sink *s = (struct precopy_sink *)sink;
	int code = qemu_precopy_send(sink);

	if (code == -ECANCELED)
		return qemu_incoming_cancelled(error);
	if (code < 0)
		return qemu_incoming_broken(s->config.qmp, code, error);
	return qemu_incoming_wait_loaded(s->config.qmp, s->config.run, started_ns, error);
}

static int precopy_wait_fault(struct rouse_sink *sink, uint64_t *page)
{
	(void)sink;
	(void)page;
	return -ESHUTDOWN;
}

static int precopy_place(struct rouse_sink *sink, const struct rouse_sink_page *pages, size_t count,
	enum rouse_sink_priority priority, size_t *placed)
{
	/* The guest runs with everything: there is nothing left to place. */
	(void)sink;
	(void)pages;
	(void)count;
	(void)priority;
	if (placed != NULL)
		*placed = 0;
	return 0;
}

static bool precopy_is_placed(struct rouse_sink *sink, uint64_t page)
{
	struct precopy_sink *s = (struct precopy_sink *)sink;

	return page < s->placed.bits && rouse_bitmap_test(&s->placed, page);
}

static int precopy_finish(struct rouse_sink *sink, struct rouse_error *error)
{
	(void)sink;
	(void)error;
	return 0;
}

static int precopy_stop_guest(struct rouse_sink *sink, struct rouse_error *error)
{
	struct precopy_sink *s = (struct precopy_sink *)sink;

	return qmp_execute(s->config.qmp, "stop", NULL, NULL, error);
}

static void precopy_interrupt(struct rouse_sink *sink)
{
	/* Nobody waits for faults, and a write that waits for QEMU looks at the cancel object. */
	(void)sink;
}

static void precopy_destroy(struct rouse_sink *sink)
{
	struct precopy_sink *s = (struct precopy_sink *)sink;

	cleanup_close_fn(&s->config.fd);
	rouse_bitmap_finish(&s->placed);
	free(s);
}

static const struct rouse_sink_ops precopy_ops = {
	.prefetch = precopy_prefetch,
	.start = precopy_start,
	.wait_fault = precopy_wait_fault,
	.place = precopy_place,
	.is_placed = precopy_is_placed,
	.finish = precopy_finish,
	.stop_guest = precopy_stop_guest,
	.interrupt = precopy_interrupt,
	.destroy = precopy_destroy,
};

int qemu_precopy_sink_new(
	const struct qemu_sink_config *config, struct rouse_sink **sink, struct rouse_error *error)
{
	struct precopy_sink *s = calloc(1, sizeof(*s));

	if (s == NULL || rouse_bitmap_init(&s->placed,
				 qemu_blocks_pages(config->blocks, config->block_count)) < 0) {
		cleanup_close_fn(&config->fd);
		free(s);
		return rouse_error_errno(error, -ENOMEM, "cannot prepare the restore");
	}
	s->sink.ops = &precopy_ops;
	s->config = *config;
	qemu_writer_init(&s->writer, config->fd, rouse_observer_cancel_fd(config->observer),
		config->blocks, config->block_count);
	*sink = &s->sink;
	return 0;
}
