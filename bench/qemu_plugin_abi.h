/* SPDX-License-Identifier: MIT */
/*
 * The part of QEMU's plugin interface that truth_plugin.c needs, written down from QEMU's
 * documentation (docs/devel/tcg-plugins.rst, include/qemu/qemu-plugin.h; 4.2 and later), because
 * Debian installs no header for it. The functions are in the QEMU executable and are found when it
 * loads the plugin. None of them has changed between API versions 1 (QEMU 7.2) and 5 (QEMU 10).
 */
#ifndef ROUSE_BENCH_QEMU_PLUGIN_ABI_H
#define ROUSE_BENCH_QEMU_PLUGIN_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QEMU_PLUGIN_SHOWN __attribute__((visibility("default")))

/* What qemu_plugin_install() is told. More follows, which is not needed here. */
struct qemu_plugin_about {
	const char *target_name;
	struct {
		int min; /* API versions that this QEMU supports */
		int cur;
	} version;
	bool system_emulation;
};

struct qemu_plugin_tb;     /* a block of guest code that is being translated */
struct qemu_plugin_insn;   /* an instruction in it */
struct qemu_plugin_hwaddr; /* where an access went; until the callback ends */

enum qemu_plugin_registers { QEMU_PLUGIN_NO_REGISTERS = 0 };
enum qemu_plugin_direction { QEMU_PLUGIN_LOADS = 1, QEMU_PLUGIN_STORES = 2, QEMU_PLUGIN_BOTH = 3 };

typedef void qemu_plugin_on_translate(uint64_t id, struct qemu_plugin_tb *tb);
typedef void qemu_plugin_on_execute(unsigned int vcpu, void *user);
typedef void qemu_plugin_on_access(unsigned int vcpu, uint32_t info, uint64_t vaddr, void *user);

/* QEMU's. */
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, qemu_plugin_on_translate *callback);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb,
	qemu_plugin_on_execute *callback, enum qemu_plugin_registers registers, void *user);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn,
	qemu_plugin_on_execute *callback, enum qemu_plugin_registers registers, void *user);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *insn,
	qemu_plugin_on_access *callback, enum qemu_plugin_registers registers,
	enum qemu_plugin_direction direction, void *user);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
/* Despite its name, the address in QEMU's own memory; NULL if it is not memory. */
void *qemu_plugin_insn_haddr(const struct qemu_plugin_insn *insn);
/* The logarithm of an access's bytes. */
unsigned int qemu_plugin_mem_size_shift(uint32_t info);
bool qemu_plugin_mem_is_store(uint32_t info);
struct qemu_plugin_hwaddr *qemu_plugin_get_hwaddr(uint32_t info, uint64_t vaddr);
bool qemu_plugin_hwaddr_is_io(const struct qemu_plugin_hwaddr *where);
/*
 * From QEMU 8.2 on the guest-physical address. Before, of memory: its RAM block's place in QEMU's
 * own numbering of all RAM ("Offset" of `info ramblock`), plus the offset in the block, plus the
 * address of the block's memory region in its container.
 */
uint64_t qemu_plugin_hwaddr_phys_addr(const struct qemu_plugin_hwaddr *where);

/* The plugin's. */
extern QEMU_PLUGIN_SHOWN int qemu_plugin_version;
QEMU_PLUGIN_SHOWN int qemu_plugin_install(
	uint64_t id, const struct qemu_plugin_about *about, int argc, char **argv);

#endif
