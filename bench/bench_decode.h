/* SPDX-License-Identifier: MIT */
/*
 * The work that no restore from an image is without: its bytes read (from the page cache),
 * verified and decompressed, by one thread, into memory that stays in the processor's cache.
 */
#ifndef ROUSE_BENCH_DECODE_H
#define ROUSE_BENCH_DECODE_H

#include "bench_vm.h"

/** All chunks, or with @wset those of the working set. *pages: in them. */
int bench_decode(const struct bench_vm *vm, bool wset, uint64_t *pages, struct rouse_error *error);

#endif
