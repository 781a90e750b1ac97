/* SPDX-License-Identifier: MIT */
#include "api/save_disks.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"

#include <limits.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#define MERGE_TIMEOUT_MS 60000

static char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text != NULL && text[0] != '\0' ? strdup(text) : NULL;
}

/*
 * The disk's file as QEMU sees it. -ENODATA: it has no name that could be looked up, or QEMU's root
 * cannot be seen; -ENOENT: the file has no name any more.
 */
static int disk_stat(const struct rouse_metadata_disk *disk, int pid, struct stat *status)
{
	cleanup_free char *file = rouse_metadata_disk_file(disk);
	char path[PATH_MAX];
	int size;

	if (pid <= 0 || file == NULL)
		return -ENODATA;
	size = snprintf(path, sizeof(path), "/proc/%d/%s", pid, file[0] == '/' ? "root" : "cwd");
	if (access(path, F_OK) < 0 || (size_t)size + 1 + strlen(file) >= sizeof(path))
		return -ENODATA;
	(void)snprintf(path + size, sizeof(path) - (size_t)size, "/%s", file);
	return stat(path, status) < 0 ? -errno : 0;
}

/*
 * snapshot=on and -snapshot put a file without a name over what can only be read, too. Nothing is
 * in it, or will be: the medium is the one below.
 */
static void take_what_is_below(const json_t *inserted, struct rouse_metadata_disk *disk)
{
	char *below = text_of(inserted, "backing_file");

	if (below == NULL)
		return;
	free(disk->file);
	free(disk->format);
	disk->file = below;
	disk->format = NULL;
}

/* Adds an entry of query-block, unless its drive is empty. */
static void disk_add(const json_t *entry, int pid, struct rouse_metadata *metadata)
{
	const json_t *inserted = json_object_get(entry, "inserted");
	const json_t *image = json_object_get(inserted, "image");
	const json_t *read_only = json_object_get(inserted, "ro");
	struct rouse_metadata_disk *disk;
	struct stat status;

	if (!json_is_boolean(read_only))
		return;
	disk = json_is_true(read_only) ? &metadata->media[metadata->medium_count]
				       : &metadata->disks[metadata->disk_count];
	disk->device = text_of(entry, "device");
	if (disk->device == NULL)
		disk->device = text_of(entry, "qdev");
	disk->node = text_of(inserted, "node-name");
	disk->file = text_of(image, "filename");
	if (disk->file == NULL)
		disk->file = text_of(inserted, "file");
	disk->format = text_of(inserted, "drv");
	if (json_is_false(read_only)) {
		metadata->disk_count++;
		return;
	}
	metadata->medium_count++;
	if (disk_stat(disk, pid, &status) == -ENOENT)
		take_what_is_below(inserted, disk);
}

int save_disks_query(struct qmp *qmp, struct rouse_metadata *metadata, struct rouse_error *error)
{
	json_t *list;
	const json_t *entry;
	size_t index, count;
	int code = qmp_execute(qmp, "query-block", NULL, &list, error);

	if (code < 0)
		return code;
	count = json_array_size(list);
	if (count > ROUSE_METADATA_MAX_DISKS)
		code = rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, -ENOTSUP,
			"the VM has %zu disks: too many", count);
	if (code == 0 && count > 0) {
		metadata->disks = calloc(count, sizeof(*metadata->disks));
		metadata->media = calloc(count, sizeof(*metadata->media));
		if (metadata->disks == NULL || metadata->media == NULL)
			code = rouse_error_errno(error, -ENOMEM, "cannot list the disks");
	}
	if (code == 0) {
		json_array_foreach(list, index, entry) disk_add(entry, qmp_peer_pid(qmp), metadata);
	}
	json_decref(list);
	return code;
}

static const char *disk_name(const struct rouse_metadata_disk *disk)
{
	if (disk->device != NULL)
		return disk->device;
	return disk->node != NULL ? disk->node : "?";
}

int save_disks_refuse(const struct rouse_metadata *metadata, struct rouse_error *error)
{
	char list[256] = "";

	for (size_t i = 0; i < metadata->disk_count; i++) {
		const struct rouse_metadata_disk *disk = &metadata->disks[i];
		size_t used = strlen(list);

		(void)snprintf(list + used, sizeof(list) - used, "%s%s (%s)", i > 0 ? ", " : "",
			disk_name(disk), disk->file != NULL ? disk->file : "?");
	}
	if (metadata->disk_count == 0)
		return 0;
	return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EBUSY,
		"the VM goes on and would write to disks that belong to the image: %s; choose "
		"--disks=snapshot (an overlay for each) or --disks=ignore",
		list);
}

int save_disks_check(const struct rouse_metadata *metadata, int pid, struct rouse_error *error)
{
	for (size_t i = 0; i < metadata->disk_count; i++) {
		const struct rouse_metadata_disk *disk = &metadata->disks[i];
		struct stat status;

		if (disk_stat(disk, pid, &status) != -ENOENT)
			continue;
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -ENOTSUP,
			"the disk %s (%s) has no name any more (snapshot=on or -snapshot) and ends "
			"with QEMU: the image would have memory without its disk; choose "
			"--disks=ignore if that does not matter",
			disk_name(disk), disk->file);
	}
	return 0;
}

/* Whether a file next to the disk's lies where it stays: next to a device's it would be in /dev. */
static bool may_have_neighbour(const struct rouse_metadata_disk *disk, int pid)
{
	struct stat status;
	int code = disk_stat(disk, pid, &status);

	if (code == 0)
		return S_ISREG(status.st_mode);
	return disk->file == NULL || strncmp(disk->file, "/dev/", 5) != 0;
}

/* The file that holds a disk, with QEMU's working directory before a relative name. */
static int overlay_name(const struct rouse_metadata_disk *disk, const char *cwd, uint32_t id,
	char **name, struct rouse_error *error)
{
	const char *file = disk->file != NULL ? disk->file : "";
	int size = -1;

	if (strncmp(file, "file:", 5) == 0)
		file += 5;
	if (file[0] == '/')
		size = asprintf(name, "%s.rouse-%08x.qcow2", file, id);
	else if (file[0] != '\0' && strpbrk(file, "/:{") == NULL && cwd != NULL)
		size = asprintf(name, "%s/%s.rouse-%08x.qcow2", cwd, file, id);
	else
		/* An overlay notes its disk's name relative to itself: dir/disk would not be found.
		 */
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -ENOTSUP,
			"no overlay can be put next to the disk %s (%s): start QEMU with an "
			"absolute file name, or choose --disks=ignore",
			disk_name(disk), file);
	if (size < 0) {
		*name = NULL;
		return rouse_error_errno(error, -ENOMEM, "cannot name an overlay");
	}
	return 0;
}

int save_disks_plan(struct rouse_metadata *metadata, int pid, struct rouse_error *error)
{
	uint32_t id;

	if (getrandom(&id, sizeof(id), 0) != sizeof(id))
		return rouse_error_errno(error, -errno, "cannot name the overlays");
	for (size_t i = 0; i < metadata->disk_count; i++) {
		struct rouse_metadata_disk *disk = &metadata->disks[i];
		int code;

		if (!may_have_neighbour(disk, pid))
			return rouse_error_set(error, ROUSE_ERROR_REFUSED, -ENOTSUP,
				"no overlay can be put next to the disk %s (%s): it is no regular "
				"file; snapshot it by other means and choose --disks=ignore",
				disk_name(disk), disk->file);
		/* The same file may be the disk of two devices: no two overlays of one name. */
		code = overlay_name(disk, metadata->cwd, id + (uint32_t)i, &disk->overlay, error);
		if (code < 0)
			return code;
	}
	return 0;
}

/* The name of the node that the VM uses once the overlay is there; and of the job that undoes it.
 */
static void overlay_node(const struct rouse_metadata_disk *disk, char *name, size_t room)
{
	const char *mark = strstr(disk->overlay, ".rouse-");
	const char *last = mark;

	while (mark != NULL) {
		last = mark;
		mark = strstr(mark + 1, ".rouse-");
	}
	(void)snprintf(name, room, "rouse-%.8s", last != NULL ? last + 7 : "overlay");
}

static json_t *snapshot_action(const struct rouse_metadata_disk *disk)
{
	char node[32];

	overlay_node(disk, node, sizeof(node));
	return json_pack("{s:s, s:{s:s?, s:s, s:s, s:s, s:s}}", "type", "blockdev-snapshot-sync",
		"data", "node-name", disk->node, "snapshot-node-name", node, "snapshot-file",
		disk->overlay, "format", "qcow2", "mode", "absolute-paths");
}

int save_disks_snapshot(
	struct qmp *qmp, const struct rouse_metadata *metadata, struct rouse_error *error)
{
	json_t *actions = json_array();
	int code;

	for (size_t i = 0; i < metadata->disk_count; i++)
		(void)json_array_append_new(actions, snapshot_action(&metadata->disks[i]));
	code = qmp_execute(qmp, "transaction", json_pack("{s:o}", "actions", actions), NULL, error);
	if (qmp_unknown(code)) /* the VM may write to them: save_disks_undo() looks */
		return rouse_error_prefix(error, "no overlay for the disks");
	if (code < 0) {
		/* QEMU made none of them take effect, but leaves files that it created. */
		for (size_t i = 0; i < metadata->disk_count; i++)
			(void)unlink(metadata->disks[i].overlay);
		return rouse_error_prefix(error, "no overlay for the disks");
	}
	return 0;
}

/* Waits for an event of the job; BLOCK_JOB_COMPLETED with an error counts as a failure. */
static int job_wait(struct qmp *qmp, const char *job, const char *wanted)
{
	uint64_t deadline_us = rouse_clock_us() + (uint64_t)MERGE_TIMEOUT_MS * 1000;

	while (rouse_clock_us() < deadline_us) {
		const char *name, *device;
		const json_t *data;
		json_t *event;
		bool ours, failed;
		int code = qmp_next_event(qmp, 1000, &event, NULL, NULL);

		if (code < 0)
			return code;
		if (event == NULL)
			continue;
		name = json_string_value(json_object_get(event, "event"));
		data = json_object_get(event, "data");
		device = json_string_value(json_object_get(data, "device"));
		ours = device != NULL && strcmp(device, job) == 0;
		failed = ours && (json_object_get(data, "error") != NULL ||
					 strcmp(name, "BLOCK_JOB_CANCELLED") == 0);
		ours = ours && strcmp(name, wanted) == 0;
		json_decref(event);
		if (failed)
			return -EIO;
		if (ours)
			return 0;
	}
	return -ETIMEDOUT;
}

/* Whether QEMU has it, as far as can be known. */
static bool overlay_in_use(struct qmp *qmp, const struct rouse_metadata_disk *disk)
{
	char node[32];
	json_t *nodes;
	const json_t *each;
	size_t index;
	bool found = false;

	overlay_node(disk, node, sizeof(node));
	if (qmp_execute(qmp, "query-named-block-nodes", json_pack("{s:b}", "flat", true), &nodes,
		    NULL) < 0)
		return true;
	json_array_foreach(nodes, index, each)
	{
		const char *name = json_string_value(json_object_get(each, "node-name"));

		found = found || (name != NULL && strcmp(name, node) == 0);
	}
	json_decref(nodes);
	return found;
}

static int overlay_merge(struct qmp *qmp, const struct rouse_metadata_disk *disk)
{
	char node[32];
	int code;

	overlay_node(disk, node, sizeof(node));
	code = qmp_execute(qmp, "block-commit",
		json_pack("{s:s, s:s}", "job-id", node, "device", node), NULL, NULL);
	if (code == 0)
		code = job_wait(qmp, node, "BLOCK_JOB_READY");
	if (code == 0)
		code = qmp_execute(
			qmp, "block-job-complete", json_pack("{s:s}", "device", node), NULL, NULL);
	if (code == 0)
		code = job_wait(qmp, node, "BLOCK_JOB_COMPLETED");
	return code;
}

void save_disks_undo(struct qmp *qmp, const struct rouse_metadata *metadata,
	const struct rouse_observer *observer, struct rouse_error *error)
{
	for (size_t i = 0; i < metadata->disk_count; i++) {
		const struct rouse_metadata_disk *disk = &metadata->disks[i];
		size_t used;

		if (!overlay_in_use(qmp, disk) || overlay_merge(qmp, disk) == 0) {
			(void)unlink(disk->overlay);
			continue;
		}
		rouse_log(observer, ROUSE_LOG_WARNING,
			"the VM's disk %s stays in its overlay %s: do not remove it",
			disk_name(disk), disk->overlay);
		if (error == NULL)
			continue;
		used = strlen(error->message);
		(void)snprintf(error->message + used, sizeof(error->message) - used,
			"; the VM now writes to the overlay %s", disk->overlay);
	}
}
