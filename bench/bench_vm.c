/* SPDX-License-Identifier: MIT */
#include "bench_vm.h"

#include "base/clock.h"
#include "base/error.h"
#include "vmm/qemu_incoming.h"
#include "vmm/qemu_sink.h"

#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define START_TIMEOUT_MS 60000
#define EMPTY_TIMEOUT_NS UINT64_C(60000000000)

static int copy_blocks(struct bench_vm *vm, struct rouse_error *error)
{
	const struct rouse_block *from = rouse_reader_blocks(vm->reader, &vm->block_count);

	vm->blocks = calloc(vm->block_count, sizeof(*vm->blocks));
	if (vm->blocks == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot list the blocks");
	for (uint32_t i = 0; i < vm->block_count; i++) {
		(void)snprintf(vm->blocks[i].name, sizeof(vm->blocks[i].name), "%s", from[i].name);
		vm->blocks[i].used_bytes = from[i].used_bytes;
		vm->blocks[i].first_page = from[i].first_page;
	}
	return 0;
}

int bench_vm_open_image(struct bench_vm *vm, const char *image, struct rouse_error *error)
{
	int code;

	*vm = (struct bench_vm){.process = QEMU_PROCESS_INIT, .fd = -1};
	code = rouse_file_source_open(image, NULL, &vm->source, error);
	if (code == 0)
		code = rouse_reader_open(vm->source, &vm->reader, error);
	return code == 0 ? copy_blocks(vm, error) : code;
}

int bench_vm_explain(const struct bench_vm *vm, int code, struct rouse_error *error)
{
	char words[256];

	qemu_process_last_words(&vm->process, words, sizeof(words));
	(void)rouse_error_prefix(error, "QEMU says \"%s\"", words);
	return code;
}

int bench_vm_start_qemu(
	struct bench_vm *vm, const char *const *argv, bool postcopy, struct rouse_error *error)
{
	struct qemu_process_config config = {
		.argv = argv, .monitor = vm->monitor, .postcopy = postcopy};
	int code;

	(void)snprintf(vm->monitor, sizeof(vm->monitor), "/tmp/rouse-bench.%d", (int)getpid());
	code = qemu_process_start(&config, &vm->process, error);
	if (code < 0)
		return code;
	/* Both belong to others from here on. */
	vm->fd = vm->process.migration;
	vm->process.migration = -1;
	code = qmp_attach(vm->process.control, START_TIMEOUT_MS, NULL, &vm->qmp, error);
	vm->process.control = -1;
	if (code < 0)
		return bench_vm_explain(vm, code, error);
	return qemu_incoming_prepare(vm->qmp, postcopy, error);
}

int bench_vm_make_sink(struct bench_vm *vm, bool postcopy, bool run, struct rouse_error *error)
{
	struct qemu_sink_config config = {
		.fd = vm->fd,
		.qmp = vm->qmp,
		.blocks = vm->blocks,
		.block_count = vm->block_count,
		.run = run,
	};
	int code;

	config.config = rouse_reader_section(vm->reader, ROUSE_SECTION_CONFIG, &config.config_size);
	config.devices =
		rouse_reader_section(vm->reader, ROUSE_SECTION_DEVICES, &config.devices_size);
	code = postcopy ? qemu_postcopy_sink_new(&config, &vm->sink, error)
			: qemu_precopy_sink_new(&config, &vm->sink, error);
	if (code < 0)
		vm->fd = -1;
	return code;
}

void bench_vm_close(struct bench_vm *vm)
{
	qemu_process_kill(&vm->process);
	if (vm->sink != NULL)
		vm->sink->ops->destroy(vm->sink);
	else if (vm->fd >= 0)
		(void)close(vm->fd);
	if (vm->qmp != NULL)
		qmp_close(vm->qmp);
	qemu_process_finish(&vm->process);
	if (vm->monitor[0] != '\0')
		(void)unlink(vm->monitor);
	rouse_reader_close(vm->reader);
	rouse_source_destroy(vm->source);
	free(vm->blocks);
}

int bench_await_empty(int fd)
{
	const uint64_t deadline = rouse_clock_ns() + EMPTY_TIMEOUT_NS;

	for (;;) {
		const struct timespec pause = {.tv_nsec = 20000};
		int waiting;

		if (ioctl(fd, SIOCOUTQ, &waiting) < 0)
			return -errno;
		if (waiting == 0)
			return 0;
		if (rouse_clock_ns() > deadline)
			return -ETIMEDOUT;
		(void)nanosleep(&pause, NULL);
	}
}
