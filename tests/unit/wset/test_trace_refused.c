/* SPDX-License-Identifier: MIT */
/* Processes that are not traced, and why. */
#include "trace_fixture.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void a_process_that_is_stopped_is_refused(void **state)
{
	struct rouse_error error = {0};
	struct target *target = NULL;
	struct trace *trace;

	(void)state;
	need_trace();
	begin(false, NULL);
	(void)kill(checker.pid, SIGSTOP);
	wait_for_state('T');
	assert_int_equal(try_start(&target, &trace, false, &error), -EBUSY);
	assert_non_null(strstr(error.message, "SIGSTOP"));
	target_close(target);
	(void)kill(checker.pid, SIGCONT);
	assert_true(checker_end(&checker));
}

static void a_process_that_is_debugged_is_refused(void **state)
{
	struct rouse_error error = {0};
	struct target *target = NULL;
	struct trace *trace;

	(void)state;
	need_trace();
	begin(false, NULL);
	assert_int_equal(ptrace(PTRACE_SEIZE, checker.pid, NULL, NULL), 0);
	assert_int_equal(try_start(&target, &trace, false, &error), -EPERM);
	assert_non_null(strstr(error.message, "debugged"));
	target_close(target);
	/* Not stopped: it can be let go only so. */
	assert_int_equal(ptrace(PTRACE_INTERRUPT, checker.pid, NULL, NULL), 0);
	assert_int_equal(waitpid(checker.pid, NULL, __WALL), checker.pid);
	assert_int_equal(ptrace(PTRACE_DETACH, checker.pid, NULL, NULL), 0);
	assert_true(checker_end(&checker));
}

#define ABSENT_PAGE 120u

static void *touch_byte(void *address)
{
	*(volatile char *)address = *(volatile char *)address;
	return NULL;
}

/* Whether the touch of a page that is not there is told to who has registered it. */
static bool is_told(int fd, char *address)
{
	struct pollfd told = {.fd = fd, .events = POLLIN};
	struct uffdio_zeropage order = {
		.range = {.start = (uintptr_t)address, .len = CHECKER_PAGE}};
	struct uffd_msg message;
	pthread_t thread;
	bool good;

	if (pthread_create(&thread, NULL, touch_byte, address) != 0)
		return false;
	good = poll(&told, 1, 10000) == 1 && told.revents == POLLIN &&
	       read(fd, &message, sizeof(message)) == sizeof(message) &&
	       message.event == UFFD_EVENT_PAGEFAULT &&
	       message.arg.pagefault.address / CHECKER_PAGE == (uintptr_t)address / CHECKER_PAGE;
	/* In any case: the thread may wait. */
	(void)ioctl(fd, UFFDIO_ZEROPAGE, &order);
	return pthread_join(thread, NULL) == 0 && good;
}

/* Registers memory with a page that is not there; the second time that is touched. */
static bool do_register(struct checker_control *control, char *memory, uint32_t *generations)
{
	static int fd = -1;
	char *const absent = memory + ABSENT_PAGE * CHECKER_PAGE;
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register order = {.range = {.start = (uintptr_t)memory + 100 * CHECKER_PAGE,
						.len = 64 * CHECKER_PAGE},
		.mode = UFFDIO_REGISTER_MODE_MISSING};

	(void)control;
	if (fd >= 0)
		return is_told(fd, absent);
	generations[ABSENT_PAGE] = 0;
	fd = (int)syscall(SYS_userfaultfd, O_NONBLOCK); /* poll(2) wants that */
	return fd >= 0 && madvise(absent, CHECKER_PAGE, MADV_DONTNEED) == 0 &&
	       ioctl(fd, UFFDIO_API, &api) == 0 && ioctl(fd, UFFDIO_REGISTER, &order) == 0;
}

static void memory_with_a_userfaultfd_is_refused(void **state)
{
	struct rouse_error error = {0};
	struct target *target = NULL;
	struct trace *trace;
	bool found = true;

	(void)state;
	need_trace();
	begin(false, do_register);
	assert_true(checker_order(&checker, CHECKER_CALL));
	assert_int_equal(checker.control->errors, 0);
	assert_int_equal(try_start(&target, &trace, false, &error), -EBUSY);
	assert_non_null(strstr(error.message, "userfaultfd already"));
	assert_int_equal(trace_disarm(target, NULL, &found, &error), 0);
	assert_false(found);
	target_close(target);
	assert_true(checker_order(&checker, CHECKER_CALL));
	assert_int_equal(checker.control->errors, 0);
	assert_true(checker_end(&checker));
}

/* No address space for the memory to be moved to. */
static bool do_limit(struct checker_control *control, char *memory, uint32_t *generations)
{
	struct rlimit limit;
	unsigned long long kib = 0;
	char line[128];
	FILE *file = fopen("/proc/self/status", "re");

	(void)control, (void)memory, (void)generations;
	while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
		if (sscanf(line, "VmSize: %llu", &kib) == 1)
			break;
	}
	if (file == NULL || kib == 0)
		return false;
	(void)fclose(file);
	limit = (struct rlimit){kib * 1024 + (4 << 20), RLIM_INFINITY};
	return setrlimit(RLIMIT_AS, &limit) == 0;
}

static void a_process_without_room_for_a_scratch_area_is_refused(void **state)
{
	struct rouse_error error = {0};
	struct target *target = NULL;
	struct trace *trace;
	bool found = true;

	(void)state;
	need_trace();
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	print_message("sanitizers need the address space themselves\n");
	skip();
#endif
	begin(false, do_limit);
	assert_true(checker_order(&checker, CHECKER_CALL));
	assert_int_equal(checker.control->errors, 0);
	assert_true(checker_order(&checker, CHECKER_WORK));
	assert_int_equal(try_start(&target, &trace, false, &error), -ENOMEM);
	assert_non_null(strstr(error.message, "address space"));
	assert_int_equal(trace_disarm(target, NULL, &found, &error), 0);
	assert_false(found);
	target_close(target);
	assert_true(checker_end(&checker));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_process_that_is_stopped_is_refused),
		cmocka_unit_test(a_process_that_is_debugged_is_refused),
		cmocka_unit_test(memory_with_a_userfaultfd_is_refused),
		cmocka_unit_test(a_process_without_room_for_a_scratch_area_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
