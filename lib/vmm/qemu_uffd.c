/* SPDX-License-Identifier: MIT */
#include "vmm/qemu_uffd.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "vmm/qemu_incoming.h"
#include "vmm/qemu_writer.h"
#include "vmm/vcpu_wait.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MONITOR_TIMEOUT_MS 3000
#define THREADS_KNOWN 64u
#define LOAD_TIMEOUT_NS UINT64_C(10000000000) /* of a VM that has all pages */

struct qemu_uffd_sink {
	struct rouse_sink sink;
	struct qemu_uffd_config config;
	struct qemu_hold hold;
	struct uffd_sink memory;
	struct rouse_sink *stream; /* the precopy sink, of small blocks and devices; or NULL */

	/* Of the fault thread: threads that are known to be QEMU's, so that a fault asks for none.
	 */
	uint32_t threads[THREADS_KNOWN];
	size_t next_thread;

	/* Of who calls start. */
	struct qmp *monitor; /* that we have connected ourselves, in a takeover */
	bool vcpus_asked, start_settled;
	struct vcpu_wait *vcpu_wait;
};

static struct qemu_uffd_sink *uffd_of(struct rouse_sink *sink)
{
	return (struct qemu_uffd_sink *)sink;
}

/* NULL: QEMU does not answer. */
static struct qmp *monitor_of(struct qemu_uffd_sink *s)
{
	if (s->config.qemu.qmp != NULL)
		return s->config.qemu.qmp;
	if (s->monitor == NULL && s->config.socket != NULL)
		(void)qmp_connect(s->config.socket, MONITOR_TIMEOUT_MS, s->config.qemu.observer,
			&s->monitor, NULL);
	return s->monitor;
}

static void set_state(struct qemu_uffd_sink *s, enum uffd_record_state state)
{
	__atomic_store_n(&s->hold.record->state, (uint32_t)state, __ATOMIC_RELEASE);
}

/* ---- Before the guest runs ------------------------------------------------------------------- */

/* Pages of small blocks: into the stream, once. */
static int send_small(struct qemu_uffd_sink *s, const struct rouse_sink_page *pages, size_t count)
{
	struct rouse_sink *stream = s->stream;
	int code = 0;

	while (code == 0 && count > 0) {
		size_t n = 0;

		while (n < count && !uffd_sink_has(&s->memory, pages[n].page) &&
			!stream->ops->is_placed(stream, pages[n].page))
			n++;
		if (n > 0)
			code = stream->ops->prefetch(stream, pages, n);
		else
			n = 1;
		pages += n;
		count -= n;
	}
	return code;
}

static int uffd_prefetch(struct rouse_sink *sink, const struct rouse_sink_page *pages, size_t count)
{
	struct qemu_uffd_sink *s = uffd_of(sink);
	int code = uffd_sink_place(&s->memory, pages, count, NULL);

	return code == 0 ? send_small(s, pages, count) : code;
}

static int uffd_start(struct rouse_sink *sink, uint64_t *started_ns, struct rouse_error *error)
{
	struct qemu_uffd_sink *s = uffd_of(sink);
	int code;

	/* Before it is true: a VM that runs must be one that can be taken over. */
	set_state(s, UFFD_SENT);
	code = qemu_precopy_send(s->stream);
	if (code == -ECANCELED)
		return qemu_incoming_cancelled(error);
	if (code < 0 && atomic_load(&s->memory.interrupted))
		return rouse_error_set(error, ROUSE_ERROR_VMM, -ECANCELED,
			"a device of the VM waits for a page that nobody gives it");
	if (code < 0)
		return qemu_incoming_broken(s->config.qemu.qmp, code, error);
	code = qemu_incoming_wait_loaded_unless(
		s->config.qemu.qmp, s->config.qemu.run, &s->memory.interrupted, started_ns, error);
	if (code < 0)
		return code;
	if (!s->config.qemu.run)
		*started_ns = rouse_clock_ns();
	set_state(s, UFFD_RUNNING);
	return 0;
}

/* ---- While it runs --------------------------------------------------------------------------- */

/* The first time it is a system call, while somebody waits; then it is remembered. */
static bool is_of_qemu(struct qemu_uffd_sink *s, uint32_t thread)
{
	for (size_t i = 0; i < THREADS_KNOWN; i++) {
		if (s->threads[i] == thread)
			return true;
	}
	if (syscall(SYS_tgkill, target_pid(s->hold.target), (pid_t)thread, 0) < 0 && errno != EPERM)
		return false;
	s->threads[s->next_thread++ % THREADS_KNOWN] = thread;
	return true;
}

static void uffd_asker(struct rouse_sink *sink, struct rouse_sink_asker *asker)
{
	struct qemu_uffd_sink *s = uffd_of(sink);

	*asker = s->memory.asker;
	/* Now: a thread that reads memory for a save has ended when somebody asks whose it was. */
	asker->of_vmm = asker->thread != 0 && is_of_qemu(s, asker->thread);
}

static int uffd_place(struct rouse_sink *sink, const struct rouse_sink_page *pages, size_t count,
	enum rouse_sink_priority priority, size_t *placed)
{
	size_t done = 0;
	int code;

	/* Nobody stands behind anybody: the kernel places for many threads at once. */
	(void)priority;
	code = uffd_sink_place(&uffd_of(sink)->memory, pages, count, &done);
	if (placed != NULL)
		*placed = done;
	return code;
}

static bool uffd_is_placed(struct rouse_sink *sink, uint64_t page)
{
	const struct qemu_uffd_sink *s = uffd_of(sink);

	if (uffd_sink_has(&s->memory, page))
		return uffd_sink_is_placed(&s->memory, page);
	/* A VM that was started has all of its small blocks. */
	return s->stream == NULL || s->stream->ops->is_placed(s->stream, page);
}

static int uffd_stop_guest(struct rouse_sink *sink, struct rouse_error *error)
{
	struct qmp *qmp = monitor_of(uffd_of(sink));

	if (qmp == NULL)
		return rouse_error_set(
			error, ROUSE_ERROR_VMM, -ENOTCONN, "QEMU's monitor does not answer");
	return qmp_execute(qmp, "stop", NULL, NULL, error);
}

/*
 * Of a Rouse that died after it had sent all, and before it saw the guest run: in a takeover, once.
 * At its end a guest that does not run may be one that its user has paused meanwhile.
 */
static void settle_start(struct qemu_uffd_sink *s)
{
	struct qmp *qmp = monitor_of(s);
	char state[64];

	s->start_settled = true;
	if (qmp == NULL || qemu_incoming_run_state(qmp, state, sizeof(state), NULL) < 0 ||
		strcmp(state, "inmigrate") == 0)
		return; /* it is still loading: let_run() */
	if (s->hold.record->run != 0 && qemu_incoming_is_paused(state) &&
		qmp_execute(qmp, "cont", NULL, NULL, NULL) < 0)
		return;
	set_state(s, UFFD_RUNNING);
}

static int uffd_guest_wait(struct rouse_sink *sink, uint64_t *wait_ns)
{
	struct qemu_uffd_sink *s = uffd_of(sink);

	/* The engine asks right after a takeover, when faults are being answered. */
	if (s->stream == NULL && !s->start_settled && s->hold.record->state == UFFD_SENT)
		settle_start(s);
	if (!s->vcpus_asked) {
		struct qmp *qmp = monitor_of(s);

		s->vcpus_asked = true;
		if (qmp == NULL ||
			vcpu_wait_open(qmp, target_pid(s->hold.target), &s->vcpu_wait) < 0)
			rouse_log(s->config.qemu.observer, ROUSE_LOG_INFO,
				"how long vCPUs wait for a processor cannot be seen: the "
				"background has a fixed pace");
	}
	return s->vcpu_wait != NULL ? vcpu_wait_read(s->vcpu_wait, wait_ns) : -ENOTSUP;
}

static void uffd_interrupt(struct rouse_sink *sink)
{
	struct qemu_uffd_sink *s = uffd_of(sink);

	uffd_sink_interrupt(&s->memory);
	/* A start may be writing to a QEMU that waits for a page. */
	if (s->config.qemu.fd >= 0)
		(void)shutdown(s->config.qemu.fd, SHUT_RDWR);
}

static int uffd_wait_fault(struct rouse_sink *sink, uint64_t *page)
{
	const int code = uffd_sink_wait_fault(&uffd_of(sink)->memory, page);

	/* The memory is interrupted then. A start that writes has to hear of it as well. */
	if (code < 0 && code != -EPIPE)
		uffd_interrupt(sink);
	return code;
}

/* ---- The end --------------------------------------------------------------------------------- */

/*
 * From the end on what is missing is zero: so each page is looked at once more. It costs some
 * milliseconds for a GiB, and whatever went wrong before, memory is not.
 */
static int check_missing(const struct qemu_uffd_sink *s, struct rouse_error *error)
{
	for (size_t i = 0; i < s->hold.area_count; i++) {
		const struct uffd_area *area = &s->hold.areas[i];

		for (uint64_t page = area->first_page; page < area->first_page + area->pages;
			page++) {
			int stored = uffd_sink_is_placed(&s->memory, page)
					     ? 0
					     : s->config.is_stored(s->config.user, page);

			if (stored < 0)
				return rouse_error_errno(
					error, stored, "cannot look up what is missing");
			if (stored > 0)
				return rouse_error_set(error, ROUSE_ERROR_VMM, -EPROTO,
					"page %llu is still missing at the end: the VM waits for "
					"it; take over with `rouse restore --resume`",
					(unsigned long long)page);
		}
	}
	return 0;
}

/* The same, at the end, of one that was still loading then, or whose monitor did not answer. */
static int let_run(struct qemu_uffd_sink *s, struct rouse_error *error)
{
	const uint64_t limit_ns = rouse_clock_ns() + LOAD_TIMEOUT_NS;
	struct qmp *qmp = monitor_of(s);
	char state[64];
	int code;

	if (qmp == NULL)
		return rouse_error_set(error, ROUSE_ERROR_VMM, -ENOTCONN,
			"the VM is there, but QEMU's monitor does not answer: let it run with "
			"QMP's cont, if it does not");
	do {
		code = qemu_incoming_run_state(qmp, state, sizeof(state), error);
		if (code < 0 || strcmp(state, "inmigrate") != 0)
			break;
		(void)poll(NULL, 0, 10);
	} while (rouse_clock_ns() < limit_ns);
	if (code == 0 && strcmp(state, "inmigrate") == 0)
		return rouse_error_set(error, ROUSE_ERROR_VMM, -ETIMEDOUT,
			"the memory is there, but QEMU is still loading the VM's devices: take the "
			"restore over once more (--resume) when it has");
	if (code == 0 && s->hold.record->run != 0 && qemu_incoming_is_paused(state))
		code = qmp_execute(qmp, "cont", NULL, NULL, error);
	return code;
}

static int broken(struct qemu_uffd_sink *s, int code, struct rouse_error *error)
{
	if (s->config.qemu.qmp != NULL)
		return qemu_incoming_broken(s->config.qemu.qmp, code, error);
	return rouse_error_errno(error, code, "QEMU ended before the VM was restored");
}

static int uffd_finish(struct rouse_sink *sink, struct rouse_error *error)
{
	struct qemu_uffd_sink *s = uffd_of(sink);
	struct rouse_error why = {0};
	int code = check_missing(s, error);

	if (code < 0)
		return code;
	if (s->hold.record->state != UFFD_RUNNING)
		code = let_run(s, error);
	if (code < 0)
		return code;
	code = uffd_sink_unregister(&s->memory);
	if (code < 0)
		return broken(s, code, error);
	/* Whoever finds it half closed knows then that nothing was lost. */
	set_state(s, UFFD_COMPLETE);
	code = qemu_hold_release(&s->hold, &why);
	if (code == -ESRCH)
		return broken(s, -EPIPE, error);
	/* The VM is complete, and needs neither: two descriptors are worth a word, no more. */
	if (code < 0)
		rouse_log(s->config.qemu.observer, ROUSE_LOG_WARNING,
			"two descriptors that do nothing are left in QEMU: %s", why.message);
	/* By a connection that is there: for a hint nobody waits. */
	if (s->stream == NULL && s->hold.record->run != 0 && s->monitor != NULL)
		qemu_incoming_tell_if_paused(s->monitor, s->config.qemu.observer);
	return 0;
}

static void uffd_destroy(struct rouse_sink *sink)
{
	struct qemu_uffd_sink *s = uffd_of(sink);

	if (s->stream != NULL)
		s->stream->ops->destroy(s->stream);
	vcpu_wait_close(s->vcpu_wait);
	qmp_close(s->monitor);
	uffd_sink_finish(&s->memory);
	qemu_hold_finish(&s->hold);
	free(s);
}

static const struct rouse_sink_ops uffd_ops = {
	.prefetch = uffd_prefetch,
	.start = uffd_start,
	.wait_fault = uffd_wait_fault,
	.asker = uffd_asker,
	.place = uffd_place,
	.is_placed = uffd_is_placed,
	.finish = uffd_finish,
	.stop_guest = uffd_stop_guest,
	.guest_wait = uffd_guest_wait,
	.interrupt = uffd_interrupt,
	.destroy = uffd_destroy,
};

/* ---- Making it ------------------------------------------------------------------------------- */

static int uffd_new(const struct qemu_uffd_config *config, struct qemu_uffd_sink **sink,
	struct rouse_error *error)
{
	struct qemu_uffd_sink *s = calloc(1, sizeof(*s));
	struct uffd_sink_config memory;
	int code;

	if (s == NULL) {
		qemu_hold_finish(config->hold);
		(void)rouse_error_errno(error, -ENOMEM, "cannot prepare the restore");
		return -ENOMEM;
	}
	s->sink.ops = &uffd_ops;
	s->config = *config;
	s->hold = *config->hold;
	*config->hold = QEMU_HOLD_INIT;
	memory = (struct uffd_sink_config){
		.fd = take_fd(&s->hold.uffd),
		.target_end = target_pidfd(s->hold.target),
		.areas = s->hold.areas,
		.area_count = s->hold.area_count,
		.placed = s->hold.placed,
	};
	code = uffd_sink_init(&s->memory, &memory);
	if (code < 0) {
		qemu_hold_finish(&s->hold);
		free(s);
		(void)rouse_error_errno(error, code, "cannot prepare the restore");
		return code;
	}
	*sink = s;
	return 0;
}

int qemu_uffd_sink_new(
	const struct qemu_uffd_config *config, struct rouse_sink **sink, struct rouse_error *error)
{
	struct qemu_uffd_sink *s = NULL;
	uint64_t ignored;
	int code = uffd_new(config, &s, error);

	if (code < 0) {
		cleanup_close_fn(&config->qemu.fd);
		return code;
	}
	code = qemu_precopy_sink_new(&s->config.qemu, &s->stream, error);
	if (code < 0) {
		s->stream = NULL;
		uffd_destroy(&s->sink);
		return code;
	}
	/* Now, while QEMU has nothing else to do. */
	(void)uffd_guest_wait(&s->sink, &ignored);
	*sink = &s->sink;
	return 0;
}

int qemu_uffd_sink_resume(
	const struct qemu_uffd_config *config, struct rouse_sink **sink, struct rouse_error *error)
{
	struct qemu_uffd_sink *s = NULL;
	int code = uffd_new(config, &s, error);

	if (code < 0)
		return code;
	code = uffd_sink_wake_all(&s->memory);
	if (code < 0) {
		code = broken(s, code, error);
		uffd_destroy(&s->sink);
		return code;
	}
	*sink = &s->sink;
	return 0;
}

uint64_t qemu_uffd_sink_next_small(const struct rouse_sink *sink, uint64_t page)
{
	return uffd_sink_next_other(&((const struct qemu_uffd_sink *)sink)->memory, page);
}
