/* SPDX-License-Identifier: MIT */
/* Command lines whose memory is a file: what becomes of them. */
#include "vmm/qemu_file_memory.h"

#include "../unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define TEXT_SIZE ((size_t)4096)

/* The rewritten command line, its words with blanks between. */
static int rewrite(const char *const *argv, const char *directory, char *text)
{
	struct qemu_file_memory_command command;
	size_t used = 0;
	int code = qemu_file_memory_command(argv, directory, NULL, &command, NULL);

	text[0] = '\0';
	for (size_t i = 0; code == 0 && command.argv[i] != NULL; i++) {
		used += (size_t)snprintf(
			text + used, TEXT_SIZE - used, "%s%s", i > 0 ? " " : "", command.argv[i]);
		assert_true(used < TEXT_SIZE);
	}
	qemu_file_memory_finish(&command);
	return code;
}

#define REWRITTEN(expected, ...)                                         \
	do {                                                             \
		const char *const argv_[] = {"qemu", __VA_ARGS__, NULL}; \
		char text_[TEXT_SIZE];                                   \
		assert_int_equal(rewrite(argv_, "/nowhere", text_), 0);  \
		assert_string_equal(text_, expected);                    \
	} while (0)

#define LIKE_A_CLONE ",share=off,x-use-canonical-path-for-ramblock-id=off"

static void a_private_file_becomes_anonymous_memory(void **state)
{
	static const char file[] =
		"memory-backend-file,id=pc.ram,size=1G,mem-path=/no/a,,b" LIKE_A_CLONE;

	(void)state;
	REWRITTEN("qemu -object memory-backend-ram,id=pc.ram,size=1G" LIKE_A_CLONE
		  " -machine memory-backend=pc.ram",
		"-object", file, "-machine", "memory-backend=pc.ram");
	/* A file that is not there would be made. */
	REWRITTEN("qemu --object memory-backend-ram,id=a,,b,size=1M", "--object",
		"memory-backend-file,align=2M,id=a,,b,size=1M,pmem=on,mem-path=x,readonly=off");
	REWRITTEN("qemu -object memory-backend-ram,size=1M,id=m", "-object",
		"qom-type=memory-backend-file,mem-path=/no/x,size=1M,id=m");
}

static void a_private_file_in_json_becomes_anonymous_memory(void **state)
{
	static const char file[] =
		"{\"qom-type\": \"memory-backend-file\", \"id\": \"m\", \"size\": 4096, "
		"\"share\": false, \"mem-path\": \"/no/x\", \"host-nodes\": [0, 1]}";

	(void)state;
	REWRITTEN("qemu -object "
		  "{\"qom-type\":\"memory-backend-ram\",\"id\":\"m\",\"size\":4096,"
		  "\"share\":false,\"host-nodes\":[0,1]}",
		"-object", file);
}

static void the_option_for_a_file_is_left_out(void **state)
{
	(void)state;
	REWRITTEN("qemu -m 1G -S", "-m", "1G", "-mem-path", "/no/x", "-S");
	REWRITTEN("qemu -m 1G -mem-path", "-m", "1G", "-mem-path");
}

/* As the flat file of a restore is, beside which there may be others. */
static void what_is_to_be_kept_stays(void **state)
{
	static const char flat[] = "memory-backend-file,id=pc.ram,mem-path=/no/flat";
	static const char other[] = "memory-backend-file,id=m,mem-path=/no/flat";
	const char *const argv[] = {"qemu", "-object", other, "-object", flat, NULL};
	struct qemu_file_memory_command command;

	(void)state;
	assert_int_equal(qemu_file_memory_command(argv, NULL, flat, &command, NULL), 0);
	assert_string_equal(command.argv[2], "memory-backend-ram,id=m");
	assert_ptr_equal(command.argv[4], flat);
	qemu_file_memory_finish(&command);
}

/* In it QEMU makes a file of its own: huge pages, or shared memory. */
static void a_directory_stays(void **state)
{
	(void)state;
	REWRITTEN("qemu -mem-path /tmp", "-mem-path", "/tmp");
	REWRITTEN("qemu -object memory-backend-file,id=m,mem-path=/tmp", "-object",
		"memory-backend-file,id=m,mem-path=/tmp");
}

static void what_is_no_file_stays(void **state)
{
	(void)state;
	REWRITTEN("qemu -object memory-backend-ram,id=m -object rng-random,filename=/no/x -m 1 "
		  "-object {\"qom-type\":\"memory-backend-memfd\"} -object { -object",
		"-object", "memory-backend-ram,id=m", "-object", "rng-random,filename=/no/x", "-m",
		"1", "-object", "{\"qom-type\":\"memory-backend-memfd\"}", "-object", "{",
		"-object");
}

static void a_relative_path_is_relative_to_the_vms_directory(void **state)
{
	const char *const argv[] = {"qemu", "-mem-path", "tmp", NULL};
	char text[TEXT_SIZE];

	(void)state;
	assert_int_equal(rewrite(argv, "/", text), 0);
	assert_string_equal(text, "qemu -mem-path tmp");
	assert_int_equal(rewrite(argv, "/tmp/none", text), 0);
	assert_string_equal(text, "qemu");
}

/* A process that has the file open until it is killed. */
static pid_t open_elsewhere(const char *path)
{
	int ready[2];
	char byte;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int fd = open(path, O_RDWR);

		(void)!write(ready[1], "x", fd >= 0);
		(void)pause();
		_exit(0);
	}
	(void)close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	(void)close(ready[0]);
	return pid;
}

static void a_shared_file_must_be_nobody_elses(void **state)
{
	char path[] = "/tmp/rouse-test-XXXXXX", object[128], text[TEXT_SIZE], expected[256];
	const char *const argv[] = {"qemu", "-object", object, NULL};
	int fd = mkstemp(path);
	pid_t pid;

	(void)state;
	assert_true(fd >= 0);
	(void)close(fd);
	(void)snprintf(object, sizeof(object),
		"memory-backend-file,id=m,size=4K,share=on,mem-path=%s", path);
	(void)snprintf(expected, sizeof(expected), "qemu -object %s", object);
	pid = open_elsewhere(path);
	assert_int_equal(rewrite(argv, NULL, text), -EBUSY);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(rewrite(argv, NULL, text), 0);
	assert_string_equal(text, expected);
	assert_int_equal(unlink(path), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_private_file_becomes_anonymous_memory),
		cmocka_unit_test(a_private_file_in_json_becomes_anonymous_memory),
		cmocka_unit_test(the_option_for_a_file_is_left_out),
		cmocka_unit_test(what_is_to_be_kept_stays),
		cmocka_unit_test(a_directory_stays),
		cmocka_unit_test(what_is_no_file_stays),
		cmocka_unit_test(a_relative_path_is_relative_to_the_vms_directory),
		cmocka_unit_test(a_shared_file_must_be_nobody_elses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
