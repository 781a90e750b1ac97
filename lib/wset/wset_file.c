/* SPDX-License-Identifier: MIT */
/* Working-set files: opening, asking and writing. */
#include "wset/wset.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/io.h"

#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

/* The largest file that rouse_wset_parse() accepts. */
#define MAX_FILE_BYTES                                                          \
	(sizeof(struct rouse_disk_wset_header) + ROUSE_WSET_MAX_BLOCKS * 264u + \
		(size_t)ROUSE_WSET_MAX_PAGES * sizeof(struct rouse_disk_wset_page))

int rouse_wset_open(const char *path, struct rouse_wset **wset, struct rouse_error *error)
{
	cleanup_free char *bytes = NULL;
	size_t size = 0;
	int code = rouse_io_read_file(path, MAX_FILE_BYTES, &bytes, &size);

	if (code < 0)
		return rouse_error_errno(error, code, "cannot read %s", path);
	code = rouse_wset_parse(bytes, size, wset, error);
	if (code < 0)
		(void)rouse_error_prefix(error, "%s", path);
	return code;
}

void rouse_wset_get_info(const struct rouse_wset *wset, struct rouse_wset_info *info)
{
	*info = (struct rouse_wset_info){.pages = wset->page_count,
		.block_count = wset->block_count,
		.complete = (wset->flags & ROUSE_WSET_FLAG_COMPLETE) != 0};
	for (uint32_t i = 0; i < wset->block_count; i++)
		info->ram_bytes += wset->blocks[i].used_bytes;
	for (uint32_t i = 0; i < wset->page_count; i++) {
		if (wset->pages[i].time_us > info->span_us)
			info->span_us = wset->pages[i].time_us;
	}
}

int rouse_wset_get_page(
	const struct rouse_wset *wset, uint64_t index, uint64_t *page, uint64_t *time_us)
{
	if (index >= wset->page_count)
		return -ERANGE;
	*page = wset->pages[index].page;
	*time_us = wset->pages[index].time_us;
	return 0;
}

/* ---- Writing ------------------------------------------------------------------------------- */

static size_t body_bytes(const struct rouse_wset *wset)
{
	size_t bytes = (size_t)wset->page_count * sizeof(struct rouse_disk_wset_page);

	for (uint32_t i = 0; i < wset->block_count; i++)
		bytes += sizeof(le64_t) + 1 + strlen(wset->blocks[i].name);
	return bytes;
}

static void put_body(const struct rouse_wset *wset, unsigned char *at)
{
	for (uint32_t i = 0; i < wset->block_count; i++) {
		const struct rouse_wset_block *block = &wset->blocks[i];
		size_t name_bytes = strlen(block->name);
		le64_t used_bytes = le64_make(block->used_bytes);

		memcpy(at, &used_bytes, sizeof(used_bytes));
		at += sizeof(used_bytes);
		*at++ = (unsigned char)name_bytes;
		memcpy(at, block->name, name_bytes);
		at += name_bytes;
	}
	for (uint32_t i = 0; i < wset->page_count; i++) {
		const struct rouse_wset_page *page = &wset->pages[i];
		struct rouse_disk_wset_page disk = {.page = le32_make(page->page),
			.time_us = le32_make(page->time_us),
			.vcpu = le16_make(page->vcpu),
			.flags = le16_make(page->flags)};

		memcpy(at, &disk, sizeof(disk));
		at += sizeof(disk);
	}
}

int rouse_wset_encode(
	const struct rouse_wset *wset, char **bytes, size_t *size, struct rouse_error *error)
{
	struct rouse_disk_wset_header header = {.magic = ROUSE_WSET_MAGIC,
		.version = le32_make(ROUSE_WSET_VERSION),
		.flags = le32_make(wset->flags),
		.block_count = le32_make(wset->block_count),
		.page_count = le32_make(wset->page_count),
		.body_bytes = le64_make(body_bytes(wset))};
	char *file;

	*size = sizeof(header) + body_bytes(wset);
	file = malloc(*size);
	if (file == NULL)
		return rouse_error_errno(error, -ENOMEM, "working set");
	put_body(wset, (unsigned char *)file + sizeof(header));
	header.checksum =
		le64_make(rouse_wset_checksum(&header, file + sizeof(header), body_bytes(wset)));
	memcpy(file, &header, sizeof(header));
	*bytes = file;
	return 0;
}

/* A file beside @path that nobody else has, with the mode that the umask allows. */
static int create_beside(const char *path, char temporary[PATH_MAX])
{
	for (unsigned int i = 0; i < 100; i++) {
		int length =
			snprintf(temporary, PATH_MAX, "%s.%ld-%u.tmp", path, (long)getpid(), i);
		int fd;

		if (length >= PATH_MAX)
			return -ENAMETOOLONG;
		fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
		if (fd >= 0)
			return fd;
		if (errno != EEXIST)
			return -errno;
	}
	return -EEXIST;
}

/* A renaming lasts when its directory is on the disk. */
static int sync_directory(const char *path)
{
	cleanup_free char *copy = strdup(path);
	cleanup_close int fd = -1;

	if (copy == NULL)
		return -ENOMEM;
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		return -errno;
	return 0;
}

static int replace(const char *path, const char *bytes, size_t size)
{
	char temporary[PATH_MAX];
	cleanup_close int fd = create_beside(path, temporary);
	int code;

	if (fd < 0)
		return fd;
	code = rouse_io_write(fd, bytes, size);
	if (code == 0 && fsync(fd) < 0)
		code = -errno;
	if (code == 0 && rename(temporary, path) < 0)
		code = -errno;
	if (code < 0) {
		(void)unlink(temporary);
		return code;
	}
	return sync_directory(path);
}

int rouse_wset_write(const struct rouse_wset *wset, const char *path, struct rouse_error *error)
{
	cleanup_free char *bytes = NULL;
	size_t size = 0;
	struct stat status;
	int code;

	/* Renaming over a device such as /dev/null would put a file in its place. */
	if (stat(path, &status) == 0 && !S_ISREG(status.st_mode))
		return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
			"cannot write a working set to %s: not a regular file", path);
	code = rouse_wset_encode(wset, &bytes, &size, error);
	if (code < 0)
		return code;
	code = replace(path, bytes, size);
	if (code < 0)
		return rouse_error_errno(error, code, "cannot write %s", path);
	return 0;
}
