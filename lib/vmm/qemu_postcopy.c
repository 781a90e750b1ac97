/* SPDX-License-Identifier: MIT */
/*
 * The postcopy sink: Rouse plays the source of a postcopy migration, QEMU's userfaultfd traps.
 *
 *   ->  header config | OPEN_RETURN_PATH | ADVISE | DISCARD | ram START
 *       ram PART: pages to have before the start                               (prefetch)
 *       (QMP) cont, if QEMU was started with -S                                (start)
 *   ->  PACKAGED { LISTEN, device sections, PING 3, RUN }                      (start)
 *       ram PART: pages, as they are asked for and in the background           (place)
 *   <-  REQ_PAGES, REQ_PAGES_ID: a vCPU waits for these                        (wait_fault)
 *   <-  PONG 3: the devices are loaded
 *   ->  ram END, EOF                                                           (finish)
 *   <-  SHUT 0
 *
 * DISCARD, of a page that nobody has sent, makes QEMU prepare for missing pages (no huge pages)
 * before the first page arrives. QEMU fails on a page that it gets twice: a page is marked and
 * written under one lock.
 *
 * There is one connection: an urgent page waits for what the socket holds already. So once the
 * guest runs, background pages go in small groups, and only while the socket is nearly empty. Linux
 * calls a unix socket writable (POLLOUT) while at most a quarter of its buffer is in use:
 *
 *	|<------------------- send buffer -------------------->|
 *	|background| one group |        for urgent pages       |
 *	'- POLLOUT '
 *
 * so that an urgent page neither blocks nor stands behind more than a few background ones.
 *
 * Threads: see sink.h. The fault thread alone reads the connection; `state` is what it tells the
 * others. The QMP connection belongs to the thread that calls start, finish and stop_guest.
 *
 * Whoever waits for QEMU to read looks at the cancel object meanwhile: a QEMU that stands still
 * would hold up the very thread that ends a cancelled restore. A record may be cut off then; behind
 * it nothing more is written, no urgent page either (qemu_writer.h).
 */
#include "vmm/qemu_sink.h"

#include "base/bitmap.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/endian.h"
#include "base/error.h"
#include "base/io.h"
#include "vmm/qemu_autostart.h"
#include "vmm/qemu_incoming.h"
#include "vmm/qemu_return_path.h"
#include "vmm/qemu_takeover.h"
#include "vmm/qemu_writer.h"
#include "vmm/vcpu_wait.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>

/*
 * While the guest runs. The kernel doubles it and charges its own overhead to it: a quarter is some
 * 30 KiB of background in flight, what QEMU places in 10 us. Smaller costs bulk speed.
 *
 * Each group wakes QEMU, and Rouse when QEMU has taken it. Groups of 16 pages have half of the
 * processor time and two thirds more speed than groups of 4, and a vCPU's wait for a fault beside
 * them is longer by a tenth at most (docs/performance.md).
 */
#define RUNNING_SOCKET_BYTES (64 << 10)
#define BACKGROUND_GROUP 16u
#define DEVICES_PONG 3u
/* After a cancel: an ordinary end takes milliseconds, and is better than a broken one. */
#define FINISH_CANCELLED_NS UINT64_C(3000000000)
#define FINISH_LOOK_MS 100
/* For a disk that another QEMU has open, which is about to end. */
#define CONT_TIMEOUT_NS UINT64_C(10000000000)

struct postcopy_sink {
	struct rouse_sink sink;
	struct qemu_sink_config config;

	/* Writing. `lock` covers the writer and the order of pages in the stream. */
	pthread_mutex_t lock;
	pthread_cond_t no_urgent;
	atomic_uint urgent_waiting;
	struct qemu_writer writer;
	struct rouse_bitmap placed;
	uint64_t placed_count;
	bool begun, finished;
	bool taken_over;

	/* Of who calls start. */
	bool vcpus_asked;
	struct vcpu_wait *vcpu_wait; /* NULL: it cannot be seen */

	/* Reading: of the fault thread. */
	uint8_t input[16384];
	size_t input_from, input_to;
	uint32_t last_block;
	uint64_t wanted, wanted_count; /* pages of a request that were not handed out yet */
	uint32_t any_block;            /* the next one to hand out the same pages of */
	uint64_t any_start, any_count;

	/* What the fault thread has seen. */
	pthread_mutex_t state_lock;
	pthread_cond_t state_changed;
	bool devices_loaded, shut, closed;
	uint32_t shut_value;
	atomic_bool interrupted;
};

static struct postcopy_sink *postcopy_of(struct rouse_sink *sink)
{
	return (struct postcopy_sink *)sink;
}

static int send_advise(struct postcopy_sink *s)
{
	uint8_t data[16];

	be64_store(data, QEMU_PAGE_BYTES);
	be64_store(data + 8, QEMU_PAGE_BYTES);
	return qemu_writer_command(&s->writer, QEMU_CMD_POSTCOPY_ADVISE, data, sizeof(data));
}

/* version 0, name, a NUL, then one range: the first page of the first block that has any. */
static int send_discard(struct postcopy_sink *s)
{
	uint8_t data[2 + 255 + 1 + 16];
	uint32_t i = 0;
	size_t length;

	while (i + 1 < s->config.block_count && s->config.blocks[i].used_bytes == 0)
		i++;
	length = strlen(s->config.blocks[i].name);
	data[0] = 0;
	data[1] = (uint8_t)length;
	memcpy(data + 2, s->config.blocks[i].name, length);
	data[2 + length] = 0;
	be64_store(data + 3 + length, 0);
	be64_store(data + 11 + length, QEMU_PAGE_BYTES);
	return qemu_writer_command(
		&s->writer, QEMU_CMD_POSTCOPY_DISCARD, data, (uint16_t)(19 + length));
}

/* Everything before the first page; once. Called under the lock. */
static int postcopy_begin(struct postcopy_sink *s)
{
	int code;

	if (s->begun)
		return 0;
	s->begun = true;
	qemu_writer_set_buffer(&s->writer, QEMU_WRITER_BULK_BUFFER);
	code = qemu_writer_header(&s->writer, s->config.config, s->config.config_size);
	if (code == 0)
		code = qemu_writer_command(&s->writer, QEMU_CMD_OPEN_RETURN_PATH, NULL, 0);
	if (code == 0)
		code = send_advise(s);
	if (code == 0)
		code = send_discard(s);
	if (code == 0)
		code = qemu_writer_ram_start(&s->writer);
	if (code == 0)
		code = qemu_writer_part_begin(&s->writer);
	return code;
}

/* Writes those of @pages that have not been placed; at most QEMU_WRITER_BATCH. Under the lock. */
static int write_new_pages(
	struct postcopy_sink *s, const struct rouse_sink_page *pages, size_t count, size_t *placed)
{
	struct rouse_sink_page fresh[QEMU_WRITER_BATCH];
	size_t n = 0;

	if (s->finished)
		return 0;
	for (size_t i = 0; i < count; i++) {
		if (pages[i].page >= s->placed.bits)
			return -ERANGE;
		if (!rouse_bitmap_test_and_set(&s->placed, pages[i].page))
			fresh[n++] = pages[i];
	}
	s->placed_count += n;
	*placed += n;
	return n > 0 ? qemu_writer_pages(&s->writer, fresh, n) : 0;
}

static int postcopy_prefetch(
	struct rouse_sink *sink, const struct rouse_sink_page *pages, size_t count)
{
	struct postcopy_sink *s = postcopy_of(sink);
	size_t placed = 0;
	int code;

	pthread_mutex_lock(&s->lock);
	code = postcopy_begin(s);
	while (code == 0 && count > 0) {
		size_t n = count < QEMU_WRITER_BATCH ? count : QEMU_WRITER_BATCH;

		code = write_new_pages(s, pages, n, &placed);
		pages += n;
		count -= n;
	}
	pthread_mutex_unlock(&s->lock);
	return code;
}

/* Waits until the socket is nearly empty; without the lock, which urgent pages need. */
static int await_room(const struct postcopy_sink *s)
{
	return rouse_io_await_room(s->config.fd, s->writer.cancel_fd);
}

static int postcopy_place(struct rouse_sink *sink, const struct rouse_sink_page *pages,
	size_t count, enum rouse_sink_priority priority, size_t *placed)
{
	struct postcopy_sink *s = postcopy_of(sink);
	const size_t group = priority == ROUSE_SINK_URGENT ? QEMU_WRITER_BATCH : BACKGROUND_GROUP;
	size_t done = 0;
	int code = 0;

	while (code == 0 && count > 0) {
		size_t n = count < group ? count : group;

		if (priority == ROUSE_SINK_URGENT) {
			atomic_fetch_add(&s->urgent_waiting, 1);
			pthread_mutex_lock(&s->lock);
			if (atomic_fetch_sub(&s->urgent_waiting, 1) == 1)
				pthread_cond_broadcast(&s->no_urgent);
		} else {
			code = await_room(s);
			if (code < 0)
				break;
			pthread_mutex_lock(&s->lock);
			while (atomic_load(&s->urgent_waiting) > 0)
				pthread_cond_wait(&s->no_urgent, &s->lock);
		}
		code = write_new_pages(s, pages, n, &done);
		pthread_mutex_unlock(&s->lock);
		pages += n;
		count -= n;
	}
	if (placed != NULL)
		*placed = done;
	return code;
}

static bool postcopy_is_placed(struct rouse_sink *sink, uint64_t page)
{
	struct postcopy_sink *s = postcopy_of(sink);

	return page < s->placed.bits && rouse_bitmap_test(&s->placed, page);
}

/* PACKAGED: QEMU loads it while it listens for pages on the same connection. */
static int send_package(struct postcopy_sink *s)
{
	const uint32_t inner = (uint32_t)(5 + s->config.devices_size + 9 + 5);
	uint8_t head[5 + 4 + 5], tail[9 + 5], value[4];
	size_t used;
	int code;

	be32_store(value, inner);
	used = qemu_command_put(head, QEMU_CMD_PACKAGED, value, sizeof(value));
	used += qemu_command_put(head + used, QEMU_CMD_POSTCOPY_LISTEN, NULL, 0);
	code = qemu_writer_raw(&s->writer, head, used);
	if (code == 0)
		code = qemu_writer_raw(&s->writer, s->config.devices, s->config.devices_size);
	be32_store(value, DEVICES_PONG);
	used = qemu_command_put(tail, QEMU_CMD_PING, value, sizeof(value));
	used += qemu_command_put(tail + used, QEMU_CMD_POSTCOPY_RUN, NULL, 0);
	if (code == 0)
		code = qemu_writer_raw(&s->writer, tail, used);
	return code;
}

static int send_start(struct postcopy_sink *s)
{
	int code;

	pthread_mutex_lock(&s->lock);
	code = postcopy_begin(s);
	if (code == 0)
		code = qemu_writer_part_end(&s->writer);
	if (code == 0)
		code = send_package(s);
	if (code == 0) {
		qemu_writer_set_buffer(&s->writer, RUNNING_SOCKET_BYTES);
		code = qemu_writer_part_begin(&s->writer);
	}
	pthread_mutex_unlock(&s->lock);
	return code;
}

static bool state_flag(struct postcopy_sink *s, const bool *flag)
{
	bool value;

	pthread_mutex_lock(&s->state_lock);
	value = *flag;
	pthread_mutex_unlock(&s->state_lock);
	return value;
}

/*
 * A VM that does not run by itself: QEMU could not open its disks for writing, say, because the one
 * before has not let go of them. Tries again, for a while, unless @cancelled: it has not run then.
 */
static int nudge(
	struct postcopy_sink *s, uint64_t loaded_ns, bool cancelled, struct rouse_error *error)
{
	struct rouse_error why = {0};
	char state[64];
	int code = qemu_incoming_run_state(s->config.qmp, state, sizeof(state), &why);

	if (code == 0 && s->config.run && qemu_incoming_is_paused(state))
		code = cancelled ? qemu_incoming_cancelled(&why)
				 : qmp_execute(s->config.qmp, "cont", NULL, NULL, &why);
	if (code == -EREMOTEIO && rouse_clock_ns() - loaded_ns < CONT_TIMEOUT_NS)
		return 0;
	if (code < 0 && error != NULL)
		*error = why;
	return code;
}

static int postcopy_start(struct rouse_sink *sink, uint64_t *started_ns, struct rouse_error *error)
{
	struct postcopy_sink *s = postcopy_of(sink);
	uint64_t loaded_ns = 0, cancelled_until_ns = 0;
	int code = 0;

	if (s->config.run)
		code = qemu_autostart_ensure(
			s->config.qmp, s->config.pid, s->config.observer, error);
	if (code < 0)
		return code;
	code = send_start(s);
	if (code == -ECANCELED)
		return qemu_incoming_cancelled(error);
	if (code < 0)
		return qemu_incoming_broken(s->config.qmp, code, error);
	for (;;) {
		bool loaded;

		code = qemu_incoming_wait_resume(
			s->config.qmp, s->config.run ? 100 : 1, started_ns, error);
		if (qemu_incoming_outlasts_cancel(s->config.qmp, code, &cancelled_until_ns))
			continue;
		if (code < 0)
			return code;
		if (code == 0 && cancelled_until_ns != 0 && rouse_clock_ns() > cancelled_until_ns)
			return qemu_incoming_cancelled(error);
		loaded = state_flag(s, &s->devices_loaded);
		if (loaded && (code == 1 || !s->config.run)) {
			if (code == 0)
				*started_ns = rouse_clock_ns();
			return 0;
		}
		if (code == 1) {
			/* It runs, so RUN has been read and PONG 3 is on its way. */
			uint64_t resumed_ns = *started_ns;

			while (!state_flag(s, &s->devices_loaded) && !state_flag(s, &s->closed) &&
				!rouse_cancelled(s->config.observer)) {
				struct timespec pause = {.tv_nsec = 50000};

				(void)nanosleep(&pause, NULL);
			}
			*started_ns = resumed_ns;
			return 0;
		}
		/* By us: QEMU's main loop may be what waits, and would not answer. */
		if (state_flag(s, &s->closed) && atomic_load(&s->interrupted))
			return rouse_error_set(error, ROUSE_ERROR_VMM, -ECANCELED,
				"a device of the VM waits for a page that nobody gives it");
		if (state_flag(s, &s->closed))
			return qemu_incoming_broken(s->config.qmp, -EPIPE, error);
		if (loaded) {
			loaded_ns = loaded_ns != 0 ? loaded_ns : rouse_clock_ns();
			code = nudge(s, loaded_ns, cancelled_until_ns != 0, error);
			if (code < 0)
				return code;
		}
	}
}

static int postcopy_receive(struct postcopy_sink *s)
{
	ssize_t n;

	if (s->input_from > 0) {
		memmove(s->input, s->input + s->input_from, s->input_to - s->input_from);
		s->input_to -= s->input_from;
		s->input_from = 0;
	}
	do {
		n = recv(s->config.fd, s->input + s->input_to, sizeof(s->input) - s->input_to, 0);
	} while (n < 0 && errno == EINTR);
	if (atomic_load(&s->interrupted))
		return -ECANCELED;
	if (n <= 0)
		return n < 0 && errno != ECONNRESET ? -errno : -EPIPE;
	s->input_to += (size_t)n;
	return 0;
}

/* Takes note of a message. 1: it asks for pages; 0: go on; -ESHUTDOWN: the last one. */
static int note_message(struct postcopy_sink *s, const struct qemu_return_message *message)
{
	int code = 0;

	if (qemu_reply_is_request(message->type)) {
		if (message->block == UINT32_MAX && !s->taken_over)
			return -EPROTO;
		s->any_block = message->block == UINT32_MAX ? 0 : UINT32_MAX;
		s->any_start = message->start;
		s->any_count = message->page_count;
		s->wanted = message->page;
		s->wanted_count = message->block == UINT32_MAX ? 0 : message->page_count;
		return 1;
	}
	pthread_mutex_lock(&s->state_lock);
	if (message->type == QEMU_REPLY_PONG && message->value == DEVICES_PONG)
		s->devices_loaded = true;
	if (message->type == QEMU_REPLY_SHUT) {
		s->shut = true;
		s->shut_value = message->value;
		code = -ESHUTDOWN;
	}
	pthread_cond_broadcast(&s->state_changed);
	pthread_mutex_unlock(&s->state_lock);
	return code;
}

static void note_closed(struct postcopy_sink *s)
{
	pthread_mutex_lock(&s->state_lock);
	s->closed = true;
	pthread_cond_broadcast(&s->state_changed);
	pthread_mutex_unlock(&s->state_lock);
}

/* Reads until there is a request. */
static int next_request(struct postcopy_sink *s)
{
	for (;;) {
		struct qemu_return_message message;
		size_t used = 0;
		int code;

		if (s->taken_over)
			s->last_block = UINT32_MAX; /* see take_of_next_block() */
		code = qemu_return_parse(s->input + s->input_from, s->input_to - s->input_from,
			s->config.blocks, s->config.block_count, &s->last_block, &message, &used);
		s->input_from += used;
		if (code == 1)
			code = note_message(s, &message);
		else if (code == 0)
			code = postcopy_receive(s);
		if (code == 1)
			return 0;
		if (code < 0)
			return code;
	}
}

/*
 * Of a request that names no block, after a takeover. When QEMU goes on with a new connection, two
 * of its threads may ask at the same time, and which block was named last is kept by both without
 * a lock (migration/migration.c, migrate_send_rp_message_req_pages()): what we heard last need not
 * be what it means. So the page of every block that has one there is answered. Those that are there
 * already are passed over, and one that nobody asked for does no harm.
 */
static bool take_of_next_block(struct postcopy_sink *s)
{
	while (s->any_block < s->config.block_count) {
		const struct qemu_block *block = &s->config.blocks[s->any_block++];
		const uint64_t pages = block->used_bytes / QEMU_PAGE_BYTES;

		if (s->any_start >= pages)
			continue;
		s->wanted = block->first_page + s->any_start;
		s->wanted_count =
			pages - s->any_start < s->any_count ? pages - s->any_start : s->any_count;
		return true;
	}
	return false;
}

static int postcopy_wait_fault(struct rouse_sink *sink, uint64_t *page)
{
	struct postcopy_sink *s = postcopy_of(sink);

	while (s->wanted_count == 0 && !take_of_next_block(s)) {
		int code = next_request(s);

		if (code < 0) {
			note_closed(s);
			return code;
		}
	}
	*page = s->wanted++;
	s->wanted_count--;
	return 0;
}

static int send_finish(struct postcopy_sink *s)
{
	const uint8_t end = QEMU_VM_EOF;
	int code;

	pthread_mutex_lock(&s->lock);
	/* From here on QEMU reads no pages: what is missing is zero, and it makes it so itself. */
	s->finished = true;
	code = qemu_writer_part_end(&s->writer);
	if (code == 0)
		code = qemu_writer_ram_end(&s->writer);
	if (code == 0)
		code = qemu_writer_raw(&s->writer, &end, 1);
	pthread_mutex_unlock(&s->lock);
	return code;
}

/* Until QEMU says that it has all, however long it stands still. -ECANCELED; -EPIPE. */
static int await_shut(struct postcopy_sink *s)
{
	uint64_t deadline_ns = UINT64_MAX;
	bool cancelled = false;
	int code;

	pthread_mutex_lock(&s->state_lock);
	while (!s->closed && rouse_clock_ns() < deadline_ns) {
		const struct timespec look = rouse_clock_in_ms(FINISH_LOOK_MS);
		int waited = pthread_cond_timedwait(&s->state_changed, &s->state_lock, &look);

		if (waited != 0 && !cancelled && rouse_cancelled(s->config.observer)) {
			cancelled = true;
			deadline_ns = rouse_clock_ns() + FINISH_CANCELLED_NS;
		}
	}
	if (!s->closed)
		code = -ECANCELED;
	else
		code = s->shut && s->shut_value == 0 ? 0 : -EPIPE;
	pthread_mutex_unlock(&s->state_lock);
	return code;
}

static int postcopy_finish(struct rouse_sink *sink, struct rouse_error *error)
{
	struct postcopy_sink *s = postcopy_of(sink);
	int code = send_finish(s);

	if (code == 0)
		code = await_shut(s);
	if (code == -ECANCELED)
		return rouse_error_set(error, ROUSE_ERROR_CANCELLED, code,
			"cancelled before QEMU said that it has all pages: if the VM pauses, take "
			"over with `rouse restore --resume`");
	if (code < 0)
		return qemu_incoming_broken(s->config.qmp, code, error);
	if (s->taken_over && s->config.run)
		qemu_incoming_tell_if_paused(s->config.qmp, s->config.observer);
	return 0;
}

static int postcopy_stop_guest(struct rouse_sink *sink, struct rouse_error *error)
{
	return qmp_execute(postcopy_of(sink)->config.qmp, "stop", NULL, NULL, error);
}

/* A restore without it works, at a fixed pace. */
static void find_vcpus(struct postcopy_sink *s)
{
	s->vcpus_asked = true;
	if (vcpu_wait_open(s->config.qmp, s->config.pid, &s->vcpu_wait) < 0)
		rouse_log(s->config.observer, ROUSE_LOG_INFO,
			"how long vCPUs wait for a processor cannot be seen: the background has a "
			"fixed pace");
}

static int postcopy_guest_wait(struct rouse_sink *sink, uint64_t *wait_ns)
{
	struct postcopy_sink *s = postcopy_of(sink);

	/*
	 * Of a VM that is taken over not before faults are served: its main loop, which answers
	 * QMP, may wait for a page.
	 */
	if (!s->vcpus_asked)
		find_vcpus(s);

	return s->vcpu_wait != NULL ? vcpu_wait_read(s->vcpu_wait, wait_ns) : -ENOTSUP;
}

static void postcopy_interrupt(struct rouse_sink *sink)
{
	struct postcopy_sink *s = postcopy_of(sink);

	atomic_store(&s->interrupted, true);
	(void)shutdown(s->config.fd, SHUT_RDWR);
}

static void postcopy_destroy(struct rouse_sink *sink)
{
	struct postcopy_sink *s = postcopy_of(sink);

	vcpu_wait_close(s->vcpu_wait);
	cleanup_close_fn(&s->config.fd);
	rouse_bitmap_finish(&s->placed);
	(void)pthread_cond_destroy(&s->state_changed);
	(void)pthread_mutex_destroy(&s->state_lock);
	(void)pthread_cond_destroy(&s->no_urgent);
	(void)pthread_mutex_destroy(&s->lock);
	free(s);
}

static const struct rouse_sink_ops postcopy_ops = {
	.prefetch = postcopy_prefetch,
	.start = postcopy_start,
	.wait_fault = postcopy_wait_fault,
	.place = postcopy_place,
	.is_placed = postcopy_is_placed,
	.finish = postcopy_finish,
	.stop_guest = postcopy_stop_guest,
	.guest_wait = postcopy_guest_wait,
	.interrupt = postcopy_interrupt,
	.destroy = postcopy_destroy,
};

static int postcopy_new(const struct qemu_sink_config *config, struct postcopy_sink **sink,
	struct rouse_error *error)
{
	struct postcopy_sink *s = calloc(1, sizeof(*s));
	pthread_condattr_t monotonic;

	if (s == NULL || rouse_bitmap_init(&s->placed,
				 qemu_blocks_pages(config->blocks, config->block_count)) < 0) {
		cleanup_close_fn(&config->fd);
		free(s);
		(void)rouse_error_errno(error, -ENOMEM, "cannot prepare the restore");
		return -ENOMEM;
	}
	s->sink.ops = &postcopy_ops;
	s->config = *config;
	s->last_block = s->any_block = UINT32_MAX;
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_cond_init(&s->no_urgent, NULL);
	(void)pthread_mutex_init(&s->state_lock, NULL);
	(void)pthread_condattr_init(&monotonic);
	(void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&s->state_changed, &monotonic);
	(void)pthread_condattr_destroy(&monotonic);
	qemu_writer_init(&s->writer, config->fd, rouse_observer_cancel_fd(config->observer),
		config->blocks, config->block_count);
	*sink = s;
	return 0;
}

int qemu_postcopy_sink_new(
	const struct qemu_sink_config *config, struct rouse_sink **sink, struct rouse_error *error)
{
	struct postcopy_sink *s;
	int code;

	if (config->devices_size > QEMU_PACKAGED_MAX - 64) {
		cleanup_close_fn(&config->fd);
		return rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, -EFBIG,
			"the device state has %zu bytes, more than QEMU takes on demand: use "
			"--policy eager",
			config->devices_size);
	}
	code = postcopy_new(config, &s, error);
	if (code < 0)
		return code;
	/* Now, while QEMU has nothing else to do. */
	find_vcpus(s);
	*sink = &s->sink;
	return 0;
}

/* ---- Taking over a restore whose Rouse died ------------------------------------------------- */

int qemu_postcopy_sink_resume(
	const struct qemu_sink_config *config, struct rouse_sink **sink, struct rouse_error *error)
{
	struct postcopy_sink *s;
	int code = postcopy_new(config, &s, error);

	if (code < 0)
		return code;
	s->begun = true;
	s->taken_over = true;
	/*
	 * Until it has obeyed RUN, which is behind the devices, a QEMU whose connection breaks ends
	 * instead of waiting for us. So no device is being loaded that could need a page, a zero
	 * page, say, after finish has said that no more will come.
	 */
	s->devices_loaded = true;
	qemu_writer_set_buffer(&s->writer, RUNNING_SOCKET_BYTES);
	code = qemu_takeover_read(&(struct qemu_takeover){.fd = config->fd,
					  .cancel_fd = rouse_observer_cancel_fd(config->observer),
					  .blocks = config->blocks,
					  .block_count = config->block_count},
		&s->placed, error);
	if (code == 0 && qemu_writer_part_begin(&s->writer) < 0)
		code = rouse_error_set(
			error, ROUSE_ERROR_VMM, -EPIPE, "QEMU broke off the recovery");
	if (code < 0) {
		postcopy_destroy(&s->sink);
		return code;
	}
	s->placed_count = rouse_bitmap_count(&s->placed);
	*sink = &s->sink;
	return 0;
}
