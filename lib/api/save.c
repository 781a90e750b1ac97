/* SPDX-License-Identifier: MIT */
/*
 * rouse_save(): a running VM into an image.
 *
 *	this thread                  drain thread          pack thread
 *	connect, describe, check
 *	configure QEMU's migration   reads the socket ---> decodes, hands pages to the writer
 *	migrate to fd: ------------> ...
 *	wait for the stream's end    ends                  ...
 *	let the VM go on (or not)                          ends
 *	see that a VM that is suspended still stands
 *	sections, commit
 *	see it again, quit QEMU (or not)
 *
 * Two ways of getting the stream:
 *   background   QEMU stops the VM for milliseconds, and writes pages out while it runs on;
 *                a page that the guest is about to write goes first.
 *   plain        QEMU stops the VM by itself after its first look at the memory, and writes out the
 *                rest. We do not stop it: so it goes on by itself if the stream breaks off, even
 *                because we were killed.
 * For overlays on disks the VM is stopped before, so that disks and memory are of one moment.
 */
#include "api/save_describe.h"
#include "api/save_disks.h"
#include "api/save_estimate.h"
#include "api/save_memory.h"
#include "api/save_migrate.h"
#include "api/save_options.h"
#include "api/save_pack.h"
#include "api/save_vm.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "vmm/qemu_hold.h"

#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#define CONNECT_TIMEOUT_MS 3000
#define MIGRATION_END_TIMEOUT_MS 30000
#define QUIT_TIMEOUT_MS 20000
/* A process ends so long after its connections, at the most; with huge memory it takes longer. */
#define ENDING_TIMEOUT_MS 1000
#define GIB_TIMEOUT_MS 1000
/* For the image's room on the disk to be free, before the VM may need it. */
#define GIVE_UP_TIMEOUT_MS 3000
#define TICK_MS 100
#define SOCKET_BUFFER_BYTES (4 << 20)
/* What another monitor disturbed by `cont`. */
#define SUSPENDED "it was to be suspended: it is neither saved nor ended"
#define FROZEN "its disks were frozen for the checkpoint: it is not saved"

struct save {
	const struct rouse_save_options *options;
	const struct rouse_observer *observer;
	struct qmp *qmp;
	struct rouse_metadata metadata;
	struct save_migrate migrate;
	struct save_drain *drain;
	struct save_pack *pack;
	struct save_estimate estimate;
	int notify_fd;
	bool was_running;
	bool stopped;     /* by our `stop`, and not continued yet */
	bool overlays;    /* the disks have been given theirs */
	uint64_t stop_us; /* when the VM stopped and went on: QEMU's clock, which is CLOCK_REALTIME
			   */
	uint64_t resume_us;
	bool halted;      /* the last of its events about that was STOP */
	int process_fd;   /* QEMU's, or -1 */
	bool lost;        /* QEMU lives, but its connection had closed: this is another one */
	bool gone;        /* QEMU ended after `migrate` */
	bool unreachable; /* or takes no connection: whether it ends is seen at the end */
	struct rouse_error ended; /* what was seen of that */
};

static uint64_t realtime_us(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void save_note_event(struct save *save, const json_t *event)
{
	const char *name = json_string_value(json_object_get(event, "event"));
	const json_t *at = json_object_get(event, "timestamp");
	uint64_t us = (uint64_t)json_integer_value(json_object_get(at, "seconds")) * 1000000 +
		      (uint64_t)json_integer_value(json_object_get(at, "microseconds"));

	if (name != NULL && strcmp(name, "STOP") == 0) {
		save->halted = true;
		if (save->stop_us == 0)
			save->stop_us = us;
	} else if (name != NULL && strcmp(name, "RESUME") == 0) {
		save->halted = false;
		save->resume_us = us;
	}
}

/* Takes the events that are there. -EPIPE, -ECANCELED. */
static int save_take_events(struct save *save, struct rouse_error *error)
{
	for (;;) {
		json_t *event;
		int code = qmp_next_event(save->qmp, 0, &event, NULL, error);

		if (code < 0 || event == NULL)
			return code;
		save_note_event(save, event);
		json_decref(event);
	}
}

/* What was before the save is no downtime, and no VM that was let run again. */
static int save_forget_events(struct save *save, struct rouse_error *error)
{
	int code = save_take_events(save, error);

	save->stop_us = save->resume_us = 0;
	save->halted = false;
	return code;
}

/* A large VM takes its time to end: its memory is given back when its connections are closed. */
static bool save_wait_end(const struct save *save)
{
	const uint64_t timeout_ms =
		QUIT_TIMEOUT_MS + (save->metadata.ram_bytes >> 30) * GIB_TIMEOUT_MS;
	const uint64_t deadline_us = rouse_clock_us() + timeout_ms * 1000;
	bool ended;

	do {
		ended = save_vm_wait_end(save->process_fd, TICK_MS);
	} while (!ended && !rouse_cancelled(save->observer) && rouse_clock_us() < deadline_us);
	return ended;
}

/*
 * The connection has closed. QEMU may have ended, or may only have closed it: a VM whose QEMU lives
 * must not be left standing, so there is a new one then. Without one nobody can tell a QEMU that
 * lives from one that takes long to end, whose image is all that is left of its VM: so that counts
 * as an end, which is looked at once more when the image is complete.
 */
static void save_look_after_qemu(struct save *save)
{
	if (save->gone)
		return;
	if (save->process_fd < 0 || save_vm_wait_end(save->process_fd, ENDING_TIMEOUT_MS)) {
		save->gone = true;
		return;
	}
	save->lost =
		qmp_reconnect(save->qmp, save->options->qmp_socket, CONNECT_TIMEOUT_MS, NULL) == 0;
	save->gone = save->unreachable = !save->lost;
}

/* Notices a connection that has closed. */
static void save_check_connection(struct save *save)
{
	if (save_take_events(save, NULL) == -EPIPE)
		save_look_after_qemu(save);
}

/*
 * QEMU may be gone (-EPIPE) once it has sent everything. What it sent is here or in the socket,
 * also what we have not read yet: the decoder knows whether it is whole.
 */
static int save_outlive(struct save *save, int code, const struct rouse_error *error)
{
	if (code != -EPIPE)
		return code;
	if (!save->gone) {
		save->ended = *error;
		save_look_after_qemu(save);
	}
	return save->gone ? 0 : code;
}

static int save_check_cancel(const struct save *save, struct rouse_error *error)
{
	if (!rouse_cancelled(save->observer))
		return 0;
	return rouse_error_set(error, ROUSE_ERROR_CANCELLED, -ECANCELED, "the save was cancelled");
}

static void save_report_progress(const struct save *save)
{
	uint64_t done, total;

	save_pack_get_progress(save->pack, &done, &total);
	rouse_progress(save->observer, "saving", done, total);
}

/* Sleeps until one of our threads or QEMU has something to say, or a little time has passed. */
static void save_sleep(const struct save *save, bool with_qmp)
{
	struct pollfd fds[] = {
		{.fd = save->notify_fd, .events = POLLIN},
		{.fd = rouse_observer_cancel_fd(save->observer), .events = POLLIN},
		{.fd = with_qmp ? qmp_fd(save->qmp) : -1, .events = POLLIN},
	};
	uint64_t count;

	if (poll(fds, 3, TICK_MS) > 0 && fds[0].revents != 0)
		(void)!read(save->notify_fd, &count, sizeof(count));
}

/*
 * Lets the VM go on, unless another monitor has stopped it since it went on the last time. QEMU too
 * stops it for a background snapshot, and then lets it run; a plain stream ends in another state.
 */
static int save_continue(struct save *save, struct rouse_error *error)
{
	struct save_vm_state state = {0};
	int code = 0;

	if (save->options->keep_running && !save->stopped) {
		code = save_vm_get_state(save->qmp, &state, error);
		if (code == 0) /* what came before the answer is there */
			code = save_take_events(save, error);
		if (code < 0 || state.running) /* a `stop` from now on is another's */
			return code;
	}
	/* Between two connections a `stop` may have been missed: nobody else pauses it so. */
	if (state.paused && save->resume_us != 0 && (save->halted || save->lost)) {
		rouse_log(save->observer, ROUSE_LOG_WARNING,
			"another monitor has stopped the VM meanwhile: it stays so, until `cont`");
		return 0;
	}
	code = save_vm_continue(save->qmp, error);
	if (code == 0)
		save->stopped = false;
	return code;
}

static void tell_unnamed_disk(const struct save *save, const struct rouse_observer *observer)
{
	const struct rouse_metadata_disk *disk = rouse_metadata_unnamed_disk(&save->metadata);

	if (disk != NULL)
		rouse_log(observer, ROUSE_LOG_WARNING,
			"the VM's disk %s is not in the command that it was started with: a "
			"restore needs QEMU's command, with that file",
			disk->file);
}

/* Everything that can be found out and refused before anything is changed. */
static int save_look(
	struct save *save, const struct rouse_observer *observer, struct rouse_error *error)
{
	const struct rouse_save_options *options = save->options;
	int code = save_check_state(save->qmp, &save->was_running, error);

	if (code == 0)
		code = save_migrate_check_idle(&save->migrate, error);
	if (code == 0)
		code = save_describe(save->qmp, observer, &save->metadata, error);
	if (code == 0)
		code = save_disks_query(save->qmp, &save->metadata, error);
	if (code < 0)
		return code;
	save->metadata.was_running = save->was_running;
	save->metadata.kept_running = options->keep_running;
	if (options->disks != ROUSE_DISKS_IGNORE)
		code = save_disks_check(&save->metadata, qmp_peer_pid(save->qmp), error);
	if (code < 0)
		return code;
	tell_unnamed_disk(save, observer);
	if (!options->keep_running)
		return 0;
	if (options->disks == ROUSE_DISKS_REFUSE)
		code = save_disks_refuse(&save->metadata, error);
	else if (options->disks == ROUSE_DISKS_SNAPSHOT)
		code = save_disks_plan(&save->metadata, qmp_peer_pid(save->qmp), error);
	return code;
}

/*
 * What is seen and done before the first change to the VM. While it is watched before its
 * checkpoint somebody may pause it, or plug a disk: so look again then. What can be refused is
 * refused before.
 */
static int save_begin(struct save *save, struct rouse_error *error)
{
	const struct rouse_save_options *options = save->options;
	const bool again = save_options_estimate_before(options);
	int code = save_look(save, again ? NULL : save->observer, error);

	if (code < 0)
		return code;
	if (save->was_running || options->estimate == ROUSE_ESTIMATE_NONE)
		save_estimate_prepare(&save->estimate, options, save->qmp, save->observer);
	else
		rouse_log(save->observer, ROUSE_LOG_WARNING,
			"the image will have no working set: the VM stands still");
	if (!again)
		return 0;
	code = save_estimate_before(&save->estimate, error);
	if (code < 0)
		return code;
	rouse_metadata_finish(&save->metadata);
	return save_look(save, save->observer, error);
}

/*
 * Whether to try a background snapshot. One of a VM that stands still would start it in QEMU before
 * 9.0: then it is streamed out plainly.
 */
static bool save_wants_background(const struct save *save)
{
	const struct rouse_save_options *options = save->options;
	long major = strtol(qmp_version(save->qmp), NULL, 10);

	/* Everything from the checkpoint on is seen only if the VM stands still for it. */
	if (!options->keep_running || options->no_background_snapshot ||
		save_options_estimate_afterwards(options) || (!save->was_running && major < 9))
		return false;
	if (!qemu_hold_is_there(qmp_peer_pid(save->qmp)))
		return true;
	/* There is one userfaultfd for a page. QEMU might find out when it has stopped the VM. */
	rouse_log(save->observer, ROUSE_LOG_WARNING,
		"no background snapshot while a restore with --backend uffd is under way: the VM "
		"will stand still");
	return false;
}

/* Starts both threads; *qemu_fd is the end for QEMU. */
static int save_start_threads(struct save *save, int *qemu_fd, struct rouse_error *error)
{
	const struct save_pack_config config = {
		.image = save->options->image,
		.wset = save->options->wset,
		.layout = &save->options->layout,
		.observer = save->observer,
		.order = save->estimate.order,
		.low_priority = save->migrate.background || save->estimate.session != NULL,
		.notify_fd = save->notify_fd,
	};
	const struct save_drain_config drain = {
		.limit_bytes = save_memory_drain_limit("", save->options->keep_running),
		.notify_fd = save->notify_fd,
		.must_finish = save->migrate.fragile,
	};
	int size = SOCKET_BUFFER_BYTES, fds[2], code;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return rouse_error_errno(error, -errno, "cannot make a socket for QEMU");
	*qemu_fd = fds[1];
	/* A large buffer, for fewer changes between QEMU and us; a smaller one works too. */
	if (setsockopt(fds[1], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0)
		(void)setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	code = save_drain_start(fds[0], &drain, &save->drain);
	if (code < 0)
		return rouse_error_errno(error, code, "cannot read QEMU's stream");
	return save_pack_start(&config, save->drain, &save->pack, error);
}

/* Stops the VM and gives it overlays, if that was asked for. */
static int save_snapshot_disks(struct save *save, struct rouse_error *error)
{
	int code;

	if (save->options->disks != ROUSE_DISKS_SNAPSHOT || save->metadata.disk_count == 0)
		return 0;
	if (save->was_running) {
		code = qmp_execute(save->qmp, "stop", NULL, NULL, error);
		save->stopped = code == 0 || qmp_unknown(code);
		if (code < 0)
			return code;
	}
	code = save_disks_snapshot(save->qmp, &save->metadata, error);
	save->overlays = code == 0 || qmp_unknown(code);
	return code;
}

/* The pack thread has given up: the disk is full, for one. Why? */
static int save_explain_abort(struct save *save, struct rouse_error *error)
{
	struct rouse_error why;
	int code = save_pack_finish(save->pack, error);

	/* A stream that ends too early is of a migration that failed: it knows why. */
	if (code == -EUCLEAN) {
		int failed = save_migrate_wait(&save->migrate, 2000, &why);

		if (failed < 0 && failed != -ETIMEDOUT) {
			code = failed;
			*error = why;
		}
	}
	return code;
}

static int error_runs_again(const char *otherwise, struct rouse_error *error)
{
	return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EBUSY,
		"the VM runs again, by another monitor's `cont`, while %s", otherwise);
}

/* While the stream comes. A VM that we stopped may be due to go on. */
static int save_attend(struct save *save, struct rouse_error *error)
{
	int code;

	if (save->gone)
		return save_check_cancel(save, error);
	code = save_take_events(save, error);
	/* Pages come: QEMU tracks what is written, the VM may write again. */
	if (code == 0 && save->stopped && save->migrate.background &&
		save_pack_streaming(save->pack)) {
		/*
		 * Let run by another before its memory's moment: its disks are of an earlier one. A
		 * QEMU before 9.0 lets it run itself, whether it ran before or not.
		 */
		if (save->resume_us != 0 && !save->migrate.fragile)
			return error_runs_again(FROZEN, error);
		code = save_continue(save, error);
	}
	return save_outlive(save, code, error);
}

/* Waits until QEMU has sent everything. */
static int save_wait_stream(struct save *save, struct rouse_error *error)
{
	struct save_drain_stats stats;
	int code;

	while (!save_drain_ended(save->drain)) {
		code = save_attend(save, error);
		if (code < 0)
			return code;
		save_report_progress(save);
		save_sleep(save, !save->gone);
		/* The VM must not stand still for as long as a slow disk takes to forget it. */
		if (save_pack_has_failed(save->pack, GIVE_UP_TIMEOUT_MS))
			save_drain_abort(save->drain);
	}
	save_drain_get_stats(save->drain, &stats);
	if (stats.aborted)
		return save_explain_abort(save, error);
	if (save->gone)
		return 0;
	code = save_migrate_wait(&save->migrate, MIGRATION_END_TIMEOUT_MS, error);
	return save_outlive(save, code, error);
}

/* Waits until everything is packed. QEMU may die now: what it had to give is here. */
static int save_wait_packed(struct save *save, struct rouse_error *error)
{
	int code;

	while (!save_pack_ended(save->pack)) {
		code = save_check_cancel(save, error);
		if (code < 0)
			return code;
		save_report_progress(save);
		save_sleep(save, false);
	}
	save_report_progress(save);
	code = save_pack_finish(save->pack, error);
	if (code == -EUCLEAN && save->gone) { /* it had not given everything */
		*error = save->ended;
		code = -EPIPE;
	}
	return code;
}

/*
 * A VM that is suspended must stand from QEMU's last byte on: one that ran again has written to its
 * disks, and has done work that is not in the image. Another monitor may have let it run, and may
 * have stopped it since. -EBUSY.
 */
static int save_check_stands(struct save *save, const char *otherwise, struct rouse_error *error)
{
	bool running = false;
	int code = save_vm_is_running(save->qmp, &running, error);

	/* What a QEMU that is gone said before is there. */
	if (code == 0 || code == -EPIPE)
		code = save_take_events(save, error);
	code = save_outlive(save, code, error);
	if (code == 0 && (running || save->resume_us != 0))
		code = error_runs_again(otherwise, error);
	return code;
}

/* The stream is there: the VM has done its part. */
static int save_settle_vm(struct save *save, struct rouse_error *error)
{
	int code = 0;

	if (save->gone)
		return 0;
	/* Its disks are of the time at which it was stopped, and so must its memory be. */
	if (save->overlays && !save->migrate.background)
		code = save_check_stands(save, FROZEN, error);
	if (code == 0 && save->options->keep_running && save->was_running) {
		code = save_estimate_arm(&save->estimate, error);
		if (code == 0)
			code = save_continue(save, error);
		if (code == 0)
			code = save_estimate_watch(&save->estimate, error);
	}
	if (code == 0)
		code = save_take_events(save, error);
	return save_outlive(save, code, error);
}

/*
 * The image of a VM that was to be suspended is complete, but @what happened, so the VM goes on.
 */
static int error_goes_on(const struct save *save, enum rouse_error_kind kind, int code,
	const char *what, struct rouse_error *error)
{
	return rouse_error_set(error, kind, code,
		"%s, and was not ended: its disks are newer than %s, which is complete; remove "
		"that image, or restore from it only with disks of its time",
		what, save->options->image);
}

/* The connection closed behind the commit. Whether the VM has run since nobody can tell. */
static int save_quit_lost(struct save *save, struct rouse_error *error)
{
	struct rouse_error why;
	int code = save->was_running ? save_continue(save, &why) : 0;

	if (code < 0)
		rouse_log(save->observer, ROUSE_LOG_ERROR,
			"the VM may not run (%s): try `cont` in its monitor", why.message);
	return error_goes_on(save, ROUSE_ERROR_VMM, -EPIPE,
		"QEMU closed the monitor's connection, but lives: the VM may have run since",
		error);
}

/* Waits until QEMU is gone after `quit`. 0: it is not, in time. -EPIPE: it is. */
static int save_wait_quit(struct save *save, struct rouse_error *error)
{
	const uint64_t deadline_us = rouse_clock_us() + (uint64_t)QUIT_TIMEOUT_MS * 1000;
	int code = 0;

	while (code == 0 && rouse_clock_us() < deadline_us) {
		json_t *event;

		code = qmp_next_event(save->qmp, 1000, &event, NULL, error);
		if (code == 0)
			json_decref(event);
	}
	if (code != -EPIPE)
		return code;
	save->gone = true; /* no other connection is needed */
	return save->process_fd < 0 || save_wait_end(save) ? code : 0;
}

/* Ends QEMU, and waits until it is gone: then its disks are free. -EBUSY: the VM runs again. */
static int save_quit(struct save *save, struct rouse_error *error)
{
	struct rouse_error why;
	int code;

	qmp_ignore_cancel(save->qmp);
	code = save_check_stands(save, SUSPENDED, &why);
	if (code == -EBUSY)
		return error_goes_on(save, ROUSE_ERROR_REFUSED, code,
			"the VM runs again, by another monitor's `cont`", error);
	if (code == -EPIPE)
		return save_quit_lost(save, error);
	if (code == 0)
		code = qmp_execute(save->qmp, "quit", NULL, NULL, &why);
	if (code == 0 || code == -EPIPE)
		code = save_wait_quit(save, &why);
	if (code != -EPIPE)
		rouse_log(save->observer, ROUSE_LOG_WARNING,
			"the VM is saved, but QEMU does not quit%s%s", code < 0 ? ": " : "",
			code < 0 ? why.message : "");
	return 0;
}

/* What is left to be done when the image is complete. */
static int save_conclude(struct save *save, struct rouse_error *error)
{
	if (!save->gone)
		return save->options->keep_running ? 0 : save_quit(save, error);
	if (save->unreachable && save_wait_end(save))
		save->unreachable = false;
	if (!save->unreachable) {
		rouse_log(save->observer, ROUSE_LOG_WARNING,
			"QEMU ended after it had sent everything: the image is complete");
		return 0;
	}
	if (!save->options->keep_running)
		return error_goes_on(save, ROUSE_ERROR_VMM, -EPIPE,
			"QEMU closed the monitor's connection and takes no other: the VM may have "
			"run since",
			error);
	return rouse_error_set(error, ROUSE_ERROR_VMM, -EPIPE,
		"%s is complete, but QEMU closed the monitor's connection and takes no other: the "
		"VM may stand still; try `cont` in its monitor",
		save->options->image);
}

/* Of a connection that closed, and a QEMU that has not ended. */
static void error_closed(const struct save *save, struct rouse_error *error)
{
	(void)rouse_error_set(error, ROUSE_ERROR_VMM, -EPIPE,
		"QEMU closed the monitor's connection%s: the VM is not saved",
		save->unreachable ? " and takes no other" : ", but lives");
}

/*
 * Puts everything back as it was before: the VM runs if it ran. @failed: why, as @error says in
 * words.
 */
static void save_undo(struct save *save, int failed, struct rouse_error *error)
{
	struct rouse_error why;
	int code = 0;

	qmp_ignore_cancel(save->qmp);
	if (save->drain != NULL)
		save_drain_abort(save->drain);
	save_check_connection(save);
	if (failed == -EPIPE && (save->lost || save->unreachable))
		error_closed(save, error);
	save_migrate_cancel(&save->migrate);
	if (save->pack != NULL)
		save_pack_give_up(save->pack, GIVE_UP_TIMEOUT_MS);
	if (save->was_running)
		code = save_continue(save, &why);
	if (code == -EPIPE && !save->gone) { /* it closed just now */
		save_check_connection(save);
		code = save_continue(save, &why);
	}
	if (code < 0 && (!save->gone || save->unreachable))
		rouse_log(save->observer, ROUSE_LOG_ERROR,
			"the VM %s not run (%s): try `cont` in its monitor",
			qmp_unknown(code) ? "may" : "does", why.message);
	if (save->overlays)
		save_disks_undo(save->qmp, &save->metadata, save->observer, error);
}

static void save_fill_report(const struct save *save, struct rouse_save_report *report,
	const struct rouse_writer_stats *stats)
{
	struct save_drain_stats drain;
	uint64_t end_us = save->options->keep_running ? save->resume_us : realtime_us();

	save_drain_get_stats(save->drain, &drain);
	if (save->was_running && save->stop_us != 0 && end_us > save->stop_us)
		report->downtime_us = end_us - save->stop_us;
	report->stream_us = drain.last_us - drain.first_us;
	report->ram_bytes = save->metadata.ram_bytes;
	report->stored_bytes = stats->stored_bytes;
	report->image_bytes = stats->image_bytes;
	report->pages = stats->pages;
	report->zero_pages = stats->zero_pages;
	report->duplicate_pages = stats->duplicate_pages;
	report->background_snapshot = save->migrate.background;
	rouse_log(save->observer, ROUSE_LOG_DEBUG,
		"stream: %llu bytes in %llu us, at most %llu bytes held, limit met %llu times",
		(unsigned long long)drain.bytes, (unsigned long long)report->stream_us,
		(unsigned long long)drain.most_bytes, (unsigned long long)drain.waits);
}

/* The image is complete: what goes wrong now costs it only its working set. */
static void save_apply_estimate(struct save *save, struct rouse_save_report *report)
{
	struct rouse_write_report written;
	struct rouse_error error;
	int64_t pages;

	report->estimate = save->options->estimate;
	report->trace = save->estimate.report;
	report->scan = save->estimate.scan_report;
	pages = save_estimate_apply(
		&save->estimate, save->options->image, &save->options->layout, &written, &error);
	if (pages < 0)
		rouse_log(save->observer, ROUSE_LOG_WARNING, "the image has no working set: %s",
			error.message);
	/* For a disk that was full for two images: not now. */
	if (pages < 0 && save->options->keep_running && save->was_running && !save->gone) {
		qmp_ignore_cancel(save->qmp);
		(void)save_continue(save, &error);
	}
	if (pages <= 0)
		return;
	report->wset_pages = (uint64_t)pages;
	report->image_bytes = written.image_bytes;
	report->stored_bytes = written.stored_bytes;
}

/* From the first change to the VM to the committed image. */
static int save_run(struct save *save, struct rouse_writer_stats *stats, struct rouse_error *error)
{
	cleanup_close int qemu_fd = -1;
	int code = save_migrate_configure(&save->migrate, save_wants_background(save), error);

	if (code == 0)
		code = save_start_threads(save, &qemu_fd, error);
	if (code == 0)
		code = save_forget_events(save, error);
	if (code == 0)
		code = save_snapshot_disks(save, error);
	if (code == 0 && save->overlays)
		code = save_check_stands(save, FROZEN, error);
	if (code == 0)
		code = save_migrate_start(&save->migrate, qemu_fd, error);
	if (code < 0)
		return code;
	(void)close(take_fd(&qemu_fd)); /* QEMU's is the only one: its end is the stream's end */
	code = save_wait_stream(save, error);
	if (code == 0)
		code = save_settle_vm(save, error);
	if (code == 0)
		code = save_wait_packed(save, error);
	if (code == 0 && !save->options->keep_running)
		code = save_check_stands(save, SUSPENDED, error);
	if (code == 0)
		code = save_pack_commit(save->pack, &save->metadata, stats, error);
	return code;
}

static void save_finish(struct save *save)
{
	if (save->drain != NULL)
		save_drain_abort(save->drain);
	save_pack_free(save->pack);
	save_estimate_finish(&save->estimate);
	save_drain_free(save->drain);
	if (save->qmp != NULL) {
		qmp_ignore_cancel(save->qmp);
		save_check_connection(save);
		save->migrate.ended = save->gone && !save->unreachable;
		save_migrate_restore(&save->migrate);
	}
	qmp_close(save->qmp);
	rouse_metadata_finish(&save->metadata);
	if (save->process_fd >= 0)
		(void)close(save->process_fd);
	if (save->notify_fd >= 0)
		(void)close(save->notify_fd);
}

int rouse_save(const struct rouse_save_options *given, struct rouse_save_report *report,
	const struct rouse_observer *observer, struct rouse_error *error)
{
	uint64_t began_us = rouse_clock_us();
	struct rouse_save_options options;
	struct rouse_save_report unused;
	struct rouse_writer_stats stats = {0};
	struct rouse_error local;
	struct save save = {
		.options = &options, .observer = observer, .notify_fd = -1, .process_fd = -1};
	int code;

	if (report == NULL)
		report = &unused;
	if (error == NULL)
		error = &local;
	memset(report, 0, sizeof(*report));
	code = save_options_complete(given, &options, error);
	if (code < 0)
		return code;
	save.notify_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (save.notify_fd < 0)
		return rouse_error_errno(error, -errno, "cannot start a save");
	code = qmp_connect(options.qmp_socket, CONNECT_TIMEOUT_MS, observer, &save.qmp, error);
	if (code == 0)
		save.process_fd = save_vm_open_process(save.qmp);
	save.migrate.qmp = save.qmp;
	save.migrate.observer = observer;
	if (code == 0)
		code = save_begin(&save, error);
	if (code == 0) {
		code = save_run(&save, &stats, error);
		if (code < 0)
			save_undo(&save, code, error);
	}
	if (code == 0)
		code = save_conclude(&save, error);
	if (code == 0) {
		save_fill_report(&save, report, &stats);
		save_apply_estimate(&save, report);
		report->elapsed_us = rouse_clock_us() - began_us;
	}
	save_finish(&save);
	return code;
}
