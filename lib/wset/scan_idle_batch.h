/* SPDX-License-Identifier: MIT */
/*
 * The pages of a batch and the kernel's words about them, in few system calls. Items are sorted by
 * PFN.
 */
#ifndef ROUSE_WSET_SCAN_IDLE_BATCH_H
#define ROUSE_WSET_SCAN_IDLE_BATCH_H

#include "wset/scan_idle.h"

/*
 * Words @first and up of a file. *have: so many there are, the rest is zeros; the files end where
 * the machine's memory does. 0, or an error of the read.
 */
int scan_idle_words_read(const struct scan_idle_kernel *kernel, enum scan_idle_file file,
	uint64_t first, uint64_t *words, size_t count, size_t *have);
/* Reads the items' bits. What reading finds accessed loses its mark by it. */
int scan_idle_bits_read(
	const struct scan_idle_kernel *kernel, struct scan_idle_item *items, size_t count);
/* Sets the items' bits; what the kernel cannot set it leaves alone. */
int scan_idle_bits_write(
	const struct scan_idle_kernel *kernel, const struct scan_idle_item *items, size_t count);
/* Reads the items' flags; 0 where there are none. */
int scan_idle_flags_read(
	const struct scan_idle_kernel *kernel, struct scan_idle_item *items, size_t count);
/* Finds the items' heads by their flags, and by those of pages before them. */
int scan_idle_heads_find(
	const struct scan_idle_kernel *kernel, struct scan_idle_item *items, size_t count);

#endif
