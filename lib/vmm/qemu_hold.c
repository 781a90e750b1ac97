/* SPDX-License-Identifier: MIT */
#include "vmm/qemu_hold.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "vmm/qemu_hold_private.h"
#include "vmm/qemu_writer.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define RECORD_NAME "rouse-restore"
#define RECORD_LINK "/memfd:" RECORD_NAME " (deleted)"
#define UFFD_LINK "anon_inode:[userfaultfd]"
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define RELEASE_TIMEOUT_NS UINT64_C(5000000000)

static int close_there(struct target *target, int fd, struct rouse_error *error)
{
	const uint64_t arguments[6] = {(uint64_t)fd};

	return qemu_hold_call(target, SYS_close, arguments, NULL, 0, "close a descriptor", error);
}

/* ---- The record ------------------------------------------------------------------------------ */

static int map_record(struct qemu_hold *hold, size_t bytes, uint64_t pages)
{
	void *address = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, hold->memfd, 0);

	if (address == MAP_FAILED)
		return -errno;
	/* A child that has it would keep the file open, and with it the lock, when we die. */
	(void)madvise(address, bytes, MADV_DONTFORK);
	hold->record = address;
	hold->record_bytes = bytes;
	hold->placed = (struct rouse_bitmap){
		.words = (uint64_t *)((char *)address + UFFD_RECORD_BITMAP), .bits = pages};
	return 0;
}

/*
 * Who has the lock; 0: nobody can tell. The lock itself names only those who took it for their
 * process, as older ones of us did. The others own QEMU's descriptor, which is for this alone and
 * says nothing of whether there is a lock.
 */
static int lock_holder(int memfd, int shared)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int pid;

	if (fcntl(memfd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK && lock.l_pid > 0)
		return lock.l_pid;
	pid = fcntl(shared, F_GETOWN);
	return pid > 0 ? pid : 0;
}

static int lock_record(int memfd, int shared, struct rouse_error *error)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int pid;

	if (fcntl(memfd, F_OFD_SETLK, &lock) == 0) {
		(void)fcntl(shared, F_SETOWN, getpid());
		return 0;
	}
	if (errno != EACCES && errno != EAGAIN)
		return rouse_error_errno(error, -errno, "cannot lock what lies in QEMU");
	pid = lock_holder(memfd, shared);
	if (pid == 0)
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EBUSY,
			"that VM's restore did not break off: another rouse serves it");
	return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EBUSY,
		"that VM's restore did not break off: the rouse with process number %d serves it",
		pid);
}

/*
 * Gets hold of the memfd that has number @there in QEMU, and locks it: whoever has the lock serves
 * the VM. It is opened anew, and the lock is of that open file, which is ours alone. A lock of the
 * process would be given to a second restore in it, too, and be lost when that one closes the
 * memfd; one of the file that QEMU has open would stay when we die.
 */
static int open_record(struct qemu_hold *hold, int there, struct rouse_error *error)
{
	cleanup_close int shared = target_fetch_fd(hold->target, there);
	char path[64];

	if (shared < 0)
		return rouse_error_errno(error, shared, "cannot fetch what lies in QEMU");
	/* Of anything else that QEMU shows, opening it might do something, or give us more of it.
	 */
	if (fcntl(shared, F_GET_SEALS) < 0)
		return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
			"what is left in that QEMU is not of a Rouse");
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", shared);
	hold->memfd = open(path, O_RDWR | O_CLOEXEC);
	if (hold->memfd < 0)
		return rouse_error_errno(error, -errno, "cannot open what lies in QEMU");
	return lock_record(hold->memfd, shared, error);
}

/*
 * Gives the memfd all its memory now, while it can still be refused. A memfd is sparse, and its
 * memory comes page by page with the first look at it: one that cannot be had then is a SIGBUS,
 * while faults are answered.
 */
static int reserve_record(int memfd, uint64_t bytes)
{
	int code;

	do {
		code = fallocate(memfd, 0, 0, (off_t)bytes);
	} while (code < 0 && errno == EINTR);
	return code < 0 ? -errno : 0;
}

/* Makes the memfd in QEMU, which is stopped. *there: its number there. */
static int make_record(
	struct qemu_hold *hold, uint64_t pages, int *there, struct rouse_error *error)
{
	const uint64_t arguments[6] = {TARGET_DATA, MFD_CLOEXEC | MFD_ALLOW_SEALING};
	const uint64_t bytes = uffd_record_bytes(pages);
	int code;

	*there = qemu_hold_call(hold->target, SYS_memfd_create, arguments, RECORD_NAME,
		sizeof(RECORD_NAME), "make a memfd", error);
	if (*there < 0)
		return *there;
	code = open_record(hold, *there, error);
	if (code < 0)
		return code;
	if (ftruncate(hold->memfd, (off_t)bytes) < 0)
		code = -errno;
	if (code == 0)
		code = reserve_record(hold->memfd, bytes);
	if (code == 0 && fcntl(hold->memfd, F_ADD_SEALS, SEALS) < 0)
		code = -errno;
	if (code == 0)
		code = map_record(hold, (size_t)bytes, pages);
	return code == 0 ? 0 : rouse_error_errno(error, code, "cannot keep a record in QEMU");
}

static void write_record(
	struct qemu_hold *hold, uint64_t pages, int uffd, uint64_t checkpoint, bool run)
{
	struct uffd_record *record = hold->record;

	record->version = UFFD_RECORD_VERSION;
	record->state = UFFD_ARMED;
	record->checkpoint = checkpoint;
	record->pages = pages;
	record->uffd = uffd;
	record->run = run;
	record->area_count = hold->area_count;
	memcpy(record->areas, hold->areas, hold->area_count * sizeof(record->areas[0]));
	/* Last: before it the record is none. */
	__atomic_store_n(&record->magic, UFFD_RECORD_MAGIC, __ATOMIC_RELEASE);
}

/* ---- Taking ---------------------------------------------------------------------------------- */

/* What a Rouse has left that died before it sent anything: it serves nobody, and is closed. */
static int clean(struct qemu_hold *hold, struct rouse_error *error)
{
	const int there = target_find_fd(hold->target, RECORD_LINK, 0);
	struct uffd_record copy = {0};
	int code;

	if (there < 0)
		return 0;
	code = open_record(hold, there, error);
	if (code < 0)
		return code;
	(void)!pread(hold->memfd, &copy, sizeof(copy), 0);
	(void)close(take_fd(&hold->memfd));
	if (copy.magic == UFFD_RECORD_MAGIC && copy.state != UFFD_ARMED)
		return rouse_error_set(
			error, ROUSE_ERROR_REFUSED, -EBUSY, "this QEMU has got a VM already");
	if (copy.magic == UFFD_RECORD_MAGIC && copy.uffd >= 0 &&
		target_find_fd(hold->target, UFFD_LINK, copy.uffd) == copy.uffd)
		code = close_there(hold->target, copy.uffd, error);
	return code == 0 ? close_there(hold->target, there, error) : code;
}

static int take_stopped(struct qemu_hold *hold, uint64_t pages, uint64_t checkpoint, bool run,
	struct rouse_error *error)
{
	int memfd = -1, uffd = -1, code = clean(hold, error);

	if (code == 0)
		code = make_record(hold, pages, &memfd, error);
	if (code == 0)
		code = qemu_hold_make_uffd(hold, &uffd, error);
	/* Before it has any memory: one that has, and that no record names, nobody could remove. */
	if (uffd >= 0)
		write_record(hold, pages, uffd, checkpoint, run);
	if (code == 0)
		code = qemu_hold_register(hold, error);
	if (code == 0)
		return 0;
	/* Where it cannot be closed the record stays, which names it: clean() closes both then. */
	if (memfd >= 0 && (uffd < 0 || close_there(hold->target, uffd, NULL) == 0))
		(void)close_there(hold->target, memfd, NULL);
	return code;
}

int qemu_hold_take(struct qemu_hold *hold, int pid, struct qmp *qmp,
	const struct qemu_block *blocks, uint32_t count, uint64_t checkpoint, bool run,
	struct rouse_error *error)
{
	const uint64_t pages = qemu_blocks_pages(blocks, count);
	int code;

	*hold = QEMU_HOLD_INIT;
	code = target_open(pid, &hold->target, error);
	if (code == 0)
		code = qemu_hold_choose(hold, qmp, blocks, count, error);
	if (code == 0)
		code = target_stop(hold->target, error);
	if (code == 0) {
		code = take_stopped(hold, pages, checkpoint, run, error);
		target_go(hold->target);
	}
	if (code < 0)
		qemu_hold_finish(hold);
	return code;
}

bool qemu_hold_is_there(int pid)
{
	const int there = pid > 0 ? target_find_fd_in(pid, RECORD_LINK) : -ESRCH;
	struct uffd_record copy = {0};
	cleanup_close int fd = -1;
	char path[64];

	if (there < 0)
		return false;
	(void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, there);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	/* One that is complete and could not be closed does nothing. */
	return fd < 0 || pread(fd, &copy, sizeof(copy), 0) != (ssize_t)sizeof(copy) ||
	       copy.magic != UFFD_RECORD_MAGIC || copy.state != UFFD_COMPLETE;
}

/* ---- Taking over ----------------------------------------------------------------------------- */

static int check_record(const struct uffd_record *record, uint64_t bytes, uint64_t pages,
	uint64_t checkpoint, struct rouse_error *error)
{
	int code = uffd_record_check(record, bytes);

	if (code < 0)
		return rouse_error_set(error, ROUSE_ERROR_DAMAGED, code,
			code == -EUCLEAN ? "what a Rouse has left in that QEMU makes no sense"
					 : "another version of Rouse has begun that restore");
	if (record->checkpoint != checkpoint || record->pages != pages)
		return rouse_error_set(error, ROUSE_ERROR_MISMATCH, -EINVAL,
			"that VM is of another checkpoint than this image: take over with the "
			"image that its restore began with");
	if (record->state == UFFD_ARMED)
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EBUSY,
			"that restore broke off before the VM was there: end that QEMU and restore "
			"again");
	return 0;
}

static int adopt_record(struct qemu_hold *hold, int there, uint64_t pages, uint64_t checkpoint,
	struct rouse_error *error)
{
	struct uffd_record copy;
	struct stat status;
	int code;

	code = open_record(hold, there, error);
	if (code < 0)
		return code;
	if (fstat(hold->memfd, &status) < 0)
		return rouse_error_errno(error, -errno, "cannot look at what lies in QEMU");
	copy = (struct uffd_record){0};
	/* A shorter one is of a Rouse that died while it made it: a record of zeros. */
	(void)!pread(hold->memfd, &copy, sizeof(copy), 0);
	code = check_record(&copy, (uint64_t)status.st_size, pages, checkpoint, error);
	if (code < 0)
		return code;
	if ((fcntl(hold->memfd, F_GET_SEALS) & SEALS) != SEALS)
		return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
			"what a Rouse has left in that QEMU is not sealed");
	hold->area_count = copy.area_count;
	memcpy(hold->areas, copy.areas, copy.area_count * sizeof(copy.areas[0]));
	code = map_record(hold, (size_t)status.st_size, pages);
	if (code < 0)
		return rouse_error_errno(error, code, "cannot map what lies in QEMU");
	return copy.uffd;
}

/* Its Rouse died after the last page, before it had closed all in QEMU. */
static int close_complete(struct qemu_hold *hold, struct rouse_error *error)
{
	const int code = qemu_hold_release(hold, error);

	if (code < 0)
		return rouse_error_prefix(error,
			"that VM has no restore that broke off, but descriptors of it are left");
	return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EBUSY,
		"that VM has no restore that broke off: it has all its memory");
}

int qemu_hold_adopt(struct qemu_hold *hold, int pid, const struct qemu_block *blocks,
	uint32_t count, uint64_t checkpoint, struct rouse_error *error)
{
	int there, uffd, code;

	*hold = QEMU_HOLD_INIT;
	code = target_open(pid, &hold->target, error);
	if (code < 0)
		return code;
	there = target_find_fd(hold->target, RECORD_LINK, 0);
	if (there < 0)
		code = rouse_error_errno(error, there, "no restore by userfaultfd is there");
	if (code == 0) {
		uffd = adopt_record(
			hold, there, qemu_blocks_pages(blocks, count), checkpoint, error);
		code = uffd < 0 ? uffd : 0;
	}
	if (code == 0 && hold->record->state == UFFD_COMPLETE)
		code = close_complete(hold, error);
	if (code == 0 && target_find_fd(hold->target, UFFD_LINK, uffd) != uffd)
		code = rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
			"the userfaultfd is no longer in that QEMU");
	if (code == 0) {
		hold->adopted = true;
		hold->uffd = target_fetch_fd(hold->target, uffd);
		if (hold->uffd < 0)
			code = rouse_error_errno(error, hold->uffd, "cannot fetch a userfaultfd");
	}
	if (code == 0)
		code = qemu_hold_mark_present(hold, error);
	if (code < 0)
		qemu_hold_finish(hold);
	return code;
}

/* ---- The end --------------------------------------------------------------------------------- */

/* The first thread may be deep in the kernel for a moment. */
static int stop_patiently(struct target *target, struct rouse_error *error)
{
	const uint64_t limit_ns = rouse_clock_ns() + RELEASE_TIMEOUT_NS;
	const struct timespec nap = {.tv_nsec = 10000000};
	int code;

	while ((code = target_stop(target, error)) == -EBUSY && rouse_clock_ns() < limit_ns)
		(void)nanosleep(&nap, NULL);
	return code;
}

int qemu_hold_release(struct qemu_hold *hold, struct rouse_error *error)
{
	int uffd, memfd, code = stop_patiently(hold->target, error);

	if (code < 0)
		return code;
	uffd = hold->record->uffd;
	if (uffd >= 0 && target_find_fd(hold->target, UFFD_LINK, uffd) == uffd)
		code = close_there(hold->target, uffd, error);
	memfd = target_find_fd(hold->target, RECORD_LINK, 0);
	if (code == 0 && memfd >= 0)
		code = close_there(hold->target, memfd, error);
	target_go(hold->target);
	return code;
}

void qemu_hold_finish(struct qemu_hold *hold)
{
	if (hold->record != NULL)
		(void)munmap(hold->record, hold->record_bytes);
	cleanup_close_fn(&hold->memfd);
	cleanup_close_fn(&hold->uffd);
	target_close(hold->target);
	*hold = QEMU_HOLD_INIT;
}
