/* SPDX-License-Identifier: MIT */
/* Pages that cannot be moved: they are skipped, and counted. */
#include "trace_fixture.h"

#include <liburing.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

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
		cmocka_unit_test(pinned_pages_are_skipped_and_counted),
		cmocka_unit_test(a_huge_page_with_a_pinned_part_is_skipped_and_counted),
		cmocka_unit_test(private_memory_in_the_place_of_shared_memory_is_left_alone),
		cmocka_unit_test(a_piece_of_shared_memory_with_private_memory_in_it_is_left_alone),
		cmocka_unit_test(pages_shared_with_a_child_are_skipped_and_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
