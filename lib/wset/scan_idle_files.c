/* SPDX-License-Identifier: MIT */
/* The files of the kernel that page_idle needs. */
#include "base/cleanup.h"
#include "base/io.h"
#include "wset/scan_idle.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/file.h>
#include <unistd.h>

#define PAGE 4096u
#define BITMAP_PATH "/sys/kernel/mm/page_idle/bitmap"
#define PAGEFLAGS_PATH "/proc/kpageflags"

void scan_idle_files_init(struct scan_idle_files *files)
{
	for (unsigned int i = 0; i < SCAN_IDLE_FILES; i++)
		files->fds[i] = -1;
}

void scan_idle_files_close(struct scan_idle_files *files)
{
	for (unsigned int i = 0; i < SCAN_IDLE_FILES; i++) {
		if (files->fds[i] >= 0)
			(void)close(take_fd(&files->fds[i]));
	}
}

static int refuse(const char *path, int code, struct rouse_error *error)
{
	if (code == -ENOENT)
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -ENOTSUP,
			"this kernel has no idle page tracking: there is no %s "
			"(CONFIG_IDLE_PAGE_TRACKING)",
			path);
	if (code == -EACCES || code == -EPERM)
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EPERM,
			"%s is not for this user: page_idle needs root", path);
	return rouse_error_errno(error, code, "cannot open %s", path);
}

static int open_all(const struct scan_idle_paths *paths, struct scan_idle_files *files,
	struct rouse_error *error)
{
	for (unsigned int i = 0; i < SCAN_IDLE_FILES; i++) {
		const int flags = i == SCAN_IDLE_BITMAP ? O_RDWR : O_RDONLY;

		files->fds[i] = open(paths->names[i], flags | O_CLOEXEC);
		if (files->fds[i] < 0)
			return refuse(paths->names[i], -errno, error);
	}
	return 0;
}

/* By the page map, because that is the process's: its file is one for all who open it. */
static int lock(const struct scan_idle_files *files, struct rouse_error *error)
{
	if (flock(files->fds[SCAN_IDLE_PAGEMAP], LOCK_EX | LOCK_NB) == 0)
		return 0;
	if (errno == EWOULDBLOCK)
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EBUSY,
			"the memory is being scanned by page_idle already");
	return rouse_error_errno(error, -errno, "cannot lock the page map");
}

static int open_files(int pid, const struct scan_idle_paths *paths, struct scan_idle_files *files,
	struct rouse_error *error)
{
	char pagemap[64];
	const struct scan_idle_paths own = {.names = {[SCAN_IDLE_BITMAP] = BITMAP_PATH,
						    [SCAN_IDLE_PAGEMAP] = pagemap,
						    [SCAN_IDLE_PAGEFLAGS] = PAGEFLAGS_PATH}};
	int code;

	(void)snprintf(pagemap, sizeof(pagemap), "/proc/%d/pagemap", pid);
	scan_idle_files_init(files);
	code = open_all(paths != NULL ? paths : &own, files, error);
	if (code < 0)
		scan_idle_files_close(files);
	return code;
}

int scan_idle_files_open(int pid, const struct scan_idle_paths *paths,
	struct scan_idle_files *files, struct rouse_error *error)
{
	int code = open_files(pid, paths, files, error);

	if (code == 0) {
		code = lock(files, error);
		if (code < 0)
			scan_idle_files_close(files);
	}
	return code;
}

static ssize_t read_file(
	void *user, enum scan_idle_file file, void *buffer, size_t bytes, uint64_t offset)
{
	const struct scan_idle_files *files = user;
	ssize_t done;

	do
		done = pread(files->fds[file], buffer, bytes, (off_t)offset);
	while (done < 0 && errno == EINTR);
	return done >= 0 ? done : -errno;
}

static ssize_t write_bitmap(void *user, const void *buffer, size_t bytes, uint64_t offset)
{
	const struct scan_idle_files *files = user;
	ssize_t done;

	do
		done = pwrite(files->fds[SCAN_IDLE_BITMAP], buffer, bytes, (off_t)offset);
	while (done < 0 && errno == EINTR);
	return done >= 0 ? done : -errno;
}

struct scan_idle_kernel scan_idle_files_kernel(struct scan_idle_files *files)
{
	return (struct scan_idle_kernel){.user = files, .read = read_file, .write = write_bitmap};
}

static void close_files(struct scan_idle_files *files)
{
	scan_idle_files_close(files);
}

int scan_idle_probe(const struct scan_idle_paths *paths, struct rouse_error *error)
{
	cleanup_with(close_files) struct scan_idle_files files;
	const uint64_t page = (uintptr_t)&files / PAGE;
	uint64_t word;
	int code = open_files((int)getpid(), paths, &files, error);

	if (code < 0)
		return code;
	code = rouse_io_pread(
		files.fds[SCAN_IDLE_PAGEMAP], &word, sizeof(word), page * SCAN_IDLE_WORD);
	if (code < 0)
		return rouse_error_errno(error, code, "cannot read the page map");
	/* The page is there: it was written a moment ago. */
	if (scan_idle_entry_parse(word).where != SCAN_IDLE_SOMEWHERE)
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EPERM,
			"the kernel does not tell this user where pages are: page_idle needs "
			"CAP_SYS_ADMIN");
	return 0;
}
