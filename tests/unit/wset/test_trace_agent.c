/* SPDX-License-Identifier: MIT */
/* What the agent asks of the kernel: seen from within, with some answers made up. */
#include "../unit.h"

#include "agent_probe.h"
#include "trace_possible.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB ((uint64_t)1 << 20)

static struct agent_probe probe;

/*
 * Not before need_trace(), which forks: a page that a child had cannot be moved.
 * Each page begins with its number. Private memory begins at a border of huge pages.
 */
static char *make_memory(uint64_t bytes, bool shared)
{
	const uint64_t room = bytes + 2 * MIB;
	char *memory;

	if (shared) {
		int fd = memfd_create("watched", MFD_CLOEXEC);

		assert_true(fd >= 0);
		assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
		memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		assert_int_equal(close(fd), 0);
	} else {
		memory = mmap(
			NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (memory != MAP_FAILED) {
			char *const at = memory + (2 * MIB - (uintptr_t)memory % (2 * MIB));

			assert_int_equal(munmap(memory, (size_t)(at - memory)), 0);
			if (at + bytes < memory + room)
				assert_int_equal(
					munmap(at + bytes, (size_t)(memory + room - at - bytes)),
					0);
			memory = at;
		}
	}
	assert_ptr_not_equal(memory, MAP_FAILED);
	(void)madvise(memory, bytes, MADV_NOHUGEPAGE);
	for (uint64_t at = 0; at < bytes; at += CHECKER_PAGE)
		*(volatile uint64_t *)(void *)(memory + at) = at / CHECKER_PAGE + 1;
	return memory;
}

static void check_memory(char *memory, uint64_t bytes)
{
	for (uint64_t at = 0; at < bytes; at += CHECKER_PAGE)
		assert_int_equal(
			*(volatile uint64_t *)(void *)(memory + at), at / CHECKER_PAGE + 1);
}

/* ---- Refused -----------------------------------------------------------------------------------
 */

static int register_first(char *memory, uint64_t bytes)
{
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register order = {
		.range = {.start = (uintptr_t)memory, .len = bytes},
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	assert_true(fd >= 0);
	assert_int_equal(ioctl(fd, UFFDIO_API, &api), 0);
	assert_int_equal(ioctl(fd, UFFDIO_REGISTER, &order), 0);
	return fd;
}

/* Not by what becomes of the other: newer kernels refuse the order. */
static void check_refused(bool shared)
{
	const uint64_t bytes = 4 * MIB;
	char *free_memory = make_memory(bytes, shared), *taken = make_memory(bytes, shared);
	const struct agent_probe_range ranges[] = {
		{free_memory, bytes, shared}, {taken, bytes, shared}};
	int fd = register_first(taken, bytes);

	probe.before = NULL;
	agent_probe_begin(&probe, ranges, 2);
	assert_false(agent_probe_arm(&probe));
	assert_int_equal(probe.failed_code, -EBUSY);
	agent_probe_disarm(&probe);
	assert_int_equal(agent_probe_count(&probe, UFFDIO_REGISTER, taken, bytes), 1);
	assert_int_equal(agent_probe_count(&probe, UFFDIO_UNREGISTER, taken, bytes), 0);
	assert_true(agent_probe_count(&probe, UFFDIO_UNREGISTER, free_memory, bytes) > 0);
	check_memory(free_memory, bytes);
	check_memory(taken, bytes);
	assert_int_equal(close(fd), 0);
	assert_int_equal(munmap(free_memory, bytes), 0);
	assert_int_equal(munmap(taken, bytes), 0);
}

static void private_memory_that_another_has_registered_is_not_unregistered(void **state)
{
	(void)state;
	need_trace();
	check_refused(false);
}

static void shared_memory_that_another_has_registered_is_not_unregistered(void **state)
{
	(void)state;
	need_trace();
	check_refused(true);
}

/* ---- Cut short ---------------------------------------------------------------------------------
 */

#define AREA_BYTES (64 * MIB)

struct forker {
	pthread_t thread;
	uint64_t moved; /* bytes, by when it forks */
	bool started;
};

static void *fork_once(void *context)
{
	const pid_t pid = fork();
	int status;

	(void)context;
	if (pid == 0)
		_exit(0);
	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? NULL : (void *)1;
}

/* Before the fourth piece of 8 MiB goes: a fork, which waits for the agent from then on. */
static bool fork_meanwhile(struct agent_probe *probe_, struct agent_probe_call *call)
{
	struct forker *forker = probe_->context;
	struct pollfd told = {.fd = call->fd, .events = POLLIN};

	if (!call->is_move || forker->started)
		return false;
	for (size_t i = forker->moved = 0; i < probe_->call_count; i++)
		forker->moved += probe_->calls[i].moved;
	if (forker->moved < 24 * MIB)
		return false;
	forker->started = true;
	assert_int_equal(pthread_create(&forker->thread, NULL, fork_once, NULL), 0);
	assert_int_equal(poll(&told, 1, 30000), 1);
	return false;
}

static void pages_that_a_fork_left_unarmed_are_counted(void **state)
{
	struct agent_probe_range ranges[2];
	struct forker forker = {0};
	char *first, *second;
	uint64_t moved = 0;
	void *bad;

	(void)state;
	need_trace();
	first = make_memory(AREA_BYTES, false);
	second = make_memory(AREA_BYTES, false);
	ranges[0] = (struct agent_probe_range){first, AREA_BYTES, false};
	ranges[1] = (struct agent_probe_range){second, AREA_BYTES, false};
	probe.before = fork_meanwhile;
	probe.context = &forker;
	agent_probe_begin(&probe, ranges, 2);
	assert_true(agent_probe_arm(&probe));
	assert_true(forker.started);
	assert_int_equal(probe.forks, 1);
	for (size_t i = 0; i < probe.call_count; i++)
		moved += probe.calls[i].moved;
	assert_true(moved < AREA_BYTES);
	assert_int_equal(probe.skipped, (2 * AREA_BYTES - moved) / CHECKER_PAGE);
	agent_probe_disarm(&probe);
	assert_int_equal(pthread_join(forker.thread, &bad), 0);
	assert_null(bad);
	check_memory(first, AREA_BYTES);
	check_memory(second, AREA_BYTES);
	assert_int_equal(munmap(first, AREA_BYTES), 0);
	assert_int_equal(munmap(second, AREA_BYTES), 0);
}

/* ---- In use ------------------------------------------------------------------------------------
 */

#define BUSY_AT (8 * MIB) /* where a call begins: so much is moved at once */

/* What the kernel says of a huge page that is pinned, when that is to be moved whole. */
static bool say_busy(struct agent_probe *probe_, struct agent_probe_call *call)
{
	const uint64_t from = (uintptr_t)probe_->context;

	if (!call->is_move || call->address < from || call->address >= from + 2 * MIB)
		return false;
	call->result = -EBUSY;
	return true;
}

static void no_part_of_a_huge_page_in_use_is_moved(void **state)
{
	const uint64_t bytes = 16 * MIB;
	struct agent_probe_range range;
	uint64_t busy;
	char *memory;

	(void)state;
	need_trace();
	memory = make_memory(bytes, false);
	range = (struct agent_probe_range){memory, bytes, false};
	busy = (uintptr_t)memory + BUSY_AT;
	probe.before = say_busy;
	probe.context = memory + BUSY_AT;
	agent_probe_begin(&probe, &range, 1);
	assert_true(agent_probe_arm(&probe));
	for (size_t i = 0; i < probe.call_count; i++) {
		const struct agent_probe_call *call = &probe.calls[i];

		if (call->is_move && call->address >= busy && call->address < busy + 2 * MIB) {
			assert_int_equal(call->address, busy);
			assert_true(call->bytes >= 2 * MIB);
		}
	}
	assert_int_equal(probe.skipped, 2 * MIB / CHECKER_PAGE);
	agent_probe_disarm(&probe);
	check_memory(memory, bytes);
	assert_int_equal(munmap(memory, bytes), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(private_memory_that_another_has_registered_is_not_unregistered),
		cmocka_unit_test(shared_memory_that_another_has_registered_is_not_unregistered),
		cmocka_unit_test(pages_that_a_fork_left_unarmed_are_counted),
		cmocka_unit_test(no_part_of_a_huge_page_in_use_is_moved),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
