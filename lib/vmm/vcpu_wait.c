/* SPDX-License-Identifier: MIT */
#include "vmm/vcpu_wait.h"

#include "base/cleanup.h"
#include "vmm/vcpu_threads.h"

#include <errno.h>
#include <fcntl.h>

#define SCHEDSTAT_BYTES 128u

/* The open schedstat file of each thread. */
struct vcpu_wait {
	size_t count;
	int *fds;
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* A decimal number from *at on, and the blank behind it. */
static int parse_number(const char *text, size_t size, size_t *at, uint64_t *number)
{
	size_t i = *at;
	uint64_t value = 0;

	for (; i < size && is_digit(text[i]); i++) {
		if (value > (UINT64_MAX - 9) / 10)
			return -EUCLEAN;
		value = value * 10 + (uint64_t)(text[i] - '0');
	}
	if (i == *at || i == size || (text[i] != ' ' && text[i] != '\n'))
		return -EUCLEAN;
	*at = i + 1;
	*number = value;
	return 0;
}

int schedstat_parse(const char *text, size_t size, uint64_t *wait_ns)
{
	uint64_t ran, waited, slices;
	size_t at = 0;

	if (parse_number(text, size, &at, &ran) < 0 || parse_number(text, size, &at, &waited) < 0 ||
		parse_number(text, size, &at, &slices) < 0)
		return -EUCLEAN;
	/* A kernel that does not count prints zeros; a thread that ran was on a processor before.
	 */
	if (slices == 0)
		return -EUCLEAN;
	*wait_ns = waited;
	return 0;
}

static int read_schedstat(int fd, uint64_t *wait_ns)
{
	char text[SCHEDSTAT_BYTES];
	ssize_t n;

	do {
		n = pread(fd, text, sizeof(text), 0);
	} while (n < 0 && errno == EINTR);
	if (n <= 0 || schedstat_parse(text, (size_t)n, wait_ns) < 0)
		return -ENOTSUP;
	return 0;
}

int vcpu_wait_probe(void)
{
	cleanup_close int fd = open("/proc/self/schedstat", O_RDONLY | O_CLOEXEC);
	uint64_t ignored;

	return fd < 0 ? -ENOTSUP : read_schedstat(fd, &ignored);
}

int vcpu_wait_open(struct qmp *qmp, pid_t pid, struct vcpu_wait **wait)
{
	struct vcpu_wait *made;
	uint64_t ignored;
	int code;

	if (pid <= 0)
		pid = qmp_peer_pid(qmp);
	if (pid <= 0)
		return -ENOTSUP;
	made = calloc(1, sizeof(*made));
	if (made == NULL)
		return -ENOMEM;
	code = vcpu_threads_open(qmp, pid, "schedstat", &made->fds, &made->count);
	if (code == 0)
		code = vcpu_wait_read(made, &ignored) > 0 ? 0 : -ENOTSUP;
	if (code < 0) {
		vcpu_wait_close(made);
		return code;
	}
	*wait = made;
	return 0;
}

int vcpu_wait_read(const struct vcpu_wait *wait, uint64_t *wait_ns)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < wait->count; i++) {
		uint64_t one;
		int code = read_schedstat(wait->fds[i], &one);

		if (code < 0)
			return code;
		sum += one;
	}
	*wait_ns = sum;
	return (int)wait->count;
}

void vcpu_wait_close(struct vcpu_wait *wait)
{
	if (wait == NULL)
		return;
	vcpu_threads_close(wait->fds, wait->count);
	free(wait);
}
