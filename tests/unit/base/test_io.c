/* SPDX-License-Identifier: MIT */
#include "../unit.h"

#include "base/cleanup.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

/* The library's calls end here. */
static struct {
	unsigned int times; /* that sendmsg() fails yet, before its first byte */
	int error;
	int cancel_fd; /* becomes readable with the last of them; 0: nothing does */
} no_memory;

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	const uint64_t one = 1;

	if (no_memory.times == 0)
		return syscall(SYS_sendmsg, fd, message, flags);
	if (--no_memory.times == 0 && no_memory.cancel_fd > 0)
		(void)!write(no_memory.cancel_fd, &one, sizeof(one));
	errno = no_memory.error;
	return -1;
}

/* An unnamed file with these bytes. */
static int file_with(const char *text)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(rouse_io_write(fd, text, strlen(text)), 0);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	return fd;
}

static void read_stops_at_the_end_of_the_file(void **state)
{
	cleanup_close int fd = file_with("seven..");
	char buffer[16] = "";

	(void)state;
	assert_int_equal(rouse_io_read(fd, buffer, sizeof(buffer)), 7);
	assert_string_equal(buffer, "seven..");
	assert_int_equal(rouse_io_read(fd, buffer, sizeof(buffer)), 0);
}

static void pread_is_all_or_an_error(void **state)
{
	cleanup_close int fd = file_with("0123456789");
	char buffer[8] = "";

	(void)state;
	assert_int_equal(rouse_io_pread(fd, buffer, 4, 6), 0);
	assert_memory_equal(buffer, "6789", 4);
	assert_int_equal(rouse_io_pread(fd, buffer, 5, 6), -ENODATA);
	assert_int_equal(rouse_io_pread(fd, buffer, 1, 99), -ENODATA);
	assert_int_equal(rouse_io_pread(fd, buffer, 0, 99), 0);
}

static void pwrite_writes_at_its_offset(void **state)
{
	cleanup_close int fd = file_with("0123456789");
	char buffer[10];

	(void)state;
	assert_int_equal(rouse_io_pwrite(fd, "ab", 2, 4), 0);
	assert_int_equal(rouse_io_pread(fd, buffer, 10, 0), 0);
	assert_memory_equal(buffer, "0123ab6789", 10);
}

static void a_bad_descriptor_is_an_error_everywhere(void **state)
{
	struct iovec piece = {.iov_base = (char[]){'x'}, .iov_len = 1};
	char byte = 'x';

	(void)state;
	assert_int_equal(rouse_io_read(-1, &byte, 1), -EBADF);
	assert_int_equal(rouse_io_pread(-1, &byte, 1, 0), -EBADF);
	assert_int_equal(rouse_io_write(-1, &byte, 1), -EBADF);
	assert_int_equal(rouse_io_pwrite(-1, &byte, 1, 0), -EBADF);
	assert_int_equal(rouse_io_send(-1, -1, &piece, 1), -EBADF);
}

static void write_reports_a_full_disk(void **state)
{
	cleanup_close int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);

	(void)state;
	if (fd < 0) {
		print_message("/dev/full cannot be opened\n");
		skip();
	}
	assert_int_equal(rouse_io_write(fd, "x", 1), -ENOSPC);
}

#define BIG (4u << 20)

struct reader {
	int fd;
	const char *complaint;
};

/* Reads BIG bytes in small bits and checks that byte i is i * 7. */
static void *slow_reader(void *argument)
{
	struct reader *reader = argument;
	unsigned char buffer[1500];
	uint32_t at = 0;
	ssize_t n;

	while ((n = read(reader->fd, buffer, sizeof(buffer))) > 0) {
		for (ssize_t i = 0; i < n; i++, at++) {
			if (buffer[i] != (unsigned char)(at * 7u))
				reader->complaint = "wrong bytes";
		}
	}
	if (at != BIG)
		reader->complaint = "wrong length";
	return NULL;
}

static unsigned char *big_pattern(void)
{
	unsigned char *bytes = malloc(BIG);

	assert_non_null(bytes);
	for (uint32_t i = 0; i < BIG; i++)
		bytes[i] = (unsigned char)(i * 7u);
	return bytes;
}

static void send_survives_short_writes_across_pieces(void **state)
{
	cleanup_free unsigned char *bytes = big_pattern();
	/* Odd sizes, an empty piece in the middle and one at the end. */
	struct iovec pieces[] = {{bytes, 1}, {bytes + 1, 4096}, {bytes + 4097, 0},
		{bytes + 4097, BIG - 5000}, {bytes + BIG - 903, 903}, {bytes, 0}};
	int pair[2];
	pthread_t thread;
	struct reader reader = {0};

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	reader.fd = pair[1];
	assert_int_equal(pthread_create(&thread, NULL, slow_reader, &reader), 0);
	assert_int_equal(rouse_io_send(pair[0], -1, pieces, 6), 0);
	(void)close(pair[0]);
	assert_int_equal(pthread_join(thread, NULL), 0);
	(void)close(pair[1]);
	assert_null(reader.complaint);
}

/* A pair whose second end nobody reads, and what cancels. */
struct unread {
	int pair[2], cancel_fd;
};

static void unread_open(struct unread *u)
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, u->pair), 0);
	u->cancel_fd = eventfd(0, EFD_CLOEXEC);
	assert_true(u->cancel_fd >= 0);
}

static void unread_cancel(const struct unread *u)
{
	const uint64_t one = 1;

	assert_int_equal(rouse_io_write(u->cancel_fd, &one, sizeof(one)), 0);
}

static void unread_close(struct unread *u)
{
	(void)close(u->pair[0]);
	(void)close(u->pair[1]);
	(void)close(u->cancel_fd);
}

static void a_cancel_ends_a_send_that_waits(void **state)
{
	cleanup_free unsigned char *bytes = big_pattern();
	struct iovec piece = {bytes, BIG};
	struct unread u;

	(void)state;
	unread_open(&u);
	unread_cancel(&u);
	assert_int_equal(rouse_io_send(u.pair[0], u.cancel_fd, &piece, 1), -ECANCELED);
	assert_int_equal(rouse_io_await_room(u.pair[0], u.cancel_fd), -ECANCELED);
	unread_close(&u);
}

static void a_cancel_does_not_end_a_send_that_need_not_wait(void **state)
{
	struct iovec piece = {.iov_base = (char[]){'x'}, .iov_len = 1};
	struct unread u;

	(void)state;
	unread_open(&u);
	assert_int_equal(rouse_io_await_room(u.pair[0], u.cancel_fd), 0);
	unread_cancel(&u);
	assert_int_equal(rouse_io_send(u.pair[0], u.cancel_fd, &piece, 1), 0);
	unread_close(&u);
}

/* It has sent nothing, and has it for the next one: what is behind must not be lost or doubled. */
static void send_goes_on_when_the_kernel_has_memory_again(void **state)
{
	static const int errors[] = {ENOBUFS, ENOMEM};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct iovec pieces[] = {{(char[]){"ab"}, 2}, {NULL, 0}, {(char[]){"cde"}, 3}};
		char received[8] = "";
		struct unread u;

		unread_open(&u);
		no_memory.times = 2;
		no_memory.error = errors[i];
		assert_int_equal(rouse_io_send(u.pair[0], u.cancel_fd, pieces, 3), 0);
		assert_int_equal(no_memory.times, 0);
		assert_int_equal(recv(u.pair[1], received, sizeof(received), MSG_DONTWAIT), 5);
		assert_memory_equal(received, "abcde", 5);
		/* Nobody can cancel, either. */
		pieces[0] = (struct iovec){(char[]){"fg"}, 2};
		no_memory.times = 2;
		assert_int_equal(rouse_io_send(u.pair[0], -1, pieces, 1), 0);
		assert_int_equal(recv(u.pair[1], received, sizeof(received), MSG_DONTWAIT), 2);
		assert_memory_equal(received, "fg", 2);
		unread_close(&u);
	}
}

static void a_cancel_ends_a_send_that_waits_for_memory(void **state)
{
	struct iovec piece = {.iov_base = (char[]){'x'}, .iov_len = 1};
	struct unread u;
	char byte;

	(void)state;
	unread_open(&u);
	no_memory.times = 3;
	no_memory.error = ENOBUFS;
	no_memory.cancel_fd = u.cancel_fd;
	assert_int_equal(rouse_io_send(u.pair[0], u.cancel_fd, &piece, 1), -ECANCELED);
	no_memory.cancel_fd = 0;
	assert_int_equal(no_memory.times, 0);
	assert_int_equal(recv(u.pair[1], &byte, 1, MSG_DONTWAIT), -1);
	unread_close(&u);
}

static void write_survives_short_writes(void **state)
{
	cleanup_free unsigned char *bytes = big_pattern();
	int pair[2];
	pthread_t thread;
	struct reader reader = {0};

	(void)state;
	assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
	reader.fd = pair[0];
	assert_int_equal(pthread_create(&thread, NULL, slow_reader, &reader), 0);
	assert_int_equal(rouse_io_write(pair[1], bytes, BIG), 0);
	(void)close(pair[1]);
	assert_int_equal(pthread_join(thread, NULL), 0);
	(void)close(pair[0]);
	assert_null(reader.complaint);
}

static void send_to_a_closed_peer_is_an_error_and_no_signal(void **state)
{
	struct iovec piece = {.iov_base = (char[]){'x'}, .iov_len = 1};
	struct sigaction old;
	int pair[2];

	(void)state;
	assert_int_equal(sigaction(SIGPIPE, NULL, &old), 0);
	assert_true(old.sa_handler == SIG_DFL);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	(void)close(pair[1]);
	assert_int_equal(rouse_io_send(pair[0], -1, &piece, 1), -EPIPE);
	(void)close(pair[0]);
}

/* A path for a descriptor: rouse_io_read_file() takes names. */
static const char *path_of(int fd)
{
	static char path[64];

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return path;
}

static void read_file_reads_all_and_ends_it_with_nul(void **state)
{
	cleanup_close int fd = file_with("hello");
	cleanup_free char *data = NULL;
	size_t size = 0;

	(void)state;
	assert_int_equal(rouse_io_read_file(path_of(fd), 100, &data, &size), 0);
	assert_int_equal(size, 5);
	assert_string_equal(data, "hello");
}

static void read_file_keeps_its_limit(void **state)
{
	cleanup_free unsigned char *bytes = big_pattern();
	static const size_t sizes[] = {0, 1, 4095, 4096, 4097, 8192, 100000};

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		cleanup_close int fd = file_with("");
		cleanup_free char *data = NULL;
		char *none = NULL;
		size_t size = 0;

		assert_int_equal(rouse_io_write(fd, bytes, sizes[i]), 0);
		assert_int_equal(rouse_io_read_file(path_of(fd), sizes[i], &data, &size), 0);
		assert_int_equal(size, sizes[i]);
		assert_memory_equal(data, bytes, sizes[i]);
		if (sizes[i] > 0)
			assert_int_equal(
				rouse_io_read_file(path_of(fd), sizes[i] - 1, &none, &size),
				-EFBIG);
		assert_null(none);
	}
}

static void read_file_of_nothing_is_an_error(void **state)
{
	char *data = NULL;
	size_t size;

	(void)state;
	assert_int_equal(rouse_io_read_file("/nonexistent/file", 100, &data, &size), -ENOENT);
	assert_int_equal(rouse_io_read_file("/", 100, &data, &size), -EISDIR);
}

static void two_names_of_one_place_are_one_file(void **state)
{
	char directory[] = "/tmp/rouse-test-io-XXXXXX", file[64], dotted[64], link[64], other[64];

	(void)state;
	assert_non_null(mkdtemp(directory));
	(void)snprintf(file, sizeof(file), "%s/file", directory);
	(void)snprintf(dotted, sizeof(dotted), "%s/./file", directory);
	(void)snprintf(link, sizeof(link), "%s/link", directory);
	(void)snprintf(other, sizeof(other), "%s/other", directory);
	assert_int_equal(symlink("file", link), 0);
	/* Whether the file is there or not yet. */
	for (unsigned int is_there = 0; is_there < 2; is_there++) {
		assert_true(rouse_io_is_same_file(file, file));
		assert_true(rouse_io_is_same_file(file, dotted));
		assert_true(rouse_io_is_same_file(link, dotted));
		assert_false(rouse_io_is_same_file(file, other));
		assert_false(rouse_io_is_same_file(link, other));
		assert_false(rouse_io_is_same_file("/nowhere/file", file));
		(void)close(open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	}
	assert_int_equal(unlink(link), 0);
	assert_int_equal(unlink(file), 0);
	assert_int_equal(rmdir(directory), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(read_stops_at_the_end_of_the_file),
		cmocka_unit_test(pread_is_all_or_an_error),
		cmocka_unit_test(pwrite_writes_at_its_offset),
		cmocka_unit_test(a_bad_descriptor_is_an_error_everywhere),
		cmocka_unit_test(write_reports_a_full_disk),
		cmocka_unit_test(send_survives_short_writes_across_pieces),
		cmocka_unit_test(a_cancel_ends_a_send_that_waits),
		cmocka_unit_test(a_cancel_does_not_end_a_send_that_need_not_wait),
		cmocka_unit_test(send_goes_on_when_the_kernel_has_memory_again),
		cmocka_unit_test(a_cancel_ends_a_send_that_waits_for_memory),
		cmocka_unit_test(write_survives_short_writes),
		cmocka_unit_test(send_to_a_closed_peer_is_an_error_and_no_signal),
		cmocka_unit_test(read_file_reads_all_and_ends_it_with_nul),
		cmocka_unit_test(read_file_keeps_its_limit),
		cmocka_unit_test(read_file_of_nothing_is_an_error),
		cmocka_unit_test(two_names_of_one_place_are_one_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
