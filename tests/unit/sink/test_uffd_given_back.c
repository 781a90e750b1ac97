/* SPDX-License-Identifier: MIT */
/* Memory that is given back while pages are missing, by a real userfaultfd (uffd_sink_fixture.h).
 */
#include "uffd_sink_fixture.h"

/* Another thread gives pages back, as a balloon does, and waits until somebody has read of it. */
struct giver {
	pthread_t thread;
	unsigned char *at;
	size_t bytes;
	int code;
};

static void *give_back(void *argument)
{
	struct giver *g = argument;

	g->code = madvise(g->at, g->bytes, MADV_DONTNEED);
	return NULL;
}

/* Returns when the kernel has the message, which nobody has read. */
static void giver_start(struct giver *g, const struct memory *m, uint64_t from, uint64_t pages)
{
	struct pollfd there = {.fd = m->sink.fd, .events = POLLIN};

	*g = (struct giver){
		.at = m->bytes + from * UFFD_SINK_PAGE, .bytes = pages * UFFD_SINK_PAGE};
	assert_int_equal(pthread_create(&g->thread, NULL, give_back, g), 0);
	assert_int_equal(poll(&there, 1, -1), 1);
}

static void giver_end(struct giver *g)
{
	assert_int_equal(pthread_join(g->thread, NULL), 0);
	assert_int_equal(g->code, 0);
}

/* Who answers faults is who reads messages: he must not wait for himself. */
static void a_fault_is_answered_while_memory_is_being_given_back(void **state)
{
	struct toucher toucher;
	struct giver giver;
	struct memory m;
	uint64_t page;

	(void)state;
	setup(&m);
	toucher_start(&toucher, &m, 3);
	assert_int_equal(uffd_sink_wait_fault(&m.sink, &page), 0);
	giver_start(&giver, &m, 10, 4);
	assert_int_equal(place_range(&m, page - FIRST, 1), 1);
	assert_int_equal(toucher_end(&toucher), pattern(3));
	giver_end(&giver);
	for (uint64_t i = 10; i < 14; i++)
		assert_true(uffd_sink_is_placed(&m.sink, FIRST + i));
	teardown(&m);
}

/* The page that a thread waits for is given back by another one, before its content has come. */
static void who_waits_for_a_page_that_is_given_back_gets_zeros(void **state)
{
	struct toucher toucher;
	struct giver giver;
	struct server server;
	struct memory m;
	uint64_t page;

	(void)state;
	setup(&m);
	toucher_start(&toucher, &m, 3);
	assert_int_equal(uffd_sink_wait_fault(&m.sink, &page), 0);
	giver_start(&giver, &m, 2, 4);
	assert_int_equal(place_range(&m, page - FIRST, 1), 0);
	giver_end(&giver);
	server_start(&server, &m);
	assert_int_equal(toucher_end(&toucher), 0);
	server_end(&server);
	assert_int_equal(server.count, 0);
	teardown(&m);
}

/* Somebody else has read of it, so that nobody answers the fault that was read before. */
static void who_waits_for_a_page_hears_that_it_was_given_back(void **state)
{
	struct toucher toucher;
	struct giver giver;
	struct server server;
	struct memory m;
	uint64_t page;

	(void)state;
	setup(&m);
	toucher_start(&toucher, &m, 3);
	assert_int_equal(uffd_sink_wait_fault(&m.sink, &page), 0);
	giver_start(&giver, &m, 2, 4);
	assert_int_equal(place_range(&m, 40, 1), 1);
	giver_end(&giver);
	assert_true(uffd_sink_is_placed(&m.sink, page));
	server_start(&server, &m);
	assert_int_equal(toucher_end(&toucher), 0);
	server_end(&server);
	assert_int_equal(server.count, 0);
	teardown(&m);
}

/* Whether the kernel has nothing at a page. */
static bool is_missing(const struct memory *m, uint64_t page)
{
	const uint64_t address = (uint64_t)(uintptr_t)m->bytes + page * UFFD_SINK_PAGE;
	uint64_t entry = 0;
	cleanup_close int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	assert_int_equal(
		pread(fd, &entry, sizeof(entry), (off_t)(address / UFFD_SINK_PAGE * 8)), 8);
	return entry >> 62 == 0;
}

/* In the middle of what is being placed together: it must not get what it had at the checkpoint. */
static void what_is_given_back_while_it_is_placed_stays_missing(void **state)
{
	struct giver giver;
	struct memory m;

	(void)state;
	for (unsigned int round = 0; round < 50; round++) {
		setup(&m);
		giver_start(&giver, &m, 10, 4);
		(void)place_range(&m, 0, PAGES);
		giver_end(&giver);
		for (uint64_t i = 0; i < PAGES; i++)
			assert_int_equal(is_missing(&m, i), i >= 10 && i < 14);
		teardown(&m);
	}
}

/* It was given back before, and the answer, zeros, comes while other memory is given back. */
static void a_page_that_was_given_back_is_answered_while_others_are(void **state)
{
	struct toucher toucher;
	struct giver giver;
	struct server server;
	struct memory m;

	(void)state;
	setup(&m);
	assert_int_equal(place_range(&m, 0, 8), 8);
	server_start(&server, &m);
	assert_int_equal(madvise(m.bytes, 4 * UFFD_SINK_PAGE, MADV_DONTNEED), 0);
	server_end(&server);
	m.sink.interrupted = false;
	toucher_start(&toucher, &m, 2);
	giver_start(&giver, &m, 5, 1);
	server_start(&server, &m);
	assert_int_equal(toucher_end(&toucher), 0);
	giver_end(&giver);
	server_end(&server);
	teardown(&m);
}

/* Whoever places reads for those who give back; the faults that he reads of are not lost. */
static void faults_that_were_read_while_placing_are_answered(void **state)
{
	struct toucher touchers[8];
	struct server server;
	struct giver giver;
	struct memory m;

	(void)state;
	setup(&m);
	giver_start(&giver, &m, 40, 1);
	for (size_t i = 0; i < 8; i++)
		toucher_start(&touchers[i], &m, i);
	server_start(&server, &m);
	assert_int_equal(place_range(&m, 20, 20), 20);
	for (size_t i = 0; i < 8; i++)
		assert_int_equal(toucher_end(&touchers[i]), pattern(i));
	giver_end(&giver);
	server_end(&server);
	teardown(&m);
}

static void more_faults_than_the_inbox_holds_are_all_answered(void **state)
{
	struct toucher touchers[UFFD_SINK_FAULTS * 2];
	struct server server;
	struct giver giver;
	struct memory m;

	(void)state;
	setup(&m);
	giver_start(&giver, &m, 40, 1);
	for (size_t i = 0; i < UFFD_SINK_FAULTS * 2; i++)
		toucher_start(&touchers[i], &m, i % 16);
	assert_int_equal(place_range(&m, 20, 20), 20);
	giver_end(&giver);
	server_start(&server, &m);
	for (size_t i = 0; i < UFFD_SINK_FAULTS * 2; i++)
		assert_int_equal(toucher_end(&touchers[i]), pattern(i % 16));
	server_end(&server);
	teardown(&m);
}

struct giver_for_ever {
	struct memory *m;
	atomic_bool stop;
};

static void *give_back_for_ever(void *argument)
{
	struct giver_for_ever *g = argument;

	for (uint64_t i = 0; !atomic_load(&g->stop); i++)
		(void)madvise(g->m->bytes + (48 + i % 16) * UFFD_SINK_PAGE, UFFD_SINK_PAGE,
			MADV_DONTNEED);
	return NULL;
}

static void faults_are_answered_beside_a_balloon_that_grows(void **state)
{
	struct giver_for_ever giver = {0};
	struct toucher touchers[48];
	struct server server;
	pthread_t thread;
	struct memory m;

	(void)state;
	setup(&m);
	giver.m = &m;
	server_start(&server, &m);
	assert_int_equal(pthread_create(&thread, NULL, give_back_for_ever, &giver), 0);
	for (size_t i = 0; i < 48; i++)
		toucher_start(&touchers[i], &m, i);
	(void)place_range(&m, 24, 24);
	for (size_t i = 0; i < 48; i++)
		assert_int_equal(toucher_end(&touchers[i]), pattern(i));
	atomic_store(&giver.stop, true);
	assert_int_equal(pthread_join(thread, NULL), 0);
	server_end(&server);
	teardown(&m);
}

static void who_gives_memory_back_does_not_wait_beyond_the_end(void **state)
{
	struct giver giver;
	struct memory m;

	(void)state;
	setup(&m);
	assert_int_equal(place_range(&m, 0, PAGES), PAGES);
	giver_start(&giver, &m, 10, 4);
	assert_int_equal(uffd_sink_unregister(&m.sink), 0);
	giver_end(&giver);
	assert_int_equal(m.bytes[11 * UFFD_SINK_PAGE], 0);
	assert_int_equal(m.bytes[14 * UFFD_SINK_PAGE], pattern(14));
	teardown(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_fault_is_answered_while_memory_is_being_given_back),
		cmocka_unit_test(who_waits_for_a_page_that_is_given_back_gets_zeros),
		cmocka_unit_test(who_waits_for_a_page_hears_that_it_was_given_back),
		cmocka_unit_test(what_is_given_back_while_it_is_placed_stays_missing),
		cmocka_unit_test(a_page_that_was_given_back_is_answered_while_others_are),
		cmocka_unit_test(faults_that_were_read_while_placing_are_answered),
		cmocka_unit_test(more_faults_than_the_inbox_holds_are_all_answered),
		cmocka_unit_test(faults_are_answered_beside_a_balloon_that_grows),
		cmocka_unit_test(who_gives_memory_back_does_not_wait_beyond_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
