/* SPDX-License-Identifier: MIT */
#include "api/restore_uffd.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "vmm/proc_socket.h"
#include "vmm/qemu_incoming.h"
#include "vmm/qemu_uffd.h"

#include <string.h>

int restore_uffd_take(
	struct restore_qemu *qemu, uint64_t checkpoint, bool run, struct rouse_error *error)
{
	const int started = (int)qemu->process.pid;
	const int pid = started > 0 ? started : qmp_peer_pid(qemu->qmp);

	if (pid <= 0)
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -ESRCH,
			"QEMU's process id is not known here: use --backend postcopy");
	return qemu_hold_take(&qemu->hold, pid, qemu->qmp, qemu->blocks, qemu->block_count,
		checkpoint, run, error);
}

int restore_uffd_adopt(struct restore_qemu *qemu, const char *socket, uint64_t checkpoint,
	struct rouse_error *error)
{
	struct rouse_error why = {0};
	/* To be told whose socket it is, nobody there need accept us. */
	int pid = proc_socket_listener(socket), code = -ENOENT;

	if (pid == -EAGAIN)
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EAGAIN,
			"QEMU accepts no connection at %s, and its process cannot be told: run as "
			"its user, where it runs",
			socket);
	if (pid > 0)
		code = qemu_hold_adopt(
			&qemu->hold, pid, qemu->blocks, qemu->block_count, checkpoint, &why);
	/* What cannot be seen may be a postcopy all the same. */
	if (code == -EPERM)
		return code;
	if (code == -ENOSYS || code == -ESRCH)
		return -ENOENT;
	if (code == 0)
		qemu->way = RESTORE_UFFD;
	else if (error != NULL)
		*error = why;
	return code;
}

/* For the end: whether a page has bytes in the image. Its tables have been read by then. */
static int is_stored(void *user, uint64_t page)
{
	uint64_t locator;
	int code = rouse_reader_locate(user, page, ROUSE_READ_BULK, &locator);

	return code < 0 ? code : locator != ROUSE_LOCATOR_ZERO;
}

int restore_uffd_sink(struct restore_qemu *qemu, const struct qemu_sink_config *config,
	const struct rouse_restore_options *options, struct rouse_reader *reader,
	struct rouse_error *error)
{
	const struct qemu_uffd_config uffd = {
		.qemu = *config,
		.hold = &qemu->hold,
		.socket = options->qmp_socket,
		.is_stored = is_stored,
		.user = reader,
	};

	return options->resume ? qemu_uffd_sink_resume(&uffd, &qemu->sink, error)
			       : qemu_uffd_sink_new(&uffd, &qemu->sink, error);
}

void restore_uffd_give_up(struct restore_qemu *qemu)
{
	if (qemu->hold.target == NULL)
		return;
	/* If it cannot be undone QEMU has to be ended: a restore into it is refused. */
	if (!qemu->hold.adopted)
		(void)qemu_hold_release(&qemu->hold, NULL);
	qemu_hold_finish(&qemu->hold);
}

/* ---- Small blocks ---------------------------------------------------------------------------- */

#define BATCH_PAGES 64u

struct small {
	struct rouse_sink *sink;
	struct rouse_reader *reader;
	struct rouse_source *source;
	unsigned char *stored, *plain; /* one chunk each */
	size_t chunk_bytes;
	uint64_t number; /* of the chunk in plain; UINT64_MAX: none */
	uint32_t pages;  /* of it */
	struct rouse_sink_page batch[BATCH_PAGES];
	size_t count;
};

static int flush(struct small *s)
{
	int code = 0;

	if (s->count > 0)
		code = s->sink->ops->prefetch(s->sink, s->batch, s->count);
	s->count = 0;
	return code;
}

static int load_chunk(struct small *s, uint64_t number)
{
	struct rouse_chunk chunk = {0};
	int code = flush(s);

	s->number = UINT64_MAX;
	if (code == 0)
		code = rouse_reader_chunk(s->reader, number, ROUSE_READ_URGENT, &chunk);
	if (code < 0)
		return code;
	if (chunk.stored_bytes > s->chunk_bytes ||
		(size_t)chunk.pages * ROUSE_IMAGE_PAGE_BYTES > s->chunk_bytes)
		return -EUCLEAN;
	code = rouse_source_read(
		s->source, chunk.offset, s->stored, chunk.stored_bytes, ROUSE_READ_URGENT);
	if (code == 0)
		code = rouse_chunk_decode(&chunk, s->stored, s->plain);
	if (code < 0)
		return code;
	s->number = number;
	s->pages = chunk.pages;
	return 0;
}

static int send_page(struct small *s, uint64_t page)
{
	struct rouse_sink_page *out;
	uint64_t locator;
	int code = rouse_reader_locate(s->reader, page, ROUSE_READ_URGENT, &locator);

	if (code == 0 && s->count == BATCH_PAGES)
		code = flush(s);
	if (code == 0 && locator != ROUSE_LOCATOR_ZERO && rouse_locator_chunk(locator) != s->number)
		code = load_chunk(s, rouse_locator_chunk(locator));
	if (code < 0)
		return code;
	out = &s->batch[s->count];
	*out = (struct rouse_sink_page){.page = page};
	if (locator != ROUSE_LOCATOR_ZERO) {
		if (rouse_locator_slot(locator) >= s->pages)
			return -EUCLEAN;
		out->data = s->plain + (size_t)rouse_locator_slot(locator) * ROUSE_IMAGE_PAGE_BYTES;
	}
	s->count++;
	return 0;
}

static int small_failure(int code, uint64_t page, struct rouse_error *error)
{
	if (code == -EUCLEAN)
		return rouse_error_set(error, ROUSE_ERROR_DAMAGED, code,
			"the image is damaged at the chunk of page %llu (`rouse verify` says "
			"where): the VM was not started",
			(unsigned long long)page);
	if (code == -ECANCELED)
		return qemu_incoming_cancelled(error);
	if (code == -EPIPE)
		return rouse_error_set(
			error, ROUSE_ERROR_VMM, code, "QEMU ended before the VM was started");
	return rouse_error_errno(error, code, "cannot read the image: the VM was not started");
}

int restore_uffd_send_small(struct rouse_sink *sink, struct rouse_reader *reader,
	struct rouse_source *source, struct rouse_error *error)
{
	const uint64_t pages = rouse_reader_page_count(reader);
	const size_t chunk_bytes = (size_t)le32_get(rouse_reader_superblock(reader)->chunk_pages) *
				   ROUSE_IMAGE_PAGE_BYTES;
	cleanup_free unsigned char *buffer = malloc(2 * chunk_bytes);
	struct small small = {.sink = sink,
		.reader = reader,
		.source = source,
		.stored = buffer,
		.plain = buffer + chunk_bytes,
		.chunk_bytes = chunk_bytes,
		.number = UINT64_MAX};
	int code = buffer != NULL ? 0 : -ENOMEM;
	uint64_t page = 0;

	/* By blocks, not by pages: this is before the start, and the VM may be large. */
	while (code == 0 && (page = qemu_uffd_sink_next_small(sink, page)) < pages) {
		code = send_page(&small, page);
		if (code == 0)
			page++;
	}
	if (code == 0)
		code = flush(&small);
	return code == 0 ? 0 : small_failure(code, page, error);
}
