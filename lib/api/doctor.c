/* SPDX-License-Identifier: MIT */
/* rouse_doctor(): what this machine allows, and what each lack costs. */
#include "api/doctor_child.h"
#include "api/doctor_kvm.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/io.h"
#include "vmm/qemu_hold.h"
#include "vmm/qemu_map.h"
#include "vmm/vcpu_wait.h"
#include "wset/scan.h"

#include <fcntl.h>
#include <liburing.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define QEMU_TIMEOUT_MS 10000
#define PROBE_TIMEOUT_MS 2000
#define OLDEST_QEMU 7002u /* major * 1000 + minor */
#define NEWEST_QEMU 10999u
#define FIRST_QEMU_WITH_DEV_USERFAULTFD 8000u

/* Later than Debian 12's headers. */
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

struct doctor {
	rouse_finding_fn *finding;
	void *user;
	unsigned int qemu_version; /* major * 1000 + minor; 0: none */
	char detail[512];
};

/* Names by bit, as the kernel numbers the features of userfaultfd. */
static const char *const userfaultfd_features[] = {"wp", "fork", "remap", "remove",
	"missing-hugetlbfs", "missing-shmem", "unmap", "sigbus", "thread-id", "minor-hugetlbfs",
	"minor-shmem", "exact-address", "wp-hugetlbfs-shmem", "wp-unpopulated", "poison",
	"wp-async", "move"};

static void tell(struct doctor *doctor, const char *name, bool available, const char *cost)
{
	struct rouse_finding finding = {.name = name,
		.available = available,
		.detail = doctor->detail,
		.cost = available ? NULL : cost};

	doctor->finding(doctor->user, &finding);
}

static void say(struct doctor *doctor, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Adds to the detail. */
static void say(struct doctor *doctor, const char *format, ...)
{
	size_t used = strlen(doctor->detail);
	va_list args;

	va_start(args, format);
	/* clang-tidy 14 forgets va_start() when it checks several files in one run. */
	/* NOLINTNEXTLINE(clang-analyzer-valist.*) */
	(void)vsnprintf(doctor->detail + used, sizeof(doctor->detail) - used, format, args);
	va_end(args);
}

static void begin(struct doctor *doctor)
{
	doctor->detail[0] = '\0';
}

/* ---- QEMU ------------------------------------------------------------------------------------ */

static void probe_qemu(struct doctor *doctor, const char *qemu)
{
	const char *const argv[] = {qemu, "--version", NULL};
	static const char word[] = "QEMU emulator version ";
	unsigned int major = 0, minor = 0;
	char text[1024];
	const char *version;
	int code = rouse_child_output(argv, NULL, QEMU_TIMEOUT_MS, text, sizeof(text));

	begin(doctor);
	if (code < 0) {
		say(doctor, "%s: %s", qemu, strerrordesc_np(-code));
		tell(doctor, "qemu", false,
			"there is nothing to save or restore: install qemu-system-x86, 7.2 to 10");
		return;
	}
	version = strstr(text, word);
	if (version == NULL || sscanf(version + strlen(word), "%u.%u", &major, &minor) != 2) {
		say(doctor, "%s does not say its version", qemu);
		tell(doctor, "qemu", false, "Rouse works with QEMU 7.2 to 10: name one");
		return;
	}
	doctor->qemu_version = major * 1000 + minor;
	version += strlen(word);
	say(doctor, "%s is QEMU %.*s", qemu, (int)strcspn(version, " \r\n"), version);
	tell(doctor, "qemu",
		doctor->qemu_version >= OLDEST_QEMU && doctor->qemu_version <= NEWEST_QEMU,
		"not a version that Rouse was made for, which are 7.2 to 10: expect refusals");
}

/* ---- userfaultfd ----------------------------------------------------------------------------- */

static int open_userfaultfd(int flags)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags);

	return fd >= 0 ? fd : -errno;
}

static int open_dev_userfaultfd(void)
{
	cleanup_close int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	int fd = device >= 0 ? ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK) : -1;

	return fd >= 0 ? fd : -errno;
}

static void say_features(struct doctor *doctor, int fd)
{
	struct uffdio_api api = {.api = UFFD_API};
	const char *separator = "; features: ";

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0)
		return;
	for (unsigned int bit = 0; bit < 64; bit++) {
		if ((api.features >> bit & 1) == 0)
			continue;
		if (bit < sizeof(userfaultfd_features) / sizeof(userfaultfd_features[0]))
			say(doctor, "%s%s", separator, userfaultfd_features[bit]);
		else
			say(doctor, "%sbit %u", separator, bit);
		separator = ", ";
	}
}

static void say_sysctl(struct doctor *doctor)
{
	cleanup_free char *text = NULL;
	size_t size = 0;

	if (rouse_io_read_file("/proc/sys/vm/unprivileged_userfaultfd", 64, &text, &size) == 0)
		say(doctor, "; vm.unprivileged_userfaultfd=%.*s", (int)strcspn(text, "\n"), text);
}

/*
 * QEMU's postcopy needs faults of the kernel, too: KVM's and those of system calls on guest memory.
 * A userfaultfd for user mode alone does not do, and QEMU does not ask for one.
 */
static void probe_userfaultfd(struct doctor *doctor)
{
	cleanup_close int whole = open_userfaultfd(0);
	cleanup_close int user_only = open_userfaultfd(UFFD_USER_MODE_ONLY);
	cleanup_close int device = open_dev_userfaultfd();
	bool by_device = device >= 0 && doctor->qemu_version >= FIRST_QEMU_WITH_DEV_USERFAULTFD;

	begin(doctor);
	if (whole >= 0)
		say(doctor, "by system call");
	else if (by_device)
		say(doctor, "by /dev/userfaultfd");
	else if (device >= 0)
		say(doctor, "by /dev/userfaultfd, which QEMU uses from 8.0 on");
	else if (user_only >= 0)
		say(doctor, "for user mode only, which does not do for QEMU");
	else
		say(doctor, "%s", strerrordesc_np(-whole));
	say_sysctl(doctor);
	say_features(doctor, whole >= 0 ? whole : device >= 0 ? device : user_only);
	tell(doctor, "userfaultfd", whole >= 0 || by_device,
		"a QEMU of this user can only be restored eager; lazy and ws need root, or the "
		"sysctl vm.unprivileged_userfaultfd=1, or rights on /dev/userfaultfd and QEMU 8.0");
}

/* Tracing moves private memory, and follows shared memory by minor faults. */
static void probe_trace(struct doctor *doctor)
{
	const uint64_t moves = UINT64_C(1) << 16, minor = UFFD_FEATURE_MINOR_SHMEM;
	cleanup_close int fd = open_userfaultfd(0);
	struct uffdio_api api = {.api = UFFD_API};
	bool works = fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0;

	begin(doctor);
#ifdef __x86_64__
	if (!works)
		say(doctor, "userfaultfd: %s", strerrordesc_np(fd < 0 ? -fd : errno));
	else
		say(doctor, "private memory: %s, shared memory: %s",
			(api.features & moves) != 0 ? "yes" : "no",
			(api.features & minor) != 0 ? "yes" : "no");
#else
	works = false;
	say(doctor, "not on this processor");
#endif
	tell(doctor, "trace", works && (api.features & moves) != 0,
		"no working sets by rouse trace and rouse save --estimate trace (of a VM on a "
		"memfd if "
		"shared memory says yes); needed: Linux 6.8 on x86-64, and root or the sysctl "
		"vm.unprivileged_userfaultfd=1 for QEMU's user");
}

static void probe_backend_uffd(struct doctor *doctor)
{
	const int code = qemu_hold_probe();

	begin(doctor);
	say(doctor, "userfaultfd on another process's memory: %s",
		code == 0        ? "yes"
		: code == -EPERM ? "not for this user"
				 : "not on this kernel or processor");
	tell(doctor, "backend-uffd", code == 0,
		"no rouse restore --backend uffd; needed: Linux 5.6 on x86-64, and root or the "
		"sysctl vm.unprivileged_userfaultfd=1 for QEMU's user");
}

static void probe_scan(struct doctor *doctor)
{
	int code = -ENOSYS;

#ifdef __x86_64__
	code = scan_probe();
#endif
	begin(doctor);
	say(doctor, "PAGEMAP_SCAN and asynchronous write protection: %s",
		code == 0          ? "yes"
		: code == -ENOTSUP ? "the kernel does not have them"
		: code == -ENOSYS  ? "not on this processor"
				   : strerrordesc_np(-code));
	tell(doctor, "scan", code == 0,
		"no working sets by rouse scan and rouse save --estimate scan, but by page_idle if "
		"that is there; needed: Linux 6.7 on x86-64, and root or the sysctl "
		"vm.unprivileged_userfaultfd=1 for QEMU's user");
}

/* ---- KVM, io_uring, page_idle, schedstat, pagemap, priority ----------------------------  */

static void probe_kvm(struct doctor *doctor, const char *qemu, const char *kernel)
{
	char cost[256];
	const char *cure = "";
	bool works;

	begin(doctor);
	works = rouse_probe_kvm(qemu, kernel, doctor->detail, sizeof(doctor->detail), &cure);
	(void)snprintf(cost, sizeof(cost),
		"guests run many times slower, under TCG (-accel tcg,thread=multi); needed: %s",
		cure);
	tell(doctor, "kvm", works, cost);
}

static void probe_io_uring(struct doctor *doctor)
{
	struct io_uring ring;
	int code = io_uring_queue_init(4, &ring, 0);
	uint8_t *page = NULL;
	struct iovec buffer;

	begin(doctor);
	say(doctor, "%s", code == 0 ? "a queue can be made" : strerrordesc_np(-code));
	if (code == 0) {
		page = aligned_alloc(4096, 4096);
		buffer = (struct iovec){page, 4096};
		if (page == NULL || io_uring_register_buffers(&ring, &buffer, 1) < 0)
			say(doctor, ", but no memory registered (ulimit -l): each read maps it "
				    "anew");
		io_uring_queue_exit(&ring);
		free(page);
	}
	tell(doctor, "io_uring", code == 0,
		"restore --io direct reads one block at a time, by pread(2), instead of several in "
		"flight, and a SIGKILL at one moment of restore --resume can end the VM (QEMU 7); "
		"needed: the sysctl kernel.io_uring_disabled=0, and no seccomp filter against it");
}

static void probe_page_idle(struct doctor *doctor)
{
	struct rouse_error why = {0};
	int code = scan_idle_probe(NULL, &why);

	begin(doctor);
	say(doctor, "%s",
		code == 0 ? "the bitmap can be written, and the page map tells where pages are"
			  : why.message);
	tell(doctor, "page_idle", code == 0,
		"rouse scan and rouse save --estimate scan see only the writes to private memory, "
		"QEMU's default, and need userfaultfd; needed: root (CAP_SYS_ADMIN), and a kernel "
		"with CONFIG_IDLE_PAGE_TRACKING");
}

/* In a child: what is set here ends with it. Bit 0: no better nice, bit 1: no realtime. */
static int probe_scheduling(void *unused)
{
	struct sched_param realtime = {.sched_priority = 1};
	int lacks = 0;

	(void)unused;
	if (setpriority(PRIO_PROCESS, 0, -1) < 0)
		lacks |= 1;
	if (sched_setscheduler(0, SCHED_RR, &realtime) < 0)
		lacks |= 2;
	return lacks;
}

static void probe_priority(struct doctor *doctor)
{
	int lacks = rouse_child_probe(probe_scheduling, NULL, PROBE_TIMEOUT_MS);

	begin(doctor);
	if (lacks < 0)
		say(doctor, "%s", strerrordesc_np(-lacks));
	else
		say(doctor, "negative nice values %s, realtime scheduling %s",
			(lacks & 1) == 0 ? "allowed" : "not allowed",
			(lacks & 2) == 0 ? "allowed" : "not allowed");
	tell(doctor, "priority", lacks >= 0 && (lacks & 2) == 0,
		"on a busy machine the answers to faults are interrupted by everybody else, or "
		"with a "
		"negative nice value by many; needed: root, CAP_SYS_NICE or a limit on realtime "
		"priorities of 1 or more (ulimit -r)");
}

static void probe_schedstat(struct doctor *doctor)
{
	bool counted = vcpu_wait_probe() == 0;

	begin(doctor);
	say(doctor, "/proc/self/schedstat %s the time waited for a processor",
		counted ? "tells" : "does not tell");
	tell(doctor, "schedstat", counted,
		"the background of a restore does not give way to the VM: it has a fixed pace; "
		"needed: /proc, and a kernel with CONFIG_SCHED_INFO");
}

/* Whether pages that were written to can be told from a mapped file's: on a page of our own. */
static void probe_pagemap(struct doctor *doctor)
{
	cleanup_close int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	const long page = sysconf(_SC_PAGESIZE);
	volatile char written = 1;
	uint64_t word = 0;
	bool told;

	begin(doctor);
	told = fd >= 0 && rouse_io_pread(fd, &word, sizeof(word),
				  (uint64_t)(uintptr_t)&written / (uint64_t)page * 8) == 0;
	told = told && qemu_map_is_private(word);
	say(doctor, "/proc/self/pagemap %s which pages were written to",
		told ? "tells" : "does not tell");
	tell(doctor, "pagemap", told,
		"no restore from a flat file (--backend map); needed: /proc, and a kernel with "
		"CONFIG_PROC_PAGE_MONITOR");
}

int rouse_doctor(const char *qemu, const char *kernel, rouse_finding_fn *finding,
	void *finding_user, struct rouse_error *error)
{
	struct doctor doctor = {.finding = finding, .user = finding_user};

	if (finding == NULL)
		return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
			"nobody wants to know what this machine allows");
	if (qemu == NULL)
		qemu = "qemu-system-x86_64";
	if (kernel != NULL && access(kernel, R_OK) < 0)
		return rouse_error_errno(error, -errno, "cannot read the kernel %s", kernel);
	probe_qemu(&doctor, qemu);
	probe_userfaultfd(&doctor);
	probe_backend_uffd(&doctor);
	probe_trace(&doctor);
	probe_scan(&doctor);
	probe_kvm(&doctor, qemu, kernel);
	probe_io_uring(&doctor);
	probe_page_idle(&doctor);
	probe_schedstat(&doctor);
	probe_pagemap(&doctor);
	probe_priority(&doctor);
	return 0;
}
