/* SPDX-License-Identifier: MIT */
/*
 * Monitor connections that lie in a QEMU: their addresses, and finding them. This process plays
 * QEMU, and what it takes out of QEMU it takes out of itself.
 */
#include "../unit.h"

#include "base/cleanup.h"
#include "vmm/qemu_rescue.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

static const struct qemu_rescue_name sample = {
	.device = 0xfd00, .inode = 123456, .checkpoint = 0xabc, .nonce = ~UINT64_C(0), .pid = 4711};

static void assert_same(const struct qemu_rescue_name *one, const struct qemu_rescue_name *other)
{
	assert_int_equal(one->device, other->device);
	assert_int_equal(one->inode, other->inode);
	assert_int_equal(one->checkpoint, other->checkpoint);
	assert_int_equal(one->nonce, other->nonce);
	assert_int_equal(one->pid, other->pid);
}

static int parse_with_name(const char *name, struct qemu_rescue_name *parsed, uint64_t *inode)
{
	char line[512];

	(void)snprintf(line, sizeof(line),
		"00000000f0818fc5: 00000003 00000000 00000000 0001 03  1581 %s\n", name);
	return qemu_rescue_parse_line(line, parsed, inode);
}

static void an_address_says_what_was_put_into_it(void **state)
{
	char text[QEMU_RESCUE_TEXT + 1] = "@";
	struct qemu_rescue_name parsed;
	uint64_t inode = 0;

	(void)state;
	qemu_rescue_name_format(&sample, text + 1);
	assert_int_equal(parse_with_name(text, &parsed, &inode), 0);
	assert_same(&parsed, &sample);
	assert_int_equal(inode, 1581);
}

static void the_longest_address_fits(void **state)
{
	const struct qemu_rescue_name longest = {.device = UINT64_MAX,
		.inode = UINT64_MAX,
		.checkpoint = UINT64_MAX,
		.nonce = UINT64_MAX,
		.pid = INT32_MAX};
	char text[QEMU_RESCUE_TEXT + 1] = "@";
	struct qemu_rescue_name parsed;
	struct sockaddr_un address;
	uint64_t inode = 0;

	(void)state;
	qemu_rescue_name_format(&longest, text + 1);
	assert_true(strlen(text) <= sizeof(address.sun_path));
	assert_int_equal(parse_with_name(text, &parsed, &inode), 0);
	assert_same(&parsed, &longest);
}

static void what_is_no_address_of_ours_is_passed_over(void **state)
{
	static const char *const names[] = {
		"",
		"@",
		"/run/qmp",
		"@rouse-monitor",
		"@rouse-monitor/",
		"@rouse-monitor/1:2/3/4/5",
		"@rouse-monitor/1:2/0000000000000003/0000000000000004/0",
		"@rouse-monitor/1:2/0000000000000003/0000000000000004/-5",
		"@rouse-monitor/1:2/0000000000000003/0000000000000004/5 ",
		"@rouse-monitor/01:2/0000000000000003/0000000000000004/5",
		"@rouse-monitor/1:2/0000000000000003/0000000000000004/99999999999",
		" @rouse-monitor/1:2/0000000000000003/0000000000000004/5",
		"/x @rouse-monitor/1:2/0000000000000003/0000000000000004/5",
		"x@rouse-monitor/1:2/0000000000000003/0000000000000004/5",
	};
	struct qemu_rescue_name parsed;
	char endless[300];
	uint64_t inode;

	(void)state;
	assert_int_equal(parse_with_name("@rouse-monitor/1:2/0000000000000003/0000000000000004/5",
				 &parsed, &inode),
		0);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		assert_int_equal(parse_with_name(names[i], &parsed, &inode), -ENOENT);
	(void)snprintf(endless, sizeof(endless), "@rouse-monitor/%0280d", 1);
	assert_int_equal(parse_with_name(endless, &parsed, &inode), -ENOENT);
	assert_int_equal(qemu_rescue_parse_line("", &parsed, &inode), -ENOENT);
	assert_int_equal(qemu_rescue_parse_line("@", &parsed, &inode), -ENOENT);
}

/* ---- Finding --------------------------------------------------------------------------------- */

/* A VM's socket in the file system, and a connection to it that is named. */
struct vm {
	char directory[64], socket[80];
	int ends[2];
};

static struct qemu_rescue_name name_of(const struct vm *vm, int pid)
{
	struct stat status;

	assert_int_equal(stat(vm->socket, &status), 0);
	return (struct qemu_rescue_name){.device = status.st_dev,
		.inode = status.st_ino,
		.checkpoint = 42,
		.nonce = status.st_ino ^ (uint64_t)pid << 32,
		.pid = pid};
}

static int bind_as(int fd, const struct qemu_rescue_name *name)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char text[QEMU_RESCUE_TEXT];
	size_t size;

	qemu_rescue_name_format(name, text);
	size = strlen(text);
	memcpy(address.sun_path + 1, text, size);
	size += offsetof(struct sockaddr_un, sun_path) + 1;
	return bind(fd, (const struct sockaddr *)&address, (socklen_t)size);
}

static int vm_begin(void **state)
{
	struct vm *vm = calloc(1, sizeof(*vm));
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)snprintf(vm->directory, sizeof(vm->directory), "/tmp/rouse-test-XXXXXX");
	assert_non_null(mkdtemp(vm->directory));
	(void)snprintf(vm->socket, sizeof(vm->socket), "%s/qmp", vm->directory);
	memcpy(address.sun_path, vm->socket, strlen(vm->socket) + 1);
	assert_int_equal(bind(listener, (const struct sockaddr *)&address, sizeof(address)), 0);
	(void)close(listener);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, vm->ends), 0);
	*state = vm;
	return 0;
}

static int vm_end(void **state)
{
	struct vm *vm = *state;

	(void)close(vm->ends[0]);
	(void)close(vm->ends[1]);
	(void)unlink(vm->socket);
	(void)rmdir(vm->directory);
	free(vm);
	return 0;
}

static void own_by(int fd, int pid)
{
	assert_int_equal(fcntl(fd, F_SETOWN, pid), 0);
}

/* A process that has died; as a zombie it is there until it is reaped. */
static int dead_process(void)
{
	int pid = fork();
	siginfo_t info;

	if (pid == 0)
		_exit(0);
	assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
	return pid;
}

/* What came out is the connection: what is written at the other end arrives. */
static void assert_is_connection(const struct vm *vm, int fd)
{
	char byte = 0;

	assert_int_equal(write(vm->ends[1], "x", 1), 1);
	assert_int_equal(read(fd, &byte, 1), 1);
	assert_int_equal(byte, 'x');
}

static void the_connection_of_a_dead_rouse_is_found_and_taken(void **state)
{
	struct vm *vm = *state;
	struct qemu_rescue_name name = name_of(vm, getpid()), found = {0};
	struct rouse_error error = {0};
	cleanup_close int fd = -1;
	int dead = dead_process();

	assert_int_equal(bind_as(vm->ends[0], &name), 0);
	own_by(vm->ends[0], dead);
	assert_int_equal(qemu_rescue_find(vm->socket, &found, &fd, &error), 0);
	assert_same(&found, &name);
	assert_int_equal(fcntl(fd, F_GETOWN), getpid());
	assert_is_connection(vm, fd);
	assert_int_equal(waitpid(dead, NULL, 0), dead);
}

static void a_process_that_is_gone_altogether_owns_nothing(void **state)
{
	struct vm *vm = *state;
	struct qemu_rescue_name name = name_of(vm, getpid()), found;
	cleanup_close int fd = -1;
	int dead = dead_process();

	assert_int_equal(bind_as(vm->ends[0], &name), 0);
	own_by(vm->ends[0], dead);
	assert_int_equal(waitpid(dead, NULL, 0), dead);
	assert_int_equal(qemu_rescue_find(vm->socket, &found, &fd, NULL), 0);
	assert_is_connection(vm, fd);
}

static void the_connection_of_a_living_rouse_is_left_alone(void **state)
{
	struct vm *vm = *state;
	struct qemu_rescue_name name = name_of(vm, getpid()), found;
	struct rouse_error error = {0};
	int fd = -1;

	assert_int_equal(bind_as(vm->ends[0], &name), 0);
	own_by(vm->ends[0], getppid());
	assert_int_equal(qemu_rescue_find(vm->socket, &found, &fd, &error), -EBUSY);
	assert_int_equal(error.kind, ROUSE_ERROR_REFUSED);
	assert_int_equal(fcntl(vm->ends[0], F_GETOWN), getppid());
}

/* Takes the connection as others do, all at once, and says whether it got it. */
static void *take_it(void *user)
{
	const struct vm *vm = user;
	struct qemu_rescue_name found;
	int fd = -1;
	bool taken = qemu_rescue_find(vm->socket, &found, &fd, NULL) == 0;

	if (taken)
		(void)close(fd);
	return (void *)(uintptr_t)taken;
}

static void of_two_takeovers_at_once_one_gets_the_connection(void **state)
{
	struct vm *vm = *state;
	struct qemu_rescue_name name = name_of(vm, getpid());

	assert_int_equal(bind_as(vm->ends[0], &name), 0);
	for (int round = 0; round < 200; round++) {
		pthread_t threads[4];
		uintptr_t winners = 0;

		own_by(vm->ends[0], 0);
		for (int i = 0; i < 4; i++)
			assert_int_equal(pthread_create(&threads[i], NULL, take_it, vm), 0);
		for (int i = 0; i < 4; i++) {
			void *taken;

			(void)pthread_join(threads[i], &taken);
			winners += (uintptr_t)taken;
		}
		assert_int_equal(winners, 1);
	}
}

static void a_vm_that_another_process_is_taking_over_is_left_to_it(void **state)
{
	struct vm *vm = *state;
	struct qemu_rescue_name name = name_of(vm, getpid()), found;
	struct rouse_error error = {0};
	cleanup_close int lock = -1;
	char path[32];
	int fd = -1;

	assert_int_equal(bind_as(vm->ends[0], &name), 0);
	own_by(vm->ends[0], 0);
	(void)snprintf(path, sizeof(path), "/proc/%d/fd", getpid());
	lock = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(flock(lock, LOCK_EX), 0);
	assert_int_equal(qemu_rescue_find(vm->socket, &found, &fd, &error), -EBUSY);
	assert_int_equal(error.kind, ROUSE_ERROR_REFUSED);
	assert_int_equal(fcntl(vm->ends[0], F_GETOWN), 0);
}

static void the_connection_of_another_vm_is_not_taken(void **state)
{
	struct vm *vm = *state;
	struct qemu_rescue_name name = name_of(vm, getpid()), found;
	int fd = -1;

	name.inode++;
	assert_int_equal(bind_as(vm->ends[0], &name), 0);
	assert_int_equal(qemu_rescue_find(vm->socket, &found, &fd, NULL), -ENOENT);
	assert_int_equal(qemu_rescue_find("/nonexistent", &found, &fd, NULL), -ENOENT);
}

/* Another user binds such an address to a connection of his own: he would get the VM's memory. */
static void try_imitation(struct vm *vm, bool with_a_socket_of_root)
{
	struct qemu_rescue_name found;
	int ready[2], fd = -1, pid, code;
	char byte = 'n';

	if (geteuid() != 0) {
		print_message("needs root, to be two users\n");
		skip();
	}
	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		struct qemu_rescue_name name = name_of(vm, getpid());
		bool bound = setuid(65534) == 0;
		int ends[2] = {vm->ends[0], vm->ends[1]};

		if (bound && !with_a_socket_of_root)
			bound = socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0;
		bound = bound && bind_as(ends[0], &name) == 0;
		(void)!write(ready[1], bound ? "y" : "n", 1);
		(void)pause();
		_exit(0);
	}
	assert_int_not_equal(pid, -1);
	(void)!read(ready[0], &byte, 1);
	code = qemu_rescue_find(vm->socket, &found, &fd, NULL);
	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, NULL, 0);
	(void)close(ready[0]);
	(void)close(ready[1]);
	assert_int_equal(byte, 'y');
	assert_int_equal(code, -ENOENT);
}

static void an_imitation_by_another_user_is_not_taken(void **state)
{
	try_imitation(*state, false);
}

static void an_imitation_with_a_socket_that_root_made_is_not_taken(void **state)
{
	try_imitation(*state, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_address_says_what_was_put_into_it),
		cmocka_unit_test(the_longest_address_fits),
		cmocka_unit_test(what_is_no_address_of_ours_is_passed_over),
		cmocka_unit_test_setup_teardown(
			the_connection_of_a_dead_rouse_is_found_and_taken, vm_begin, vm_end),
		cmocka_unit_test_setup_teardown(
			a_process_that_is_gone_altogether_owns_nothing, vm_begin, vm_end),
		cmocka_unit_test_setup_teardown(
			the_connection_of_a_living_rouse_is_left_alone, vm_begin, vm_end),
		cmocka_unit_test_setup_teardown(
			of_two_takeovers_at_once_one_gets_the_connection, vm_begin, vm_end),
		cmocka_unit_test_setup_teardown(
			a_vm_that_another_process_is_taking_over_is_left_to_it, vm_begin, vm_end),
		cmocka_unit_test_setup_teardown(
			the_connection_of_another_vm_is_not_taken, vm_begin, vm_end),
		cmocka_unit_test_setup_teardown(
			an_imitation_by_another_user_is_not_taken, vm_begin, vm_end),
		cmocka_unit_test_setup_teardown(
			an_imitation_with_a_socket_that_root_made_is_not_taken, vm_begin, vm_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
