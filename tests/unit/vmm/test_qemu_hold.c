/* SPDX-License-Identifier: MIT */
/* Taking hold of the memory of a process, which is no QEMU: what is done to it, and what is not. */
#include "../unit.h"

#include "vmm/qemu_hold_private.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
#define CAN_CALL 1
#endif

#define PAGES 16u
#define BYTES (PAGES * UFFD_SINK_PAGE)

/* Of the process and us. */
struct shared {
	uint64_t rounds, errors;
	bool look; /* the process looks at its memory */
};

struct process {
	pid_t pid;
	unsigned char *memory; /* at the same address there and, empty, here */
	struct shared *shared;
	struct qemu_hold hold;
};

static int register_memory(unsigned char *memory, size_t from)
{
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register what = {
		.range = {.start = (uint64_t)(uintptr_t)memory + from, .len = BYTES - from},
		.mode = UFFDIO_REGISTER_MODE_MISSING};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	return fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0 || ioctl(fd, UFFDIO_REGISTER, &what) < 0
		       ? -errno
		       : 0;
}

/* Its memory is full of sevens, and looked at for ever. */
static void live(const struct process *p, bool registered)
{
	struct shared *shared = p->shared;
	const struct timespec nap = {.tv_nsec = 200000};

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	memset(p->memory, 7, BYTES);
	/* The second half: the first area of the hold is free. */
	if (registered && register_memory(p->memory, BYTES / 2) < 0)
		_exit(1);
	for (;;) {
		for (size_t i = 0; __atomic_load_n(&shared->look, __ATOMIC_SEQ_CST) && i < PAGES;
			i++)
			shared->errors += p->memory[i * UFFD_SINK_PAGE] != 7;
		__atomic_fetch_add(&shared->rounds, 1, __ATOMIC_SEQ_CST);
		(void)nanosleep(&nap, NULL);
	}
}

static void wait_round(struct shared *shared)
{
	const uint64_t until = __atomic_load_n(&shared->rounds, __ATOMIC_SEQ_CST) + 2;
	const time_t began = time(NULL);

	while (__atomic_load_n(&shared->rounds, __ATOMIC_SEQ_CST) < until) {
		if (time(NULL) - began > 60)
			fail_msg("the process hangs");
		(void)usleep(200);
	}
}

static void start(struct process *p, bool registered)
{
	const uint64_t half = PAGES / 2;
	int probe = (int)syscall(SYS_userfaultfd, O_CLOEXEC);

	if (probe < 0) {
		print_message("this user may not use userfaultfd\n");
		skip();
	}
	(void)close(probe);
	*p = (struct process){.hold = QEMU_HOLD_INIT};
	p->memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	p->shared = mmap(NULL, sizeof(*p->shared), PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(p->memory != MAP_FAILED && p->shared != MAP_FAILED);
	p->shared->look = registered;
	(void)fflush(NULL);
	p->pid = fork();
	if (p->pid == 0)
		live(p, registered);
	assert_true(p->pid > 0);
	wait_round(p->shared);
	assert_int_equal(target_open(p->pid, &p->hold.target, NULL), 0);
	for (uint64_t i = 0; i < 2; i++)
		p->hold.areas[i] = (struct uffd_area){
			(uint64_t)(uintptr_t)p->memory + i * half * UFFD_SINK_PAGE, i * half, half};
	p->hold.area_count = 2;
}

static void end(struct process *p)
{
	(void)kill(p->pid, SIGKILL);
	(void)waitpid(p->pid, NULL, 0);
	qemu_hold_finish(&p->hold);
	(void)munmap(p->memory, BYTES);
	(void)munmap(p->shared, sizeof(*p->shared));
}

static int take(struct process *p, struct rouse_error *error)
{
	int there = -1, code = target_stop(p->hold.target, error);

	if (code < 0)
		return code;
	code = qemu_hold_register(&p->hold, &there, error);
	target_go(p->hold.target);
	return code;
}

static void memory_is_emptied_and_registered(void **state)
{
#ifdef CAN_CALL
	struct process p;
	uint64_t entries[PAGES];
	char path[64];
	int fd;

	(void)state;
	start(&p, false);
	assert_int_equal(take(&p, NULL), 0);
	(void)snprintf(path, sizeof(path), "/proc/%d/pagemap", p.pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(pread(fd, entries, sizeof(entries),
				 (off_t)((uintptr_t)p.memory / UFFD_SINK_PAGE * 8)),
		sizeof(entries));
	(void)close(fd);
	for (size_t i = 0; i < PAGES; i++)
		assert_int_equal(entries[i] >> 62, 0);
	end(&p);
#else
	(void)state;
	skip();
#endif
}

/* It is refused, and nothing of it is lost: not even what nobody else has registered. */
static void what_somebody_else_has_registered_is_left_as_it_is(void **state)
{
#ifdef CAN_CALL
	struct rouse_error error = {0};
	struct process p;

	(void)state;
	start(&p, true);
	assert_int_equal(take(&p, &error), -EBUSY);
	assert_int_equal(error.kind, ROUSE_ERROR_REFUSED);
	wait_round(p.shared);
	assert_int_equal(p.shared->errors, 0);
	end(&p);
#else
	(void)state;
	skip();
#endif
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_is_emptied_and_registered),
		cmocka_unit_test(what_somebody_else_has_registered_is_left_as_it_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
