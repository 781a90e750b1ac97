/* SPDX-License-Identifier: MIT */
#include "api/restore_map.h"

#include "api/map_warm.h"
#include "api/restore_qemu.h"
#include "api/restore_report.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/observer.h"
#include "engine/policy_traits.h"
#include "source/throttle.h"
#include "vmm/qemu_incoming.h"
#include "vmm/qemu_map.h"
#include "vmm/vcpu_stalls.h"

#include <inttypes.h>
#include <string.h>

/* Pages that are sent at once. */
#define SEND_PAGES 64u

struct map_restore {
	const struct restore_map_config *config;
	enum rouse_policy policy;
	struct rouse_flat_file file;
	char *path; /* of the file, absolute: QEMU may start elsewhere */
	struct qemu_map_file map;
	uint32_t *set; /* page numbers of the working set */
	uint64_t set_pages;
	struct map_warm *warm;
	struct restore_qemu qemu;
	struct vcpu_wait *wait;
	struct vcpu_stalls *stalls;
	uint64_t started_ns, complete_ns;
	uint64_t wait_from_ns;
	int processors; /* that wait_from_ns is of; 0 or less: it is not known */
};

int restore_map_check(const struct rouse_restore_options *options, struct rouse_error *error)
{
	const char *wrong = NULL;

	if (options->flat == NULL)
		wrong = "mapping needs a flat file (--flat), as rouse convert --flat makes";
	else if (options->resume)
		wrong = "a restore from a flat file needs no taking over: its VM has all its "
			"memory";
	else if (options->qmp_socket != NULL)
		wrong = "only a QEMU that Rouse starts can be given a flat file as its memory: "
			"leave --qmp out";
	else if (options->record != NULL || options->learn != NULL)
		wrong = "nobody sees what is touched of a flat file: record and learn with "
			"--backend postcopy";
	else if (options->policy == ROUSE_POLICY_PACED)
		wrong = "a paced start is for --backend postcopy and uffd: with a flat file use ws";
	else if (rouse_policy_traits(options->policy)->of_others)
		wrong = "how others restore is for --backend postcopy and uffd";
	else if (rouse_throttle_limits(&options->throttle))
		wrong = "what a VM reads of a flat file does not go through Rouse, which so cannot "
			"throttle it";
	return wrong == NULL ? 0 : rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL, "%s", wrong);
}

/* ---- The file ------------------------------------------------------------------------------- */

/* Whether it has the memory of this image's checkpoint. */
static int check_identity(const struct map_restore *m, struct rouse_error *error)
{
	const struct rouse_disk_superblock *superblock = rouse_reader_superblock(m->config->reader);
	const struct rouse_flat *flat = &m->file.flat;

	if (flat->checkpoint == le64_get(superblock->sections[ROUSE_SECTION_DEVICES].checksum) &&
		flat->blocks_checksum ==
			le64_get(superblock->sections[ROUSE_SECTION_BLOCKS].checksum) &&
		flat->page_count == rouse_reader_page_count(m->config->reader))
		return 0;
	return rouse_error_set(error, ROUSE_ERROR_MISMATCH, -EINVAL,
		"%s has the memory of another checkpoint than the image: make it anew with "
		"rouse convert --flat",
		m->config->options->flat);
}

static int find_block(struct map_restore *m, struct rouse_error *error)
{
	const struct rouse_flat *flat = &m->file.flat;
	uint32_t count;
	const struct rouse_block *blocks = rouse_reader_blocks(m->config->reader, &count);

	for (uint32_t i = 0; i < count; i++) {
		if (blocks[i].first_page != flat->main_first ||
			blocks[i].used_bytes != flat->main_pages * ROUSE_IMAGE_PAGE_BYTES)
			continue;
		m->map = (struct qemu_map_file){.path = m->path,
			.machine = m->config->metadata->machine,
			.block = blocks[i].name,
			.bytes = blocks[i].used_bytes,
			.inode = m->file.inode};
		return 0;
	}
	return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
		"%s maps no RAM block of the image", m->config->options->flat);
}

static int open_file(struct map_restore *m, struct rouse_error *error)
{
	const char *path = m->config->options->flat;
	const void *devices;
	size_t size;
	int code = rouse_flat_open(path, &m->file, error);

	if (code == 0)
		code = check_identity(m, error);
	if (code < 0)
		return code;
	m->path = realpath(path, NULL);
	if (m->path == NULL)
		return rouse_error_errno(error, -errno, "cannot open %s", path);
	code = find_block(m, error);
	devices = rouse_reader_section(m->config->reader, ROUSE_SECTION_DEVICES, &size);
	return code < 0 ? code : qemu_map_check_devices(devices, size, error);
}

/* ---- The working set ------------------------------------------------------------------------ */

static uint64_t set_count(const struct map_restore *m)
{
	return m->config->wset != NULL ? m->config->wset->page_count
				       : rouse_reader_wset(m->config->reader)->page_count;
}

static enum rouse_policy choose_policy(const struct map_restore *m)
{
	if (m->config->options->policy != ROUSE_POLICY_AUTO)
		return m->config->options->policy;
	return set_count(m) > 0 ? ROUSE_POLICY_WS : ROUSE_POLICY_LAZY;
}

static int list_set(struct map_restore *m, struct rouse_error *error)
{
	const struct rouse_image_wset *own = rouse_reader_wset(m->config->reader);
	const struct rouse_wset *given = m->config->wset;
	const uint64_t count = set_count(m);

	if (m->policy != ROUSE_POLICY_WS)
		return 0;
	if (count == 0)
		return rouse_error_set(error, ROUSE_ERROR_USAGE, -ENODATA,
			"there is no working set: give one (--working-set), or use policy lazy");
	m->set = malloc(count * sizeof(*m->set));
	if (m->set == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot prepare the restore");
	for (uint64_t i = 0; i < count; i++)
		m->set[i] = given != NULL ? given->pages[i].page : (uint32_t)own->pages[i].page;
	m->set_pages = count;
	return 0;
}

static int begin_to_warm(struct map_restore *m, struct rouse_error *error)
{
	const struct map_warm_config config = {
		.file = &m->file,
		.pages = m->set,
		.page_count = m->set_pages,
		.all = m->policy == ROUSE_POLICY_EAGER || !m->file.unchanged,
		.observer = m->config->observer,
	};

	if (!m->file.unchanged)
		rouse_log(m->config->observer, ROUSE_LOG_WARNING,
			"%s was copied or changed since it was made: all of it is checked before "
			"the VM starts (a copy with `cp -p` is taken as it is)",
			m->path);
	return map_warm_begin(&config, &m->warm, error);
}

/* ---- What the mapping does not bring -------------------------------------------------------- */

/* Pages on their way to QEMU. */
struct sending {
	struct map_restore *m;
	struct rouse_sink_page pages[SEND_PAGES];
	size_t count;
	uint64_t total;
	uint8_t *buffer; /* SEND_PAGES */
	struct rouse_error *error;
};

static int send_now(struct sending *s)
{
	struct rouse_sink *sink = s->m->qemu.sink;
	int code = s->count > 0 ? sink->ops->prefetch(sink, s->pages, s->count) : 0;

	s->total += s->count;
	s->count = 0;
	if (code == -ECANCELED)
		return qemu_incoming_cancelled(s->error);
	if (code < 0)
		(void)restore_qemu_explain(&s->m->qemu, code, s->error);
	return code;
}

static int send_page(void *user, uint64_t index)
{
	struct sending *s = user;
	const struct rouse_flat_file *file = &s->m->file;
	uint8_t *data = s->buffer + s->count * ROUSE_IMAGE_PAGE_BYTES;
	uint64_t wrong;
	int code = rouse_flat_read(file, index, 1, data, &wrong);

	if (code == -EUCLEAN)
		return map_warm_damaged(file, wrong, s->error);
	if (code < 0)
		return rouse_error_errno(s->error, code, "cannot read the flat file");
	s->pages[s->count++] = (struct rouse_sink_page){
		.page = rouse_flat_page(&file->flat, index),
		.data = rouse_flat_is_zero(file, index) ? NULL : data,
	};
	return s->count == SEND_PAGES ? send_now(s) : 0;
}

/*
 * The small blocks, which QEMU has in memory of its own (ROMs, tables, video memory), and the pages
 * of the mapped block that QEMU has written to while it set up its machine: it has copies of its
 * own of them, which the VM must not see. Until the devices are loaded nothing else writes there.
 */
static int send_memory(struct map_restore *m, struct rouse_error *error)
{
	cleanup_free uint8_t *buffer = malloc((size_t)SEND_PAGES * ROUSE_IMAGE_PAGE_BYTES);
	struct rouse_error said = {0}, why = {0};
	struct sending sending = {.m = m, .buffer = buffer, .error = &said};
	int code = 0;

	if (buffer == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot send the VM's memory");
	for (uint64_t i = m->map.bytes / ROUSE_IMAGE_PAGE_BYTES;
		code == 0 && i < m->file.flat.page_count; i++)
		code = send_page(&sending, i);
	if (code == 0)
		code = qemu_map_private_pages(
			m->qemu.process.pid, &m->map, send_page, &sending, &why);
	if (code == 0)
		code = send_now(&sending);
	if (code == 0)
		rouse_log(m->config->observer, ROUSE_LOG_DEBUG,
			"%" PRIu64 " pages were sent, of them %" PRIu64 " of the mapped block",
			sending.total,
			sending.total - (m->file.flat.page_count - m->file.flat.main_pages));
	/* What send_page() said is more than what the walk says of it. */
	if (code < 0 && error != NULL)
		*error = said.code < 0 ? said : why;
	return code;
}

/* ---- The restore ---------------------------------------------------------------------------- */

static int start_guest(struct map_restore *m, struct rouse_error *error)
{
	const struct restore_map_config *config = m->config;
	struct rouse_error why = {0};
	struct rouse_sink *sink;
	int code = restore_qemu_open_map(&m->qemu, config->options, &m->map, config->metadata,
		config->reader, config->observer, error);

	if (code < 0)
		return code;
	rouse_event(config->observer, ROUSE_EVENT_QEMU_STARTED, m->qemu.monitor);
	code = map_warm_wait(m->warm, error);
	if (code == 0)
		code = send_memory(m, error);
	if (code < 0)
		return code;
	/* As close to the start as can be: while the devices are loaded no vCPU runs. */
	if (vcpu_stalls_begin(m->qemu.qmp, m->qemu.process.pid, &m->stalls) < 0)
		rouse_log(config->observer, ROUSE_LOG_INFO,
			"nobody sees when the vCPUs wait: TTR counts the start alone");
	if (vcpu_wait_open(m->qemu.qmp, m->qemu.process.pid, &m->wait) == 0)
		m->processors = vcpu_wait_read(m->wait, &m->wait_from_ns);
	sink = m->qemu.sink;
	code = sink->ops->start(sink, &m->started_ns, &why);
	if (code < 0) {
		code = why.kind == ROUSE_ERROR_VMM ? restore_qemu_explain(&m->qemu, code, &why)
						   : code;
		if (error != NULL)
			*error = why;
		return code;
	}
	rouse_event(config->observer, ROUSE_EVENT_RUNNING,
		restore_qemu_shall_run(config->options, config->metadata) ? NULL : "paused");
	return 0;
}

static uint64_t choose_background(const struct map_restore *m)
{
	const uint64_t background = m->config->options->background;

	return background == ROUSE_BACKGROUND_AUTO && m->policy == ROUSE_POLICY_LAZY
		       ? ROUSE_BACKGROUND_MAX
		       : background;
}

/* Of a page that the VM may have touched already: it must not go on with it. */
static void stop_for_damage(struct map_restore *m, struct rouse_error *error)
{
	struct rouse_sink *sink = m->qemu.sink;
	const char *then;

	/* Not even a user who interrupts wants it to go on. */
	qmp_ignore_cancel(m->qemu.qmp);
	then = sink->ops->stop_guest(sink, NULL) == 0
		       ? "the VM, which may have seen it, was stopped"
		       : "the VM, which may have seen it, could not be stopped: end it";
	(void)rouse_error_prefix(error, "%s", then);
}

static int warm_rest(struct map_restore *m, struct rouse_error *error)
{
	const uint64_t background = choose_background(m);
	struct rouse_error why = {0};
	int code = 0;

	if (background > 0)
		code = map_warm_rest(m->warm, background, m->wait, &why);
	if (code == -EUCLEAN)
		stop_for_damage(m, &why);
	if (code == -ECANCELED)
		code = rouse_error_set(&why, ROUSE_ERROR_CANCELLED, -ECANCELED,
			"warming was cancelled; the VM has all its memory and runs on");
	if (code < 0 && error != NULL)
		*error = why;
	if (code == 0) {
		m->complete_ns = rouse_clock_ns();
		rouse_event(m->config->observer, ROUSE_EVENT_COMPLETE, NULL);
	}
	return code;
}

static void report_wait(struct map_restore *m, struct rouse_restore_report *report)
{
	uint64_t wait_ns = 0;

	if (m->processors > 0 && vcpu_wait_read(m->wait, &wait_ns) == m->processors)
		report->vcpu_wait_us = (int64_t)((wait_ns - m->wait_from_ns) / 1000);
}

static int make_report(
	struct map_restore *m, struct rouse_restore_report *report, struct rouse_error *error)
{
	const struct restore_report_map times = {
		.requested_ns = m->config->requested_ns,
		.started_ns = m->started_ns,
		.complete_ns = m->complete_ns,
		.vcpus = m->qemu.vcpus,
	};
	struct map_warm_stats stats;

	report_wait(m, report);
	if (m->stalls != NULL)
		vcpu_stalls_end(m->stalls);
	map_warm_get_stats(m->warm, &stats);
	report->policy = m->policy;
	if (m->config->options->policy == ROUSE_POLICY_AUTO)
		(void)snprintf(report->policy_reason, sizeof(report->policy_reason), "%s",
			m->policy == ROUSE_POLICY_WS ? "there is a working set to warm"
						     : "there is no working set to warm");
	report->backend = ROUSE_BACKEND_MAP;
	report->prefetched_pages = stats.first_pages;
	report->prefetched_bytes = stats.first_pages * ROUSE_IMAGE_PAGE_BYTES;
	report->background_pages = stats.rest_pages;
	if (stats.rest_ns > 0)
		report->background_rate = (double)stats.rest_pages * ROUSE_IMAGE_PAGE_BYTES * 1e9 /
					  (double)stats.rest_ns;
	report->read_bytes = stats.bytes;
	report->reads = stats.reads;
	report->io = ROUSE_IO_CACHED;
	report->image_bytes = m->file.flat.file_bytes;
	report->ram_bytes = m->file.flat.page_count * ROUSE_IMAGE_PAGE_BYTES;
	report->qemu_pid = (int)m->qemu.process.pid;
	memcpy(report->monitor, m->qemu.monitor, sizeof(report->monitor));
	return restore_report_fill_map(report, &times, m->stalls, m->config->options, error);
}

static int run(
	struct map_restore *m, struct rouse_restore_report *report, struct rouse_error *error)
{
	int code, reported;

	code = open_file(m, error);
	if (code < 0)
		return code;
	m->policy = choose_policy(m);
	code = list_set(m, error);
	if (code == 0)
		code = begin_to_warm(m, error);
	if (code == 0)
		code = start_guest(m, error);
	if (code < 0)
		return code;
	code = warm_rest(m, error);
	reported = make_report(m, report, code == 0 ? error : NULL);
	return code < 0 ? code : reported;
}

int restore_map(const struct restore_map_config *config, struct rouse_restore_report *report,
	struct rouse_error *error)
{
	struct map_restore m = {.config = config, .file = {.fd = -1}, .qemu = RESTORE_QEMU_INIT};
	int code = run(&m, report, error);

	map_warm_free(m.warm);
	vcpu_stalls_free(m.stalls);
	vcpu_wait_close(m.wait);
	restore_qemu_finish(&m.qemu, m.started_ns != 0);
	rouse_flat_close(&m.file);
	free(m.path);
	free(m.set);
	return code;
}
