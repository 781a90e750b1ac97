/* SPDX-License-Identifier: MIT */
/*
 * A tape: the pages that Rouse's engine places, in its order, kept in memory; and those pages as
 * the bytes that QEMU reads. What a sender with nothing else to do sends.
 */
#ifndef ROUSE_BENCH_TAPE_H
#define ROUSE_BENCH_TAPE_H

#include "base/bitmap.h"
#include "bench_vm.h"

struct bench_tape {
	uint64_t *pages; /* page numbers */
	uint64_t *where; /* in data, in pages; UINT64_MAX: a zero page */
	uint64_t count, room;
	uint8_t *data;
	uint64_t stored, data_room; /* pages */
};

/**
 * Runs the engine with a sink that only takes notes: everything before the start with
 * @before_start, everything after it otherwise. Free with bench_tape_finish().
 */
int bench_tape_record(struct bench_tape *tape, const struct bench_vm *vm, enum rouse_policy policy,
	bool before_start, struct rouse_error *error);
void bench_tape_finish(struct bench_tape *tape);

/** The content of a page, NULL for zeros; false if it is not on the tape. Slow. */
bool bench_tape_find(const struct bench_tape *tape, uint64_t page, const void **data);

/**
 * The tape as page records of QEMU's stream, without the pages that are in @skip (may be NULL). The
 * caller frees *bytes. *stored: the records that are not zero pages. -ENOMEM.
 */
int bench_tape_encode(const struct bench_tape *tape, const struct bench_vm *vm,
	const struct rouse_bitmap *skip, uint8_t **bytes, size_t *size, uint64_t *stored);

#endif
