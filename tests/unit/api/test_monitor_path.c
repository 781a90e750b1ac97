/* SPDX-License-Identifier: MIT */
/* Where the monitor of a QEMU that is started will be. */
#include "api/monitor_path.h"
#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../unit.h"

static void a_relative_path_is_of_the_callers_directory(void **state)
{
	char path[ROUSE_MONITOR_BYTES], here[4096];

	(void)state;
	assert_non_null(getcwd(here, sizeof(here)));
	assert_int_equal(chdir("/tmp"), 0);
	assert_int_equal(rouse_monitor_path("vm.qmp", path, NULL), 0);
	assert_string_equal(path, "/tmp/vm.qmp");
	assert_int_equal(chdir(here), 0);
	assert_int_equal(rouse_monitor_path("/run/vm.qmp", path, NULL), 0);
	assert_string_equal(path, "/run/vm.qmp");
}

static void a_path_that_no_socket_can_have_is_refused(void **state)
{
	char path[ROUSE_MONITOR_BYTES], longer[300];
	struct rouse_error error = {0};

	(void)state;
	memset(longer, 'x', sizeof(longer) - 1);
	longer[0] = '/';
	longer[sizeof(longer) - 1] = '\0';
	assert_int_equal(rouse_monitor_path(longer, path, &error), -ENAMETOOLONG);
	assert_int_equal(rouse_monitor_path("/a,b", path, &error), -ENAMETOOLONG);
	assert_int_equal(error.kind, ROUSE_ERROR_USAGE);
}

/* A socket with this name; with @listening somebody is there. */
static int make_socket(const char *path, bool listening)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	if (listening)
		assert_int_equal(listen(fd, 1), 0);
	return fd;
}

static void what_is_no_socket_is_not_given_away(void **state)
{
	char path[ROUSE_MONITOR_BYTES], file[] = "/tmp/rouse-monitor-XXXXXX";
	struct rouse_error error = {0};
	int fd = mkstemp(file);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(rouse_monitor_path(file, path, &error), -EEXIST);
	assert_int_equal(error.kind, ROUSE_ERROR_REFUSED);
	assert_int_equal(access(file, F_OK), 0);
	assert_int_equal(unlink(file), 0);
	(void)close(fd);
}

static void a_socket_is_given_away_when_nobody_listens(void **state)
{
	char path[ROUSE_MONITOR_BYTES], directory[] = "/tmp/rouse-monitor-XXXXXX", name[64];
	int fd;

	(void)state;
	assert_non_null(mkdtemp(directory));
	(void)snprintf(name, sizeof(name), "%s/vm.qmp", directory);
	fd = make_socket(name, true);
	assert_int_equal(rouse_monitor_path(name, path, NULL), -EADDRINUSE);
	(void)close(fd);
	assert_int_equal(rouse_monitor_path(name, path, NULL), 0);
	assert_int_equal(unlink(name), 0);
	assert_int_equal(rmdir(directory), 0);
}

static void a_runtime_directory_that_is_not_there_is_passed_over(void **state)
{
	const char *set = getenv("XDG_RUNTIME_DIR");
	char path[ROUSE_MONITOR_BYTES], *before = set != NULL ? strdup(set) : NULL;
	int code;

	(void)state;
	assert_int_equal(setenv("XDG_RUNTIME_DIR", "/nonexistent/runtime", 1), 0);
	code = rouse_monitor_path(NULL, path, NULL);
	(void)unsetenv("XDG_RUNTIME_DIR");
	if (before != NULL)
		(void)setenv("XDG_RUNTIME_DIR", before, 1);
	free(before);
	/* /run may be read-only here. */
	if (code == 0)
		assert_null(strstr(path, "/nonexistent/"));
	assert_int_not_equal(code, -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_relative_path_is_of_the_callers_directory),
		cmocka_unit_test(a_path_that_no_socket_can_have_is_refused),
		cmocka_unit_test(what_is_no_socket_is_not_given_away),
		cmocka_unit_test(a_socket_is_given_away_when_nobody_listens),
		cmocka_unit_test(a_runtime_directory_that_is_not_there_is_passed_over),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
