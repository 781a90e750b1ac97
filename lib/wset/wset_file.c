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
#define MAX_FILE_BYTES                                                                    \
	(sizeof(struct rouse_disk_wset_header) + sizeof(struct rouse_disk_wset_learned) + \
		ROUSE_WSET_MAX_BLOCKS * 264u +                                            \
		(size_t)ROUSE_WSET_MAX_PAGES * sizeof(struct rouse_disk_wset_record))

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

/* ---- Writing ------------------------------------------------------------------------------- */

static size_t body_bytes(const struct rouse_wset *wset)
{
	size_t bytes = wset->runs == 0
			       ? (size_t)wset->page_count * sizeof(struct rouse_disk_wset_page)
			       : sizeof(struct rouse_disk_wset_learned) +
					 ((size_t)wset->page_count + wset->waiting_count) *
						 sizeof(struct rouse_disk_wset_record);

	for (uint32_t i = 0; i < wset->block_count; i++)
		bytes += sizeof(le64_t) + 1 + strlen(wset->blocks[i].name);
	return bytes;
}

static unsigned char *put(unsigned char *at, const void *bytes, size_t size)
{
	memcpy(at, bytes, size);
	return at + size;
}

static unsigned char *put_learned(const struct rouse_wset *wset, unsigned char *at)
{
	const struct rouse_disk_wset_learned learned = {
		.runs = le32_make(wset->runs),
		.waiting_count = le32_make(wset->waiting_count),
		.prefetched = le32_make(wset->look.prefetched),
		.sampled = le32_make(wset->look.sampled),
		.used = le32_make(wset->look.used),
		.missed = le32_make(wset->look.missed),
	};

	return put(at, &learned, sizeof(learned));
}

static unsigned char *put_blocks(const struct rouse_wset *wset, unsigned char *at)
{
	for (uint32_t i = 0; i < wset->block_count; i++) {
		const struct rouse_wset_block *block = &wset->blocks[i];
		size_t name_bytes = strlen(block->name);
		le64_t used_bytes = le64_make(block->used_bytes);

		at = put(at, &used_bytes, sizeof(used_bytes));
		*at++ = (unsigned char)name_bytes;
		at = put(at, block->name, name_bytes);
	}
	return at;
}

static unsigned char *put_pages(
	const struct rouse_wset_page *pages, uint32_t count, bool learned, unsigned char *at)
{
	for (uint32_t i = 0; i < count; i++) {
		const struct rouse_wset_page *page = &pages[i];
		const struct rouse_disk_wset_record disk = {
			.page = {.page = le32_make(page->page),
				.time_us = le32_make(page->time_us),
				.vcpu = le16_make(page->vcpu),
				.flags = le16_make(page->flags)},
			.last = le32_make(page->last),
			.count = le16_make(page->count),
			.looks = le16_make(page->looks),
			.weight = le16_make(page->weight),
		};

		at = put(at, &disk, learned ? sizeof(disk) : sizeof(disk.page));
	}
	return at;
}

static void put_body(const struct rouse_wset *wset, unsigned char *at)
{
	const bool learned = wset->runs > 0;

	if (learned)
		at = put_learned(wset, at);
	at = put_blocks(wset, at);
	at = put_pages(wset->pages, wset->page_count, learned, at);
	if (learned)
		(void)put_pages(wset->waiting, wset->waiting_count, learned, at);
}

int rouse_wset_encode(
	const struct rouse_wset *wset, char **bytes, size_t *size, struct rouse_error *error)
{
	struct rouse_disk_wset_header header = {.magic = ROUSE_WSET_MAGIC,
		.version = le32_make(wset->runs > 0 ? 2 : 1),
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

/* A renaming lasts when its directory is on the disk. */
static int sync_directory(const char *path)
{
	cleanup_free char *copy = strdup(path);
	cleanup_close int fd = -1;

	if (copy == NULL)
		return -ENOMEM;
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	/* One that may be written and not read, or that knows no fsync: the file is there. */
	if (fd < 0)
		return errno == EACCES ? 0 : -errno;
	return fsync(fd) < 0 && errno != EINVAL ? -errno : 0;
}

static int replace(const char *path, const char *temporary, const char *bytes, size_t size)
{
	/* With the mode that the umask allows. */
	cleanup_close int fd =
		open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
	int code;

	if (fd < 0)
		return -errno;
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

int rouse_wset_check_place(const char *path, struct rouse_error *error)
{
	char magic[sizeof(ROUSE_WSET_MAGIC) - 1];
	cleanup_close int fd = -1;
	struct stat status;
	ssize_t n;

	if (stat(path, &status) < 0)
		return 0;
	/* Renaming over a device such as /dev/null would put a file in its place. */
	if (!S_ISREG(status.st_mode))
		return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
			"cannot write a working set to %s: not a regular file", path);
	if (rouse_io_is_open_file(path))
		return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
			"%s stands for an open file, as standard output is: name the file itself",
			path);
	if (status.st_size == 0)
		return 0;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -errno : rouse_io_read(fd, magic, sizeof(magic));
	if (n < 0)
		return rouse_error_errno(error, (int)n, "cannot read %s", path);
	if (n == (ssize_t)sizeof(magic) && memcmp(magic, ROUSE_WSET_MAGIC, sizeof(magic)) == 0)
		return 0;
	return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
		"%s is not a working set, and is not replaced by one: name another "
		"file, or remove it first",
		path);
}

int rouse_wset_write_by(const struct rouse_wset *wset, const char *path, const char *temporary,
	struct rouse_error *error)
{
	cleanup_free char *bytes = NULL;
	size_t size = 0;
	int code = rouse_wset_check_place(path, error);

	if (code == 0)
		code = rouse_wset_encode(wset, &bytes, &size, error);
	if (code < 0)
		return code;
	code = replace(path, temporary, bytes, size);
	if (code == -EEXIST)
		return code;
	if (code < 0)
		return rouse_error_errno(error, code, "cannot write %s", path);
	return 0;
}

int rouse_wset_write(const struct rouse_wset *wset, const char *path, struct rouse_error *error)
{
	cleanup_free char *real = NULL;
	char temporary[PATH_MAX];
	int code = rouse_wset_check_place(path, error);

	if (code < 0)
		return code;
	/* A link stays one. */
	real = rouse_io_follow_links(path);
	if (real == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot write %s", path);
	path = real;
	code = -EEXIST;
	/* A name beside it that nobody else has. */
	for (unsigned int i = 0; code == -EEXIST && i < 100; i++) {
		if (snprintf(temporary, sizeof(temporary), "%s.%ld-%u.tmp", path, (long)getpid(),
			    i) >= PATH_MAX)
			return rouse_error_errno(error, -ENAMETOOLONG, "cannot write %s", path);
		code = rouse_wset_write_by(wset, path, temporary, error);
	}
	if (code == -EEXIST)
		return rouse_error_errno(error, code, "cannot write %s", path);
	return code;
}
