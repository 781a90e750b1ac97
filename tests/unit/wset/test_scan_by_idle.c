/* SPDX-License-Identifier: MIT */
/* A scan that goes by page_idle: its files, and a real process with a fake of the kernel's answers.
 */
#include "../unit.h"

#include "../target/checker.h"
#include "fake_idle.h"
#include "wset/scan.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- Files ----------------------------------------------------------------------------------- */

static void a_kernel_without_page_idle_is_said_to_be_so(void **state)
{
	const struct scan_idle_paths paths = {
		.names = {"/nowhere/bitmap", "/proc/self/pagemap", "/dev/zero"}};
	struct scan_idle_files files;
	struct rouse_error error = {0};

	(void)state;
	assert_int_equal(scan_idle_files_open((int)getpid(), &paths, &files, &error), -ENOTSUP);
	assert_non_null(strstr(error.message, "CONFIG_IDLE_PAGE_TRACKING"));
	assert_int_equal(scan_idle_probe(&paths, &error), -ENOTSUP);
	scan_idle_files_close(&files);
}

static void a_page_map_without_frames_is_a_lack_of_rights(void **state)
{
	/* All of its words say: there is no such page. */
	const struct scan_idle_paths paths = {.names = {"/dev/zero", "/dev/zero", "/dev/zero"}};
	struct rouse_error error = {0};

	(void)state;
	assert_int_equal(scan_idle_probe(&paths, &error), -EPERM);
}

static void a_process_is_scanned_by_one_at_a_time(void **state)
{
	char pagemap[64];
	const struct scan_idle_paths paths = {.names = {"/dev/zero", pagemap, "/dev/zero"}};
	struct scan_idle_files first, second;
	struct rouse_error error = {0};

	(void)state;
	(void)snprintf(pagemap, sizeof(pagemap), "/proc/%d/pagemap", (int)getpid());
	assert_int_equal(scan_idle_files_open((int)getpid(), &paths, &first, &error), 0);
	assert_int_equal(scan_idle_files_open((int)getpid(), &paths, &second, &error), -EBUSY);
	scan_idle_files_close(&first);
	assert_int_equal(scan_idle_files_open((int)getpid(), &paths, &second, &error), 0);
	scan_idle_files_close(&second);
}

static void words_of_files_are_read_to_their_end(void **state)
{
	const int file = memfd_create("words", MFD_CLOEXEC);
	struct scan_idle_files files = {.fds = {file, file, file}};
	const struct scan_idle_kernel kernel = scan_idle_files_kernel(&files);
	uint64_t words[3] = {1, 2, 3};

	(void)state;
	assert_int_equal(kernel.write(kernel.user, words, 16, 8), 16);
	memset(words, 0xff, sizeof(words));
	assert_int_equal(kernel.read(kernel.user, SCAN_IDLE_PAGEMAP, words, 24, 0), 24);
	assert_int_equal(words[0], 0);
	assert_int_equal(words[2], 2);
	assert_int_equal(kernel.read(kernel.user, SCAN_IDLE_PAGEFLAGS, words, 24, 24), 0);
	scan_idle_files_close(&files);
	assert_int_equal(kernel.read(kernel.user, SCAN_IDLE_BITMAP, words, 8, 0), -EBADF);
}

/* ---- In a scan ------------------------------------------------------------------------------- */

/* A real process, and the fake in the place of what the kernel says of its memory. */
struct scanned {
	struct checker checker;
	struct target *target;
	struct fake_idle *fake;
	struct scan *scan;
};

static void start(struct scanned *it, uint32_t pages, bool shared)
{
	const struct checker_config config = {.pages = pages, .shared = shared};
	struct rouse_error error = {0};
	struct scan_idle_kernel kernel;
	struct scan_config scan = {.rule = {.decay = SCAN_RULE_DECAY_ONE},
		.source = ROUSE_SCAN_PAGE_IDLE,
		.kernel = &kernel};
	struct trace_range range;

	checker_start(&it->checker, &config);
	assert_int_equal(target_open(it->checker.pid, &it->target, &error), 0);
	it->fake = calloc(1, sizeof(*it->fake));
	assert_non_null(it->fake);
	fake_idle_init(it->fake);
	it->fake->address = it->checker.control->address;
	for (uint32_t i = 0; i < pages; i++)
		fake_idle_fill(it->fake, i);
	kernel = fake_idle_kernel(it->fake);
	range = (struct trace_range){
		.address = it->fake->address, .bytes = pages * UINT64_C(4096), .shared = shared};
	if (scan_start(it->target, &range, 1, &scan, &it->scan, &error) < 0)
		fail_msg("%s", error.message);
}

static void finish(struct scanned *it)
{
	scan_free(it->scan);
	target_close(it->target);
	assert_true(checker_end(&it->checker));
	free(it->fake);
}

static void check_scan(bool shared)
{
	struct rouse_error error = {0};
	const struct scan_page *pages;
	struct scan_report report;
	struct scanned it = {0};
	size_t n;

	start(&it, 4096, shared);
	fake_idle_touch(it.fake, 100);
	fake_idle_touch(it.fake, 200);
	assert_int_equal(scan_take(it.scan, false, &error), 0);
	fake_idle_touch(it.fake, 200);
	fake_idle_touch(it.fake, 300);
	assert_int_equal(scan_take(it.scan, true, &error), 0);
	pages = scan_pages(it.scan, &n);
	assert_int_equal(n, 4096);
	for (uint32_t i = 0; i < n; i++)
		assert_int_equal(pages[i].first, i == 100 || i == 200 ? 1 : i == 300 ? 2 : 0);
	scan_get_report(it.scan, &report);
	assert_int_equal(report.page_idle_pages, 4096);
	assert_int_equal(report.presence_pages + report.written_pages, 0);
	/* The process was not stopped for it. */
	assert_int_equal(report.stops, 0);
	finish(&it);
}

static void a_scan_of_private_memory_goes_by_page_idle(void **state)
{
	(void)state;
	check_scan(false);
}

static void a_scan_of_shared_memory_goes_by_page_idle_if_it_is_asked_for(void **state)
{
	(void)state;
	check_scan(true);
}

static void a_scan_reports_huge_pages_and_those_that_are_not_watched(void **state)
{
	struct rouse_error error = {0};
	struct scan_report report;
	struct scanned it = {0};

	(void)state;
	start(&it, 4096, false);
	fake_idle_fill_huge(it.fake, 1024);
	it.fake->frames[it.fake->map[7]].listed = false;
	fake_idle_touch(it.fake, 7);
	fake_idle_touch_by_kernel(it.fake, 7);
	assert_int_equal(scan_take(it.scan, false, &error), 0);
	scan_get_report(it.scan, &report);
	assert_int_equal(report.huge_pages, 512);
	assert_int_equal(report.unwatched_pages, 1);
	finish(&it);
}

/* The same address has shared memory then. */
static bool map_shared(struct checker_control *control, char *memory, uint32_t *generations)
{
	const size_t bytes = control->pages * CHECKER_PAGE;

	if (mmap(memory, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1,
		    0) != memory)
		return false;
	for (uint64_t page = 0; page < control->pages; page++)
		checker_stamp(memory, page, ++generations[page]);
	return true;
}

static void memory_that_is_replaced_is_not_scanned_any_more(void **state)
{
	const struct checker_config config = {.pages = 256, .call = map_shared};
	struct rouse_error error = {0};
	struct scan_report report;
	struct scanned it = {.fake = calloc(1, sizeof(*it.fake))};
	struct scan_idle_kernel kernel = fake_idle_kernel(it.fake);
	const struct scan_config scan = {.rule = {.decay = SCAN_RULE_DECAY_ONE}, .kernel = &kernel};
	struct trace_range range;

	(void)state;
	checker_start(&it.checker, &config);
	fake_idle_init(it.fake);
	assert_int_equal(target_open(it.checker.pid, &it.target, &error), 0);
	range = (struct trace_range){.address = it.checker.control->address, .bytes = 256 * 4096};
	assert_int_equal(scan_start(it.target, &range, 1, &scan, &it.scan, &error), 0);
	assert_true(checker_order(&it.checker, CHECKER_CALL));
	assert_int_equal(scan_take(it.scan, true, &error), 0);
	scan_get_report(it.scan, &report);
	assert_int_equal(report.skipped_pages, 256);
	finish(&it);
}

/* All threads: what seccomp might do to a call that is made in it nobody knows. */
static bool filter_calls(struct checker_control *control, char *memory, uint32_t *generations)
{
	struct sock_filter allow = {.code = BPF_RET | BPF_K, .k = SECCOMP_RET_ALLOW};
	const struct sock_fprog program = {.len = 1, .filter = &allow};

	(void)control;
	(void)memory;
	(void)generations;
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	       syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) ==
		       0;
}

static int scan_filtered(enum rouse_scan_source source, struct scan_report *report)
{
	const struct checker_config config = {.pages = 256, .shared = true, .call = filter_calls};
	struct rouse_error error = {0};
	struct scanned it = {.fake = calloc(1, sizeof(*it.fake))};
	const struct scan_idle_kernel kernel = fake_idle_kernel(it.fake);
	const struct scan_config scan = {.source = source, .kernel = &kernel};
	struct trace_range range;
	int code;

	checker_start(&it.checker, &config);
	assert_true(checker_order(&it.checker, CHECKER_CALL));
	fake_idle_init(it.fake);
	assert_int_equal(target_open(it.checker.pid, &it.target, &error), 0);
	range = (struct trace_range){
		.address = it.checker.control->address, .bytes = 256 * 4096, .shared = true};
	code = scan_start(it.target, &range, 1, &scan, &it.scan, &error);
	if (code == 0)
		scan_get_report(it.scan, report);
	finish(&it);
	return code;
}

static void where_page_tables_cannot_be_had_shared_memory_goes_by_page_idle(void **state)
{
	struct scan_report report = {0};

	(void)state;
	assert_int_equal(scan_filtered(ROUSE_SCAN_AUTO, &report), 0);
	assert_int_equal(report.page_idle_pages, 256);
	assert_int_equal(report.presence_pages, 0);
}

static void presence_that_is_asked_for_is_not_replaced_by_page_idle(void **state)
{
	struct scan_report report = {0};

	(void)state;
	assert_int_equal(scan_filtered(ROUSE_SCAN_PRESENCE, &report), -EPERM);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_kernel_without_page_idle_is_said_to_be_so),
		cmocka_unit_test(a_page_map_without_frames_is_a_lack_of_rights),
		cmocka_unit_test(a_process_is_scanned_by_one_at_a_time),
		cmocka_unit_test(words_of_files_are_read_to_their_end),
		cmocka_unit_test(a_scan_of_private_memory_goes_by_page_idle),
		cmocka_unit_test(a_scan_of_shared_memory_goes_by_page_idle_if_it_is_asked_for),
		cmocka_unit_test(a_scan_reports_huge_pages_and_those_that_are_not_watched),
		cmocka_unit_test(memory_that_is_replaced_is_not_scanned_any_more),
		cmocka_unit_test(where_page_tables_cannot_be_had_shared_memory_goes_by_page_idle),
		cmocka_unit_test(presence_that_is_asked_for_is_not_replaced_by_page_idle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
