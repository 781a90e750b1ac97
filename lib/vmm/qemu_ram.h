/* SPDX-License-Identifier: MIT */
/*
 * Where QEMU has the VM's memory: its RAM blocks, in the order in which its migration stream lists
 * them, and where in QEMU's address space each lies.
 *
 * The blocks come from `x-query-ramblock`. Since QEMU 8 it gives addresses too. Before, an address
 * is asked for by a guest-physical one (`gpa2hva`), which `info mtree -f` knows for what the guest
 * can see now; that is all RAM, and most else. docs: QEMU's documentation of the human monitor.
 */
#ifndef ROUSE_VMM_QEMU_RAM_H
#define ROUSE_VMM_QEMU_RAM_H

#include "vmm/qmp.h"

struct qemu_ram_block {
	char name[256];
	uint64_t used_bytes;
	uint64_t host; /**< address in QEMU; 0: unknown */
};

/** A part of the guest's physical address space that is memory: a line of `info mtree -f`. */
struct qemu_ram_range {
	char name[256];  /**< of the memory region */
	uint64_t guest;  /**< address */
	uint64_t offset; /**< in the region */
};

/**
 * Parses the text of `x-query-ramblock`. Pure. Blocks without a name are left out: they are memory
 * that QEMU does not migrate (of a backend that nothing uses, a BAR of a VFIO device), so that they
 * are neither in its stream nor in page numbers. *blocks is the caller's to free(3). -EUCLEAN: it
 * is none, -ENOMEM.
 */
int qemu_ram_parse_blocks(const char *text, struct qemu_ram_block **blocks, size_t *count);
/** Parses a line of `info mtree -f`, @length bytes. Pure. False: it is no memory. */
bool qemu_ram_parse_range(const char *line, size_t length, struct qemu_ram_range *range);
/** Parses the answer of `gpa2hva`. Pure. False: there is no address in it. */
bool qemu_ram_parse_address(const char *text, uint64_t *address);

/** Asks QEMU for its RAM blocks. *blocks is the caller's to free(3). Errors of qmp_execute(). */
int qemu_ram_query(
	struct qmp *qmp, struct qemu_ram_block **blocks, size_t *count, struct rouse_error *error);

/**
 * Thread ids of the vCPUs, as QEMU numbers them. *tids is the caller's to free(3); its index is the
 * vCPU's. Errors of qmp_execute().
 */
int qemu_ram_query_vcpus(
	struct qmp *qmp, uint32_t **tids, size_t *count, struct rouse_error *error);

#endif
