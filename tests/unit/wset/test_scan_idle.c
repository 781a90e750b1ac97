/* SPDX-License-Identifier: MIT */
/*
 * Scanning by page_idle, against a fake of the kernel (fake_idle.h): few kernels at hand have the
 * real one.
 */
#include "../unit.h"

#include "base/observer.h"
#include "fake_idle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct rig {
	struct fake_idle fake;
	struct scan_idle *idle;
	uint32_t pages;
	bool found[FAKE_PAGES];
	struct rouse_error error;
};

static struct rig *begin_with(uint32_t pages, const struct rouse_observer *observer)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	struct scan_idle_kernel kernel;

	assert_non_null(rig);
	fake_idle_init(&rig->fake);
	rig->pages = pages;
	kernel = fake_idle_kernel(&rig->fake);
	assert_int_equal(scan_idle_new(&kernel, pages, observer, &rig->idle), 0);
	return rig;
}

static struct rig *begin(uint32_t pages)
{
	return begin_with(pages, NULL);
}

static void end(struct rig *rig)
{
	assert_int_equal(rig->fake.unaligned, 0);
	scan_idle_free(rig->idle);
	free(rig);
}

static int try_mark(struct rig *rig)
{
	return scan_idle_mark(rig->idle, 0, rig->fake.address, rig->pages, &rig->error);
}

static void note(void *user, uint64_t address, uint64_t bytes)
{
	struct rig *rig = user;

	for (uint64_t i = 0; i < bytes / 4096; i++)
		rig->found[(address - rig->fake.address) / 4096 + i] = true;
}

static int try_read(struct rig *rig)
{
	memset(rig->found, 0, sizeof(rig->found));
	return scan_idle_read(rig->idle, 0, rig->fake.address, rig->pages, note, rig, &rig->error);
}

static void mark(struct rig *rig)
{
	assert_int_equal(try_mark(rig), 0);
}

/* Reads, and checks that these pages and no others were found. */
static void expect(struct rig *rig, const uint32_t *pages, uint32_t count)
{
	uint32_t all = 0;

	assert_int_equal(try_read(rig), 0);
	for (uint32_t i = 0; i < rig->pages; i++)
		all += rig->found[i];
	for (uint32_t i = 0; i < count; i++)
		assert_true(rig->found[pages[i]]);
	assert_int_equal(all, count);
}

static void expect_range(struct rig *rig, uint32_t from, uint32_t to)
{
	assert_int_equal(try_read(rig), 0);
	for (uint32_t i = 0; i < rig->pages; i++)
		assert_int_equal(rig->found[i], i >= from && i < to);
}

static struct scan_idle_counts count(const struct rig *rig)
{
	struct scan_idle_counts counts = {0};

	scan_idle_count(rig->idle, 0, rig->pages, &counts);
	return counts;
}

static struct rig *begin_filled(uint32_t pages)
{
	struct rig *rig = begin(pages);

	for (uint32_t i = 0; i < pages; i++)
		fake_idle_fill(&rig->fake, i);
	mark(rig);
	assert_int_equal(count(rig).watched, pages);
	return rig;
}

/* ---- Accesses -------------------------------------------------------------------------------- */

static void pages_that_are_accessed_are_found_and_no_others(void **state)
{
	static const uint32_t touched[] = {0, 1, 63, 64, 777, 20000, 39999};
	struct rig *rig = begin_filled(40000);

	(void)state;
	for (unsigned int i = 0; i < 7; i++)
		fake_idle_touch(&rig->fake, touched[i]);
	expect(rig, touched, 7);
	end(rig);
}

static void an_access_by_the_kernel_alone_is_found(void **state)
{
	static const uint32_t touched[] = {5};
	struct rig *rig = begin_filled(100);

	(void)state;
	fake_idle_touch_by_kernel(&rig->fake, 5);
	expect(rig, touched, 1);
	end(rig);
}

static void each_period_is_seen_for_itself(void **state)
{
	static const uint32_t first[] = {3, 4}, second[] = {4, 90};
	struct rig *rig = begin_filled(100);

	(void)state;
	fake_idle_touch(&rig->fake, 3);
	fake_idle_touch(&rig->fake, 4);
	expect(rig, first, 2);
	mark(rig);
	fake_idle_touch(&rig->fake, 4);
	fake_idle_touch(&rig->fake, 90);
	expect(rig, second, 2);
	mark(rig);
	expect(rig, NULL, 0);
	end(rig);
}

static void an_access_between_reading_and_marking_is_found_by_the_next_scan(void **state)
{
	static const uint32_t touched[] = {9};
	struct rig *rig = begin_filled(100);

	(void)state;
	expect(rig, NULL, 0);
	fake_idle_touch(&rig->fake, 9);
	mark(rig);
	expect(rig, touched, 1);
	end(rig);
}

static void pages_that_stay_idle_are_not_marked_again(void **state)
{
	struct rig *rig = begin_filled(40000);
	const uint64_t writes = rig->fake.writes;

	(void)state;
	expect(rig, NULL, 0);
	mark(rig);
	assert_int_equal(rig->fake.writes, writes);
	end(rig);
}

static void neighbours_in_memory_are_asked_for_together(void **state)
{
	struct rig *rig = begin_filled(16384);

	(void)state;
	/* 16384 bits are 256 words, in 1 call; flags are 16384 words, 512 at once, twice. */
	assert_true(rig->fake.writes <= 2);
	assert_true(rig->fake.reads[SCAN_IDLE_PAGEFLAGS] <= 2 * 33);
	end(rig);
}

static void frames_in_any_order_are_found_by_their_pages(void **state)
{
	struct rig *rig = begin(1000);
	uint32_t touched[1000 / 7 + 1], n = 0;

	(void)state;
	for (uint32_t i = 0; i < 1000; i++)
		fake_idle_fill(&rig->fake, i * 617 % 1000);
	mark(rig);
	for (uint32_t i = 0; i < 1000; i += 7) {
		fake_idle_touch(&rig->fake, i);
		touched[n++] = i;
	}
	expect(rig, touched, n);
	end(rig);
}

/* ---- Pages that come, go and move ------------------------------------------------------------ */

static void a_page_that_is_new_counts_as_accessed(void **state)
{
	static const uint32_t touched[] = {50};
	struct rig *rig = begin(100);

	(void)state;
	mark(rig);
	assert_int_equal(count(rig).watched, 0);
	fake_idle_touch(&rig->fake, 50);
	expect(rig, touched, 1);
	mark(rig);
	expect(rig, NULL, 0);
	end(rig);
}

static void a_page_that_was_moved_counts_as_accessed_once(void **state)
{
	static const uint32_t moved[] = {10};
	struct rig *rig = begin_filled(100);

	(void)state;
	fake_idle_move(&rig->fake, 10);
	expect(rig, moved, 1);
	mark(rig);
	expect(rig, NULL, 0);
	end(rig);
}

static void a_page_that_is_swapped_out_counts_when_it_comes_back(void **state)
{
	static const uint32_t back[] = {10};
	struct rig *rig = begin_filled(100);

	(void)state;
	fake_idle_swap_out(&rig->fake, 10);
	expect(rig, NULL, 0);
	mark(rig);
	fake_idle_touch(&rig->fake, 10);
	expect(rig, back, 1);
	end(rig);
}

/* After the bits are read and before the page map is: the bit was perhaps another page's. */
static void move_page_10(struct fake_idle *fake, enum scan_idle_file file)
{
	if (file != SCAN_IDLE_PAGEMAP)
		return;
	fake->meanwhile = NULL;
	fake_idle_move(fake, 10);
}

static void a_page_that_moves_while_it_is_read_counts_as_accessed(void **state)
{
	static const uint32_t moved[] = {10};
	struct rig *rig = begin_filled(100);

	(void)state;
	rig->fake.meanwhile = move_page_10;
	expect(rig, moved, 1);
	end(rig);
}

static void the_page_of_zeros_is_not_watched_and_counts_when_it_is_written(void **state)
{
	static const uint32_t written[] = {10};
	struct rig *rig = begin_filled(100);

	(void)state;
	rig->fake.map[10] = rig->fake.map[11] = FAKE_ZERO_FRAME;
	assert_int_equal(try_read(rig), 0);
	mark(rig);
	assert_int_equal(count(rig).unwatched, 0);
	expect(rig, NULL, 0);
	mark(rig);
	fake_idle_fill(&rig->fake, 10);
	expect(rig, written, 1);
	end(rig);
}

/* ---- Pages that cannot be marked ------------------------------------------------------------- */

static void a_page_on_no_list_is_counted_and_never_found(void **state)
{
	struct rig *rig = begin(100);

	(void)state;
	for (uint32_t i = 0; i < 100; i++)
		fake_idle_fill(&rig->fake, i);
	rig->fake.frames[rig->fake.map[42]].listed = false;
	mark(rig);
	assert_int_equal(count(rig).watched, 99);
	assert_int_equal(count(rig).unwatched, 1);
	fake_idle_touch(&rig->fake, 42);
	expect(rig, NULL, 0);
	end(rig);
}

static void a_page_that_was_on_no_list_is_tried_again(void **state)
{
	static const uint32_t touched[] = {42};
	struct rig *rig = begin(100);

	(void)state;
	for (uint32_t i = 0; i < 100; i++)
		fake_idle_fill(&rig->fake, i);
	rig->fake.frames[rig->fake.map[42]].listed = false;
	mark(rig);
	expect(rig, NULL, 0);
	rig->fake.frames[rig->fake.map[42]].listed = true;
	mark(rig);
	assert_int_equal(count(rig).unwatched, 0);
	fake_idle_touch(&rig->fake, 42);
	expect(rig, touched, 1);
	end(rig);
}

static void pages_behind_the_end_of_the_bitmap_are_counted_and_never_found(void **state)
{
	static const uint32_t touched[] = {1};
	struct rig *rig = begin(300);

	(void)state;
	for (uint32_t i = 0; i < 300; i++)
		fake_idle_fill(&rig->fake, i);
	/* The last word is not whole: the kernel marks in it, and does not read it. */
	rig->fake.end = rig->fake.map[200];
	assert_int_not_equal(rig->fake.end % 64, 0);
	mark(rig);
	assert_int_equal(count(rig).unwatched, 100);
	for (uint32_t i = 200; i < 300; i++)
		fake_idle_touch(&rig->fake, i);
	fake_idle_touch(&rig->fake, 1);
	expect(rig, touched, 1);
	end(rig);
}

static void frame_numbers_that_cannot_be_are_counted(void **state)
{
	struct rig *rig = begin(10);

	(void)state;
	rig->fake.map[3] = UINT32_MAX;
	mark(rig);
	assert_int_equal(count(rig).unwatched, 1);
	expect(rig, NULL, 0);
	end(rig);
}

/* ---- Huge pages ------------------------------------------------------------------------------ */

static struct rig *begin_huge(void)
{
	struct rig *rig = begin(2048);

	for (uint32_t i = 0; i < 2048; i += i == 1024 ? 512 : 1) {
		if (i == 1024)
			fake_idle_fill_huge(&rig->fake, i);
		else
			fake_idle_fill(&rig->fake, i);
	}
	mark(rig);
	assert_int_equal(count(rig).watched, 2048);
	assert_int_equal(count(rig).huge, 512);
	return rig;
}

static void a_huge_page_is_seen_as_a_whole(void **state)
{
	struct rig *rig = begin_huge();

	(void)state;
	expect(rig, NULL, 0);
	fake_idle_touch(&rig->fake, 1030);
	expect_range(rig, 1024, 1536);
	mark(rig);
	expect(rig, NULL, 0);
	end(rig);
}

static void a_huge_page_across_batches_is_seen_as_a_whole(void **state)
{
	struct rig *rig = begin(20000);

	(void)state;
	fake_idle_fill_huge(&rig->fake, 16384 - 100);
	mark(rig);
	fake_idle_touch(&rig->fake, 16384);
	expect_range(rig, 16384 - 100, 16384 + 412);
	mark(rig);
	expect(rig, NULL, 0);
	end(rig);
}

static void a_part_of_a_huge_page_goes_by_a_head_that_the_process_has_not(void **state)
{
	struct rig *rig = begin(1000);

	(void)state;
	fake_idle_fill_huge(&rig->fake, 0);
	for (uint32_t i = 0; i < 512; i++) {
		if (i < 100 || i > 110)
			rig->fake.map[i] = 0;
	}
	mark(rig);
	assert_int_equal(count(rig).watched, 11);
	fake_idle_touch(&rig->fake, 105);
	expect_range(rig, 100, 111);
	end(rig);
}

static void after_a_split_each_page_is_seen_for_itself(void **state)
{
	static const uint32_t touched[] = {1100};
	struct rig *rig = begin_huge();

	(void)state;
	fake_idle_split(&rig->fake, 1024, 1);
	fake_idle_touch(&rig->fake, 1100);
	expect(rig, touched, 1);
	mark(rig);
	expect(rig, NULL, 0);
	fake_idle_touch(&rig->fake, 1100);
	expect(rig, touched, 1);
	end(rig);
}

static void pages_of_a_huge_page_that_fell_into_smaller_ones_count_as_accessed(void **state)
{
	struct rig *rig = begin_huge();

	(void)state;
	fake_idle_split(&rig->fake, 1024, 16);
	assert_int_equal(try_read(rig), 0);
	/* The first piece still has the head; of the others the heads have bits of their own. */
	for (uint32_t i = 1024; i < 1536; i++)
		assert_int_equal(rig->found[i], i >= 1040 && i % 16 != 0);
	mark(rig);
	expect(rig, NULL, 0);
	fake_idle_touch(&rig->fake, 1061);
	expect_range(rig, 1056, 1072);
	end(rig);
}

static void a_huge_page_on_no_list_is_counted(void **state)
{
	struct rig *rig = begin(512);

	(void)state;
	fake_idle_fill_huge(&rig->fake, 0);
	rig->fake.frames[rig->fake.map[0]].listed = false;
	mark(rig);
	assert_int_equal(count(rig).unwatched, 512);
	assert_int_equal(count(rig).huge, 0);
	fake_idle_touch(&rig->fake, 7);
	expect(rig, NULL, 0);
	end(rig);
}

/* ---- Failures -------------------------------------------------------------------------------- */

static void hidden_frame_numbers_are_an_error(void **state)
{
	struct rig *rig = begin(100);

	(void)state;
	fake_idle_fill(&rig->fake, 3);
	rig->fake.hides = true;
	assert_int_equal(try_mark(rig), -EPERM);
	assert_non_null(strstr(rig->error.message, "CAP_SYS_ADMIN"));
	assert_int_equal(rig->error.kind, ROUSE_ERROR_REFUSED);
	end(rig);
}

static void frame_numbers_that_are_hidden_later_are_an_error(void **state)
{
	struct rig *rig = begin_filled(100);

	(void)state;
	rig->fake.hides = true;
	assert_int_equal(try_read(rig), -EPERM);
	end(rig);
}

static void a_process_that_has_ended_is_an_error(void **state)
{
	struct rig *rig = begin_filled(100);

	(void)state;
	rig->fake.is_over = true;
	assert_int_equal(try_read(rig), -ESRCH);
	end(rig);
}

static void what_a_file_says_is_passed_on(void **state)
{
	(void)state;
	for (unsigned int file = 0; file < SCAN_IDLE_FILES; file++) {
		struct rig *rig = begin(100);

		fake_idle_fill(&rig->fake, 3);
		mark(rig);
		rig->fake.fails_of = (enum scan_idle_file)file;
		rig->fake.fails = -EIO;
		/* Flags are read again only where there are tails. */
		assert_int_equal(try_read(rig), file == SCAN_IDLE_PAGEFLAGS ? 0 : -EIO);
		end(rig);
	}
}

static void a_read_that_ends_inside_a_word_is_an_error(void **state)
{
	struct rig *rig = begin_filled(100);

	(void)state;
	rig->fake.fails_of = SCAN_IDLE_BITMAP;
	rig->fake.fails = 12;
	assert_int_equal(try_read(rig), -EIO);
	end(rig);
}

static void short_reads_and_writes_are_gone_on_with(void **state)
{
	static const uint32_t touched[] = {0, 499, 998};
	struct rig *rig = begin(1000);

	(void)state;
	rig->fake.serve = 16;
	for (uint32_t i = 0; i < 1000; i++)
		fake_idle_fill(&rig->fake, i);
	mark(rig);
	assert_int_equal(count(rig).watched, 1000);
	for (unsigned int i = 0; i < 3; i++)
		fake_idle_touch(&rig->fake, touched[i]);
	expect(rig, touched, 3);
	end(rig);
}

static void a_scan_can_be_cancelled_between_batches(void **state)
{
	struct rouse_observer observer = {0};
	struct rig *rig;

	(void)state;
	assert_int_equal(rouse_cancel_new(&observer.cancel), 0);
	rig = begin_with(40000, &observer);
	mark(rig);
	rouse_cancel_fire(observer.cancel);
	assert_int_equal(try_mark(rig), -ECANCELED);
	assert_int_equal(try_read(rig), -ECANCELED);
	assert_int_equal(rig->error.kind, ROUSE_ERROR_CANCELLED);
	end(rig);
	rouse_cancel_free(observer.cancel);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pages_that_are_accessed_are_found_and_no_others),
		cmocka_unit_test(an_access_by_the_kernel_alone_is_found),
		cmocka_unit_test(each_period_is_seen_for_itself),
		cmocka_unit_test(an_access_between_reading_and_marking_is_found_by_the_next_scan),
		cmocka_unit_test(pages_that_stay_idle_are_not_marked_again),
		cmocka_unit_test(neighbours_in_memory_are_asked_for_together),
		cmocka_unit_test(frames_in_any_order_are_found_by_their_pages),
		cmocka_unit_test(a_page_that_is_new_counts_as_accessed),
		cmocka_unit_test(a_page_that_was_moved_counts_as_accessed_once),
		cmocka_unit_test(a_page_that_is_swapped_out_counts_when_it_comes_back),
		cmocka_unit_test(a_page_that_moves_while_it_is_read_counts_as_accessed),
		cmocka_unit_test(the_page_of_zeros_is_not_watched_and_counts_when_it_is_written),
		cmocka_unit_test(a_page_on_no_list_is_counted_and_never_found),
		cmocka_unit_test(a_page_that_was_on_no_list_is_tried_again),
		cmocka_unit_test(pages_behind_the_end_of_the_bitmap_are_counted_and_never_found),
		cmocka_unit_test(frame_numbers_that_cannot_be_are_counted),
		cmocka_unit_test(a_huge_page_is_seen_as_a_whole),
		cmocka_unit_test(a_huge_page_across_batches_is_seen_as_a_whole),
		cmocka_unit_test(a_part_of_a_huge_page_goes_by_a_head_that_the_process_has_not),
		cmocka_unit_test(after_a_split_each_page_is_seen_for_itself),
		cmocka_unit_test(
			pages_of_a_huge_page_that_fell_into_smaller_ones_count_as_accessed),
		cmocka_unit_test(a_huge_page_on_no_list_is_counted),
		cmocka_unit_test(hidden_frame_numbers_are_an_error),
		cmocka_unit_test(frame_numbers_that_are_hidden_later_are_an_error),
		cmocka_unit_test(a_process_that_has_ended_is_an_error),
		cmocka_unit_test(what_a_file_says_is_passed_on),
		cmocka_unit_test(a_read_that_ends_inside_a_word_is_an_error),
		cmocka_unit_test(short_reads_and_writes_are_gone_on_with),
		cmocka_unit_test(a_scan_can_be_cancelled_between_batches),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
