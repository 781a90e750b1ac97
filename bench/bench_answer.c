/* SPDX-License-Identifier: MIT */
/*
 * How long the vCPUs of a guest wait for a missing page, beside a background stream of everything:
 * bench-answer HANDLER RATE IMAGE -- QEMU [ARGUMENT]...
 *
 *   HANDLER  bare             the pages lie in memory, by number; a request is answered with its
 *                             page and nothing else. What no handler in this place can go below:
 *                             QEMU's fault thread, the socket, one thread, the socket, QEMU's
 *                             listening thread
 *            lazy-background  the engine, answering with one page, too
 *            lazy             the engine as it is: what lies around and ahead follows
 *   RATE     of the background, bytes a second; 0: as fast as it can be
 *
 * All of them go through the sink of a restore, which knows QEMU's stream and what has been placed.
 * The image should be in the page cache.
 *
 * Prints one line of JSON: {"faults": requests, "blocked_ms": what the vCPUs waited in all, by
 * QEMU's own count (postcopy-blocktime; whole milliseconds a vCPU), "blocked_us": of that for each
 * request, "seconds": from the start to the last page, "mib_per_s": of the background}.
 */
#include "bench_tape.h"
#include "bench_vm.h"

#include "base/clock.h"
#include "base/error.h"
#include "engine/engine.h"
#include "engine/pacer.h"
#include "vmm/qemu_incoming.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Pages that the background hands over at once, as the engine does when it is paced. */
#define GROUP 16u
#define HANDLER_NICE (-15) /* as fault_service.c, if it may */

struct job {
	bool bare;
	enum rouse_policy policy;
	uint64_t rate;
	const char *image;
	const char *const *argv;
};

struct result {
	uint64_t faults, started_ns, complete_ns, background_pages;
	int64_t blocked_us;
};

/* ---- The bare handler ------------------------------------------------------------------------ */

struct handler {
	struct rouse_sink *sink;
	const struct bench_tape *tape;
	uint64_t page_count;
	uint64_t *where; /* in tape->data, in pages, by page number; UINT64_MAX: zeros */
	_Atomic uint64_t faults;
};

static const void *content(const struct handler *h, uint64_t page)
{
	const uint64_t where = page < h->page_count ? h->where[page] : UINT64_MAX;

	return where == UINT64_MAX ? NULL : h->tape->data + where * QEMU_PAGE_BYTES;
}

static void *answer_main(void *argument)
{
	struct handler *h = argument;
	uint64_t page;

	(void)setpriority(PRIO_PROCESS, (id_t)gettid(), HANDLER_NICE);
	while (h->sink->ops->wait_fault(h->sink, &page) == 0) {
		struct rouse_sink_page answer = {.page = page, .data = content(h, page)};

		(void)h->sink->ops->place(h->sink, &answer, 1, ROUSE_SINK_URGENT, NULL);
		atomic_fetch_add(&h->faults, 1);
	}
	return NULL;
}

static int index_tape(struct handler *h)
{
	h->where = malloc(h->page_count * sizeof(*h->where));
	if (h->where == NULL)
		return -ENOMEM;
	for (uint64_t i = 0; i < h->page_count; i++)
		h->where[i] = UINT64_MAX;
	for (uint64_t i = 0; i < h->tape->count; i++)
		h->where[h->tape->pages[i]] = h->tape->where[i];
	return 0;
}

static void hold_back(struct rouse_pacer *pacer, uint64_t bytes)
{
	const uint64_t now_ns = rouse_clock_ns();
	const uint64_t due_ns = rouse_pacer_placed(pacer, now_ns, bytes, 0);

	if (due_ns > now_ns) {
		const struct timespec pause = {.tv_sec = (time_t)((due_ns - now_ns) / 1000000000),
			.tv_nsec = (long)((due_ns - now_ns) % 1000000000)};

		(void)nanosleep(&pause, NULL);
	}
}

/* The whole tape, in the background. */
static int stream(struct handler *h, uint64_t rate, struct result *result)
{
	struct rouse_sink_page pages[GROUP];
	struct rouse_pacer pacer;
	int code = 0;

	rouse_pacer_init(&pacer, rate == 0 ? ROUSE_BACKGROUND_MAX : rate, 0, rouse_clock_ns());
	for (uint64_t at = 0; code == 0 && at < h->tape->count;) {
		size_t count = 0, placed = 0;

		for (; at < h->tape->count && count < GROUP; at++, count++)
			pages[count] = (struct rouse_sink_page){
				.page = h->tape->pages[at], .data = content(h, h->tape->pages[at])};
		code = h->sink->ops->place(h->sink, pages, count, ROUSE_SINK_BACKGROUND, &placed);
		result->background_pages += placed;
		hold_back(&pacer, placed * QEMU_PAGE_BYTES);
	}
	return code;
}

static int serve(struct handler *h, uint64_t rate, struct result *result, struct rouse_error *error)
{
	pthread_t thread;
	int code = -pthread_create(&thread, NULL, answer_main, h);

	if (code < 0)
		return rouse_error_errno(error, code, "cannot answer");
	code = h->sink->ops->start(h->sink, &result->started_ns, error);
	if (code == 0) {
		code = stream(h, rate, result);
		result->complete_ns = rouse_clock_ns();
		code = code == 0 ? h->sink->ops->finish(h->sink, error)
				 : rouse_error_errno(error, code, "cannot send");
	}
	h->sink->ops->interrupt(h->sink);
	(void)pthread_join(thread, NULL);
	result->faults = atomic_load(&h->faults);
	return code;
}

static int run_bare(const struct job *job, struct bench_vm *vm, struct result *result,
	struct rouse_error *error)
{
	struct bench_tape tape = {0};
	struct handler handler = {.tape = &tape, .page_count = rouse_reader_page_count(vm->reader)};
	int code = bench_tape_record(&tape, vm, ROUSE_POLICY_LAZY, false, error);

	if (code == 0 && index_tape(&handler) < 0)
		code = rouse_error_errno(error, -ENOMEM, "cannot find pages");
	if (code == 0)
		code = bench_vm_start_qemu(vm, job->argv, true, error);
	if (code == 0)
		code = bench_vm_make_sink(vm, true, true, error);
	if (code == 0) {
		handler.sink = vm->sink;
		code = serve(&handler, job->rate, result, error);
	}
	free(handler.where);
	bench_tape_finish(&tape);
	return code;
}

/* ---- Rouse ----------------------------------------------------------------------------------- */

static int run_engine(const struct job *job, struct bench_vm *vm, struct result *result,
	struct rouse_error *error)
{
	const struct rouse_engine_config config = {
		.reader = vm->reader,
		.source = vm->source,
		.policy = job->policy,
		.background = job->rate == 0 ? ROUSE_BACKGROUND_MAX : job->rate,
	};
	struct rouse_engine *engine = NULL;
	struct rouse_engine_stats stats;
	int code = bench_vm_start_qemu(vm, job->argv, true, error);

	if (code == 0)
		code = bench_vm_make_sink(vm, true, true, error);
	if (code == 0)
		code = rouse_engine_new(&config, &engine, error);
	if (code == 0)
		code = rouse_engine_run(engine, vm->sink, error);
	if (code == 0) {
		rouse_engine_get_stats(engine, &stats);
		(void)rouse_engine_faults(engine, &result->faults);
		result->started_ns = stats.started_ns;
		result->complete_ns = stats.complete_ns;
		result->background_pages = stats.background_pages;
	}
	rouse_engine_free(engine);
	return code;
}

/* ---- All ------------------------------------------------------------------------------------- */

static bool parse(int argc, char **argv, struct job *job)
{
	char *end;

	*job = (struct job){0};
	if (argc < 6 || strcmp(argv[4], "--") != 0)
		return false;
	job->bare = strcmp(argv[1], "bare") == 0;
	job->policy = strcmp(argv[1], "lazy-background") == 0 ? ROUSE_POLICY_LAZY_BACKGROUND
							      : ROUSE_POLICY_LAZY;
	job->rate = strtoull(argv[2], &end, 10);
	job->image = argv[3];
	job->argv = (const char *const *)argv + 5;
	return *end == '\0' && (job->bare || job->policy == ROUSE_POLICY_LAZY_BACKGROUND ||
				       strcmp(argv[1], "lazy") == 0);
}

static void print(const struct result *result)
{
	const double seconds = (double)(result->complete_ns - result->started_ns) / 1e9;
	const double faults = (double)result->faults, blocked_us = (double)result->blocked_us;

	printf("{\"faults\": %" PRIu64 ", \"blocked_ms\": %.0f, \"blocked_us\": %.1f, "
	       "\"seconds\": %.6f, \"mib_per_s\": %.1f}\n",
		result->faults, blocked_us / 1e3, faults > 0 ? blocked_us / faults : 0, seconds,
		seconds > 0 ? (double)result->background_pages * QEMU_PAGE_BYTES / 1048576 / seconds
			    : 0);
}

int main(int argc, char **argv)
{
	struct rouse_error error = {0};
	struct result result = {0};
	struct bench_vm vm;
	struct job job;
	int code;

	if (!parse(argc, argv, &job)) {
		fprintf(stderr, "usage: bench-answer bare|lazy|lazy-background RATE IMAGE -- "
				"QEMU [ARGUMENT]...\n");
		return 2;
	}
	code = bench_vm_open_image(&vm, job.image, &error);
	if (code == 0)
		code = job.bare ? run_bare(&job, &vm, &result, &error)
				: run_engine(&job, &vm, &result, &error);
	if (code == 0)
		result.blocked_us = qemu_incoming_blocktime(vm.qmp);
	bench_vm_close(&vm);
	if (code < 0)
		fprintf(stderr, "bench-answer: %s\n", error.message);
	else if (result.blocked_us < 0)
		fprintf(stderr, "bench-answer: QEMU does not tell how long its vCPUs waited\n");
	else
		print(&result);
	return code < 0 || result.blocked_us < 0 ? 1 : 0;
}
