/* SPDX-License-Identifier: MIT */
/* What memory there is, by the files of a machine that is put together here. */
#include "api/save_memory.h"
#include "base/cleanup.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../unit.h"

#define MIB (UINT64_C(1) << 20)
#define V2 "/sys/fs/cgroup"
#define V1 "/sys/fs/cgroup/memory"
#define GIB_8 "MemTotal:       16000000 kB\nMemFree: 1 kB\nMemAvailable:    8388608 kB\n"

static void put(const char *root, const char *name, const char *text)
{
	cleanup_fclose FILE *file = NULL;
	char path[4096];

	(void)snprintf(path, sizeof(path), "%s%s", root, name);
	for (char *at = path + strlen(root) + 1; (at = strchr(at, '/')) != NULL; at++) {
		*at = '\0';
		(void)mkdir(path, 0700);
		*at = '/';
	}
	file = fopen(path, "we");
	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
}

/* A machine with 8 GiB to give. */
static int machine_make(void **state)
{
	char *root = strdup("/tmp/rouse-memory-XXXXXX");

	if (root == NULL || mkdtemp(root) == NULL)
		return -1;
	put(root, "/proc/meminfo", GIB_8);
	*state = root;
	return 0;
}

static int drop(const char *path, const struct stat *status, int type, struct FTW *where)
{
	(void)status;
	(void)type;
	(void)where;
	return remove(path);
}

static int machine_drop(void **state)
{
	int code = nftw(*state, drop, 8, FTW_DEPTH | FTW_PHYS);

	free(*state);
	return code;
}

/* A group's files. */
static void put_group(
	const char *root, const char *group, const char *limit, const char *used, const char *stat)
{
	char name[512];

	(void)snprintf(name, sizeof(name), V2 "%s/memory.max", group);
	put(root, name, limit);
	(void)snprintf(name, sizeof(name), V2 "%s/memory.current", group);
	put(root, name, used);
	(void)snprintf(name, sizeof(name), V2 "%s/memory.stat", group);
	put(root, name, stat);
}

static void put_group_v1(
	const char *root, const char *group, const char *limit, const char *used, const char *stat)
{
	char name[512];

	(void)snprintf(name, sizeof(name), V1 "%s/memory.limit_in_bytes", group);
	put(root, name, limit);
	(void)snprintf(name, sizeof(name), V1 "%s/memory.usage_in_bytes", group);
	put(root, name, used);
	(void)snprintf(name, sizeof(name), V1 "%s/memory.stat", group);
	put(root, name, stat);
}

static void without_groups_it_is_what_the_machine_has(void **state)
{
	assert_int_equal(save_memory_available(*state), 8192 * MIB);
	put(*state, "/proc/self/cgroup", "0::/\n"); /* the root group has no limit */
	assert_int_equal(save_memory_available(*state), 8192 * MIB);
}

static void a_machine_that_tells_nothing_has_nothing(void **state)
{
	put(*state, "/proc/meminfo", "MemTotal: 5 kB\n");
	assert_int_equal(save_memory_available(*state), 0);
	assert_int_equal(save_memory_available("/nowhere"), 0);
}

static void a_group_leaves_its_limit_without_what_is_used(void **state)
{
	put(*state, "/proc/self/cgroup", "0::/vm.slice/save.service\n");
	put_group(*state, "/vm.slice/save.service", "1073741824\n", "943718400\n",
		"anon 5\nfile 7\ninactive_anon 9\ninactive_file 104857600\nactive_file 3\n");
	assert_int_equal(save_memory_available(*state), (1024 - 900 + 100) * MIB);
}

static void the_tightest_of_the_groups_above_counts(void **state)
{
	put(*state, "/proc/self/cgroup", "0::/a/b/c\n");
	put_group(*state, "/a/b/c", "max\n", "1048576\n", "inactive_file 0\n");
	put_group(*state, "/a/b", "1073741824\n", "1048576\n", "inactive_file 0\n");
	put_group(*state, "/a", "536870912\n", "134217728\n", "inactive_file 0\n");
	assert_int_equal(save_memory_available(*state), 384 * MIB);
}

static void a_container_sees_its_own_group_at_the_top(void **state)
{
	put(*state, "/proc/self/cgroup", "0::/\n");
	put_group(*state, "", "268435456\n", "1048576\n", "inactive_file 0\n");
	assert_int_equal(save_memory_available(*state), 255 * MIB);
	/* Of a group that is not there by this name: v1 without a namespace. */
	put(*state, "/proc/self/cgroup", "4:memory:/docker/0123\n0::/\n");
	put_group_v1(*state, "", "134217728\n", "1048576\n", "total_inactive_file 0\n");
	assert_int_equal(save_memory_available(*state), 127 * MIB);
}

static void the_controller_of_v1_counts_too(void **state)
{
	put(*state, "/proc/self/cgroup",
		"5:cpu,cpuacct:/x\n4:hugetlb,memory:/a/b\n1:name=systemd:/y\n0::/z\n");
	put_group_v1(*state, "/a", "9223372036854771712\n", "5\n", "total_inactive_file 0\n");
	put_group_v1(*state, "/a/b", "1073741824\n", "1073741824\n",
		"inactive_file 1\nactive_file 2\ntotal_inactive_file 52428800\n");
	assert_int_equal(save_memory_available(*state), 50 * MIB);
	/* Of another controller, whatever it is called. */
	put(*state, "/proc/self/cgroup", "4:memory2,xmemory:/a/b\n");
	assert_int_equal(save_memory_available(*state), 8192 * MIB);
}

static void a_group_beyond_its_limit_leaves_nothing(void **state)
{
	put(*state, "/proc/self/cgroup", "0::/a\n");
	put_group(*state, "/a", "104857600\n", "209715200\n", "inactive_file 1048576\n");
	assert_int_equal(save_memory_available(*state), 0);
}

static void a_group_of_more_than_the_machine_has_changes_nothing(void **state)
{
	put(*state, "/proc/self/cgroup", "0::/a\n");
	put_group(*state, "/a", "1099511627776\n", "0\n", "");
	assert_int_equal(save_memory_available(*state), 8192 * MIB);
}

static void lines_that_make_no_sense_are_passed_over(void **state)
{
	put(*state, "/proc/self/cgroup", "\n:\n7\n8:memory\n::\n0::/a");
	put_group(*state, "/a", "104857600", "0", "inactive_file");
	assert_int_equal(save_memory_available(*state), 100 * MIB);
}

static void the_drain_takes_a_half_and_64_mib_at_least(void **state)
{
	assert_int_equal(save_memory_drain_limit(*state, true), 4096 * MIB);
	assert_int_equal(save_memory_drain_limit(*state, false), 64 * MIB);
	put(*state, "/proc/self/cgroup", "0::/a\n");
	put_group(*state, "/a", "1073741824\n", "0\n", "");
	assert_int_equal(save_memory_drain_limit(*state, true), 512 * MIB);
	put_group(*state, "/a", "1073741824\n", "1073741824\n", "");
	assert_int_equal(save_memory_drain_limit(*state, true), 64 * MIB);
}

#define ON_A_MACHINE(test) cmocka_unit_test_setup_teardown(test, machine_make, machine_drop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ON_A_MACHINE(without_groups_it_is_what_the_machine_has),
		ON_A_MACHINE(a_machine_that_tells_nothing_has_nothing),
		ON_A_MACHINE(a_group_leaves_its_limit_without_what_is_used),
		ON_A_MACHINE(the_tightest_of_the_groups_above_counts),
		ON_A_MACHINE(a_container_sees_its_own_group_at_the_top),
		ON_A_MACHINE(the_controller_of_v1_counts_too),
		ON_A_MACHINE(a_group_beyond_its_limit_leaves_nothing),
		ON_A_MACHINE(a_group_of_more_than_the_machine_has_changes_nothing),
		ON_A_MACHINE(lines_that_make_no_sense_are_passed_over),
		ON_A_MACHINE(the_drain_takes_a_half_and_64_mib_at_least),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
