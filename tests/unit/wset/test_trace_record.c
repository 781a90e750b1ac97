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

static void telling_an_agent_that_is_gone_raises_no_signal(void **state)
{
	sigset_t pending;
	int ends[2];

	(void)state;
	assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
	assert_int_equal(close(ends[0]), 0);
	trace_tell(ends[1]);
	assert_int_equal(sigpending(&pending), 0);
	assert_false(sigismember(&pending, SIGPIPE));
	assert_int_equal(close(ends[1]), 0);
}

/* ---- The record of a trace that has ended ------------------------------------------------------
 */

#define CODE_BYTES ((uint64_t)3 * TRACE_PAGE)
#define DATA_BYTES ((uint64_t)64 * TRACE_PAGE)
#define LOGGED_PAGES 512u

static struct trace_record make_record(void)
{
	return (struct trace_record){
		.magic = TRACE_MAGIC,
		.version = TRACE_VERSION,
		.code_bytes = CODE_BYTES,
		.data_bytes = DATA_BYTES,
		.areas_offset = TRACE_PAGE,
		.area_count = 1,
		.area_room = 2,
		.gone_offset = (uint64_t)2 * TRACE_PAGE,
		.seen_offset = (uint64_t)3 * TRACE_PAGE,
		.log_offset = (uint64_t)4 * TRACE_PAGE,
		.log_room = LOGGED_PAGES,
		.pages = LOGGED_PAGES,
	};
}

static void record_as_it_was_laid_out_is_taken(void **state)
{
	const struct trace_record laid_out = make_record();
	struct trace_record record = laid_out;

	(void)state;
	record.log_count = LOGGED_PAGES;
	assert_int_equal(trace_record_check(&record, CODE_BYTES + DATA_BYTES), 0);
	assert_int_equal(trace_record_check_end(&record, &laid_out), 0);
}

/* Inside the memfd, by its own sizes; but the tracer has mapped the data alone. */
static void record_with_a_log_behind_what_is_mapped_is_refused(void **state)
{
	const struct trace_record laid_out = make_record();
	struct trace_record record = laid_out;

	(void)state;
	record.code_bytes = 0;
	record.data_bytes = CODE_BYTES + DATA_BYTES;
	record.log_count = record.log_room = 2 * TRACE_PAGE / sizeof(struct trace_entry);
	record.log_offset = record.data_bytes - (uint64_t)2 * TRACE_PAGE;
	assert_true(record.log_offset >= laid_out.data_bytes);
	assert_int_equal(trace_record_check(&record, CODE_BYTES + DATA_BYTES), 0);
	assert_int_equal(trace_record_check_end(&record, &laid_out), -EUCLEAN);
}

static void record_with_any_other_size_or_place_is_refused(void **state)
{
	const struct trace_record laid_out = make_record();
	struct trace_record record = laid_out;
	uint64_t *const words[] = {&record.magic, &record.code_bytes, &record.data_bytes,
		&record.log_offset, &record.log_room, &record.pages};

	(void)state;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		record = laid_out;
		*words[i] += TRACE_PAGE;
		assert_int_equal(trace_record_check_end(&record, &laid_out), -EUCLEAN);
	}
	record = laid_out;
	record.log_count = record.log_room + 1;
	assert_int_equal(trace_record_check_end(&record, &laid_out), -EUCLEAN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(agents_pipe_is_opened_for_writing),
		cmocka_unit_test(file_in_place_of_the_pipe_is_not_opened),
		cmocka_unit_test(fifo_of_a_file_system_is_not_opened),
		cmocka_unit_test(device_in_place_of_the_pipe_is_not_opened),
		cmocka_unit_test(number_that_the_process_has_not_is_an_error),
		cmocka_unit_test(telling_an_agent_that_is_gone_raises_no_signal),
		cmocka_unit_test(record_as_it_was_laid_out_is_taken),
		cmocka_unit_test(record_with_a_log_behind_what_is_mapped_is_refused),
		cmocka_unit_test(record_with_any_other_size_or_place_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
