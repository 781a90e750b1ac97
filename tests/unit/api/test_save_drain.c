/* SPDX-License-Identifier: MIT */
/* The drain of a save: what a QEMU writes into one end of a socket, and what comes out. */
#include "api/save_drain.h"
#include "base/cleanup.h"
#include "base/io.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cmocka.h>

#define MIB (UINT64_C(1) << 20)

struct fixture {
	struct save_drain *drain;
	int qemu_fd, notify_fd;
};

static void start(struct fixture *f, uint64_t limit, bool must_finish)
{
	struct save_drain_config config = {.limit_bytes = limit, .must_finish = must_finish};
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	f->qemu_fd = fds[1];
	f->notify_fd = config.notify_fd = eventfd(0, EFD_CLOEXEC);
	assert_int_equal(save_drain_start(fds[0], &config, &f->drain), 0);
}

static void stop(struct fixture *f)
{
	if (f->qemu_fd >= 0)
		(void)close(f->qemu_fd);
	save_drain_free(f->drain);
	(void)close(f->notify_fd);
}

static uint8_t pattern(uint64_t at)
{
	return (uint8_t)(at * 131 >> 7);
}

struct writer {
	int fd;
	uint64_t bytes;
	uint64_t written; /* until an error */
	pthread_t thread;
};

/* As QEMU: writes numbers that tell their place, then closes. */
static void *writer_run(void *argument)
{
	struct writer *w = argument;
	uint8_t piece[40000];

	while (w->written < w->bytes) {
		size_t size = sizeof(piece);
		struct iovec vector;

		if (size > w->bytes - w->written)
			size = w->bytes - w->written;
		for (size_t i = 0; i < size; i++)
			piece[i] = pattern(w->written + i);
		vector = (struct iovec){.iov_base = piece, .iov_len = size};
		if (rouse_io_send(w->fd, -1, &vector, 1) < 0)
			break;
		w->written += size;
	}
	(void)close(w->fd);
	return NULL;
}

static void writer_start(struct writer *w, struct fixture *f, uint64_t bytes)
{
	*w = (struct writer){.fd = f->qemu_fd, .bytes = bytes};
	f->qemu_fd = -1;
	assert_int_equal(pthread_create(&w->thread, NULL, writer_run, w), 0);
}

/* Takes everything, at most @most at a time, and checks it. The bytes. */
static uint64_t take_all(struct save_drain *drain, size_t most)
{
	uint64_t at = 0;

	for (;;) {
		const uint8_t *bytes;
		const void *data;
		size_t size;

		assert_int_equal(save_drain_next(drain, &data, &size), 0);
		if (size == 0)
			return at;
		bytes = data;
		if (size > most)
			size = most;
		for (size_t i = 0; i < size; i++) {
			if (bytes[i] != pattern(at + i))
				fail_msg("wrong byte at %llu", (unsigned long long)(at + i));
		}
		at += size;
		save_drain_release(drain, size);
	}
}

static void everything_comes_out_in_order(void **state)
{
	struct fixture f;
	struct writer w;

	(void)state;
	start(&f, 64 * MIB, false);
	writer_start(&w, &f, 23 * MIB + 12345);
	assert_int_equal(take_all(f.drain, 777777), 23 * MIB + 12345);
	(void)pthread_join(w.thread, NULL);
	assert_true(save_drain_ended(f.drain));
	stop(&f);
}

static void a_few_bytes_come_without_waiting_for_more(void **state)
{
	struct fixture f;
	const void *data;
	size_t size;

	(void)state;
	start(&f, 64 * MIB, false);
	assert_int_equal(write(f.qemu_fd, "QEVM", 4), 4);
	assert_int_equal(save_drain_next(f.drain, &data, &size), 0);
	assert_int_equal(size, 4);
	assert_memory_equal(data, "QEVM", 4);
	save_drain_release(f.drain, size);
	stop(&f);
}

static void it_holds_no_more_than_its_limit(void **state)
{
	struct save_drain_stats stats;
	struct fixture f;
	struct writer w;

	(void)state;
	start(&f, 8 * MIB, false);
	writer_start(&w, &f, 40 * MIB);
	(void)poll(NULL, 0, 100);
	assert_int_equal(take_all(f.drain, MIB), 40 * MIB);
	(void)pthread_join(w.thread, NULL);
	save_drain_get_stats(f.drain, &stats);
	assert_true(stats.most_bytes <= 8 * MIB);
	assert_true(stats.waits > 0);
	assert_int_equal(stats.bytes, 40 * MIB);
	stop(&f);
}

static void an_abort_closes_the_socket_and_wakes_the_consumer(void **state)
{
	struct fixture f;
	struct writer w;
	const void *data;
	size_t size;

	(void)state;
	start(&f, 8 * MIB, false);
	writer_start(&w, &f, 400 * MIB);
	save_drain_abort(f.drain);
	(void)pthread_join(w.thread, NULL); /* it met a closed socket */
	assert_true(w.written < 400 * MIB);
	assert_int_equal(save_drain_next(f.drain, &data, &size), -ECANCELED);
	stop(&f);
}

static void a_stream_that_must_finish_is_read_to_its_end_after_an_abort(void **state)
{
	struct fixture f;
	struct writer w;
	const void *data;
	size_t size;

	(void)state;
	start(&f, 8 * MIB, true);
	writer_start(&w, &f, 40 * MIB);
	(void)poll(NULL, 0, 20); /* it is at its limit by now */
	save_drain_abort(f.drain);
	assert_int_equal(save_drain_next(f.drain, &data, &size), -ECANCELED);
	(void)pthread_join(w.thread, NULL);
	assert_int_equal(w.written, 40 * MIB);
	stop(&f);
}

/* QEMU stands still: nobody waits for it, and nothing is lost of its stream when it goes on. */
static void a_stream_that_must_finish_and_does_not_come_to_its_end_is_left_to_the_guard(
	void **state)
{
	struct fixture f;
	struct writer w;

	(void)state;
	start(&f, 8 * MIB, true);
	assert_int_equal(write(f.qemu_fd, "QEVM", 4), 4);
	save_drain_free(f.drain);
	(void)close(f.notify_fd);
	writer_start(&w, &f, 40 * MIB);
	(void)pthread_join(w.thread, NULL);
	assert_int_equal(w.written, 40 * MIB);
	assert_true(waitpid(-1, NULL, __WCLONE) > 0);
}

/* In a process of its own: drains up to a limit, then waits to be killed. */
static _Noreturn void drain_and_wait(int fd)
{
	struct save_drain_config config = {.limit_bytes = 4 * MIB, .must_finish = true};
	struct save_drain *drain;

	config.notify_fd = eventfd(0, EFD_CLOEXEC);
	if (save_drain_start(fd, &config, &drain) < 0)
		_exit(1);
	(void)raise(SIGSTOP);
	_exit(2);
}

static void a_stream_that_must_finish_is_read_to_its_end_if_we_are_killed(void **state)
{
	struct fixture f = {.notify_fd = -1};
	struct writer w;
	int fds[2], status;
	pid_t pid;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	pid = fork();
	if (pid == 0) {
		(void)close(fds[1]);
		drain_and_wait(fds[0]);
	}
	(void)close(fds[0]);
	assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
	assert_true(WIFSTOPPED(status));
	f.qemu_fd = fds[1];
	writer_start(&w, &f, 40 * MIB);
	(void)poll(NULL, 0, 20);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	(void)pthread_join(w.thread, NULL);
	assert_int_equal(w.written, 40 * MIB);
}

static void its_end_is_told(void **state)
{
	struct fixture f;
	uint64_t count;

	(void)state;
	start(&f, 8 * MIB, false);
	assert_false(save_drain_ended(f.drain));
	(void)close(f.qemu_fd);
	f.qemu_fd = -1;
	assert_int_equal(read(f.notify_fd, &count, sizeof(count)), sizeof(count));
	assert_true(save_drain_ended(f.drain));
	stop(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(everything_comes_out_in_order),
		cmocka_unit_test(a_few_bytes_come_without_waiting_for_more),
		cmocka_unit_test(it_holds_no_more_than_its_limit),
		cmocka_unit_test(an_abort_closes_the_socket_and_wakes_the_consumer),
		cmocka_unit_test(a_stream_that_must_finish_is_read_to_its_end_after_an_abort),
		cmocka_unit_test(
			a_stream_that_must_finish_and_does_not_come_to_its_end_is_left_to_the_guard),
		cmocka_unit_test(a_stream_that_must_finish_is_read_to_its_end_if_we_are_killed),
		cmocka_unit_test(its_end_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
