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
 *	48     u32 version of the plugin interface (0: not loaded), u32 log2 of the slots for pairs,
 *	       u64 lost: pairs for which there was no slot
 *	64     ranges of 32 bytes:
 *	       u32 kind (0: data's addresses as QEMU gives them, 1: addresses in QEMU), u32 0,
 *	       u64 start, u64 bytes, u64 number of the first page
 *	4096   pages of 16 bytes:
 *	       u64 ns of CLOCK_MONOTONIC (0: not touched), u32 order (0 is the first),
 *	       u16 vcpu, u16 kinds (1 read, 2 written, 4 executed)
 *	then   slots of pairs of a virtual page and the page that it was, 16 bytes, hashed:
 *	       u64 virtual page's number % 2^36 * 2^28 + page's number + 1 (0: free), u64 ns
 *
 * What it can't see: QEMU's own accesses. They are the page walker's (the pairs tell which tables
 * it had to read), what an interrupt or exception pushes and the tables that it reads, devices
 * (DMA), and the second page of an instruction that begins in one page and ends in the next. Code
 * that is mapped at several addresses is noted at the one at which QEMU translated it.
 */
#include "qemu_plugin_abi.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define TRUTH_MAGIC "ROUSETRU"
#define TRUTH_VERSION 1u
#define TRUTH_RANGES 126u
#define PAGE_BYTES 4096u
#define MAX_PAGES ((UINT64_C(1) << 28) - 1)
#define MAX_PAIR_BITS 32u
#define PROBES 64u
#define CODE_BITS 18u

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
	uint32_t api_version, pair_bits;
	_Atomic uint64_t lost;
	struct truth_range ranges[TRUTH_RANGES];
	struct truth_page page[];
};
_Static_assert(sizeof(struct truth) == PAGE_BYTES, "header");

struct truth_pair {
	_Atomic uint64_t key, ns;
};

/* Where translated code is: what QEMU hands to on_execute(). Never freed, as QEMU may keep it. */
struct code {
	uintptr_t host;
	uint64_t vaddr;
};

/* QEMU's callbacks have no room for these. The sizes are as they were checked: others can write the
 * file. */
static struct truth *truth;
static struct truth_pair *pairs;
static uint64_t pages;
static uint32_t pair_bits;
static struct code **codes; /* hashed by both addresses */
static pthread_mutex_t codes_lock = PTHREAD_MUTEX_INITIALIZER;

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

static uint64_t hash(uint64_t key, uint32_t bits)
{
	return (key * UINT64_C(0x9e3779b97f4a7c15)) >> (64 - bits);
}

static void note_pair(uint64_t number, uint64_t vaddr)
{
	const uint64_t key = ((vaddr / PAGE_BYTES) << 28 | number) + 1;
	const uint64_t slot = hash(key, pair_bits);

	for (uint64_t i = 0; i < PROBES; i++) {
		struct truth_pair *pair = &pairs[(slot + i) & ((UINT64_C(1) << pair_bits) - 1)];
		uint64_t seen = atomic_load_explicit(&pair->key, memory_order_relaxed);

		if (seen == 0 && atomic_compare_exchange_strong(&pair->key, &seen, key)) {
			atomic_store_explicit(&pair->ns, now_ns(), memory_order_relaxed);
			return;
		}
		if (seen == key)
			return;
	}
	(void)atomic_fetch_add_explicit(&truth->lost, 1, memory_order_relaxed);
}

static void note_page(struct truth_page *page, unsigned int vcpu, uint16_t kind)
{
	uint64_t untouched = 0;

	if ((atomic_load_explicit(&page->kinds, memory_order_relaxed) & kind) != 0)
		return;
	(void)atomic_fetch_or_explicit(&page->kinds, kind, memory_order_relaxed);
	if (atomic_load_explicit(&page->ns, memory_order_relaxed) == 0 &&
		atomic_compare_exchange_strong(&page->ns, &untouched, now_ns())) {
		page->order = atomic_fetch_add_explicit(&truth->touched, 1, memory_order_relaxed);
		page->vcpu = (uint16_t)vcpu;
	}
}

static void note(
	uint32_t range_kind, uint64_t address, uint64_t vaddr, unsigned int vcpu, uint16_t kind)
{
	struct truth_page *page = find(range_kind, address);

	if (page == NULL) {
		atomic_store_explicit(&truth->stray_at, address, memory_order_relaxed);
		(void)atomic_fetch_add_explicit(&truth->stray, 1, memory_order_relaxed);
		return;
	}
	/* First the pair: the tables that it tells of are read before the page. */
	note_pair((uint64_t)(page - truth->page), vaddr);
	note_page(page, vcpu, kind);
}

static bool is_enabled(void)
{
	return atomic_load_explicit(&truth->enabled, memory_order_acquire) != 0;
}

static void note_data(unsigned int vcpu, uint32_t info, uint64_t vaddr)
{
	const struct qemu_plugin_hwaddr *where = qemu_plugin_get_hwaddr(info, vaddr);

	if (where != NULL && !qemu_plugin_hwaddr_is_io(where))
		note(RANGE_DATA, qemu_plugin_hwaddr_phys_addr(where), vaddr, vcpu,
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
	const struct code *code = user;

	if (is_enabled())
		note(RANGE_HOST, code->host, code->vaddr, vcpu, KIND_EXECUTED);
}

/* The same for the same addresses, while there is room to remember it. NULL: no memory. */
static struct code *code_at(uintptr_t host, uint64_t vaddr)
{
	const uint64_t mask = (UINT64_C(1) << CODE_BITS) - 1;
	const uint64_t slot = hash(host ^ vaddr << 17, CODE_BITS);
	struct code *found = NULL;

	(void)pthread_mutex_lock(&codes_lock);
	for (uint64_t i = 0; i < PROBES && found == NULL; i++) {
		struct code **code = &codes[(slot + i) & mask];

		if (*code == NULL && (*code = malloc(sizeof(**code))) != NULL)
			**code = (struct code){.host = host, .vaddr = vaddr};
		if (*code != NULL && (*code)->host == host && (*code)->vaddr == vaddr)
			found = *code;
	}
	(void)pthread_mutex_unlock(&codes_lock);
	if (found == NULL && (found = malloc(sizeof(*found))) != NULL)
		*found = (struct code){.host = host, .vaddr = vaddr};
	return found;
}

static void *code_of(const struct qemu_plugin_insn *insn, uintptr_t host)
{
	struct code *code =
		code_at(host, qemu_plugin_insn_vaddr(insn) & ~(uint64_t)(PAGE_BYTES - 1));

	if (code == NULL)
		abort(); /* a truth with a hole would be none */
	return code;
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
				qemu_plugin_register_vcpu_tb_exec_cb(tb, on_execute,
					QEMU_PLUGIN_NO_REGISTERS, code_of(insn, at));
			else
				qemu_plugin_register_vcpu_insn_exec_cb(insn, on_execute,
					QEMU_PLUGIN_NO_REGISTERS, code_of(insn, at));
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
	pair_bits = truth->pair_bits;
	if (memcmp(truth->magic, TRUTH_MAGIC, sizeof(truth->magic)) != 0 ||
		truth->version != TRUTH_VERSION || pages > MAX_PAGES || pair_bits == 0 ||
		pair_bits > MAX_PAIR_BITS ||
		(uint64_t)status.st_size < sizeof(*truth) + pages * sizeof(truth->page[0]) +
						   (sizeof(*pairs) << pair_bits))
		return "is not a file for it";
	pairs = (struct truth_pair *)&truth->page[pages];
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
	codes = calloc((size_t)1 << CODE_BITS, sizeof(struct code *));
	if (problem == NULL && codes == NULL)
		problem = "is of no use: there is no memory";
	if (problem != NULL) {
		(void)fprintf(stderr, "truth plugin: the file %s %s\n", path, problem);
		return -1;
	}
	truth->api_version = (uint32_t)about->version.cur;
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
	return 0;
}
