/* SPDX-License-Identifier: MIT */
/* Which pages of a file that it maps privately QEMU has written to. */
#include "vmm/qemu_map.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/io.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#define PAGE UINT64_C(4096)
#define WORDS 4096u /* of pagemap, read at once */
#define MAPS_MAX (16u << 20)

/* Documentation/admin-guide/mm/pagemap.rst */
#define PAGEMAP_PRESENT (UINT64_C(1) << 63)
#define PAGEMAP_SWAPPED (UINT64_C(1) << 62)
#define PAGEMAP_FILE (UINT64_C(1) << 61)

bool qemu_map_is_private(uint64_t word)
{
	return (word & PAGEMAP_FILE) == 0 && (word & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)) != 0;
}

/* A part of the block: [start, end) in QEMU, from @offset on in the file. */
struct part {
	uint64_t start, end, offset;
};

static int walk_part(
	int pagemap, const struct part *part, uint64_t bytes, qemu_map_page_fn *page, void *user)
{
	cleanup_free uint64_t *words = malloc(WORDS * sizeof(*words));
	uint64_t end = part->end;

	if (words == NULL)
		return -ENOMEM;
	/* What is mapped beyond the block is none of it. */
	if (end - part->start > bytes - part->offset)
		end = part->start + (bytes - part->offset);
	for (uint64_t at = part->start; at < end; at += WORDS * PAGE) {
		uint64_t count = (end - at) / PAGE;
		int code;

		if (count > WORDS)
			count = WORDS;
		code = rouse_io_pread(pagemap, words, count * sizeof(*words), at / PAGE * 8);
		for (uint64_t i = 0; code == 0 && i < count; i++) {
			if (qemu_map_is_private(words[i]))
				code = page(user, (part->offset + (at - part->start)) / PAGE + i);
		}
		if (code < 0)
			return code;
	}
	return 0;
}

/* A line of /proc/PID/maps: whether it is a private, writable mapping of the file's beginning. */
static bool is_part(const char *line, const struct qemu_map_file *file, struct part *part)
{
	uint64_t inode;
	char rights[5];

	/* NOLINTNEXTLINE(cert-err34-c): the kernel's own numbers. */
	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %*x:%*x %" SCNu64, &part->start,
		    &part->end, rights, &part->offset, &inode) != 5)
		return false;
	return inode == file->inode && rights[1] == 'w' && rights[3] == 'p' &&
	       part->offset < file->bytes;
}

static int walk(char *maps, int pagemap, const struct qemu_map_file *file, uint64_t *covered,
	qemu_map_page_fn *page, void *user)
{
	char *rest = NULL;

	for (char *line = strtok_r(maps, "\n", &rest); line != NULL;
		line = strtok_r(NULL, "\n", &rest)) {
		struct part part;
		int code;

		/* In order of addresses, and so, of one mapping, of the file. */
		if (!is_part(line, file, &part) || part.offset != *covered)
			continue;
		code = walk_part(pagemap, &part, file->bytes, page, user);
		if (code < 0)
			return code;
		*covered += part.end - part.start;
	}
	return 0;
}

int qemu_map_private_pages(pid_t pid, const struct qemu_map_file *file, qemu_map_page_fn *page,
	void *user, struct rouse_error *error)
{
	cleanup_free char *maps = NULL;
	cleanup_close int pagemap = -1;
	uint64_t covered = 0;
	char path[64];
	size_t size;
	int code;

	(void)snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	code = rouse_io_read_file(path, MAPS_MAX, &maps, &size);
	if (code == 0) {
		(void)snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
		pagemap = open(path, O_RDONLY | O_CLOEXEC);
		code = pagemap >= 0 ? 0 : -errno;
	}
	if (code < 0)
		return rouse_error_errno(error, code,
			"cannot see which pages of its memory QEMU has changed (%s)", path);
	code = walk(maps, pagemap, file, &covered, page, user);
	if (code < 0)
		return rouse_error_errno(error, code, "cannot look through QEMU's memory");
	if (covered < file->bytes)
		return rouse_error_set(error, ROUSE_ERROR_VMM, -EREMOTEIO,
			"QEMU does not map %s as its memory", file->path);
	return 0;
}
