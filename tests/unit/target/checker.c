/* SPDX-License-Identifier: MIT */
#include "checker.h"

#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WORDS (CHECKER_PAGE / 8)
#define LIMIT_S 60

struct worker {
	struct checker_control *control;
	const struct checker_config *config;
	char *memory;
	uint32_t *generations;
	unsigned int index;
	uint64_t random;
};

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static uint64_t word_of(uint64_t page, uint32_t generation, uint64_t index)
{
	return (page * 0x9e3779b97f4a7c15ULL) ^ ((uint64_t)generation << 40) ^
	       (index * 0xbf58476d1ce4e5b9ULL);
}

void checker_stamp(char *memory, uint64_t page, uint32_t generation)
{
	volatile uint64_t *at = (volatile uint64_t *)(void *)(memory + page * CHECKER_PAGE);

	for (uint64_t i = 0; i < WORDS; i++)
		at[i] = word_of(page, generation, i);
}

/* A page of generation 0 was never written: zeros. */
bool checker_is_right(const char *memory, uint64_t page, uint32_t generation)
{
	const volatile uint64_t *at =
		(const volatile uint64_t *)(const void *)(memory + page * CHECKER_PAGE);

	for (uint64_t i = 0; i < WORDS; i++) {
		if (at[i] != (generation == 0 ? 0 : word_of(page, generation, i)))
			return false;
	}
	return true;
}

static void check(struct worker *worker, uint64_t page)
{
	struct checker_control *control = worker->control;

	if (!checker_is_right(worker->memory, page, worker->generations[page])) {
		if (__atomic_fetch_add(&control->errors, 1, __ATOMIC_SEQ_CST) == 0)
			control->first_wrong = page + 1;
	}
	__atomic_fetch_add(&control->checked, 1, __ATOMIC_SEQ_CST);
}

static void nap(void)
{
	const struct timespec time = {.tv_nsec = 200000};

	(void)nanosleep(&time, NULL);
}

/* Pages belong to threads: page % CHECKER_THREADS. */
static void *work(void *argument)
{
	struct worker *worker = argument;
	struct checker_control *control = worker->control;
	bool quiet = false;

	for (;;) {
		uint64_t page;

		if (__atomic_load_n(&control->order, __ATOMIC_SEQ_CST) != CHECKER_WORK) {
			if (!quiet)
				__atomic_fetch_add(&control->quiet_threads, 1, __ATOMIC_SEQ_CST);
			quiet = true;
			nap();
			continue;
		}
		if (quiet) {
			/* Looked at again: the order may have gone before we were counted out. */
			__atomic_fetch_sub(&control->quiet_threads, 1, __ATOMIC_SEQ_CST);
			quiet = false;
			/* What the main thread did before; the order itself is another process's.
			 */
			(void)__atomic_load_n(&control->done, __ATOMIC_SEQ_CST);
			continue;
		}
		page = next_random(&worker->random) % (control->pages / CHECKER_THREADS) *
			       CHECKER_THREADS +
		       worker->index;
		check(worker, page);
		if (next_random(&worker->random) % 3 == 0) {
			worker->generations[page]++;
			checker_stamp(worker->memory, page, worker->generations[page]);
			check(worker, page);
		}
	}
	return NULL;
}

static void touch_list(struct worker *worker)
{
	struct checker_control *control = worker->control;

	for (uint32_t i = 0; i < control->list_count; i++) {
		const uint64_t page = control->list[i].page;

		if (control->list[i].write)
			checker_stamp(worker->memory, page, ++worker->generations[page]);
		else
			check(worker, page);
	}
}

static void carry_out(struct worker *worker)
{
	struct checker_control *control = worker->control;

	if (control->order != CHECKER_WORK) {
		while (__atomic_load_n(&control->quiet_threads, __ATOMIC_SEQ_CST) < CHECKER_THREADS)
			nap();
	}
	switch ((enum checker_order)control->order) {
	case CHECKER_TOUCH:
		touch_list(worker);
		break;
	case CHECKER_CALL:
		if (!worker->config->call(control, worker->memory, worker->generations))
			__atomic_fetch_add(&control->errors, 1, __ATOMIC_SEQ_CST);
		break;
	case CHECKER_CHECK:
		for (uint64_t page = 0; page < control->pages; page++)
			check(worker, page);
		break;
	default:
		break;
	}
}

static char *make_memory(const struct checker_config *config)
{
	const size_t bytes = config->pages * CHECKER_PAGE, huge = 2u << 20;
	char *memory;

	if (config->shared) {
		int fd = memfd_create("checked", MFD_CLOEXEC);

		if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
			_exit(3);
		memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	} else {
		memory = mmap(NULL, bytes + huge, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (memory != MAP_FAILED)
			memory += (huge - (uintptr_t)memory % huge) % huge;
	}
	if (memory == MAP_FAILED)
		_exit(3);
	(void)madvise(memory, bytes, config->huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	return memory;
}

static void run(struct checker_control *control, const struct checker_config *config)
{
	static struct worker workers[CHECKER_THREADS + 1];
	char *memory = make_memory(config);
	uint32_t *generations = calloc(config->pages, sizeof(*generations));

	if (generations == NULL)
		_exit(3);
	for (uint64_t page = 0; page < config->pages; page++) {
		if (config->holes_from == 0 || page < config->holes_from) {
			generations[page] = 1;
			checker_stamp(memory, page, 1);
		}
	}
	control->pages = config->pages;
	control->address = (uint64_t)(uintptr_t)memory;
	for (unsigned int i = 0; i <= CHECKER_THREADS; i++) {
		pthread_t thread;

		workers[i] = (struct worker){.control = control,
			.config = config,
			.memory = memory,
			.generations = generations,
			.index = i,
			.random = 0x12345 + i};
		if (i < CHECKER_THREADS && pthread_create(&thread, NULL, work, &workers[i]) != 0)
			_exit(3);
	}
	for (uint32_t last = 0;;) {
		const uint32_t number = __atomic_load_n(&control->number, __ATOMIC_SEQ_CST);

		if (number == last) {
			nap();
			continue;
		}
		carry_out(&workers[CHECKER_THREADS]);
		last = number;
		__atomic_store_n(&control->done, number, __ATOMIC_SEQ_CST);
	}
}

void checker_start(struct checker *checker, const struct checker_config *config)
{
	const pid_t parent = getpid();

	checker->control = mmap(NULL, sizeof(*checker->control), PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (checker->control == MAP_FAILED)
		abort();
	(void)fflush(NULL);
	checker->pid = fork();
	if (checker->pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		run(checker->control, config);
		_exit(0);
	}
	if (checker->pid < 0)
		abort();
	(void)checker_order(checker, CHECKER_REST);
}

static bool is_over(const struct checker *checker, time_t began, unsigned int seconds)
{
	siginfo_t info = {0};

	if (waitid(P_PID, (id_t)checker->pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 ||
		info.si_pid != 0) {
		(void)fprintf(stderr, "the checker died: code %d, status %d\n", info.si_code,
			info.si_status);
		return true;
	}
	if (time(NULL) - began > seconds) {
		(void)fprintf(stderr, "the checker hangs\n");
		return true;
	}
	return false;
}

bool checker_order_within(struct checker *checker, enum checker_order order, unsigned int seconds)
{
	struct checker_control *control = checker->control;
	const time_t began = time(NULL);

	__atomic_store_n(&control->order, (uint32_t)order, __ATOMIC_SEQ_CST);
	__atomic_fetch_add(&control->number, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&control->done, __ATOMIC_SEQ_CST) != control->number) {
		if (is_over(checker, began, seconds))
			return false;
		nap();
	}
	return true;
}

bool checker_order(struct checker *checker, enum checker_order order)
{
	return checker_order_within(checker, order, LIMIT_S);
}

bool checker_wait(struct checker *checker, uint64_t count)
{
	struct checker_control *control = checker->control;
	const uint64_t until = __atomic_load_n(&control->checked, __ATOMIC_SEQ_CST) + count;
	const time_t began = time(NULL);

	while (__atomic_load_n(&control->checked, __ATOMIC_SEQ_CST) < until) {
		if (is_over(checker, began, LIMIT_S))
			return false;
		nap();
	}
	return true;
}

bool checker_end(struct checker *checker)
{
	bool good = checker_order(checker, CHECKER_CHECK);

	good = good && checker->control->errors == 0;
	if (checker->control->errors != 0)
		(void)fprintf(stderr, "%llu pages wrong, the first %llu\n",
			(unsigned long long)checker->control->errors,
			(unsigned long long)checker->control->first_wrong - 1);
	(void)kill(checker->pid, SIGKILL);
	(void)waitpid(checker->pid, NULL, 0);
	(void)munmap(checker->control, sizeof(*checker->control));
	return good;
}
