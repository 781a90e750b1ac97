/* SPDX-License-Identifier: MIT */
/* For the benchmarks: an image that is open, and a QEMU that waits for it. */
#ifndef ROUSE_BENCH_VM_H
#define ROUSE_BENCH_VM_H

#include "image/image_reader.h"
#include "sink/sink.h"
#include "vmm/qemu_process.h"
#include "vmm/qemu_stream.h"
#include "vmm/qmp.h"

struct bench_vm {
	struct rouse_source *source;
	struct rouse_reader *reader;
	struct qemu_block *blocks;
	uint32_t block_count;
	struct qemu_process process;
	struct qmp *qmp;
	int fd;                  /* of the migration; once there is a sink it belongs to that */
	struct rouse_sink *sink; /* or NULL */
	char monitor[64];
};

/** Opens the image. Whatever comes of it, bench_vm_close() cleans up. */
int bench_vm_open_image(struct bench_vm *vm, const char *image, struct rouse_error *error);
/** Starts QEMU, up to where it waits for the migration on vm->fd. */
int bench_vm_start_qemu(
	struct bench_vm *vm, const char *const *argv, bool postcopy, struct rouse_error *error);
/** Makes the sink that Rouse itself would take. */
int bench_vm_make_sink(struct bench_vm *vm, bool postcopy, bool run, struct rouse_error *error);
/** Adds what QEMU printed to an error. Returns @code. */
int bench_vm_explain(const struct bench_vm *vm, int code, struct rouse_error *error);
/** Ends QEMU and frees everything. */
void bench_vm_close(struct bench_vm *vm);

/** Waits until QEMU has taken everything out of the socket. 0 or -errno. */
int bench_await_empty(int fd);

#endif
