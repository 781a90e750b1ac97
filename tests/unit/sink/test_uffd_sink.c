/* SPDX-License-Identifier: MIT */
/* Placing pages and answering faults, by a real userfaultfd (uffd_sink_fixture.h). */
#include "uffd_sink_fixture.h"

/* The library's calls end in ioctl() here: how often yet the kernel has no memory, for a page. */
static struct {
	atomic_uint times;
	uint64_t address; /* of that page; 0: of each */
} no_memory;

/* How many of @bytes at @address can be had, as in the kernel's loop; all if nothing is to fail. */
static uint64_t bytes_to_be_had(uint64_t address, uint64_t bytes)
{
	if (atomic_load(&no_memory.times) == 0)
		return bytes;
	if (no_memory.address == 0)
		return 0;
	return no_memory.address >= address && no_memory.address < address + bytes
		       ? no_memory.address - address
		       : bytes;
}

static int real_ioctl(int fd, unsigned long request, void *argument)
{
	return (int)syscall(SYS_ioctl, fd, request, argument);
}

/* A call that gets as far as the kernel has memory, as mfill_atomic() does. */
static int place_what_can_be_had(
	int fd, unsigned long request, void *argument, uint64_t *length, __s64 *done)
{
	int code = 0;

	if (*length > 0)
		code = real_ioctl(fd, request, argument);
	if (code < 0)
		return code;
	if (*length == 0)
		atomic_fetch_sub(&no_memory.times, 1);
	*done = *length > 0 ? (__s64)*length : -ENOMEM;
	errno = *length > 0 ? EAGAIN : ENOMEM;
	return -1;
}

int ioctl(int fd, unsigned long request, ...)
{
	uint64_t had;
	va_list list;
	void *argument;

	va_start(list, request);
	argument = va_arg(list, void *);
	va_end(list);
	if (request == UFFDIO_COPY) {
		struct uffdio_copy copy = *(struct uffdio_copy *)argument;

		had = bytes_to_be_had(copy.dst, copy.len);
		if (had < copy.len) {
			copy.len = had;
			return place_what_can_be_had(
				fd, request, &copy, &had, &((struct uffdio_copy *)argument)->copy);
		}
	} else if (request == UFFDIO_ZEROPAGE) {
		struct uffdio_zeropage zero = *(struct uffdio_zeropage *)argument;

		had = bytes_to_be_had(zero.range.start, zero.range.len);
		if (had < zero.range.len) {
			zero.range.len = had;
			return place_what_can_be_had(fd, request, &zero, &had,
				&((struct uffdio_zeropage *)argument)->zeropage);
		}
	}
	return real_ioctl(fd, request, argument);
}

static void a_touched_page_is_asked_for_and_gets_its_content(void **state)
{
	struct memory m;
	struct server server;

	(void)state;
	setup(&m);
	server_start(&server, &m);
	for (uint64_t i = 0; i < PAGES; i += 3)
		assert_int_equal(m.bytes[i * UFFD_SINK_PAGE + i], pattern(i));
	server_end(&server);
	assert_int_equal(server.count, (PAGES + 2) / 3);
	for (size_t i = 0; i < server.count; i++)
		assert_int_equal(server.asked[i], i * 3);
	teardown(&m);
}

static void pages_that_were_placed_are_not_asked_for(void **state)
{
	struct memory m;
	struct server server;

	(void)state;
	setup(&m);
	assert_int_equal(place_range(&m, 0, PAGES), PAGES);
	server_start(&server, &m);
	for (uint64_t i = 0; i < PAGES; i++) {
		assert_true(uffd_sink_is_placed(&m.sink, FIRST + i));
		assert_int_equal(m.bytes[i * UFFD_SINK_PAGE], pattern(i));
	}
	server_end(&server);
	assert_int_equal(server.count, 0);
	teardown(&m);
}

static void what_the_guest_has_written_is_never_overwritten(void **state)
{
	struct memory m;

	(void)state;
	setup(&m);
	assert_int_equal(place_range(&m, 10, 3), 3);
	memset(m.bytes + 11 * UFFD_SINK_PAGE, 1, UFFD_SINK_PAGE);
	assert_int_equal(place_range(&m, 8, 8), 5);
	/* Nor if our own knowledge is lost, as after a takeover. */
	for (uint64_t i = 0; i < m.placed.bits / 64 + 1; i++)
		m.sink.placed.words[i] = 0;
	assert_int_equal(place_range(&m, 0, PAGES), PAGES - 8);
	assert_int_equal(m.bytes[11 * UFFD_SINK_PAGE], 1);
	for (uint64_t i = 0; i < PAGES; i++) {
		assert_int_equal(m.bytes[i * UFFD_SINK_PAGE + 9], i == 11 ? 1 : pattern(i));
		assert_true(uffd_sink_is_placed(&m.sink, FIRST + i));
	}
	teardown(&m);
}

static void zero_pages_are_placed_as_zeros(void **state)
{
	struct rouse_sink_page pages[4];
	struct memory m;
	size_t placed = 0;

	(void)state;
	setup(&m);
	for (uint64_t i = 0; i < 4; i++)
		pages[i] = (struct rouse_sink_page){FIRST + 20 + i, NULL};
	pages[2] = content(&m, 22);
	assert_int_equal(uffd_sink_place(&m.sink, pages, 4, &placed), 0);
	assert_int_equal(placed, 4);
	for (uint64_t i = 20; i < 24; i++)
		assert_int_equal(m.bytes[i * UFFD_SINK_PAGE + 1], i == 22 ? pattern(22) : 0);
	teardown(&m);
}

static void pages_in_any_order_get_their_own_content(void **state)
{
	struct rouse_sink_page pages[PAGES];
	struct memory m;
	size_t placed = 0;

	(void)state;
	setup(&m);
	for (uint64_t i = 0; i < PAGES; i++)
		pages[i] = content(&m, i * 29 % PAGES);
	/* Page numbers follow one another, contents do not. */
	pages[1] = (struct rouse_sink_page){pages[0].page + 1, m.contents};
	assert_int_equal(uffd_sink_place(&m.sink, pages, PAGES, &placed), 0);
	for (uint64_t i = 0; i < PAGES; i++) {
		if (i != 29 && i != 1)
			assert_int_equal(m.bytes[i * UFFD_SINK_PAGE + 4095], pattern(i));
	}
	assert_int_equal(m.bytes[UFFD_SINK_PAGE], pattern(0));
	teardown(&m);
}

static void pages_of_no_area_are_left_to_others(void **state)
{
	const unsigned char bytes[4096] = {1};
	const struct rouse_sink_page before = {FIRST - 1, bytes}, behind = {FIRST + PAGES, bytes},
				     nowhere = {FIRST + PAGES + 5, bytes};
	struct memory m;
	size_t placed = 0;

	(void)state;
	setup(&m);
	assert_int_equal(uffd_sink_place(&m.sink, &before, 1, &placed), 0);
	assert_int_equal(uffd_sink_place(&m.sink, &behind, 1, &placed), 0);
	assert_int_equal(uffd_sink_place(&m.sink, &nowhere, 1, &placed), -ERANGE);
	assert_int_equal(placed, 0);
	assert_false(uffd_sink_is_placed(&m.sink, FIRST - 1));
	teardown(&m);
}

static void pages_of_no_area_are_found_without_looking_at_all(void **state)
{
	const struct uffd_area areas[] = {{4096, 12, 8}, {1 << 20, 5, 7}, {1 << 30, 40, 10}};
	const struct uffd_sink sink = {.areas = areas, .area_count = 3};

	(void)state;
	assert_int_equal(uffd_sink_next_other(&sink, 0), 0);
	assert_int_equal(uffd_sink_next_other(&sink, 4), 4);
	/* Two areas one behind the other, in no order. */
	assert_int_equal(uffd_sink_next_other(&sink, 5), 20);
	assert_int_equal(uffd_sink_next_other(&sink, 19), 20);
	assert_int_equal(uffd_sink_next_other(&sink, 39), 39);
	assert_int_equal(uffd_sink_next_other(&sink, 40), 50);
	assert_int_equal(uffd_sink_next_other(&sink, 50), 50);
}

/* A balloon's: placed, given back, touched again. Nobody may wait for ever, or see what was. */
static void memory_that_was_given_back_is_zero(void **state)
{
	struct memory m;
	struct server server;

	(void)state;
	setup(&m);
	assert_int_equal(place_range(&m, 0, 8), 8);
	server_start(&server, &m);
	assert_int_equal(
		madvise(m.bytes + 4 * UFFD_SINK_PAGE, 8 * UFFD_SINK_PAGE, MADV_DONTNEED), 0);
	for (uint64_t i = 0; i < 16; i++)
		assert_int_equal(m.bytes[i * UFFD_SINK_PAGE], i >= 4 && i < 12 ? 0 : pattern(i));
	assert_int_equal(place_range(&m, 4, 8), 0);
	server_end(&server);
	assert_int_equal(server.count, 4);
	teardown(&m);
}

static void many_threads_that_wait_are_all_answered(void **state)
{
	struct toucher touchers[32];
	struct memory m;
	struct server server;

	(void)state;
	setup(&m);
	for (size_t i = 0; i < 32; i++)
		toucher_start(&touchers[i], &m, i / 2);
	server_start(&server, &m);
	for (size_t i = 0; i < 32; i++)
		assert_int_equal(toucher_end(&touchers[i]), pattern(i / 2));
	server_end(&server);
	teardown(&m);
}

/* Its request was read by a handler that died; the next one has to hear of it again. */
static void who_waited_for_a_dead_handler_asks_again(void **state)
{
	struct toucher toucher;
	struct memory m;
	struct server server;
	uint64_t page;

	(void)state;
	setup(&m);
	toucher_start(&toucher, &m, 3);
	assert_int_equal(uffd_sink_wait_fault(&m.sink, &page), 0);
	assert_int_equal(page, FIRST + 3);
	assert_int_equal(uffd_sink_wake_all(&m.sink), 0);
	server_start(&server, &m);
	assert_int_equal(toucher_end(&toucher), pattern(3));
	server_end(&server);
	assert_int_equal(server.asked[0], 3);
	teardown(&m);
}

static bool tells_threads(void)
{
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_SINK_WANTED};
	cleanup_close int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	return fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0;
}

static void a_fault_tells_which_thread_waits_and_since_when(void **state)
{
	const uint64_t begun_ns = rouse_clock_ns();
	struct toucher touchers[4];
	struct memory m;

	(void)state;
	setup(&m);
	for (size_t i = 0; i < 4; i++)
		toucher_start(&touchers[i], &m, i * 2);
	for (size_t i = 0; i < 4; i++) {
		const struct rouse_sink_asker *asker = &m.sink.asker;
		uint64_t page, other;

		assert_int_equal(uffd_sink_wait_fault(&m.sink, &page), 0);
		assert_true(asker->asked_ns > begun_ns && asker->asked_ns <= rouse_clock_ns());
		(void)place_range(&m, page - FIRST, 1);
		other = (page - FIRST) / 2;
		(void)toucher_end(&touchers[other]);
		assert_int_equal(asker->thread, tells_threads() ? touchers[other].tid : 0);
	}
	teardown(&m);
}

static void what_is_missing_at_the_end_is_zero(void **state)
{
	struct toucher toucher;
	struct memory m;

	(void)state;
	setup(&m);
	assert_int_equal(place_range(&m, 0, 2), 2);
	toucher_start(&toucher, &m, 5);
	assert_int_equal(uffd_sink_unregister(&m.sink), 0);
	assert_int_equal(toucher_end(&toucher), 0);
	assert_int_equal(m.bytes[UFFD_SINK_PAGE], pattern(1));
	assert_int_equal(m.bytes[2 * UFFD_SINK_PAGE], 0);
	teardown(&m);
}

struct late_toucher {
	struct toucher touch;
	atomic_bool ready, go;
};

static void *touch_when_told(void *argument)
{
	struct late_toucher *late = argument;

	atomic_store(&late->ready, true);
	while (!atomic_load(&late->go))
		;
	return touch(&late->touch);
}

/* The kernel does not wake who begins to wait just while the registration ends. */
static void who_begins_to_wait_at_the_very_end_goes_on(void **state)
{
	(void)state;
	for (unsigned int round = 0; round < 300; round++) {
		struct late_toucher late = {.ready = false};
		struct timespec deadline;
		struct memory m;

		setup(&m);
		late.touch.at = m.bytes + 5 * UFFD_SINK_PAGE;
		assert_int_equal(
			pthread_create(&late.touch.thread, NULL, touch_when_told, &late), 0);
		while (!atomic_load(&late.ready))
			;
		atomic_store(&late.go, true);
		/* Some moment or other. */
		for (volatile unsigned int i = 0; i < round * 37 % 400; i++)
			;
		assert_int_equal(uffd_sink_unregister(&m.sink), 0);
		(void)clock_gettime(CLOCK_REALTIME, &deadline);
		deadline.tv_sec += 20;
		if (pthread_timedjoin_np(late.touch.thread, NULL, &deadline) != 0)
			fail_msg("round %u: it still waits", round);
		assert_int_equal(late.touch.seen, 0);
		teardown(&m);
	}
}

static void nobody_waits_for_a_process_that_has_ended(void **state)
{
	struct memory m;
	uint64_t page;
	int ends[2];

	(void)state;
	setup(&m);
	assert_int_equal(pipe(ends), 0);
	m.sink.target_end = ends[0];
	(void)close(ends[1]);
	assert_int_equal(uffd_sink_wait_fault(&m.sink, &page), -EPIPE);
	/* Its monitor says so as well, and why. */
	assert_false(m.sink.interrupted);
	(void)close(ends[0]);
	teardown(&m);
}

/* Somebody else may wait for what the guest does, and looks at that. */
static void a_wait_that_fails_by_itself_is_as_an_interrupt(void **state)
{
	struct toucher toucher;
	struct memory m;
	uint64_t page;

	(void)state;
	setup(&m);
	m.area.pages = 4;
	toucher_start(&toucher, &m, 10);
	assert_int_equal(uffd_sink_wait_fault(&m.sink, &page), -EPROTO);
	assert_true(m.sink.interrupted);
	assert_int_equal(uffd_sink_wait_fault(&m.sink, &page), -ECANCELED);
	m.area.pages = PAGES;
	assert_int_equal(place_range(&m, 10, 1), 1);
	assert_int_equal(toucher_end(&toucher), pattern(10));
	teardown(&m);
}

/* ---- Without memory -------------------------------------------------------------------------- */

/* A call that fails in the middle of a run, and one that fails at its beginning. */
static void what_there_was_no_memory_for_can_be_placed_again(void **state)
{
	static const uint64_t at[] = {20, 0, 32, PAGES - 1};

	(void)state;
	for (size_t i = 0; i < 8; i++) {
		const bool zeros = i >= 4;
		struct rouse_sink_page pages[PAGES];
		size_t placed = 0, again = 0;
		struct memory m;

		setup(&m);
		for (uint64_t n = 0; n < PAGES; n++) {
			pages[n] = content(&m, n);
			pages[n].data = zeros ? NULL : pages[n].data;
		}
		no_memory.address = (uint64_t)(uintptr_t)m.bytes + at[i % 4] * UFFD_SINK_PAGE;
		atomic_store(&no_memory.times, 2);
		assert_int_equal(uffd_sink_place(&m.sink, pages, PAGES, &placed), -ENOMEM);
		assert_int_equal(placed, at[i % 4]);
		for (uint64_t n = 0; n < PAGES; n++)
			assert_int_equal(uffd_sink_is_placed(&m.sink, FIRST + n), n < placed);
		assert_int_equal(uffd_sink_place(&m.sink, pages, PAGES, &again), -ENOMEM);
		assert_int_equal(again, 0);
		assert_int_equal(uffd_sink_place(&m.sink, pages, PAGES, &again), 0);
		assert_int_equal(placed + again, PAGES);
		for (uint64_t n = 0; n < PAGES; n++)
			assert_int_equal(m.bytes[n * UFFD_SINK_PAGE], zeros ? 0 : pattern(n));
		teardown(&m);
	}
}

static void memory_that_was_given_back_is_answered_once_there_is_memory(void **state)
{
	struct toucher touchers[4];
	struct timespec deadline;
	struct server server;
	struct memory m;

	(void)state;
	setup(&m);
	assert_int_equal(place_range(&m, 0, 8), 8);
	server_start(&server, &m);
	assert_int_equal(madvise(m.bytes, 4 * UFFD_SINK_PAGE, MADV_DONTNEED), 0);
	(void)clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += 20;
	no_memory.address = 0;
	atomic_store(&no_memory.times, 3);
	for (size_t i = 0; i < 4; i++)
		toucher_start(&touchers[i], &m, i);
	for (size_t i = 0; i < 4; i++) {
		if (pthread_timedjoin_np(touchers[i].thread, NULL, &deadline) != 0)
			fail_msg("thread %zu still waits", i);
		assert_int_equal(touchers[i].seen, 0);
	}
	server_end(&server);
	assert_int_equal(server.count, 0);
	assert_int_equal(atomic_load(&no_memory.times), 0);
	teardown(&m);
}

static void two_threads_place_each_page_once(void **state)
{
	struct toucher touchers[PAGES];
	struct memory m;
	struct server server;
	size_t placed;

	(void)state;
	setup(&m);
	server_start(&server, &m);
	for (size_t i = 0; i < PAGES; i++)
		toucher_start(&touchers[i], &m, PAGES - 1 - i);
	placed = place_range(&m, 0, PAGES);
	for (size_t i = 0; i < PAGES; i++)
		assert_int_equal(toucher_end(&touchers[i]), pattern(PAGES - 1 - i));
	server_end(&server);
	assert_in_range(placed, 0, PAGES);
	assert_true(placed + server.count >= PAGES);
	teardown(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_touched_page_is_asked_for_and_gets_its_content),
		cmocka_unit_test(pages_that_were_placed_are_not_asked_for),
		cmocka_unit_test(what_the_guest_has_written_is_never_overwritten),
		cmocka_unit_test(zero_pages_are_placed_as_zeros),
		cmocka_unit_test(pages_in_any_order_get_their_own_content),
		cmocka_unit_test(pages_of_no_area_are_left_to_others),
		cmocka_unit_test(pages_of_no_area_are_found_without_looking_at_all),
		cmocka_unit_test(memory_that_was_given_back_is_zero),
		cmocka_unit_test(many_threads_that_wait_are_all_answered),
		cmocka_unit_test(who_waited_for_a_dead_handler_asks_again),
		cmocka_unit_test(a_fault_tells_which_thread_waits_and_since_when),
		cmocka_unit_test(what_is_missing_at_the_end_is_zero),
		cmocka_unit_test(who_begins_to_wait_at_the_very_end_goes_on),
		cmocka_unit_test(nobody_waits_for_a_process_that_has_ended),
		cmocka_unit_test(a_wait_that_fails_by_itself_is_as_an_interrupt),
		cmocka_unit_test(what_there_was_no_memory_for_can_be_placed_again),
		cmocka_unit_test(memory_that_was_given_back_is_answered_once_there_is_memory),
		cmocka_unit_test(two_threads_place_each_page_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
