/* SPDX-License-Identifier: MIT */
/* Flat files on disk: writing one, and reading one with every page checked. */
#include "image/flat.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/io.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <xxhash.h>

#define PAGE ROUSE_IMAGE_PAGE_BYTES

int rouse_flat_writer_begin(int fd, const struct rouse_flat *flat, struct rouse_flat_writer *writer)
{
	*writer = (struct rouse_flat_writer){.fd = fd, .flat = *flat};
	rouse_flat_lay_out(&writer->flat);
	writer->flat.zero_pages = flat->page_count;
	writer->table = calloc(flat->page_count, sizeof(*writer->table));
	if (writer->table == NULL)
		return -ENOMEM;
	return ftruncate(fd, (off_t)writer->flat.file_bytes) < 0 ? -errno : 0;
}

int rouse_flat_writer_page(struct rouse_flat_writer *writer, uint64_t page, const void *data)
{
	uint64_t index;

	if (page >= writer->flat.page_count)
		return -ERANGE;
	index = rouse_flat_index(&writer->flat, page);
	writer->table[index] = le64_make(rouse_flat_checksum(data));
	writer->flat.zero_pages--;
	return rouse_io_pwrite(writer->fd, data, PAGE, index * PAGE);
}

int rouse_flat_writer_end(struct rouse_flat_writer *writer)
{
	struct rouse_flat *flat = &writer->flat;
	const size_t table_bytes = flat->page_count * sizeof(*writer->table);
	struct rouse_disk_flat disk;
	struct timespec times[2];
	int code;

	/* Even seconds: that is what the coarsest file systems can keep. */
	flat->written_s = (uint64_t)time(NULL) & ~UINT64_C(1);
	flat->table_checksum = XXH3_64bits(writer->table, table_bytes);
	rouse_flat_encode(flat, &disk);
	code = rouse_io_pwrite(writer->fd, writer->table, table_bytes, flat->table_offset);
	if (code == 0)
		code = rouse_io_pwrite(
			writer->fd, &disk, sizeof(disk), flat->file_bytes - sizeof(disk));
	if (code < 0)
		return code;
	times[0] = times[1] = (struct timespec){.tv_sec = (time_t)flat->written_s};
	return futimens(writer->fd, times) < 0 ? -errno : 0;
}

void rouse_flat_writer_finish(struct rouse_flat_writer *writer)
{
	free(writer->table);
	writer->table = NULL;
}

static int read_footer(struct rouse_flat_file *file, uint64_t size, struct rouse_error *error)
{
	struct rouse_disk_flat disk = {0};

	if (size >= sizeof(disk)) {
		int code = rouse_io_pread(file->fd, &disk, sizeof(disk), size - sizeof(disk));

		if (code < 0)
			return rouse_error_errno(error, code, "cannot read the flat file");
	}
	return rouse_flat_parse(&disk, sizeof(disk), size, &file->flat, error);
}

int rouse_flat_open(const char *path, struct rouse_flat_file *file, struct rouse_error *error)
{
	struct stat status;
	int code;

	/* Not waiting for the other end of a pipe that somebody gave for a file. */
	*file = (struct rouse_flat_file){.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
	if (file->fd < 0 || fstat(file->fd, &status) < 0)
		return rouse_error_errno(error, -errno, "cannot open %s", path);
	if (!S_ISREG(status.st_mode))
		return rouse_error_set(
			error, ROUSE_ERROR_USAGE, -EINVAL, "%s is not a regular file", path);
	code = read_footer(file, (uint64_t)status.st_size, error);
	if (code < 0) {
		(void)rouse_error_prefix(error, "%s", path);
		return code;
	}
	file->device = status.st_dev;
	file->inode = status.st_ino;
	file->unchanged = status.st_mtim.tv_nsec == 0 &&
			  (uint64_t)status.st_mtim.tv_sec == file->flat.written_s;
	return 0;
}

int rouse_flat_load_table(struct rouse_flat_file *file, struct rouse_error *error)
{
	const size_t bytes = file->flat.page_count * sizeof(*file->table);
	int code;

	file->table = malloc(bytes);
	if (file->table == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot read the flat file's table");
	code = rouse_io_pread(file->fd, file->table, bytes, file->flat.table_offset);
	if (code < 0)
		return rouse_error_errno(error, code, "cannot read the flat file's table");
	if (XXH3_64bits(file->table, bytes) != file->flat.table_checksum)
		return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
			"the flat file's table is damaged: make it anew with rouse convert --flat");
	return 0;
}

static bool is_zero(const uint8_t *page)
{
	return page[0] == 0 && memcmp(page, page + 1, PAGE - 1) == 0;
}

int rouse_flat_read(const struct rouse_flat_file *file, uint64_t index, uint32_t count,
	void *buffer, uint64_t *wrong)
{
	int code = rouse_io_pread(file->fd, buffer, (size_t)count * PAGE, index * PAGE);

	if (code < 0)
		return code;
	for (uint32_t i = 0; i < count; i++) {
		const uint8_t *page = (const uint8_t *)buffer + (size_t)i * PAGE;
		const bool right =
			rouse_flat_is_zero(file, index + i)
				? is_zero(page)
				: rouse_flat_checksum(page) == le64_get(file->table[index + i]);

		if (!right) {
			*wrong = index + i;
			return -EUCLEAN;
		}
	}
	return 0;
}

void rouse_flat_close(struct rouse_flat_file *file)
{
	cleanup_close_fn(&file->fd);
	file->fd = -1;
	free(file->table);
	file->table = NULL;
}
