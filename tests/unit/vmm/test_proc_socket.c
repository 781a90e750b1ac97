/* SPDX-License-Identifier: MIT */
/* Whose a listening socket is, also if it accepts nobody. */
#include "vmm/proc_socket.h"

#include "../unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static const char *listener_in(const char *text, uint64_t *inode)
{
	static char line[256];
	const char *path;

	(void)snprintf(line, sizeof(line), "%s", text);
	return proc_socket_parse_listener(line, inode, &path) ? path : NULL;
}

static void a_line_of_a_socket_that_listens_is_read(void **state)
{
	uint64_t inode = 0;

	(void)state;
	assert_string_equal(listener_in("0000000000000000: 00000002 00000000 00010000 0001 01 "
					"123456789 /run/a b.qmp\n",
				    &inode),
		"/run/a b.qmp");
	assert_int_equal(inode, 123456789);
}

static void other_lines_are_left_out(void **state)
{
	uint64_t inode;

	(void)state;
	assert_null(
		listener_in("Num       RefCount Protocol Flags    Type St Inode Path\n", &inode));
	assert_null(listener_in("0: 00000003 00000000 00000000 0001 03 123 /run/vm.qmp\n", &inode));
	assert_null(listener_in("0: 00000002 00000000 00010000 0001 01 123\n", &inode));
	assert_null(listener_in("0: 00000002 00000000 00010000 0001 01 123 @name\n", &inode));
	assert_null(listener_in("0: 00000002 00000000 00010000 0001 01\n", &inode));
	assert_null(listener_in("", &inode));
}

struct listener {
	char directory[64], path[96];
	int fd;
};

static int set_up(void **state)
{
	static struct listener made;
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	(void)snprintf(made.directory, sizeof(made.directory), "/tmp/rouse-test-XXXXXX");
	assert_non_null(mkdtemp(made.directory));
	(void)snprintf(made.path, sizeof(made.path), "%s/qmp", made.directory);
	memcpy(address.sun_path, made.path, strlen(made.path) + 1);
	made.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(made.fd >= 0);
	assert_int_equal(bind(made.fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(made.fd, 1), 0);
	*state = &made;
	return 0;
}

static int tear_down(void **state)
{
	const struct listener *made = *state;

	(void)close(made->fd);
	(void)unlink(made->path);
	return rmdir(made->directory);
}

/* It never accepts: after two of them connect(2) fails. */
static void a_process_that_accepts_nobody_is_found_again_and_again(void **state)
{
	const struct listener *made = *state;

	for (int i = 0; i < 6; i++)
		assert_int_equal(proc_socket_listener(made->path), getpid());
}

/* Nobody may pass for it: a path may be bound to by others, who had it before. */
static void a_process_of_another_user_is_not_taken_for_it(void **state)
{
	const struct listener *made = *state;

	if (geteuid() != 0) {
		print_message("only root can give a path away\n");
		skip();
	}
	assert_int_equal(lchown(made->path, 65534, 65534), 0);
	assert_int_equal(proc_socket_listener(made->path), getpid());
	assert_int_equal(proc_socket_listener(made->path), getpid());
	assert_int_equal(proc_socket_listener(made->path), -EAGAIN);
}

static void a_path_without_a_listener_is_told(void **state)
{
	const struct listener *made = *state;

	assert_int_equal(proc_socket_listener("/nowhere/qmp"), -ENOENT);
	assert_int_equal(proc_socket_listener(made->directory), -ECONNREFUSED);
}

#define WITH_LISTENER(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_line_of_a_socket_that_listens_is_read),
		cmocka_unit_test(other_lines_are_left_out),
		WITH_LISTENER(a_process_that_accepts_nobody_is_found_again_and_again),
		WITH_LISTENER(a_process_of_another_user_is_not_taken_for_it),
		WITH_LISTENER(a_path_without_a_listener_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
