/* SPDX-License-Identifier: MIT */
/*
 * Emptying QEMU's RAM and registering it.
 *
 *	userfaultfd        in QEMU, fetched by us
 *	UFFDIO_REGISTER    by us, and undone: does somebody else have the memory?
 *	MADV_DONTNEED      in QEMU: what its start has put there would stay, as in postcopy
 *	UFFDIO_REGISTER    by us
 *	/proc/PID/pagemap  is it empty? Another thread may have touched it: then again
 *
 * And what is there already when a restore is taken over.
 */
#include "vmm/qemu_hold_private.h"

#include "base/bitmap.h"
#include "base/cleanup.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define ATTEMPTS 5u
#define PAGEMAP_PAGES 8192u
#define PAGEMAP_THERE (UINT64_C(3) << 62) /* present, or swapped out */

int qemu_hold_call(struct target *target, long number, const uint64_t arguments[6],
	const void *data, size_t data_bytes, const char *what, struct rouse_error *error)
{
	int64_t result = 0;
	int code = target_call(target, number, arguments, data, data_bytes, &result, error);

	if (code < 0)
		return code;
	if (result < 0)
		return rouse_error_errno(error, (int)result, "QEMU (process %d) cannot %s",
			target_pid(target), what);
	return (int)result;
}

static int refuse_userfaultfd(int code, struct rouse_error *error)
{
	if (code != -EPERM)
		return code;
	return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EPERM,
		"QEMU's user may not use userfaultfd: run it as root, or set "
		"vm.unprivileged_userfaultfd=1; --policy eager needs none");
}

int qemu_hold_make_uffd(struct qemu_hold *hold, int *there, struct rouse_error *error)
{
	/* Not for faults of user mode only: devices and KVM touch guest memory in the kernel. */
	const uint64_t arguments[6] = {O_CLOEXEC | O_NONBLOCK};

	*there = qemu_hold_call(
		hold->target, SYS_userfaultfd, arguments, NULL, 0, "use userfaultfd", error);
	if (*there < 0)
		return refuse_userfaultfd(*there, error);
	hold->uffd = target_fetch_fd(hold->target, *there);
	if (hold->uffd < 0)
		return rouse_error_errno(error, hold->uffd, "cannot fetch a userfaultfd");
	if (uffd_sink_handshake(hold->uffd) < 0)
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -ENOTSUP,
			"this kernel's userfaultfd does not tell what memory is given back: Linux "
			"4.11 or later is needed");
	return 0;
}

static int empty(const struct qemu_hold *hold, struct rouse_error *error)
{
	int code = 0;

	for (size_t i = 0; i < hold->area_count && code >= 0; i++) {
		const struct uffd_area *area = &hold->areas[i];
		const uint64_t arguments[6] = {
			area->address, area->pages * UFFD_SINK_PAGE, MADV_DONTNEED};

		code = qemu_hold_call(
			hold->target, SYS_madvise, arguments, NULL, 0, "empty its memory", error);
	}
	return code;
}

/* The first @count areas. What somebody else has registered is not ours to end. */
static void unregister_areas(const struct qemu_hold *hold, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct uffdio_range range = {.start = hold->areas[i].address,
			.len = hold->areas[i].pages * UFFD_SINK_PAGE};

		(void)ioctl(hold->uffd, UFFDIO_UNREGISTER, &range);
	}
}

static int register_area(
	const struct qemu_hold *hold, const struct uffd_area *area, struct rouse_error *error)
{
	const uint64_t needed = UINT64_C(1) << _UFFDIO_COPY | UINT64_C(1) << _UFFDIO_ZEROPAGE |
				UINT64_C(1) << _UFFDIO_WAKE;
	struct uffdio_register what = {
		.range = {.start = area->address, .len = area->pages * UFFD_SINK_PAGE},
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	if (ioctl(hold->uffd, UFFDIO_REGISTER, &what) < 0) {
		if (errno == EBUSY)
			return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EBUSY,
				"QEMU's memory has a userfaultfd already: it is traced or "
				"scanned, or restored by somebody else");
		return rouse_error_errno(error, -errno, "cannot watch QEMU's memory");
	}
	if ((what.ioctls & needed) == needed)
		return 0;
	(void)ioctl(hold->uffd, UFFDIO_UNREGISTER, &what.range);
	return rouse_error_set(error, ROUSE_ERROR_REFUSED, -ENOTSUP,
		"this kernel cannot place pages in QEMU's memory by userfaultfd");
}

/* All of them, or none. */
static int register_areas(const struct qemu_hold *hold, struct rouse_error *error)
{
	for (size_t i = 0; i < hold->area_count; i++) {
		int code = register_area(hold, &hold->areas[i], error);

		if (code < 0) {
			unregister_areas(hold, i);
			return code;
		}
	}
	return 0;
}

/*
 * 1: nothing is there; 0: something is. With @placed each page that is there is marked in it, and
 * the result is 1.
 */
static int look_at_area(
	int pagemap, const struct uffd_area *area, uint64_t *entries, struct rouse_bitmap *placed)
{
	for (uint64_t page = 0; page < area->pages; page += PAGEMAP_PAGES) {
		const uint64_t left = area->pages - page;
		const size_t bytes = (left < PAGEMAP_PAGES ? left : PAGEMAP_PAGES) * 8;
		const off_t offset = (off_t)((area->address / UFFD_SINK_PAGE + page) * 8);

		errno = 0;
		if (pread(pagemap, entries, bytes, offset) != (ssize_t)bytes)
			return errno != 0 ? -errno : -EIO;
		for (size_t i = 0; i < bytes / 8; i++) {
			if ((entries[i] & PAGEMAP_THERE) == 0)
				continue;
			if (placed == NULL)
				return 0;
			rouse_bitmap_set(placed, area->first_page + page + i);
		}
	}
	return 1;
}

/* All areas. */
static int look(
	const struct qemu_hold *hold, struct rouse_bitmap *placed, struct rouse_error *error)
{
	cleanup_free uint64_t *entries = malloc(PAGEMAP_PAGES * sizeof(*entries));
	cleanup_close int pagemap = -1;
	char path[64];
	int result = 1;

	(void)snprintf(path, sizeof(path), "/proc/%d/pagemap", target_pid(hold->target));
	pagemap = open(path, O_RDONLY | O_CLOEXEC);
	if (entries == NULL || pagemap < 0)
		return rouse_error_errno(
			error, entries == NULL ? -ENOMEM : -errno, "cannot read %s", path);
	for (size_t i = 0; i < hold->area_count && result == 1; i++)
		result = look_at_area(pagemap, &hold->areas[i], entries, placed);
	return result >= 0 ? result : rouse_error_errno(error, result, "cannot read %s", path);
}

int qemu_hold_mark_present(struct qemu_hold *hold, struct rouse_error *error)
{
	const int code = look(hold, &hold->placed, error);

	return code < 0 ? code : 0;
}

/* 1: it is empty and registered; 0: something was touched in between, and nothing is registered. */
static int empty_and_register(const struct qemu_hold *hold, struct rouse_error *error)
{
	int code = empty(hold, error);

	if (code >= 0)
		code = register_areas(hold, error);
	if (code < 0)
		return code;
	code = look(hold, NULL, error);
	/* What is registered cannot be emptied: that waits to be read of. */
	if (code != 1)
		unregister_areas(hold, hold->area_count);
	return code;
}

int qemu_hold_register(struct qemu_hold *hold, struct rouse_error *error)
{
	/* First of all, and only to see: what somebody else serves must not be emptied. */
	int code = register_areas(hold, error);

	if (code == 0)
		unregister_areas(hold, hold->area_count);
	for (unsigned int i = 0; code == 0 && i < ATTEMPTS; i++)
		code = empty_and_register(hold, error);
	if (code != 0)
		return code < 0 ? code : 0;
	return rouse_error_set(error, ROUSE_ERROR_VMM, -EBUSY,
		"QEMU goes on touching the memory that is to be restored: use --backend postcopy");
}

int qemu_hold_probe(void)
{
#ifdef __x86_64__
	cleanup_close int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (uffd < 0)
		return errno == EPERM ? -EPERM : -ENOTSUP;
	if (uffd_sink_handshake(uffd) < 0)
		return -ENOTSUP;
	return syscall(SYS_pidfd_getfd, -1, 0, 0) < 0 && errno == ENOSYS ? -ENOTSUP : 0;
#else
	return -ENOTSUP;
#endif
}
