/* SPDX-License-Identifier: MIT */
#include "api/restore_qemu.h"

#include "api/restore_uffd.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/observer.h"
#include "vmm/qemu_file_memory.h"
#include "vmm/qemu_incoming.h"
#include "vmm/qemu_rescue.h"
#include "vmm/qemu_sink.h"
#include "vmm/qemu_takeover.h"
#include "vmm/vcpu_threads.h"

#include <string.h>

/* One that locks its memory, or allocates all of it, says nothing until it has. */
#define QEMU_START_TIMEOUT_MS 600000
#define QEMU_CONNECT_TIMEOUT_MS 5000

/* The command line to start, or why there is none. */
static int choose_command(const struct rouse_restore_options *options,
	const struct rouse_metadata *metadata, struct qemu_process_config *config,
	struct rouse_error *error)
{
	const struct rouse_metadata_disk *unnamed;

	if (options->argv != NULL && options->argv[0] != NULL) {
		config->argv = options->argv;
		return 0;
	}
	if (metadata->argument_count == 0)
		return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
			"the image does not say how its VM was started: give QEMU's command after "
			"--, as in `rouse restore IMAGE -- qemu-system-x86_64 ...`");
	if (metadata->kept_running && metadata->disk_count > 0)
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EBUSY,
			"the VM went on after this checkpoint, and its disk %s is no longer at "
			"that point: give QEMU's command after --, with %s",
			metadata->disks[0].file != NULL ? metadata->disks[0].file : "",
			metadata->disks[0].overlay != NULL ? "an overlay of that file for each disk"
							   : "disks of that point in time");
	unnamed = rouse_metadata_unnamed_disk(metadata);
	if (unnamed != NULL)
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EBUSY,
			"when the VM was saved its disk was %s, which is not in the command that "
			"it "
			"was started with: give QEMU's command after --, with that file",
			unnamed->file);
	config->argv = (const char *const *)metadata->command_line;
	config->executable = metadata->executable;
	config->directory = metadata->cwd;
	return 0;
}

/* An error of a QEMU that was started: with what it printed. Returns the error's code. */
static int add_last_words(struct restore_qemu *qemu, int code, struct rouse_error *error)
{
	struct rouse_error why;
	char words[256];

	if (error == NULL || error->kind != ROUSE_ERROR_VMM)
		return code;
	why = *error;
	qemu_process_last_words(&qemu->process, words, sizeof(words));
	if (words[0] == '\0')
		return code;
	return rouse_error_set(error, ROUSE_ERROR_VMM, code, "%.200s: %s", why.message, words);
}

static void finish_command(struct qemu_map_command *command)
{
	qemu_map_command_finish(command);
}

static void finish_file_memory(struct qemu_file_memory_command *command)
{
	qemu_file_memory_finish(command);
}

static int start_qemu(struct restore_qemu *qemu, const struct rouse_restore_options *options,
	const struct rouse_metadata *metadata, const struct rouse_observer *observer,
	struct rouse_error *error)
{
	cleanup_with(finish_command) struct qemu_map_command command = {0};
	cleanup_with(finish_file_memory) struct qemu_file_memory_command in_memory = {0};
	struct qemu_process_config config = {
		.monitor = qemu->monitor, .postcopy = qemu->way == RESTORE_POSTCOPY};
	int code = choose_command(options, metadata, &config, error);

	if (code == 0 && qemu->map != NULL) {
		code = qemu_map_command(config.argv, qemu->map, &command, error);
		config.argv = command.argv;
	}
	/* Beside the flat file there may be others. */
	if (code == 0) {
		code = qemu_file_memory_command(
			config.argv, config.directory, command.object, &in_memory, error);
		config.argv = in_memory.argv;
	}
	if (code == 0 && in_memory.left_out != NULL)
		rouse_log(observer, ROUSE_LOG_INFO,
			"the VM's memory is not mapped from a file any more (%s)",
			in_memory.left_out);
	if (code == 0 && qemu->way != RESTORE_PRECOPY)
		code = qemu_incoming_may_postcopy(error);
	if (code == 0)
		code = rouse_monitor_path(options->monitor, qemu->monitor, error);
	if (code == 0)
		code = qemu_process_start(&config, &qemu->process, error);
	if (code < 0)
		return code;
	code = qmp_attach(take_fd(&qemu->process.control), QEMU_START_TIMEOUT_MS, observer,
		&qemu->qmp, error);
	return code == 0 ? 0 : add_last_words(qemu, code, error);
}

static int list_blocks(
	struct restore_qemu *qemu, const struct rouse_reader *reader, struct rouse_error *error)
{
	const struct rouse_block *from = rouse_reader_blocks(reader, &qemu->block_count);

	qemu->blocks = calloc(qemu->block_count, sizeof(*qemu->blocks));
	if (qemu->blocks == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot prepare the restore");
	for (uint32_t i = 0; i < qemu->block_count; i++) {
		(void)snprintf(
			qemu->blocks[i].name, sizeof(qemu->blocks[i].name), "%s", from[i].name);
		qemu->blocks[i].used_bytes = from[i].used_bytes;
		qemu->blocks[i].first_page = from[i].first_page;
		if (from[i].page_bytes > ROUSE_IMAGE_PAGE_BYTES)
			return rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, -ENOTSUP,
				"RAM block %s has huge pages, which Rouse does not restore yet",
				from[i].name);
	}
	return 0;
}

static unsigned int count_vcpus(struct qmp *qmp)
{
	json_t *list = NULL;
	size_t count = 0;

	if (qmp_execute(qmp, "query-cpus-fast", NULL, &list, NULL) == 0)
		count = json_array_size(list);
	json_decref(list);
	return count > 0 ? (unsigned int)count : 1;
}

bool restore_qemu_shall_run(
	const struct rouse_restore_options *options, const struct rouse_metadata *metadata)
{
	return !options->paused && (metadata->vmm == NULL || metadata->was_running);
}

static int make_sink(struct restore_qemu *qemu, const struct rouse_restore_options *options,
	const struct rouse_metadata *metadata, struct rouse_reader *reader, int fd,
	const struct rouse_observer *observer, struct rouse_error *error)
{
	struct qemu_sink_config config = {
		.fd = fd,
		.qmp = qemu->qmp,
		.pid = qemu->process.pid > 0 ? qemu->process.pid : 0,
		.blocks = qemu->blocks,
		.block_count = qemu->block_count,
		.run = restore_qemu_shall_run(options, metadata),
		.observer = observer,
	};

	config.config = rouse_reader_section(reader, ROUSE_SECTION_CONFIG, &config.config_size);
	config.devices = rouse_reader_section(reader, ROUSE_SECTION_DEVICES, &config.devices_size);
	if (qemu->way == RESTORE_UFFD)
		return restore_uffd_sink(qemu, &config, options, reader, error);
	if (options->resume)
		return qemu_postcopy_sink_resume(&config, &qemu->sink, error);
	if (qemu->way == RESTORE_POSTCOPY)
		return qemu_postcopy_sink_new(&config, &qemu->sink, error);
	return qemu_precopy_sink_new(&config, &qemu->sink, error);
}

/*
 * What tells checkpoints apart: the device state, with all vCPUs' registers and clocks in it. It
 * stays the same when an image is packed anew, unlike the image's id.
 */
static uint64_t checkpoint_of(const struct rouse_reader *reader)
{
	return le64_get(rouse_reader_superblock(reader)->sections[ROUSE_SECTION_DEVICES].checksum);
}

/*
 * A Rouse that was killed when it had just registered QEMU's memory: whoever touched that would
 * wait for ever, QEMU's main loop first.
 */
static int check_nobody_traps(const struct restore_qemu *qemu, struct rouse_error *error)
{
	if (qemu->process.pid > 0 || !qemu_hold_is_there(qmp_peer_pid(qemu->qmp)))
		return 0;
	return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EBUSY,
		"that QEMU's memory belongs to a restore with --backend uffd, or was left by one "
		"that "
		"broke off: restore with --backend uffd, or start another QEMU");
}

/* The connection for the pages, with a QEMU that is known to be the right one. */
static int connect_qemu(struct restore_qemu *qemu, const struct rouse_restore_options *options,
	const struct rouse_metadata *metadata, const struct rouse_reader *reader, int *fd,
	struct rouse_error *error)
{
	const bool postcopy = qemu->way == RESTORE_POSTCOPY;
	const struct qemu_expectation expectation = {
		.machine = metadata->machine,
		.ram_bytes = metadata->memory_bytes,
		.vcpus = metadata->vcpus,
	};
	int code = qemu_incoming_check(qemu->qmp, &expectation, error);

	if (code == 0 && qemu->way != RESTORE_UFFD)
		code = check_nobody_traps(qemu, error);
	if (code == 0 && postcopy)
		code = qemu_file_memory_check(qemu->qmp, error);
	if (code == 0)
		code = qemu_incoming_prepare(qemu->qmp, postcopy, error);
	if (code == 0 && postcopy)
		code = qemu_incoming_mark(qemu->qmp, checkpoint_of(reader), error);
	if (code == 0 && !restore_qemu_shall_run(options, metadata))
		code = qemu_incoming_hold(qemu->qmp, error);
	/* Before the migration is connected: a QEMU that is refused goes on waiting. */
	if (code == 0 && qemu->way == RESTORE_UFFD)
		code = restore_uffd_take(qemu, checkpoint_of(reader),
			restore_qemu_shall_run(options, metadata), error);
	if (code < 0)
		return code;
	if (options->qmp_socket != NULL)
		return qemu_incoming_connect(qemu->qmp, fd, error);
	*fd = take_fd(&qemu->process.migration);
	return 0;
}

/* Leaves our connection in QEMU for the Rouse that takes over if we die. */
static void deposit(struct restore_qemu *qemu, const char *socket, uint64_t checkpoint,
	const struct rouse_observer *observer)
{
	const int started = (int)qemu->process.pid;
	struct rouse_error why = {0};
	int code = qemu_rescue_deposit(qemu->qmp, socket,
		started > 0 ? started : qmp_peer_pid(qemu->qmp), checkpoint, &why);

	qemu->deposited = code == 0;
	if (code < 0)
		rouse_log(observer, ROUSE_LOG_INFO,
			"if Rouse is killed while one of the VM's devices waits for a page, nobody "
			"will be able to take over: %s",
			why.message);
}

/* By the connection that a Rouse left in QEMU: works although QEMU's main loop may stand still. */
static int take_over_by_rescue(struct restore_qemu *qemu, const char *socket, uint64_t checkpoint,
	const struct qemu_rescue_name *name, int connection, const struct qemu_first_words *first,
	int *fd, const struct rouse_observer *observer, struct rouse_error *error)
{
	int code = qmp_adopt(connection, observer, &qemu->qmp, error);

	if (code < 0) {
		qemu_rescue_disown(connection);
		(void)close(connection);
		return code;
	}
	if (name->checkpoint != checkpoint)
		return qemu_incoming_other_checkpoint(error);
	rouse_log(observer, ROUSE_LOG_DEBUG, "taking over by the monitor connection left in QEMU");
	code = qemu_rescue_recover(qemu->qmp, socket, name, first, fd, error);
	qemu->deposited = code == 0;
	return code;
}

/* Gets hold of a VM whose Rouse died. */
static int take_over(struct restore_qemu *qemu, const struct rouse_restore_options *options,
	const struct rouse_reader *reader, int *fd, const struct rouse_observer *observer,
	struct rouse_error *error)
{
	const uint64_t checkpoint = checkpoint_of(reader);
	cleanup_free uint8_t *request = NULL;
	struct qemu_first_words first = {0};
	struct qemu_rescue_name name;
	struct rouse_error why = {0};
	int connection, found, code;
	bool unseen = false;

	code = qemu_takeover_request(qemu->blocks, qemu->block_count, &request, &first.size);
	if (code < 0)
		return rouse_error_errno(error, code, "cannot take over");
	first.bytes = request;
	found = qemu_rescue_find(options->qmp_socket, &name, &connection, &why);
	if (found == 0)
		return take_over_by_rescue(qemu, options->qmp_socket, checkpoint, &name, connection,
			&first, fd, observer, error);
	if (found == -ENOENT) {
		code = restore_uffd_adopt(qemu, options->qmp_socket, checkpoint, error);
		unseen = code == -EPERM;
		if (code != -ENOENT && !unseen)
			return code;
	}
	code = found == -EBUSY ? found
			       : qmp_connect(options->qmp_socket, QEMU_CONNECT_TIMEOUT_MS, observer,
					 &qemu->qmp, error);
	/* The monitor is taken by the connection that we may not have, or it does not answer. */
	if (found != -ENOENT && (code == -EBUSY || code == -ETIMEDOUT)) {
		if (error != NULL)
			*error = why;
		return found;
	}
	if (code < 0)
		return code;
	deposit(qemu, options->qmp_socket, checkpoint, observer);
	code = qemu_incoming_recover(qemu->qmp, checkpoint, &first, fd, error);
	if (code < 0 && qemu->deposited)
		qemu_rescue_withdraw(qemu->qmp);
	if (code < 0 && unseen)
		(void)rouse_error_prefix(error,
			"a restore by --backend uffd cannot be seen without the right to look into "
			"QEMU's process (run as its user, or root), and there is no other");
	return code;
}

static int get_ready(struct restore_qemu *qemu, const struct rouse_restore_options *options,
	const struct rouse_metadata *metadata, const struct rouse_reader *reader, int *fd,
	const struct rouse_observer *observer, struct rouse_error *error)
{
	const char *socket = options->qmp_socket;
	int code;

	if (options->resume)
		return take_over(qemu, options, reader, fd, observer, error);
	if (socket != NULL)
		code = qmp_connect(socket, QEMU_CONNECT_TIMEOUT_MS, observer, &qemu->qmp, error);
	else
		code = start_qemu(qemu, options, metadata, observer, error);
	if (code == 0)
		code = connect_qemu(qemu, options, metadata, reader, fd, error);
	/*
	 * Not before the migration is connected: from then on QEMU ends if we die before the guest
	 * runs, and no QEMU is left that waits with its monitor taken.
	 */
	if (code == 0 && qemu->way == RESTORE_POSTCOPY)
		deposit(qemu, socket != NULL ? socket : qemu->monitor, checkpoint_of(reader),
			observer);
	return code;
}

/* For the report only: a VM that is taken over may not be able to tell. */
static unsigned int vcpus_of(const struct restore_qemu *qemu,
	const struct rouse_restore_options *options, const struct rouse_metadata *metadata)
{
	if (metadata->vcpus > 0)
		return metadata->vcpus;
	return options->resume ? 1 : count_vcpus(qemu->qmp);
}

/*
 * Whose the faults are, where the kernel tells that. Before the start, since QEMU has nothing else
 * to do then; one that is taken over may not be able to answer.
 */
static void list_threads(struct restore_qemu *qemu)
{
	int pid = (int)qemu->process.pid;

	if (qemu->way != RESTORE_UFFD || qemu->qmp == NULL)
		return;
	if (pid <= 0)
		pid = qmp_peer_pid(qemu->qmp);
	if (pid > 0)
		(void)vcpu_threads_list(qemu->qmp, pid, &qemu->threads, &qemu->thread_count);
}

/* @qemu: empty, but for way and map. */
static int open_qemu(struct restore_qemu *qemu, const struct rouse_restore_options *options,
	const struct rouse_metadata *metadata, struct rouse_reader *reader,
	const struct rouse_observer *observer, struct rouse_error *error)
{
	int code, fd = -1;

	code = list_blocks(qemu, reader, error);
	if (code < 0)
		return code;
	code = get_ready(qemu, options, metadata, reader, &fd, observer, error);
	if (code < 0)
		return add_last_words(qemu, code, error);
	qemu->vcpus = vcpus_of(qemu, options, metadata);
	list_threads(qemu);
	return make_sink(qemu, options, metadata, reader, fd, observer, error);
}

int restore_qemu_open(struct restore_qemu *qemu, const struct rouse_restore_options *options,
	enum restore_way way, const struct rouse_metadata *metadata, struct rouse_reader *reader,
	const struct rouse_observer *observer, struct rouse_error *error)
{
	*qemu = RESTORE_QEMU_INIT;
	/* A takeover of a restore by userfaultfd finds that out: restore_uffd_adopt(). */
	qemu->way = options->resume ? RESTORE_POSTCOPY : way;
	return open_qemu(qemu, options, metadata, reader, observer, error);
}

int restore_qemu_open_map(struct restore_qemu *qemu, const struct rouse_restore_options *options,
	const struct qemu_map_file *map, const struct rouse_metadata *metadata,
	struct rouse_reader *reader, const struct rouse_observer *observer,
	struct rouse_error *error)
{
	*qemu = RESTORE_QEMU_INIT;
	qemu->way = RESTORE_PRECOPY;
	qemu->map = map;
	return open_qemu(qemu, options, metadata, reader, observer, error);
}

int restore_qemu_explain(struct restore_qemu *qemu, int code, struct rouse_error *error)
{
	const bool broken = code == -EPIPE || code == -ECONNRESET;
	struct rouse_error why = {0};
	int found;

	if (qemu->qmp == NULL || error == NULL)
		return code;
	found = qemu_incoming_broken(qemu->qmp, code, &why);
	/* While QEMU lives, who has said more than that it does not listen knows better. */
	if (broken || found == -EPIPE) {
		code = found;
		*error = why;
	}
	return add_last_words(qemu, code, error);
}

void restore_qemu_complete(struct restore_qemu *qemu)
{
	if (!qemu->deposited)
		return;
	qmp_ignore_cancel(qemu->qmp);
	qemu_rescue_withdraw(qemu->qmp);
	qemu->deposited = false;
}

void restore_qemu_finish(struct restore_qemu *qemu, bool keep)
{
	if (qemu->sink != NULL)
		qemu->sink->ops->destroy(qemu->sink);
	restore_uffd_give_up(qemu);
	/* Whatever `deposited` says: QEMU may have it although it did not answer. */
	if (qemu->qmp != NULL)
		qemu_rescue_disown(qmp_fd(qemu->qmp));
	qmp_close(qemu->qmp);
	if (!keep && qemu->process.pid > 0) {
		qemu_process_kill(&qemu->process);
		/* SIGKILL leaves QEMU no time to remove its socket. */
		(void)unlink(qemu->monitor);
	}
	qemu_process_finish(&qemu->process);
	free(qemu->blocks);
	free(qemu->threads);
}
