/* SPDX-License-Identifier: MIT */
/* What the traced process may do, or what may become of it, while it is traced. */
#include "../unit.h"

#include "../target/checker.h"
#include "trace_deeds.h"
#include "trace_possible.h"
#include "wset/trace.h"
#include "wset/trace_record.h"

#include <dirent.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- The frame of a test ----------------------------------------------------------------------
 */

static struct checker checker;

static void begin(bool shared,
	bool (*call)(struct checker_control *control, char *memory, uint32_t *generations))
{
	/* Copied by the fork that it begins with. */
	const struct checker_config config = {
		.pages = PAGES, .shared = shared, .holes_from = WRITTEN, .call = call};

	checker_start(&checker, &config);
}

static int try_start(
	struct target **target, struct trace **trace, bool shared, struct rouse_error *error)
{
	const struct trace_range range = {.address = checker.control->address,
		.bytes = PAGES * CHECKER_PAGE,
		.shared = shared};
	int code = target_open(checker.pid, target, error);

	*trace = NULL;
	return code < 0 ? code : trace_start(*target, &range, 1, 60000000, NULL, trace, error);
}

static struct trace *start(struct target **target, bool shared)
{
	struct rouse_error error = {0};
	struct trace *trace;

	if (try_start(target, &trace, shared, &error) < 0)
		fail_msg("%s", error.message);
	return trace;
}

static void stop(struct target *target, struct trace *trace, struct trace_report *report)
{
	struct rouse_error error = {0};

	if (trace_stop(trace, &error) < 0)
		fail_msg("%s", error.message);
	trace_get_report(trace, report);
	trace_free(trace);
	target_close(target);
}

/* The process does it twice while it is traced, with work before, between and behind. */
static void check_call(bool shared,
	bool (*call)(struct checker_control *control, char *memory, uint32_t *generations),
	unsigned int times, struct trace_report *report)
{
	struct target *target;
	struct trace *trace;

	begin(shared, call);
	trace = start(&target, shared);
	assert_true(checker_order(&checker, CHECKER_WORK));
	assert_true(checker_wait(&checker, 200));
	for (unsigned int i = 0; i < times; i++) {
		assert_true(checker_order(&checker, CHECKER_CALL));
		assert_int_equal(checker.control->errors, 0);
		assert_true(checker_order(&checker, CHECKER_WORK));
		assert_true(checker_wait(&checker, 200));
	}
	stop(target, trace, report);
	assert_true(checker_wait(&checker, 200));
	assert_true(checker_end(&checker));
}

static void a_child_gets_all_memory_and_the_parent_keeps_it(void **state)
{
	struct trace_report report;

	(void)state;
	need_trace();
	check_call(false, do_fork, 2, &report);
	assert_true(report.forks >= 2); /* theirs too, if they had not got all by then */
}

static void a_child_may_change_its_memory_while_it_still_lacks_pages(void **state)
{
	struct trace_report report;

	(void)state;
	need_trace();
	check_call(false, do_busy_child, 2, &report);
}

static void a_child_that_executes_another_program_costs_nothing(void **state)
{
	struct trace_report report;

	(void)state;
	need_trace();
	check_call(false, do_exec_child, 2, &report);
}

static void memory_that_is_given_back_is_zeros_and_does_not_come_back(void **state)
{
	struct trace_report report;

	(void)state;
	need_trace();
	check_call(false, do_give_back, 2, &report);
	assert_true(report.removed >= 900);
}

static void shared_memory_that_is_unmapped_keeps_its_data(void **state)
{
	struct trace_report report;

	(void)state;
	need_trace();
	check_call(true, do_unmap_shared, 2, &report);
}

static void shared_memory_that_is_punched_out_is_zeros(void **state)
{
	struct trace_report report;

	(void)state;
	need_trace();
	check_call(true, do_punch_shared, 2, &report);
}

static void memory_may_be_unmapped_and_mapped_anew(void **state)
{
	struct trace_report report;

	(void)state;
	need_trace();
	check_call(false, do_map_over, 2, &report);
}

static void memory_may_be_unmapped_and_grown_back(void **state)
{
	struct trace_report report;

	(void)state;
	need_trace();
	check_call(false, do_grow_back, 4, &report);
	assert_true(report.removed > 0);
}

static void a_child_may_unmap_memory_and_grow_it_back(void **state)
{
	struct trace_report report;

	(void)state;
	need_trace();
	check_call(false, do_grow_child, 2, &report);
}

static void memory_may_be_moved(void **state)
{
	struct trace_report report;

	(void)state;
	need_trace();
	check_call(false, do_move, 2, &report);
	assert_true(report.remaps >= 3);
}

static void memory_may_be_moved_over_other_memory(void **state)
{
	struct trace_report report;

	(void)state;
	need_trace();
	check_call(false, do_move_over, 2, &report);
}

/* The trace ends before its table of areas is full; what happens until then must be right. */
static void memory_may_be_taken_to_pieces(void **state)
{
	struct rouse_error error = {0};
	struct trace_report report;
	struct target *target;
	struct trace *trace;

	(void)state;
	need_trace();
	begin(false, do_scatter);
	trace = start(&target, false);
	assert_true(checker_order(&checker, CHECKER_CALL));
	assert_int_equal(checker.control->errors, 0);
	assert_int_equal(trace_wait(trace, 60000000, &error), 1);
	stop(target, trace, &report);
	assert_true(report.remaps >= 256);
	assert_true(checker_end(&checker));
}

static void shared_memory_may_be_moved(void **state)
{
	struct trace_report report;

	(void)state;
	need_trace();
	check_call(true, do_move, 2, &report);
}

static void memory_may_be_locked(void **state)
{
	struct trace_report report;

	(void)state;
	need_trace();
	check_call(false, do_lock, 1, &report);
}

static void memory_may_be_advised_on(void **state)
{
	struct trace_report report;

	(void)state;
	need_trace();
	check_call(false, do_advise, 2, &report);
}

static void the_process_may_close_all_its_files(void **state)
{
	struct trace_report report;

	(void)state;
	need_trace();
	check_call(false, do_close_all, 2, &report);
}

static void memory_may_be_protected_when_it_is_put_back(void **state)
{
	struct trace_report report;
	struct target *target;
	struct trace *trace;

	(void)state;
	need_trace();
	begin(false, do_protect);
	trace = start(&target, false);
	assert_true(checker_order(&checker, CHECKER_CALL));
	stop(target, trace, &report);
	assert_true(report.copied > 0);
	assert_true(checker_order(&checker, CHECKER_CALL));
	assert_true(checker_end(&checker));
}

/* ---- What becomes of the process ---------------------------------------------------------------
 */

static void a_process_that_executes_another_program_is_left_alone(void **state)
{
	struct rouse_error error = {0};
	struct target *target;
	struct trace *trace;
	bool found;

	(void)state;
	need_trace();
	begin(false, do_exec);
	trace = start(&target, false);
	__atomic_store_n(&checker.control->order, CHECKER_CALL, __ATOMIC_SEQ_CST);
	__atomic_fetch_add(&checker.control->number, 1, __ATOMIC_SEQ_CST);
	assert_int_equal(trace_wait(trace, 60000000, &error), 1);
	(void)trace_stop(trace, &error);
	trace_free(trace);
	assert_int_equal(trace_disarm(target, NULL, &found, &error), 0);
	assert_false(found);
	assert_true(target_alive(target));
	target_close(target);
	(void)kill(checker.pid, SIGKILL);
	(void)waitpid(checker.pid, NULL, 0);
}

static void a_process_that_is_killed_ends_the_trace(void **state)
{
	struct rouse_error error = {0};
	struct target *target;
	struct trace *trace;

	(void)state;
	need_trace();
	begin(false, NULL);
	trace = start(&target, false);
	(void)kill(checker.pid, SIGKILL);
	assert_int_equal(trace_wait(trace, 60000000, &error), -ESRCH);
	assert_int_equal(trace_stop(trace, &error), -ESRCH);
	trace_free(trace);
	target_close(target);
	(void)waitpid(checker.pid, NULL, 0);
}

static void wait_for_state(char wanted)
{
	char path[64], line[128];

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", checker.pid);
	for (;;) {
		FILE *file = fopen(path, "re");
		const char *at;

		assert_non_null(file);
		at = fgets(line, sizeof(line), file);
		(void)fclose(file);
		assert_non_null(at);
		at = strrchr(line, ')');
		if (at != NULL && at[2] == wanted)
			return;
		(void)usleep(1000);
	}
}

static void a_process_that_is_stopped_puts_everything_back_when_it_goes_on(void **state)
{
	struct rouse_error error = {0};
	struct target *target;
	struct trace *trace;
	bool found;

	(void)state;
	need_trace();
	begin(false, NULL);
	trace = start(&target, false);
	assert_true(checker_order(&checker, CHECKER_WORK));
	assert_true(checker_wait(&checker, 50));
	(void)kill(checker.pid, SIGSTOP);
	wait_for_state('T');
	assert_int_equal(trace_stop(trace, &error), -EBUSY);
	assert_non_null(strstr(error.message, "SIGCONT"));
	trace_free(trace);
	assert_int_equal(trace_disarm(target, NULL, &found, &error), -EBUSY);
	(void)kill(checker.pid, SIGCONT);
	assert_true(checker_wait(&checker, 500));
	assert_int_equal(trace_disarm(target, NULL, &found, &error), 0);
	target_close(target);
	assert_true(checker_end(&checker));
}

static pid_t find_agent(void)
{
	char path[320], name[32] = "";
	struct dirent *entry;
	pid_t found = 0;
	DIR *list;

	(void)snprintf(path, sizeof(path), "/proc/%d/task", checker.pid);
	list = opendir(path);
	assert_non_null(list);
	while ((entry = readdir(list)) != NULL) {
		FILE *file;

		(void)snprintf(
			path, sizeof(path), "/proc/%d/task/%s/comm", checker.pid, entry->d_name);
		file = entry->d_name[0] != '.' ? fopen(path, "re") : NULL;
		if (file != NULL && fgets(name, sizeof(name), file) != NULL &&
			strcmp(name, "rouse-trace\n") == 0)
			found = (pid_t)strtol(entry->d_name, NULL, 10);
		if (file != NULL)
			(void)fclose(file);
	}
	(void)closedir(list);
	return found;
}

/* As in a call that does not return. It takes as long as a tracer waits. */
static void an_agent_that_does_not_get_on_is_not_waited_for_for_ever(void **state)
{
	struct rouse_error error = {0};
	struct target *target;
	struct trace *trace;
	bool found;
	pid_t agent;

	(void)state;
	need_trace();
	begin(false, NULL);
	trace = start(&target, false);
	agent = find_agent();
	assert_true(agent > 0);
	assert_int_equal(ptrace(PTRACE_SEIZE, agent, NULL, NULL), 0);
	assert_int_equal(ptrace(PTRACE_INTERRUPT, agent, NULL, NULL), 0);
	assert_int_equal(waitpid(agent, NULL, __WALL), agent);
	assert_int_equal(trace_stop(trace, &error), -ETIMEDOUT);
	assert_non_null(strstr(error.message, "--disarm"));
	trace_free(trace);
	assert_int_equal(ptrace(PTRACE_DETACH, agent, NULL, NULL), 0);
	assert_int_equal(trace_disarm(target, NULL, &found, &error), 0);
	assert_int_equal(find_agent(), 0);
	target_close(target);
	assert_true(checker_end(&checker));
}

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

/* The record of the trace, which the process can find, and change. */
static struct trace_record *find_record(void)
{
	FILE *file = fopen("/proc/self/maps", "re");
	unsigned long start = 0;
	char line[512];

	while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
		if (strstr(line, "/memfd:rouse-trace ") != NULL && strstr(line, " rw-s ") != NULL)
			start = strtoul(line, NULL, 16);
	}
	if (file != NULL)
		(void)fclose(file);
	return (struct trace_record *)start;
}

/* Sizes and places that make sense, but are not those that the tracer has mapped. */
static bool do_falsify(struct checker_control *control, char *memory, uint32_t *generations)
{
	struct trace_record *record = find_record();

	(void)control, (void)memory, (void)generations;
	if (record == NULL)
		return false;
	record->data_bytes += record->code_bytes;
	record->code_bytes = 0;
	record->log_offset = record->data_bytes - TRACE_PAGE;
	record->log_room = record->log_count = TRACE_PAGE / sizeof(struct trace_entry);
	return true;
}

static void a_record_that_the_process_has_falsified_is_not_believed(void **state)
{
	struct rouse_error error = {0};
	struct target *target = NULL;
	struct trace *trace;

	(void)state;
	need_trace();
	begin(false, do_falsify);
	trace = start(&target, false);
	assert_true(checker_order(&checker, CHECKER_CALL));
	assert_int_equal(checker.control->errors, 0);
	assert_int_equal(trace_stop(trace, &error), -EUCLEAN);
	trace_free(trace);
	target_close(target);
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

/* Forks without address space for anything, twice at once. */
static bool do_fork_limited(struct checker_control *control, char *memory, uint32_t *generations)
{
	const struct rlimit none = {CHECKER_PAGE, RLIM_INFINITY},
			    all = {RLIM_INFINITY, RLIM_INFINITY};
	bool good = true;
	pid_t pids[2];

	(void)control;
	if (setrlimit(RLIMIT_AS, &none) < 0)
		return false;
	for (unsigned int i = 0; i < 2; i++) {
		pids[i] = fork();
		if (pids[i] == 0)
			_exit(check_all(memory, generations) ? 0 : 1);
	}
	for (uint64_t page = 0; page < PAGES; page += 3)
		checker_stamp(memory, page, ++generations[page]);
	for (unsigned int i = 0; i < 2; i++)
		good = wait_child(pids[i]) && good;
	return setrlimit(RLIMIT_AS, &all) == 0 && good;
}

static void a_process_without_address_space_may_fork(void **state)
{
	struct trace_report report;

	(void)state;
	need_trace();
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	print_message("sanitizers need the address space themselves\n");
	skip();
#endif
	check_call(false, do_fork_limited, 2, &report);
	assert_true(report.forks >= 2);
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

/* ---- Pages that cannot be moved ----------------------------------------------------------------
 */

#define HUGE_PAGES 512u

/* Whether the mapping that begins at @address has huge pages only. */
static bool is_all_huge(const char *address)
{
	FILE *file = fopen("/proc/self/smaps", "re");
	unsigned long start, end, kib = 0;
	bool here = false;
	char line[512];

	while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = start == (uintptr_t)address;
		else if (here && sscanf(line, "AnonHugePages: %lu kB", &kib) == 1)
			break;
	}
	if (file != NULL)
		(void)fclose(file);
	return here && kib == PAGES * (CHECKER_PAGE / 1024);
}

static bool do_pin(struct checker_control *control, char *memory, uint32_t *generations)
{
	static struct io_uring ring;
	const struct iovec buffer = {memory + 40 * CHECKER_PAGE, 16 * CHECKER_PAGE};

	(void)generations;
	control->step = io_uring_queue_init(4, &ring, 0) == 0 &&
			io_uring_register_buffers(&ring, &buffer, 1) == 0;
	return true;
}

/* Pins a part of the third huge page. */
static bool do_pin_huge(struct checker_control *control, char *memory, uint32_t *generations)
{
	static struct io_uring ring;
	const struct iovec buffer = {
		memory + (2 * HUGE_PAGES + 40) * CHECKER_PAGE, 16 * CHECKER_PAGE};

	(void)generations;
	control->step = is_all_huge(memory) && io_uring_queue_init(4, &ring, 0) == 0 &&
			io_uring_register_buffers(&ring, &buffer, 1) == 0;
	return true;
}

/* A part of such a page cannot be moved, and must not be tried: some kernels would not return. */
static void a_huge_page_with_a_pinned_part_is_skipped_and_counted(void **state)
{
	const struct checker_config config = {
		.pages = PAGES, .huge = true, .holes_from = WRITTEN, .call = do_pin_huge};
	struct trace_report report;
	struct target *target;
	struct trace *trace;

	(void)state;
	need_trace();
	checker_start(&checker, &config);
	assert_true(checker_order(&checker, CHECKER_CALL));
	assert_int_equal(checker.control->errors, 0);
	if (checker.control->step == 0) {
		assert_true(checker_end(&checker));
		print_message("there are no huge pages, or io_uring cannot pin them\n");
		skip();
	}
	trace = start(&target, false);
	assert_true(checker_order(&checker, CHECKER_WORK));
	assert_true(checker_wait(&checker, 500));
	stop(target, trace, &report);
	assert_int_equal(report.skipped, HUGE_PAGES);
	assert_true(checker_end(&checker));
}

static void pinned_pages_are_skipped_and_counted(void **state)
{
	struct trace_report report;
	struct target *target;
	struct trace *trace;

	(void)state;
	need_trace();
	begin(false, do_pin);
	assert_true(checker_order(&checker, CHECKER_CALL));
	if (checker.control->step == 0) {
		assert_true(checker_end(&checker));
		print_message("io_uring cannot pin memory here\n");
		skip();
	}
	trace = start(&target, false);
	assert_true(checker_order(&checker, CHECKER_WORK));
	assert_true(checker_wait(&checker, 500));
	stop(target, trace, &report);
	assert_int_equal(report.skipped, 16);
	assert_true(checker_end(&checker));
}

/* Puts private memory of a file, all written, in the place of shared memory. */
static bool put_private(char *memory, uint32_t *generations, uint64_t first, uint64_t count)
{
	char *const at = memory + first * CHECKER_PAGE;
	const size_t bytes = count * CHECKER_PAGE;
	int fd = memfd_create("private", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0 ||
		mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0) != at)
		return false;
	for (uint64_t page = first; page < first + count; page++)
		checker_stamp(memory, page, ++generations[page]);
	return close(fd) == 0;
}

static bool do_put_all(struct checker_control *control, char *memory, uint32_t *generations)
{
	(void)control;
	return put_private(memory, generations, 0, PAGES);
}

static bool do_put_some(struct checker_control *control, char *memory, uint32_t *generations)
{
	(void)control;
	return put_private(memory, generations, 2500, 200);
}

/* The tracer took it for shared: it was, when the maps were read. */
static void check_put(
	bool (*call)(struct checker_control *control, char *memory, uint32_t *generations),
	uint64_t skipped)
{
	struct trace_report report;
	struct target *target;
	struct trace *trace;

	begin(true, call);
	assert_true(checker_order(&checker, CHECKER_CALL));
	trace = start(&target, true);
	assert_true(checker_order(&checker, CHECKER_WORK));
	assert_true(checker_wait(&checker, 500));
	stop(target, trace, &report);
	assert_int_equal(report.skipped, skipped);
	assert_true(checker_end(&checker));
}

static void private_memory_in_the_place_of_shared_memory_is_left_alone(void **state)
{
	(void)state;
	need_trace();
	check_put(do_put_all, PAGES);
}

static void a_piece_of_shared_memory_with_private_memory_in_it_is_left_alone(void **state)
{
	(void)state;
	need_trace();
	check_put(do_put_some, PAGES - 2048); /* the second piece of 8 MiB */
}

/* A child that lives on shares all pages. */
static bool do_keep_child(struct checker_control *control, char *memory, uint32_t *generations)
{
	const pid_t pid = fork();

	(void)memory, (void)generations;
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		(void)pause();
		_exit(0);
	}
	control->step = (uint32_t)pid;
	return pid > 0;
}

static void pages_shared_with_a_child_are_skipped_and_counted(void **state)
{
	struct trace_report report;
	struct target *target;
	struct trace *trace;

	(void)state;
	need_trace();
	begin(false, do_keep_child);
	assert_true(checker_order(&checker, CHECKER_CALL));
	trace = start(&target, false);
	assert_true(checker_order(&checker, CHECKER_WORK));
	assert_true(checker_wait(&checker, 500));
	stop(target, trace, &report);
	/* Huge page by huge page: the last has holes, too. */
	assert_in_range(report.skipped, WRITTEN, PAGES);
	assert_true(checker.control->step > 1);
	(void)kill((pid_t)checker.control->step, SIGKILL);
	assert_true(checker_end(&checker));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_child_gets_all_memory_and_the_parent_keeps_it),
		cmocka_unit_test(a_child_may_change_its_memory_while_it_still_lacks_pages),
		cmocka_unit_test(a_child_that_executes_another_program_costs_nothing),
		cmocka_unit_test(memory_that_is_given_back_is_zeros_and_does_not_come_back),
		cmocka_unit_test(shared_memory_that_is_unmapped_keeps_its_data),
		cmocka_unit_test(shared_memory_that_is_punched_out_is_zeros),
		cmocka_unit_test(memory_may_be_unmapped_and_mapped_anew),
		cmocka_unit_test(memory_may_be_unmapped_and_grown_back),
		cmocka_unit_test(a_child_may_unmap_memory_and_grow_it_back),
		cmocka_unit_test(memory_may_be_moved),
		cmocka_unit_test(memory_may_be_moved_over_other_memory),
		cmocka_unit_test(memory_may_be_taken_to_pieces),
		cmocka_unit_test(shared_memory_may_be_moved),
		cmocka_unit_test(memory_may_be_locked),
		cmocka_unit_test(memory_may_be_advised_on),
		cmocka_unit_test(the_process_may_close_all_its_files),
		cmocka_unit_test(memory_may_be_protected_when_it_is_put_back),
		cmocka_unit_test(a_process_that_executes_another_program_is_left_alone),
		cmocka_unit_test(a_process_that_is_killed_ends_the_trace),
		cmocka_unit_test(a_process_that_is_stopped_puts_everything_back_when_it_goes_on),
		cmocka_unit_test(an_agent_that_does_not_get_on_is_not_waited_for_for_ever),
		cmocka_unit_test(a_process_that_is_stopped_is_refused),
		cmocka_unit_test(a_process_that_is_debugged_is_refused),
		cmocka_unit_test(memory_with_a_userfaultfd_is_refused),
		cmocka_unit_test(a_record_that_the_process_has_falsified_is_not_believed),
		cmocka_unit_test(a_process_without_address_space_may_fork),
		cmocka_unit_test(a_process_without_room_for_a_scratch_area_is_refused),
		cmocka_unit_test(pinned_pages_are_skipped_and_counted),
		cmocka_unit_test(a_huge_page_with_a_pinned_part_is_skipped_and_counted),
		cmocka_unit_test(private_memory_in_the_place_of_shared_memory_is_left_alone),
		cmocka_unit_test(a_piece_of_shared_memory_with_private_memory_in_it_is_left_alone),
		cmocka_unit_test(pages_shared_with_a_child_are_skipped_and_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
