/* SPDX-License-Identifier: MIT */
/*
 * Taking hold of the memory of a process, which is no QEMU: what is done to it, and what is not;
 * and who may have what was left in it.
 */
#include "../unit.h"

#include "fake_monitor.h"
#include "vmm/qemu_hold_private.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
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
	code = qemu_hold_make_uffd(&p->hold, &there, error);
	if (code == 0)
		code = qemu_hold_register(&p->hold, error);
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
	print_message("sanitizers have mappings of their own\n");
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
	print_message("sanitizers have mappings of their own\n");
	skip();
#endif
}

/* ---- The record ------------------------------------------------------------------------------ */

/* So much that the record has a page and more of bitmap; nobody touches it. */
#define LARGE_BYTES (UINT64_C(512) << 20)

/* The library's calls end here. */
static int fallocate_fails_with; /* once; 0: it does not */

int fallocate(int fd, int mode, off_t offset, off_t length)
{
	if (fallocate_fails_with != 0) {
		errno = fallocate_fails_with;
		fallocate_fails_with = 0;
		return -1;
	}
	return (int)syscall(SYS_fallocate, fd, mode, offset, length);
}

#ifdef CAN_CALL
/* A process with a large block, and its monitor. */
struct large {
	pid_t pid;
	void *memory; /* at the same address there and here */
	char ram_blocks[512];
	struct fake_answer answers[2];
	struct fake_monitor monitor;
};

static void large_start(struct large *l)
{
	const int probe = (int)syscall(SYS_userfaultfd, O_CLOEXEC);

	if (probe < 0) {
		print_message("this user may not use userfaultfd\n");
		skip();
	}
	(void)close(probe);
	*l = (struct large){.answers = {{.command = "x-query-ramblock", .result = l->ram_blocks}}};
	l->memory = mmap(NULL, LARGE_BYTES, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_true(l->memory != MAP_FAILED);
	(void)snprintf(l->ram_blocks, sizeof(l->ram_blocks),
		"{\"human-readable-text\": \"Block Name PSize Offset Used Total HVA RO\\n"
		"pc.ram 4 KiB 0x0 0x%llx 0x%llx 0x%llx rw\\n\"}",
		(unsigned long long)LARGE_BYTES, (unsigned long long)LARGE_BYTES,
		(unsigned long long)(uintptr_t)l->memory);
	(void)fflush(NULL);
	l->pid = fork();
	if (l->pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			(void)pause();
	}
	assert_true(l->pid > 0);
	fake_monitor_open(&l->monitor, l->answers);
}

static int large_take(struct large *l, struct qemu_hold *hold, struct rouse_error *error)
{
	const struct qemu_block large = {.name = "pc.ram", .used_bytes = LARGE_BYTES};

	return qemu_hold_take(hold, l->pid, l->monitor.qmp, &large, 1, 1, true, error);
}

static void large_end(struct large *l)
{
	fake_monitor_close(&l->monitor);
	(void)kill(l->pid, SIGKILL);
	(void)waitpid(l->pid, NULL, 0);
	(void)munmap(l->memory, LARGE_BYTES);
}
#endif

/* Or the first look at a part of it could fail, which is a SIGBUS. */
static void the_record_has_all_its_memory_from_the_start(void **state)
{
#ifdef CAN_CALL
	struct rouse_error error = {0};
	struct stat status = {0};
	struct qemu_hold hold;
	struct large l;
	int code;

	(void)state;
	large_start(&l);
	/* A signal is no reason to go without it. */
	fallocate_fails_with = EINTR;
	code = large_take(&l, &hold, &error);
	if (code == 0)
		(void)fstat(hold.memfd, &status);
	qemu_hold_finish(&hold);
	large_end(&l);
	if (code < 0)
		fail_msg("%s", error.message);
	assert_true((uint64_t)status.st_size >= UFFD_RECORD_BITMAP + LARGE_BYTES / 4096 / 8);
	assert_true(status.st_blocks * 512 >= status.st_size);
#else
	(void)state;
	print_message("sanitizers have mappings of their own\n");
	skip();
#endif
}

static void without_memory_for_the_record_nothing_is_taken(void **state)
{
#ifdef CAN_CALL
	struct rouse_error error = {0};
	int first, there, second;
	struct qemu_hold hold;
	struct large l;

	(void)state;
	large_start(&l);
	fallocate_fails_with = ENOMEM;
	first = large_take(&l, &hold, &error);
	qemu_hold_finish(&hold);
	there = target_find_fd_in(l.pid, "/memfd:rouse-restore (deleted)");
	/* It waits for a restore as before. */
	second = large_take(&l, &hold, NULL);
	qemu_hold_finish(&hold);
	large_end(&l);
	assert_int_equal(first, -ENOMEM);
	assert_non_null(strstr(error.message, "record"));
	assert_int_equal(there, -ENOENT);
	assert_int_equal(second, 0);
#else
	(void)state;
	print_message("sanitizers have mappings of their own\n");
	skip();
#endif
}

/* ---- What is left in a process --------------------------------------------------------------- */

#define CHECKPOINT 42u
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

static const struct qemu_block block = {.name = "pc.ram", .used_bytes = BYTES};

/* As any Rouse leaves it: nobody has a lock. */
static bool leave_record(enum uffd_record_state how_far)
{
	struct uffd_record record = {
		.magic = UFFD_RECORD_MAGIC,
		.version = UFFD_RECORD_VERSION,
		.state = how_far,
		.checkpoint = CHECKPOINT,
		.pages = PAGES,
		.area_count = 1,
		.areas = {{.address = 1 << 30, .pages = PAGES}},
	};
	const int memfd = memfd_create("rouse-restore", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	record.uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	return memfd >= 0 && record.uffd >= 0 &&
	       ftruncate(memfd, (off_t)uffd_record_bytes(PAGES)) == 0 &&
	       fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0 &&
	       pwrite(memfd, &record, sizeof(record), 0) == (ssize_t)sizeof(record);
}

/* A process that does @role for @other, says how that went, and waits to be ended. */
static pid_t start_role(int (*role)(pid_t other), pid_t other, int *said)
{
	int fds[2];
	pid_t pid;

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	(void)fflush(NULL);
	pid = fork();
	if (pid == 0) {
		int code;

		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		(void)prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
		code = role(other);
		(void)!write(fds[1], &code, sizeof(code));
		for (;;)
			(void)pause();
	}
	assert_true(pid > 0);
	(void)close(fds[1]);
	assert_int_equal(read(fds[0], said, sizeof(*said)), sizeof(*said));
	(void)close(fds[0]);
	return pid;
}

static void end_role(pid_t pid)
{
	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, NULL, 0);
}

static int play_qemu(pid_t other)
{
	(void)other;
	return leave_record(UFFD_RUNNING) ? 0 : -1;
}

/* Its Rouse was killed at its end, before it had closed anything, or one of the two. */
static int play_complete_qemu(pid_t other)
{
	(void)other;
	return leave_record(UFFD_COMPLETE) ? 0 : -1;
}

static int play_half_closed_qemu(pid_t other)
{
	(void)other;
	/* The userfaultfd is the descriptor that was opened last. */
	return leave_record(UFFD_COMPLETE) && close(dup(0) - 1) == 0 ? 0 : -1;
}

static int adopt(struct qemu_hold *hold, pid_t qemu, struct rouse_error *error)
{
	return qemu_hold_adopt(hold, qemu, &block, 1, CHECKPOINT, error);
}

/* A process with a record that can be adopted. */
static pid_t start_qemu(void)
{
	struct rouse_error error = {0};
	struct qemu_hold hold;
	int said, code;
	pid_t pid = start_role(play_qemu, 0, &said);

	code = said == 0 ? adopt(&hold, pid, &error) : 0;
	if (said < 0 || code == -EPERM || code == -ENOSYS) {
		print_message(
			"%s\n", said < 0 ? "this user may not use userfaultfd" : error.message);
		end_role(pid);
		skip();
	}
	if (code < 0)
		fail_msg("%s", error.message);
	qemu_hold_finish(&hold);
	return pid;
}

/* It is refused to this process, and @holder is named. */
static void assert_is_served(pid_t qemu, pid_t holder)
{
	struct rouse_error error = {0};
	struct qemu_hold hold;
	char wanted[64];

	assert_int_equal(adopt(&hold, qemu, &error), -EBUSY);
	assert_int_equal(error.kind, ROUSE_ERROR_REFUSED);
	(void)snprintf(wanted, sizeof(wanted), "process number %d serves it", (int)holder);
	assert_non_null(strstr(error.message, wanted));
	qemu_hold_finish(&hold);
}

static void assert_is_free(pid_t qemu)
{
	struct rouse_error error = {0};
	struct qemu_hold hold;

	if (adopt(&hold, qemu, &error) != 0)
		fail_msg("%s", error.message);
	qemu_hold_finish(&hold);
}

static int adopt_and_stay(pid_t qemu)
{
	static struct qemu_hold hold;

	return adopt(&hold, qemu, NULL);
}

static int adopt_elsewhere(pid_t qemu)
{
	int said;

	end_role(start_role(adopt_and_stay, qemu, &said));
	return said;
}

static void a_record_that_is_served_is_refused_to_this_process_and_to_others(void **state)
{
	const pid_t qemu = start_qemu();
	struct qemu_hold hold;

	(void)state;
	assert_int_equal(adopt(&hold, qemu, NULL), 0);
	/* The second time: although a hold that was refused has been finished. */
	for (unsigned int i = 0; i < 2; i++) {
		assert_is_served(qemu, getpid());
		assert_int_equal(adopt_elsewhere(qemu), -EBUSY);
	}
	qemu_hold_finish(&hold);
	assert_int_equal(adopt_elsewhere(qemu), 0);
	assert_is_free(qemu);
	end_role(qemu);
}

/* As the guard of a save does, which outlives a Rouse that is killed: no descriptor is its own. */
static int adopt_and_have_a_child(pid_t qemu)
{
	int fds[2], code = adopt_and_stay(qemu);
	char byte;
	pid_t pid;

	if (code < 0 || pipe2(fds, O_CLOEXEC) < 0)
		return -1;
	pid = fork();
	if (pid == 0) {
		(void)alarm(60);
		(void)close_range(0, ~0U, 0);
		for (;;)
			(void)pause();
	}
	(void)close(fds[1]);
	return pid < 0 || read(fds[0], &byte, 1) != 0 ? -1 : (int)pid;
}

static void a_record_can_be_adopted_once_its_holder_has_died_whatever_children_it_leaves(
	void **state)
{
	const pid_t qemu = start_qemu();
	pid_t holder;
	int child;

	(void)state;
	holder = start_role(adopt_and_have_a_child, qemu, &child);
	assert_true(child > 0);
	assert_is_served(qemu, holder);
	end_role(holder);
	assert_int_equal(kill(child, 0), 0);
	assert_is_free(qemu);
	(void)kill(child, SIGKILL);
	end_role(qemu);
}

/* A Rouse of before: the lock is its process's. */
static int adopt_as_of_old(pid_t qemu)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	struct target *target = NULL;
	int code = target_open(qemu, &target, NULL), fd;

	if (code < 0)
		return code;
	fd = target_fetch_fd(target, target_find_fd(target, "/memfd:rouse-restore (deleted)", 0));
	return fcntl(fd, F_SETLK, &lock) == 0 ? 0 : -errno;
}

static void an_older_rouse_and_this_one_keep_off_each_other(void **state)
{
	const pid_t qemu = start_qemu();
	struct qemu_hold hold;
	pid_t old;
	int said;

	(void)state;
	old = start_role(adopt_as_of_old, qemu, &said);
	assert_int_equal(said, 0);
	assert_is_served(qemu, old);
	end_role(old);
	assert_int_equal(adopt(&hold, qemu, NULL), 0);
	end_role(start_role(adopt_as_of_old, qemu, &said));
	assert_int_equal(said, -EAGAIN);
	qemu_hold_finish(&hold);
	end_role(qemu);
}

static void assert_is_closed(int (*role)(pid_t other))
{
	struct rouse_error error = {0};
	struct qemu_hold hold;
	int said, code;
	const pid_t qemu = start_role(role, 0, &said);

	code = said == 0 ? adopt(&hold, qemu, &error) : -EPERM;
	if (code == -EPERM || code == -ENOSYS) {
		print_message(
			"%s\n", said < 0 ? "this user may not use userfaultfd" : error.message);
		end_role(qemu);
		skip();
	}
	assert_int_equal(code, -EBUSY);
	assert_int_equal(error.kind, ROUSE_ERROR_REFUSED);
	assert_non_null(strstr(error.message, "no restore that broke off"));
	assert_int_equal(adopt(&hold, qemu, NULL), -ENOENT);
	end_role(qemu);
}

static void what_a_rouse_has_left_that_died_at_its_end_is_closed(void **state)
{
	(void)state;
	assert_is_closed(play_complete_qemu);
	assert_is_closed(play_half_closed_qemu);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_is_emptied_and_registered),
		cmocka_unit_test(what_somebody_else_has_registered_is_left_as_it_is),
		cmocka_unit_test(the_record_has_all_its_memory_from_the_start),
		cmocka_unit_test(without_memory_for_the_record_nothing_is_taken),
		cmocka_unit_test(a_record_that_is_served_is_refused_to_this_process_and_to_others),
		cmocka_unit_test(
			a_record_can_be_adopted_once_its_holder_has_died_whatever_children_it_leaves),
		cmocka_unit_test(an_older_rouse_and_this_one_keep_off_each_other),
		cmocka_unit_test(what_a_rouse_has_left_that_died_at_its_end_is_closed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
