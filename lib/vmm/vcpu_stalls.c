/* SPDX-License-Identifier: MIT */
#include "vmm/vcpu_stalls.h"

#include "base/clock.h"
#include "vmm/vcpu_threads.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STAT_BYTES 1024u
/* proc_pid_stat(5): numbers between the state, which is field 3, and majflt, which is field 12. */
#define FIELDS_BETWEEN 8

struct thread {
	int fd; /* of its stat file; of vcpu_stalls.fds */
	uint64_t first_faults, faults;
	size_t open; /* index + 1 of a stall that may go on; 0: none */
};

struct vcpu_stalls {
	pthread_t sampler;
	bool running;
	bool stop; /* atomic */
	bool incomplete;
	struct vcpu_stall *list;
	size_t count, room;
	size_t thread_count;
	int *fds;
	struct thread *threads;
};

/* A number from *at on, perhaps negative, and what ends it. */
static bool parse_field(const char *text, size_t size, size_t *at, uint64_t *number)
{
	size_t i = *at, begin;
	uint64_t value = 0;

	if (i < size && text[i] == '-')
		i++;
	for (begin = i; i < size && text[i] >= '0' && text[i] <= '9'; i++) {
		if (value > (UINT64_MAX - 9) / 10)
			return false;
		value = value * 10 + (uint64_t)(text[i] - '0');
	}
	if (i == begin || i == size || text[i] != ' ')
		return false;
	*at = i + 1;
	*number = value;
	return true;
}

int thread_stat_parse(const char *text, size_t size, struct thread_stat *stat)
{
	/* The thread's name may hold anything, parentheses too: the last one ends it. */
	const char *behind = size > 0 ? memrchr(text, ')', size) : NULL;
	uint64_t number = 0;
	size_t at;

	if (behind == NULL)
		return -EUCLEAN;
	at = (size_t)(behind - text) + 1;
	if (size - at < 3 || text[at] != ' ' || text[at + 2] != ' ')
		return -EUCLEAN;
	stat->state = text[at + 1];
	at += 3;
	for (int i = 0; i <= FIELDS_BETWEEN; i++) {
		if (!parse_field(text, size, &at, &number))
			return -EUCLEAN;
	}
	stat->major_faults = number;
	return 0;
}

static int read_stat(int fd, struct thread_stat *stat)
{
	char text[STAT_BYTES];
	ssize_t n = pread(fd, text, sizeof(text), 0);

	return n <= 0 ? -ENOTSUP : thread_stat_parse(text, (size_t)n, stat);
}

static void note_stall(
	struct vcpu_stalls *s, struct thread *thread, uint64_t from_ns, uint64_t to_ns)
{
	if (thread->open > 0) {
		s->list[thread->open - 1].to_ns = to_ns;
		return;
	}
	if (s->count == s->room) {
		size_t room = s->room > 0 ? 2 * s->room : 256;
		struct vcpu_stall *list = realloc(s->list, room * sizeof(*list));

		if (list == NULL) {
			s->incomplete = true;
			return;
		}
		s->list = list;
		s->room = room;
	}
	s->list[s->count++] = (struct vcpu_stall){.from_ns = from_ns, .to_ns = to_ns};
	thread->open = s->count;
}

static void look(struct vcpu_stalls *s, uint64_t last_ns)
{
	for (size_t i = 0; i < s->thread_count; i++) {
		struct thread *thread = &s->threads[i];
		struct thread_stat stat;

		/* A thread that is gone waits no more. */
		if (read_stat(thread->fd, &stat) < 0)
			continue;
		thread->faults = stat.major_faults;
		if (stat.state == 'D')
			note_stall(s, thread, last_ns, rouse_clock_ns());
		else
			thread->open = 0;
	}
}

static void *sample(void *user)
{
	struct vcpu_stalls *s = user;
	uint64_t last_ns = rouse_clock_ns(), due_ns = last_ns;

	while (!__atomic_load_n(&s->stop, __ATOMIC_RELAXED)) {
		uint64_t now_ns;
		struct timespec due;

		due_ns += VCPU_STALLS_PERIOD_US * UINT64_C(1000);
		due = rouse_clock_timespec(due_ns);
		(void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
		now_ns = rouse_clock_ns();
		look(s, last_ns);
		last_ns = now_ns;
		/* On a busy host samples are missed, not caught up on. */
		if (due_ns < now_ns)
			due_ns = now_ns;
	}
	look(s, last_ns);
	return NULL;
}

static int begin_thread(struct thread *thread, int fd)
{
	struct thread_stat stat;

	if (read_stat(fd, &stat) < 0)
		return -ENOTSUP;
	*thread = (struct thread){
		.fd = fd, .first_faults = stat.major_faults, .faults = stat.major_faults};
	return 0;
}

static int begin_threads(struct vcpu_stalls *s)
{
	int code = 0;

	s->threads = calloc(s->thread_count, sizeof(*s->threads));
	if (s->threads == NULL)
		return -ENOMEM;
	for (size_t i = 0; code == 0 && i < s->thread_count; i++)
		code = begin_thread(&s->threads[i], s->fds[i]);
	return code;
}

int vcpu_stalls_begin(struct qmp *qmp, pid_t pid, struct vcpu_stalls **stalls)
{
	struct vcpu_stalls *s = calloc(1, sizeof(*s));
	int code;

	if (s == NULL)
		return -ENOMEM;
	code = vcpu_threads_open(qmp, pid, "stat", &s->fds, &s->thread_count);
	if (code == 0)
		code = begin_threads(s);
	if (code == 0)
		code = -pthread_create(&s->sampler, NULL, sample, s);
	if (code < 0) {
		vcpu_stalls_free(s);
		return code;
	}
	s->running = true;
	*stalls = s;
	return 0;
}

void vcpu_stalls_end(struct vcpu_stalls *s)
{
	__atomic_store_n(&s->stop, true, __ATOMIC_RELAXED);
	(void)pthread_join(s->sampler, NULL);
	s->running = false;
}

const struct vcpu_stall *vcpu_stalls_list(
	const struct vcpu_stalls *s, size_t *count, bool *complete)
{
	*count = s->count;
	*complete = !s->incomplete;
	return s->list;
}

uint64_t vcpu_stalls_major_faults(const struct vcpu_stalls *s)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < s->thread_count; i++)
		sum += s->threads[i].faults - s->threads[i].first_faults;
	return sum;
}

void vcpu_stalls_free(struct vcpu_stalls *s)
{
	if (s == NULL)
		return;
	if (s->running)
		vcpu_stalls_end(s);
	vcpu_threads_close(s->fds, s->thread_count);
	free(s->threads);
	free(s->list);
	free(s);
}
