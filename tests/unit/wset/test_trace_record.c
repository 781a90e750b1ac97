/* SPDX-License-Identifier: MIT */
/* What Rouse opens because the traced process says so. */
#include "../unit.h"

#include "wset/trace_private.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* A process that looks as if an agent were in it, with our descriptors of now. */
struct imitation {
	pid_t pid;
	struct target *target;
};

static struct imitation imitate(void)
{
	struct imitation imitation;
	int ready[2];
	char byte;

	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	imitation.pid = fork();
	if (imitation.pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		(void)prctl(PR_SET_NAME, TRACE_MEMFD_NAME);
		(void)!write(ready[1], "", 1);
		for (;;)
			(void)pause();
	}
	assert_true(imitation.pid > 0);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	assert_int_equal(close(ready[0]), 0);
	assert_int_equal(close(ready[1]), 0);
	assert_int_equal(target_open(imitation.pid, &imitation.target, NULL), 0);
	return imitation;
}

static void end(struct imitation *imitation)
{
	target_close(imitation->target);
	assert_int_equal(kill(imitation->pid, SIGKILL), 0);
	assert_int_equal(waitpid(imitation->pid, NULL, 0), imitation->pid);
}

/* What trace_open_lifeline() says of a descriptor that the process has. It is closed here. */
static int open_lifeline(int fd)
{
	struct imitation imitation = imitate();
	int code = trace_open_lifeline(imitation.target, fd);

	end(&imitation);
	if (code >= 0)
		assert_int_equal(close(code), 0);
	assert_int_equal(close(fd), 0);
	return code;
}

static void agents_pipe_is_opened_for_writing(void **state)
{
	struct imitation imitation;
	int ends[2], lifeline;
	char byte = 0;

	(void)state;
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	imitation = imitate();
	lifeline = trace_open_lifeline(imitation.target, ends[0]);
	assert_true(lifeline >= 0);
	assert_int_equal(write(lifeline, "x", 1), 1);
	assert_int_equal(read(ends[0], &byte, 1), 1);
	assert_int_equal(byte, 'x');
	assert_int_equal(close(lifeline), 0);
	end(&imitation);
	assert_int_equal(close(ends[0]), 0);
	assert_int_equal(close(ends[1]), 0);
}

static void file_in_place_of_the_pipe_is_not_opened(void **state)
{
	char path[] = "/tmp/rouse-test-XXXXXX";
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(close(fd), 0);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(unlink(path), 0);
	assert_true(fd >= 0);
	assert_int_equal(open_lifeline(fd), -ESRCH);
}

static void fifo_of_a_file_system_is_not_opened(void **state)
{
	char folder[] = "/tmp/rouse-test-XXXXXX", path[64];
	int fd;

	(void)state;
	assert_non_null(mkdtemp(folder));
	(void)snprintf(path, sizeof(path), "%s/fifo", folder);
	assert_int_equal(mkfifo(path, 0600), 0);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(folder), 0);
	assert_true(fd >= 0);
	assert_int_equal(open_lifeline(fd), -ESRCH);
}

static void device_in_place_of_the_pipe_is_not_opened(void **state)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(open_lifeline(fd), -ESRCH);
}

static void number_that_the_process_has_not_is_an_error(void **state)
{
	struct imitation imitation = imitate();

	(void)state;
	assert_int_equal(trace_open_lifeline(imitation.target, 1 << 20), -ENOENT);
	end(&imitation);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(agents_pipe_is_opened_for_writing),
		cmocka_unit_test(file_in_place_of_the_pipe_is_not_opened),
		cmocka_unit_test(fifo_of_a_file_system_is_not_opened),
		cmocka_unit_test(device_in_place_of_the_pipe_is_not_opened),
		cmocka_unit_test(number_that_the_process_has_not_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
