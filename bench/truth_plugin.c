/* SPDX-License-Identifier: MIT */
/*
 * The truth: a plugin of QEMU's TCG that notes which pages a guest touches, all of them, when it
 * touches them first, and how. What the estimators of a working set find is judged by it.
 *
 *	qemu-system-x86_64 -plugin truth-plugin.so,truth=FILE ...
 *
 * FILE is mapped, shared: who has made it (harness/truth.py) sees the notes at once, switches them
 * on and off and wipes them, while the VM is stopped. Its fields are of the machine's byte order:
 *
 *	0      char magic[8] "ROUSETRU", u32 version 1, u32 enabled
 *	16     u64 pages, u32 ranges, u32 touched: how many pages have been noted
 *	32     u64 stray: touches of memory that is in no range; u64 where the last of them was
 *	48     u32 version of the plugin interface (0: not loaded)
 *	64     ranges of 32 bytes:
 *	       u32 kind (0: data's addresses as QEMU gives them, 1: addresses in QEMU), u32 0,
 *	       u64 start, u64 bytes, u64 number of the first page
 *	4096   pages of 16 bytes:
 *	       u64 ns of CLOCK_MONOTONIC (0: not touched), u32 order (0 is the first),
 *	       u16 vcpu, u16 kinds (1 read, 2 written, 4 executed)
 *
 * What it can't see: QEMU's own accesses. They are the page walker's reads of page tables and
 * setting of accessed bits, what an interrupt or exception pushes and the tables it reads, devices
 * (DMA), and the second page of an instruction that begins in one page and ends in the next.
 */
#include "qemu_plugin_abi.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define TRUTH_MAGIC "ROUSETRU"
#define TRUTH_VERSION 1u
#define TRUTH_RANGES 126u
#define PAGE_BYTES 4096u
#define MAX_PAGES (UINT64_C(1) << 28)

enum { KIND_READ = 1, KIND_WRITTEN = 2, KIND_EXECUTED = 4 };
enum { RANGE_DATA = 0, RANGE_HOST = 1 };

struct truth_range {
	uint32_t kind, reserved;
	uint64_t start, bytes, first_page;
};

struct truth_page {
	_Atomic uint64_t ns;
	uint32_t order;
	uint16_t vcpu;
	_Atomic uint16_t kinds;
};
_Static_assert(sizeof(struct truth_page) == 16, "page");

struct truth {
	char magic[8];
	uint32_t version;
	_Atomic uint32_t enabled;
	uint64_t pages;
	uint32_t range_count;
	_Atomic uint32_t touched;
	_Atomic uint64_t stray, stray_at;
	uint32_t api_version, reserved[3];
	struct truth_range ranges[TRUTH_RANGES];
	struct truth_page page[];
};
_Static_assert(sizeof(struct truth) == PAGE_BYTES, "header");

/* QEMU's callbacks have no room for it. */
static struct truth *truth;
static uint64_t pages; /* as they were checked: the file can be written by others */

int qemu_plugin_version = 1;

/* QEMU reads the version when it has loaded the plugin, and from 9.0 on wants 2 at least. */
__attribute__((constructor)) static void choose_version(void)
{
	if (dlsym(RTLD_DEFAULT, "qemu_plugin_scoreboard_new") != NULL)
		qemu_plugin_version = 2;
}

static uint64_t now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static struct truth_page *find(uint32_t kind, uint64_t address)
{
	uint32_t count = truth->range_count < TRUTH_RANGES ? truth->range_count : TRUTH_RANGES;

	for (uint32_t i = 0; i < count; i++) {
		const struct truth_range *range = &truth->ranges[i];
		uint64_t offset = address - range->start;

		if (range->kind == kind && offset < range->bytes) {
			uint64_t number = range->first_page + offset / PAGE_BYTES;

			return number < pages ? &truth->page[number] : NULL;
		}
	}
	return NULL;
}

static void note(uint32_t range_kind, uint64_t address, unsigned int vcpu, uint16_t kind)
{
	struct truth_page *page = find(range_kind, address);
	uint64_t untouched = 0;

	if (page == NULL) {
		atomic_store_explicit(&truth->stray_at, address, memory_order_relaxed);
		(void)atomic_fetch_add_explicit(&truth->stray, 1, memory_order_relaxed);
		return;
	}
	if ((atomic_load_explicit(&page->kinds, memory_order_relaxed) & kind) != 0)
		return;
	(void)atomic_fetch_or_explicit(&page->kinds, kind, memory_order_relaxed);
	if (atomic_load_explicit(&page->ns, memory_order_relaxed) == 0 &&
		atomic_compare_exchange_strong(&page->ns, &untouched, now_ns())) {
		page->order = atomic_fetch_add_explicit(&truth->touched, 1, memory_order_relaxed);
		page->vcpu = (uint16_t)vcpu;
	}
}

static bool is_enabled(void)
{
	return atomic_load_explicit(&truth->enabled, memory_order_acquire) != 0;
}

static void note_data(unsigned int vcpu, uint32_t info, uint64_t vaddr)
{
	const struct qemu_plugin_hwaddr *where = qemu_plugin_get_hwaddr(info, vaddr);

	if (where != NULL && !qemu_plugin_hwaddr_is_io(where))
		note(RANGE_DATA, qemu_plugin_hwaddr_phys_addr(where), vcpu,
			qemu_plugin_mem_is_store(info) ? KIND_WRITTEN : KIND_READ);
}

static void on_access(unsigned int vcpu, uint32_t info, uint64_t vaddr, void *user)
{
	uint64_t last;

	(void)user;
	if (!is_enabled())
		return;
	note_data(vcpu, info, vaddr);
	last = vaddr + (UINT64_C(1) << qemu_plugin_mem_size_shift(info)) - 1;
	if (last / PAGE_BYTES != vaddr / PAGE_BYTES)
		note_data(vcpu, info, last);
}

static void on_execute(unsigned int vcpu, void *user)
{
	if (is_enabled())
		note(RANGE_HOST, (uintptr_t)user, vcpu, KIND_EXECUTED);
}

/*
 * Everything is instrumented, whether notes are on or not: to change that later, QEMU would have to
 * forget all translated code, and would read the guest's code anew when the notes begin. What
 * watches QEMU's memory at the same time would then see more than without the truth.
 */
static void on_translate(uint64_t id, struct qemu_plugin_tb *tb)
{
	size_t count = qemu_plugin_tb_n_insns(tb);
	uintptr_t page = 0;

	(void)id;
	for (size_t i = 0; i < count; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uintptr_t at =
			(uintptr_t)qemu_plugin_insn_haddr(insn) & ~(uintptr_t)(PAGE_BYTES - 1);

		if (at != 0 && at != page) {
			if (i == 0)
				qemu_plugin_register_vcpu_tb_exec_cb(
					tb, on_execute, QEMU_PLUGIN_NO_REGISTERS, (void *)at);
			else
				qemu_plugin_register_vcpu_insn_exec_cb(
					insn, on_execute, QEMU_PLUGIN_NO_REGISTERS, (void *)at);
			page = at;
		}
		qemu_plugin_register_vcpu_mem_cb(
			insn, on_access, QEMU_PLUGIN_NO_REGISTERS, QEMU_PLUGIN_BOTH, NULL);
	}
}

static const char *map_truth(const char *path)
{
	struct stat status;
	void *at;
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return "cannot be opened";
	if (fstat(fd, &status) < 0 || status.st_size < (off_t)sizeof(struct truth)) {
		(void)close(fd);
		return "is too short";
	}
	at = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	(void)close(fd);
	if (at == MAP_FAILED)
		return "cannot be mapped";
	truth = at;
	pages = truth->pages;
	if (memcmp(truth->magic, TRUTH_MAGIC, sizeof(truth->magic)) != 0 ||
		truth->version != TRUTH_VERSION || pages > MAX_PAGES ||
		(uint64_t)status.st_size < sizeof(*truth) + pages * sizeof(truth->page[0]))
		return "is not a file for it";
	return NULL;
}

int qemu_plugin_install(uint64_t id, const struct qemu_plugin_about *about, int argc, char **argv)
{
	static const char option[] = "truth=";
	const char *problem = "is missing: give truth=FILE";
	const char *path = "";

	for (int i = 0; i < argc; i++) {
		if (strncmp(argv[i], option, strlen(option)) == 0) {
			path = argv[i] + strlen(option);
			problem = map_truth(path);
		}
	}
	if (problem == NULL && !about->system_emulation)
		problem = "is of no use: this is not a machine";
	if (problem != NULL) {
		(void)fprintf(stderr, "truth plugin: the file %s %s\n", path, problem);
		return -1;
	}
	truth->api_version = (uint32_t)about->version.cur;
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
	return 0;
}
