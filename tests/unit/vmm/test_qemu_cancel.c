/* SPDX-License-Identifier: MIT */
/*
 * A QEMU that reads nothing (stopped, frozen, waiting for something else): the sinks fill the
 * socket and wait, until the restore is cancelled.
 */
#include "vmm/qemu_sink.h"

#include "fake_monitor.h"

#include <poll.h>
#include <sys/ioctl.h>

#define PAGE_COUNT 2048u /* 8 MiB: more than any socket holds here */
#define LATE_S 20        /* for what takes no time at all, on a busy machine */

struct vm {
	struct rouse_cancel *cancel;
	struct rouse_observer observer;
	struct fake_monitor monitor;
	struct rouse_sink *sink;
	int qemus; /* the end of the connection that nobody reads */
	struct rouse_sink_page *pages;
	unsigned char content[4096];
	unsigned char *devices;
};

typedef int make_fn(
	const struct qemu_sink_config *config, struct rouse_sink **sink, struct rouse_error *error);

static const struct qemu_block blocks[] = {{.name = "pc.ram", .used_bytes = PAGE_COUNT * 4096u}};

static void vm_open(struct vm *vm, make_fn *make)
{
	const size_t devices_size = 4u << 20;
	struct qemu_sink_config config;
	int fds[2];

	*vm = (struct vm){0};
	assert_int_equal(rouse_cancel_new(&vm->cancel), 0);
	vm->observer.cancel = vm->cancel;
	fake_monitor_open(&vm->monitor, NULL);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	vm->qemus = fds[1];
	vm->pages = calloc(PAGE_COUNT, sizeof(*vm->pages));
	vm->devices = calloc(1, devices_size);
	assert_non_null(vm->pages);
	assert_non_null(vm->devices);
	for (uint64_t i = 0; i < PAGE_COUNT; i++)
		vm->pages[i] = (struct rouse_sink_page){.page = i, .data = vm->content};
	config = (struct qemu_sink_config){
		.fd = fds[0],
		.qmp = vm->monitor.qmp,
		.blocks = blocks,
		.block_count = 1,
		.devices = vm->devices,
		.devices_size = devices_size,
		.run = true,
		.observer = &vm->observer,
	};
	assert_int_equal(make(&config, &vm->sink, NULL), 0);
}

static void vm_close(struct vm *vm)
{
	vm->sink->ops->destroy(vm->sink);
	fake_monitor_close(&vm->monitor);
	(void)close(vm->qemus);
	rouse_cancel_free(vm->cancel);
	free(vm->pages);
	free(vm->devices);
}

/* Bytes that wait for QEMU. */
static int unread(const struct vm *vm)
{
	int bytes = 0;

	assert_int_equal(ioctl(vm->qemus, FIONREAD, &bytes), 0);
	return bytes;
}

/* A call that waits for QEMU, in a thread of its own. */
struct call {
	struct vm *vm;
	int (*function)(struct vm *vm);
	int code;
	pthread_t thread;
};

static void *call_main(void *argument)
{
	struct call *call = argument;

	call->code = call->function(call->vm);
	return NULL;
}

static void call_begin(struct call *call, struct vm *vm, int (*function)(struct vm *vm))
{
	*call = (struct call){.vm = vm, .function = function};
	assert_int_equal(pthread_create(&call->thread, NULL, call_main, call), 0);
}

static int call_end(struct call *call)
{
	struct timespec late;

	(void)clock_gettime(CLOCK_REALTIME, &late);
	late.tv_sec += LATE_S;
	if (pthread_timedjoin_np(call->thread, NULL, &late) != 0) {
		/* It must not go on with what is freed. */
		(void)shutdown(call->vm->qemus, SHUT_RDWR);
		(void)pthread_join(call->thread, NULL);
		fail_msg("it did not see the cancel");
	}
	return call->code;
}

/* Until no more has come for a while: who writes waits. */
static void await_full(const struct vm *vm)
{
	int before = -1;

	while (unread(vm) == 0 || unread(vm) != before) {
		before = unread(vm);
		(void)poll(NULL, 0, 100);
	}
}

/* Cancels a call once it waits. */
static void expect_cancelled(struct vm *vm, int (*function)(struct vm *vm))
{
	struct call call;

	call_begin(&call, vm, function);
	await_full(vm);
	rouse_cancel_fire(vm->cancel);
	assert_int_equal(call_end(&call), -ECANCELED);
}

static int prefetch_all(struct vm *vm)
{
	return vm->sink->ops->prefetch(vm->sink, vm->pages, PAGE_COUNT);
}

static int place_all(struct vm *vm)
{
	return vm->sink->ops->place(vm->sink, vm->pages, PAGE_COUNT, ROUSE_SINK_BACKGROUND, NULL);
}

static int place_all_urgently(struct vm *vm)
{
	return vm->sink->ops->place(vm->sink, vm->pages, PAGE_COUNT, ROUSE_SINK_URGENT, NULL);
}

static int place_last_urgently(struct vm *vm)
{
	return vm->sink->ops->place(
		vm->sink, vm->pages + PAGE_COUNT - 1, 1, ROUSE_SINK_URGENT, NULL);
}

/* Its devices are more than the socket holds. */
static int start(struct vm *vm)
{
	struct rouse_error error = {0};
	uint64_t started_ns;
	int code = vm->sink->ops->start(vm->sink, &started_ns, &error);

	return error.kind == ROUSE_ERROR_CANCELLED ? code : -EPROTO;
}

static int send_without_start(struct vm *vm)
{
	return qemu_precopy_send(vm->sink);
}

static void cancel_one(make_fn *make, int (*function)(struct vm *vm))
{
	struct vm vm;

	vm_open(&vm, make);
	expect_cancelled(&vm, function);
	vm_close(&vm);
}

static void a_cancel_ends_a_precopy_that_qemu_does_not_read(void **state)
{
	(void)state;
	cancel_one(qemu_precopy_sink_new, prefetch_all);
	cancel_one(qemu_precopy_sink_new, start);
	cancel_one(qemu_precopy_sink_new, send_without_start);
}

static void a_cancel_ends_what_postcopy_sends_before_the_start(void **state)
{
	(void)state;
	cancel_one(qemu_postcopy_sink_new, prefetch_all);
	cancel_one(qemu_postcopy_sink_new, start);
}

static void a_cancel_ends_a_background_that_waits_for_room(void **state)
{
	(void)state;
	cancel_one(qemu_postcopy_sink_new, place_all);
}

static void a_cancel_ends_an_answer_to_a_fault(void **state)
{
	(void)state;
	cancel_one(qemu_postcopy_sink_new, place_all_urgently);
}

/* QEMU would take an urgent page for the rest of the one that was cut off. */
static void nothing_is_written_behind_a_page_that_was_cut_off(void **state)
{
	static char bytes[1 << 20];
	struct vm vm;

	(void)state;
	vm_open(&vm, qemu_postcopy_sink_new);
	expect_cancelled(&vm, place_all_urgently);
	/* Now there is room again. */
	while (unread(&vm) > 0)
		assert_true(read(vm.qemus, bytes, sizeof(bytes)) > 0);
	assert_int_equal(place_last_urgently(&vm), -ECANCELED);
	assert_int_equal(unread(&vm), 0);
	vm_close(&vm);
}

/* The background has cut nothing off then: it waits between its groups. */
static void faults_are_answered_until_a_cancelled_restore_ends(void **state)
{
	struct vm vm;
	int before;

	(void)state;
	vm_open(&vm, qemu_postcopy_sink_new);
	expect_cancelled(&vm, place_all);
	before = unread(&vm);
	assert_int_equal(place_last_urgently(&vm), 0);
	assert_true(unread(&vm) > before);
	vm_close(&vm);
}

/* Two threads wait: one writes and holds the lock, the other wants it. */
static void a_cancel_ends_the_background_behind_an_urgent_page(void **state)
{
	struct call urgent, background;
	struct vm vm;

	(void)state;
	vm_open(&vm, qemu_postcopy_sink_new);
	call_begin(&urgent, &vm, place_all_urgently);
	await_full(&vm);
	call_begin(&background, &vm, place_all);
	rouse_cancel_fire(vm.cancel);
	assert_int_equal(call_end(&urgent), -ECANCELED);
	assert_int_equal(call_end(&background), -ECANCELED);
	vm_close(&vm);
}

/* A QEMU that has got all, and never says so. */
static void a_cancel_shortens_the_wait_for_the_end(void **state)
{
	struct rouse_error error = {0};
	struct vm vm;

	(void)state;
	vm_open(&vm, qemu_postcopy_sink_new);
	rouse_cancel_fire(vm.cancel);
	assert_int_equal(vm.sink->ops->finish(vm.sink, &error), -ECANCELED);
	assert_int_equal(error.kind, ROUSE_ERROR_CANCELLED);
	assert_non_null(strstr(error.message, "--resume"));
	vm_close(&vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_cancel_ends_a_precopy_that_qemu_does_not_read),
		cmocka_unit_test(a_cancel_ends_what_postcopy_sends_before_the_start),
		cmocka_unit_test(a_cancel_ends_a_background_that_waits_for_room),
		cmocka_unit_test(a_cancel_ends_an_answer_to_a_fault),
		cmocka_unit_test(nothing_is_written_behind_a_page_that_was_cut_off),
		cmocka_unit_test(faults_are_answered_until_a_cancelled_restore_ends),
		cmocka_unit_test(a_cancel_ends_the_background_behind_an_urgent_page),
		cmocka_unit_test(a_cancel_shortens_the_wait_for_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
