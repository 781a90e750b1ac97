/* SPDX-License-Identifier: MIT */
/* rouse_convert(): a plain QEMU migration file into an image, and an image into such a file. */
#include "api/image_pages.h"
#include "api/stream_image.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/io.h"
#include "base/observer.h"
#include "image/temp_file.h"
#include "vmm/qemu_stream.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define READ_BYTES (1u << 20)
#define WRITE_BYTES (1u << 20)
/* RAM's section in a stream that we write: the devices' have small numbers. */
#define RAM_SECTION 0x726f7573u

/* ---- a stream into an image ---------------------------------------------------------------- */

static void free_stream_image(struct stream_image **image)
{
	stream_image_free(*image);
}

static void finish_metadata(struct rouse_metadata *metadata)
{
	rouse_metadata_finish(metadata);
}

/* Feeds the whole file. */
static int feed_file(int fd, uint64_t total, struct stream_image *image,
	const struct rouse_observer *observer, struct rouse_error *error)
{
	cleanup_free char *buffer = malloc(READ_BYTES);
	uint64_t done = 0;

	if (buffer == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot read the migration file");
	for (;;) {
		ssize_t n = rouse_io_read(fd, buffer, READ_BYTES);
		int code;

		if (n < 0)
			return rouse_error_errno(error, (int)n, "cannot read the migration file");
		if (n == 0)
			return stream_image_end(image, error);
		code = stream_image_feed(image, buffer, (size_t)n, error);
		if (code < 0)
			return code;
		done += (uint64_t)n;
		rouse_progress(observer, "converting", done, total);
		if (rouse_cancelled(observer))
			return rouse_error_set(error, ROUSE_ERROR_CANCELLED, -ECANCELED,
				"converting was cancelled");
	}
}

/* What the file tells of the VM: when it was saved. Its stream has the machine and the memory. */
static void describe_file(const struct stat *status, struct rouse_metadata *metadata)
{
	char text[32];
	struct tm utc;

	(void)gmtime_r(&status->st_mtim.tv_sec, &utc);
	(void)strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &utc);
	metadata->vmm = strdup("qemu");
	metadata->saved_at = strdup(text);
	metadata->was_running = true;
}

static void fill_report(const struct rouse_writer_stats *stats, struct rouse_write_report *report)
{
	report->image_bytes = stats->image_bytes;
	report->stored_bytes = stats->stored_bytes;
	report->pages = stats->pages;
	report->zero_pages = stats->zero_pages;
	report->duplicate_pages = stats->duplicate_pages;
	report->wset_pages = stats->wset_pages;
}

static int stream_to_image(int fd, const char *wset, const char *out,
	const struct rouse_layout *layout, struct rouse_write_report *report,
	const struct rouse_observer *observer, struct rouse_error *error)
{
	cleanup_with(free_stream_image) struct stream_image *image = NULL;
	cleanup_with(finish_metadata) struct rouse_metadata metadata = {0};
	struct rouse_writer_stats stats;
	struct stat status;
	int code;

	if (fstat(fd, &status) < 0)
		return rouse_error_errno(error, -errno, "cannot read the migration file");
	code = stream_image_new(out, layout, wset, NULL, &image, error);
	if (code == 0)
		code = feed_file(fd, (uint64_t)status.st_size, image, observer, error);
	if (code < 0)
		return code;
	describe_file(&status, &metadata);
	code = stream_image_commit(image, &metadata, &stats, error);
	if (code == 0)
		fill_report(&stats, report);
	return code;
}

/* ---- an image into a stream ---------------------------------------------------------------- */

struct stream_writer {
	FILE *file;
	const struct rouse_block *blocks;
	uint32_t block_count;
	uint32_t named; /* the block of the last page: the next one of it needs no name */
	uint64_t pages, zero_pages;
};

static int put(struct stream_writer *w, const void *bytes, size_t size)
{
	if (size > 0 && fwrite_unlocked(bytes, 1, size, w->file) != size)
		return errno != 0 ? -errno : -EIO;
	return 0;
}

static int put8(struct stream_writer *w, uint8_t value)
{
	return put(w, &value, 1);
}

static int put32(struct stream_writer *w, uint32_t value)
{
	uint8_t raw[4];

	be32_store(raw, value);
	return put(w, raw, sizeof(raw));
}

static int put64(struct stream_writer *w, uint64_t value)
{
	uint8_t raw[8];

	be64_store(raw, value);
	return put(w, raw, sizeof(raw));
}

static int put_name(struct stream_writer *w, const char *name)
{
	size_t length = strlen(name);
	int code = put8(w, (uint8_t)length);

	return code < 0 ? code : put(w, name, length);
}

static int put_section(struct stream_writer *w, uint8_t type)
{
	int code = put8(w, type);

	return code < 0 ? code : put32(w, RAM_SECTION);
}

/* The end of a RAM section: EOS and a footer. */
static int put_section_end(struct stream_writer *w)
{
	int code = put64(w, QEMU_RAM_EOS);

	if (code == 0)
		code = put8(w, QEMU_VM_SECTION_FOOTER);
	return code < 0 ? code : put32(w, RAM_SECTION);
}

static int put_ram_start(struct stream_writer *w)
{
	uint64_t sum = 0;
	int code = put_section(w, QEMU_VM_SECTION_START);

	for (uint32_t i = 0; i < w->block_count; i++)
		sum += w->blocks[i].used_bytes;
	if (code == 0)
		code = put_name(w, "ram");
	if (code == 0)
		code = put32(w, 0);
	if (code == 0)
		code = put32(w, QEMU_RAM_VERSION);
	if (code == 0)
		code = put64(w, sum | QEMU_RAM_MEM_SIZE);
	for (uint32_t i = 0; code == 0 && i < w->block_count; i++) {
		code = put_name(w, w->blocks[i].name);
		if (code == 0)
			code = put64(w, w->blocks[i].used_bytes);
	}
	return code < 0 ? code : put_section_end(w);
}

static uint32_t block_of(const struct stream_writer *w, uint64_t page)
{
	uint32_t i =
		w->named < w->block_count && page >= w->blocks[w->named].first_page ? w->named : 0;

	while (page >= w->blocks[i].first_page + w->blocks[i].used_bytes / QEMU_PAGE_BYTES)
		i++;
	return i;
}

static int put_page_header(struct stream_writer *w, uint64_t page, uint64_t kind)
{
	uint32_t i = block_of(w, page);
	uint64_t word = (page - w->blocks[i].first_page) * QEMU_PAGE_BYTES | kind;
	int code = put64(w, i == w->named ? word | QEMU_RAM_CONTINUE : word);

	if (code == 0 && i != w->named)
		code = put_name(w, w->blocks[i].name);
	w->named = i;
	return code;
}

static int put_page(void *user, uint64_t page, const void *data)
{
	struct stream_writer *w = user;
	int code = put_page_header(w, page, QEMU_RAM_PAGE);

	w->pages++;
	return code < 0 ? code : put(w, data, QEMU_PAGE_BYTES);
}

/* Zero pages must be told too: the memory that they are read into need not be zero. */
static int put_zero_pages(
	struct stream_writer *w, struct rouse_reader *reader, struct rouse_error *error)
{
	uint64_t total = rouse_reader_page_count(reader);

	for (uint64_t page = 0; page < total; page++) {
		uint64_t locator;
		int code = rouse_reader_locate(reader, page, ROUSE_READ_BULK, &locator);

		if (code == 0 && locator == ROUSE_LOCATOR_ZERO) {
			w->zero_pages++;
			code = put_page_header(w, page, QEMU_RAM_ZERO);
			if (code == 0)
				code = put8(w, 0);
		}
		if (code < 0)
			return rouse_error_errno(error, code, "cannot write the zero pages");
	}
	return 0;
}

static int put_head(struct stream_writer *w, const struct rouse_reader *reader)
{
	size_t size;
	const void *config = rouse_reader_section(reader, ROUSE_SECTION_CONFIG, &size);
	int code = put32(w, QEMU_VM_FILE_MAGIC);

	if (code == 0)
		code = put32(w, QEMU_VM_FILE_VERSION);
	if (code == 0)
		code = put(w, config, size);
	if (code == 0)
		code = put_ram_start(w);
	return code < 0 ? code : put_section(w, QEMU_VM_SECTION_PART);
}

static int put_tail(struct stream_writer *w, const struct rouse_reader *reader)
{
	size_t size;
	const void *devices = rouse_reader_section(reader, ROUSE_SECTION_DEVICES, &size);
	int code = put_section_end(w);

	if (code == 0)
		code = put_section(w, QEMU_VM_SECTION_END);
	if (code == 0)
		code = put_section_end(w);
	if (code == 0)
		code = put(w, devices, size);
	if (code == 0)
		code = put8(w, QEMU_VM_EOF);
	if (code == 0 && fflush(w->file) != 0)
		code = -errno;
	return code;
}

/* A buffered file over the same open file; @fd stays the caller's. */
static FILE *open_again(int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	FILE *file = copy >= 0 ? fdopen(copy, "w") : NULL;

	if (file != NULL)
		(void)setvbuf(file, NULL, _IOFBF, WRITE_BYTES);
	else if (copy >= 0)
		(void)close(copy);
	return file;
}

static int write_stream(const struct rouse_image *image, int fd, struct rouse_write_report *report,
	const struct rouse_observer *observer, struct rouse_error *error)
{
	cleanup_fclose FILE *file = open_again(fd);
	struct stream_writer w = {.file = file, .named = UINT32_MAX};
	struct stat status = {0};
	int code;

	if (file == NULL)
		return rouse_error_errno(error, -errno, "cannot write the migration file");
	w.blocks = rouse_reader_blocks(image->reader, &w.block_count);
	code = put_head(&w, image->reader);
	if (code < 0)
		return rouse_error_errno(error, code, "cannot write the migration file");
	code = rouse_image_each_page(
		image->source, image->reader, put_page, &w, "converting", observer, error);
	if (code == 0)
		code = put_zero_pages(&w, image->reader, error);
	if (code < 0)
		return code;
	code = put_tail(&w, image->reader);
	if (code == 0 && fstat(fd, &status) < 0)
		code = -errno;
	if (code < 0)
		return rouse_error_errno(error, code, "cannot write the migration file");
	report->image_bytes = (uint64_t)status.st_size;
	report->stored_bytes = w.pages * QEMU_PAGE_BYTES;
	report->pages = w.pages + w.zero_pages;
	report->zero_pages = w.zero_pages;
	return 0;
}

static void close_image(struct rouse_image **image)
{
	rouse_image_close(*image);
}

static int write_stream_file(const struct rouse_image *image, const char *out,
	struct rouse_write_report *report, const struct rouse_observer *observer,
	struct rouse_error *error)
{
	struct rouse_temp_file file;
	int code = rouse_temp_file_open(out, &file, error);

	if (code < 0)
		return code;
	code = write_stream(image, file.fd, report, observer, error);
	if (code == 0)
		code = rouse_temp_file_commit(&file, error);
	rouse_temp_file_discard(&file);
	return code;
}

static int image_to_stream(const char *in, const char *wset, const char *out,
	struct rouse_write_report *report, const struct rouse_observer *observer,
	struct rouse_error *error)
{
	cleanup_with(close_image) struct rouse_image *image = NULL;
	int code;

	if (wset != NULL)
		return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
			"a QEMU migration file has no place for a working set");
	code = rouse_image_open(in, &image, error);
	if (code < 0)
		return code;
	return write_stream_file(image, out, report, observer, error);
}

int rouse_convert(const char *in, const char *wset, const char *out,
	const struct rouse_layout *layout, struct rouse_write_report *report,
	const struct rouse_observer *observer, struct rouse_error *error)
{
	cleanup_close int fd = -1;
	uint64_t began_us = rouse_clock_us();
	struct rouse_write_report unused;
	char magic[8] = "";
	int code;

	if (report == NULL)
		report = &unused;
	memset(report, 0, sizeof(*report));
	if (rouse_io_is_same_file(in, out))
		return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
			"%s is both what to convert and where to: give another name", in);
	fd = open(in, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return rouse_error_errno(error, -errno, "cannot open %s", in);
	code = rouse_io_pread(fd, magic, sizeof(magic), 0);
	if (code < 0 && code != -ENODATA)
		return rouse_error_errno(error, code, "cannot read %s", in);
	if (memcmp(magic, ROUSE_IMAGE_MAGIC, sizeof(magic)) == 0)
		code = image_to_stream(in, wset, out, report, observer, error);
	else
		code = stream_to_image(fd, wset, out, layout, report, observer, error);
	report->elapsed_us = rouse_clock_us() - began_us;
	return code;
}
