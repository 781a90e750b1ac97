/* SPDX-License-Identifier: MIT */
/* The order of windows that many threads decode. */
#include "engine/window_line.h"

#include "../unit.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#define WINDOWS 200u
#define THREADS 4u

static void a_window_is_taken_only_when_those_in_front_are_decoded(void **state)
{
	struct feed_window windows[3] = {0};
	struct window_line line;

	(void)state;
	window_line_init(&line);
	for (unsigned int i = 0; i < 3; i++)
		window_line_put(&line, &windows[i]);
	for (unsigned int i = 0; i < 3; i++)
		assert_ptr_equal(window_line_next_to_decode(&line), &windows[i]);
	assert_null(window_line_next_to_decode(&line));
	windows[2].decoded = windows[1].decoded = true;
	assert_null(window_line_take(&line));
	windows[0].decoded = true;
	for (unsigned int i = 0; i < 3; i++)
		assert_ptr_equal(window_line_take(&line), &windows[i]);
	assert_null(window_line_take(&line));
	assert_true(window_line_is_empty(&line));
}

static void a_window_that_is_put_again_is_decoded_again(void **state)
{
	struct feed_window window = {0};
	struct window_line line;

	(void)state;
	window_line_init(&line);
	for (unsigned int round = 0; round < 3; round++) {
		window_line_put(&line, &window);
		assert_null(window_line_take(&line));
		assert_ptr_equal(window_line_next_to_decode(&line), &window);
		window.decoded = true;
		assert_ptr_equal(window_line_take(&line), &window);
	}
}

static void at_the_end_all_are_dropped_whatever_their_state(void **state)
{
	struct feed_window windows[3] = {0};
	struct window_line line;

	(void)state;
	window_line_init(&line);
	for (unsigned int i = 0; i < 3; i++)
		window_line_put(&line, &windows[i]);
	(void)window_line_next_to_decode(&line);
	(void)window_line_next_to_decode(&line);
	windows[1].decoded = true;
	for (unsigned int i = 0; i < 3; i++)
		assert_ptr_equal(window_line_drop(&line), &windows[i]);
	assert_null(window_line_drop(&line));
	assert_null(window_line_next_to_decode(&line));
}

struct shared {
	pthread_mutex_t lock;
	struct window_line line;
	unsigned int begun;
};

struct decoder {
	struct shared *shared;
	unsigned int seed;
	pthread_t thread;
};

/* "Decodes", now quickly and now slowly, until all have been begun with. */
static void *decode(void *argument)
{
	struct decoder *decoder = argument;
	struct shared *shared = decoder->shared;
	unsigned int begun = 0;

	while (begun < WINDOWS) {
		const struct timespec delay = {.tv_nsec = rand_r(&decoder->seed) % 500 * 1000L};
		struct feed_window *window;

		pthread_mutex_lock(&shared->lock);
		window = window_line_next_to_decode(&shared->line);
		shared->begun += window != NULL;
		begun = shared->begun;
		pthread_mutex_unlock(&shared->lock);
		(void)nanosleep(&delay, NULL);
		if (window == NULL)
			continue;
		pthread_mutex_lock(&shared->lock);
		window->decoded = true;
		pthread_mutex_unlock(&shared->lock);
	}
	return NULL;
}

static void random_delays_of_many_threads_do_not_change_the_order(void **state)
{
	static struct feed_window windows[WINDOWS];
	struct shared shared = {.lock = PTHREAD_MUTEX_INITIALIZER};
	struct decoder decoders[THREADS];
	unsigned int put = 0, taken = 0;

	(void)state;
	window_line_init(&shared.line);
	for (unsigned int i = 0; i < THREADS; i++) {
		decoders[i] = (struct decoder){.shared = &shared, .seed = i + 1};
		assert_int_equal(
			pthread_create(&decoders[i].thread, NULL, decode, &decoders[i]), 0);
	}
	while (taken < WINDOWS) {
		struct feed_window *window;

		pthread_mutex_lock(&shared.lock);
		if (put < WINDOWS)
			window_line_put(&shared.line, &windows[put++]);
		window = window_line_take(&shared.line);
		pthread_mutex_unlock(&shared.lock);
		if (window != NULL)
			assert_ptr_equal(window, &windows[taken++]);
		else
			(void)sched_yield();
	}
	for (unsigned int i = 0; i < THREADS; i++)
		(void)pthread_join(decoders[i].thread, NULL);
	(void)pthread_mutex_destroy(&shared.lock);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_window_is_taken_only_when_those_in_front_are_decoded),
		cmocka_unit_test(a_window_that_is_put_again_is_decoded_again),
		cmocka_unit_test(at_the_end_all_are_dropped_whatever_their_state),
		cmocka_unit_test(random_delays_of_many_threads_do_not_change_the_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
