/* SPDX-License-Identifier: MIT */
/* The record as bytes from another process, and waiting for the one who writes it. */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "wset/trace_private.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <linux/magic.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#define SLEEP_NS 20000000

static bool is_inside(uint64_t offset, uint64_t count, uint64_t each, uint64_t end)
{
	return offset >= sizeof(struct trace_record) && offset % 8 == 0 && offset <= end &&
	       count <= (end - offset) / each;
}

int trace_record_check(const struct trace_record *record, uint64_t memfd_bytes)
{
	const uint64_t end = record->data_bytes;

	if (record->magic != TRACE_MAGIC)
		return -EUCLEAN;
	if (record->version != TRACE_VERSION)
		return -EPROTONOSUPPORT;
	if (record->code_bytes % TRACE_PAGE != 0 || record->data_bytes % TRACE_PAGE != 0 ||
		record->code_bytes > memfd_bytes ||
		record->data_bytes != memfd_bytes - record->code_bytes ||
		record->code_address % TRACE_PAGE != 0 || record->data_address % TRACE_PAGE != 0)
		return -EUCLEAN;
	if (record->pages > TRACE_MAX_PAGES || record->area_count > record->area_room ||
		record->log_count > record->log_room ||
		!is_inside(
			record->areas_offset, record->area_room, sizeof(struct trace_area), end) ||
		!is_inside(record->gone_offset, (record->pages + 63) / 64, 8, end) ||
		!is_inside(record->seen_offset, (record->pages + 63) / 64, 8, end) ||
		!is_inside(record->log_offset, record->log_room, sizeof(struct trace_entry), end))
		return -EUCLEAN;
	return 0;
}

int trace_record_check_end(const struct trace_record *record, const struct trace_record *laid_out)
{
	if (record->magic != TRACE_MAGIC || record->version != TRACE_VERSION ||
		record->code_bytes != laid_out->code_bytes ||
		record->data_bytes != laid_out->data_bytes ||
		record->log_offset != laid_out->log_offset ||
		record->log_room != laid_out->log_room || record->pages != laid_out->pages ||
		record->log_count > record->log_room)
		return -EUCLEAN;
	return 0;
}

void trace_wake(uint32_t *word)
{
	(void)syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

void trace_sleep(uint32_t *word, uint32_t value)
{
	const struct timespec limit = {.tv_nsec = SLEEP_NS};

	(void)syscall(SYS_futex, word, FUTEX_WAIT, value, &limit, NULL, 0);
}

int trace_find_thread(const struct target *target)
{
	cleanup_free int *tids = NULL;
	size_t count;

	if (target_threads(target, &tids, &count, NULL) < 0)
		return 0;
	for (size_t i = 0; i < count; i++) {
		cleanup_free char *name = NULL;
		char path[64];
		size_t size;

		(void)snprintf(
			path, sizeof(path), "/proc/%d/task/%d/comm", target_pid(target), tids[i]);
		if (rouse_io_read_file(path, 64, &name, &size) == 0 &&
			strcmp(name, TRACE_MEMFD_NAME "\n") == 0)
			return tids[i];
	}
	return 0;
}

/* Whether @path_fd (O_PATH) is a pipe of pipe(2): not a FIFO that lies in a file system. */
static bool is_pipe(int path_fd)
{
	struct stat status;
	struct statfs system;

	return fstat(path_fd, &status) == 0 && S_ISFIFO(status.st_mode) &&
	       fstatfs(path_fd, &system) == 0 && system.f_type == PIPEFS_MAGIC;
}

/*
 * The number comes from the traced process. What it names is looked at before it is opened, by one
 * descriptor: opening it again by that cannot give another file.
 */
int trace_open_lifeline(const struct target *target, int fd)
{
	const int tid = trace_find_thread(target);
	cleanup_close int looked_at = -1;
	char path[64];
	int lifeline;

	if (tid == 0)
		return -ESRCH;
	(void)snprintf(path, sizeof(path), "/proc/%d/task/%d/fd/%d", target_pid(target), tid, fd);
	looked_at = open(path, O_PATH | O_CLOEXEC);
	if (looked_at < 0)
		return -errno;
	if (!is_pipe(looked_at))
		return -ESRCH;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", looked_at);
	lifeline = open(path, O_WRONLY | O_CLOEXEC | O_NONBLOCK);
	return lifeline >= 0 ? lifeline : -errno;
}

/* A write to a pipe that nobody reads raises SIGPIPE: not in our caller. */
void trace_tell(int lifeline)
{
	const struct timespec at_once = {0};
	sigset_t pipe, before, pending;

	(void)sigemptyset(&pipe);
	(void)sigaddset(&pipe, SIGPIPE);
	if (sigpending(&pending) < 0 || pthread_sigmask(SIG_BLOCK, &pipe, &before) != 0)
		return;
	if (write(lifeline, "", 1) < 0 && errno == EPIPE && sigismember(&pending, SIGPIPE) == 0)
		(void)sigtimedwait(&pipe, NULL, &at_once);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
}

bool trace_is_agents(const struct target_map *map)
{
	static const char name[] = "/memfd:" TRACE_MEMFD_NAME " ";

	return map->shared && strncmp(map->name, name, strlen(name)) == 0;
}
