/* SPDX-License-Identifier: MIT */
/*
 * What a restore that broke off leaves to the next one, in a program that lives on. This process
 * plays QEMU, too: a thread answers its monitor and keeps what it is handed.
 */
#include "../image/image_fixture.h"
#include "api/restore_qemu.h"
#include "base/error.h"
#include "vmm/qemu_rescue.h"

#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>

#define PAGES 16u

struct vm {
	struct fixture *files;
	char socket[96];
	int ours, qemus; /* ends of the monitor connection */
	int deposit;     /* QEMU's duplicate of our end; -1: none */
	bool asked;      /* QEMU was to recover */
	pthread_t thread;
};

/* Reads one line, and the descriptor that came with it, if any. */
static bool read_line(struct vm *vm, char *line, size_t room)
{
	size_t used = 0;

	while (used + 1 < room) {
		union {
			struct cmsghdr header;
			char bytes[CMSG_SPACE(sizeof(int))];
		} control;
		struct iovec piece = {.iov_base = line + used, .iov_len = 1};
		struct msghdr message = {.msg_iov = &piece,
			.msg_iovlen = 1,
			.msg_control = &control,
			.msg_controllen = sizeof(control)};

		if (recvmsg(vm->qemus, &message, MSG_CMSG_CLOEXEC) <= 0)
			return false;
		if (message.msg_controllen > 0)
			memcpy(&vm->deposit, CMSG_DATA(&control.header), sizeof(int));
		if (line[used++] == '\n')
			break;
	}
	line[used] = '\0';
	return true;
}

/* All is well with QEMU, but that it does not know how to recover. */
static void *answer(void *argument)
{
	struct vm *vm = argument;
	char line[1024];

	while (read_line(vm, line, sizeof(line))) {
		const bool recover = strstr(line, "migrate-recover") != NULL;
		json_t *command = json_loads(line, 0, NULL);
		int size = snprintf(line, sizeof(line), "{\"id\": %lld, %s}\n",
			(long long)json_integer_value(json_object_get(command, "id")),
			recover ? "\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"?\"}"
				: "\"return\": {}");

		json_decref(command);
		if (recover)
			__atomic_store_n(&vm->asked, true, __ATOMIC_SEQ_CST);
		(void)!send(vm->qemus, line, (size_t)size, MSG_NOSIGNAL);
	}
	return NULL;
}

static int vm_begin(void **state)
{
	struct vm *vm = calloc(1, sizeof(*vm));
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int ends[2];

	assert_non_null(vm);
	(void)fixture_setup((void **)&vm->files);
	(void)snprintf(vm->socket, sizeof(vm->socket), "%s/qmp", vm->files->directory);
	memcpy(address.sun_path, vm->socket, strlen(vm->socket) + 1);
	assert_int_equal(bind(listener, (const struct sockaddr *)&address, sizeof(address)), 0);
	(void)close(listener);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	vm->ours = ends[0];
	vm->qemus = ends[1];
	vm->deposit = -1;
	assert_int_equal(pthread_create(&vm->thread, NULL, answer, vm), 0);
	*state = vm;
	return 0;
}

static int vm_end(void **state)
{
	struct vm *vm = *state;

	(void)shutdown(vm->qemus, SHUT_RDWR);
	(void)pthread_join(vm->thread, NULL);
	cleanup_close_fn(&vm->ours);
	cleanup_close_fn(&vm->deposit);
	(void)close(vm->qemus);
	(void)fixture_teardown((void **)&vm->files);
	free(vm);
	return 0;
}

/* A restore that serves the VM. */
static struct restore_qemu serve(struct vm *vm, uint64_t checkpoint)
{
	struct restore_qemu qemu = RESTORE_QEMU_INIT;
	struct rouse_error error = {0};

	assert_int_equal(qmp_adopt(take_fd(&vm->ours), NULL, &qemu.qmp, NULL), 0);
	if (qemu_rescue_deposit(qemu.qmp, vm->socket, getpid(), checkpoint, &error) != 0)
		fail_msg("%s", error.message);
	assert_true(vm->deposit >= 0);
	qemu.deposited = true;
	return qemu;
}

static void write_image(const struct vm *vm, const char *devices)
{
	struct rouse_writer *writer = begin_image(vm->files->path, PAGES, NULL, NULL, 0);

	for (uint64_t page = 0; page < PAGES; page++)
		put_seed(writer, page, page);
	assert_int_equal(
		rouse_writer_set_section(writer, ROUSE_SECTION_METADATA, "{\"format\":1}", 12), 0);
	assert_int_equal(
		rouse_writer_set_section(writer, ROUSE_SECTION_DEVICES, devices, strlen(devices)),
		0);
	(void)end_image(writer);
}

static uint64_t checkpoint_of_image(const struct vm *vm)
{
	struct open_image image = open_image(vm->files->path);
	const struct rouse_disk_superblock *superblock = rouse_reader_superblock(image.reader);
	const uint64_t checkpoint = le64_get(superblock->sections[ROUSE_SECTION_DEVICES].checksum);

	close_image(&image);
	return checkpoint;
}

static int take_over(const struct vm *vm, struct rouse_error *error)
{
	struct rouse_restore_options options;

	rouse_restore_options_init(&options);
	options.image = vm->files->path;
	options.policy = ROUSE_POLICY_LAZY;
	options.io = ROUSE_IO_CACHED;
	options.qmp_socket = vm->socket;
	options.resume = true;
	return rouse_restore(&options, NULL, NULL, error);
}

static void a_restore_that_broke_off_can_be_taken_over_by_the_same_process(void **state)
{
	struct vm *vm = *state;
	struct restore_qemu qemu = serve(vm, 42);
	struct qemu_rescue_name name = {0};
	struct rouse_error error = {0};
	cleanup_close int fd = -1;

	assert_int_equal(qemu_rescue_find(vm->socket, &name, &fd, &error), -EBUSY);
	assert_int_equal(error.kind, ROUSE_ERROR_REFUSED);
	restore_qemu_finish(&qemu, true);
	assert_int_equal(qemu_rescue_find(vm->socket, &name, &fd, &error), 0);
	assert_int_equal(name.checkpoint, 42);
}

static void a_takeover_with_the_wrong_image_leaves_the_vm_to_the_right_one(void **state)
{
	struct vm *vm = *state;
	struct restore_qemu qemu;
	struct rouse_error error = {0};

	write_image(vm, "these devices");
	qemu = serve(vm, checkpoint_of_image(vm));
	restore_qemu_finish(&qemu, true);
	write_image(vm, "other devices");
	assert_int_equal(take_over(vm, &error), -EINVAL);
	assert_int_equal(error.kind, ROUSE_ERROR_MISMATCH);
	assert_false(__atomic_load_n(&vm->asked, __ATOMIC_SEQ_CST));
	write_image(vm, "these devices");
	/* It comes as far as QEMU, which knows nothing of it; and again. */
	for (unsigned int i = 0; i < 2; i++) {
		__atomic_store_n(&vm->asked, false, __ATOMIC_SEQ_CST);
		assert_int_equal(take_over(vm, &error), -ENOSYS);
		assert_true(__atomic_load_n(&vm->asked, __ATOMIC_SEQ_CST));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			a_restore_that_broke_off_can_be_taken_over_by_the_same_process, vm_begin,
			vm_end),
		cmocka_unit_test_setup_teardown(
			a_takeover_with_the_wrong_image_leaves_the_vm_to_the_right_one, vm_begin,
			vm_end),
	};

	return cmocka_run_group_tests_name("restore_qemu", tests, NULL, NULL);
}
