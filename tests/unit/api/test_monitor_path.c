/* SPDX-License-Identifier: MIT */
/* Where the monitor of a QEMU that is started will be. */
#include "api/monitor_path.h"
#include "base/error.h"

#include <string.h>
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_relative_path_is_of_the_callers_directory),
		cmocka_unit_test(a_path_that_no_socket_can_have_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
