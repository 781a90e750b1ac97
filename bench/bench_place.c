/* SPDX-License-Identifier: MIT */
/*
 * How fast pages get into a stock QEMU: bench-place PHASE SENDER IMAGE -- QEMU [ARGUMENT]...
 *
 *   PHASE   eager       every page, then the start, which is not measured   (precopy)
 *           ws          the image's working set, then the start             (postcopy, advised)
 *           background  the start, then every page                          (postcopy, active)
 *           start       only firmware's memory: QEMU's bare start to the first instruction
 *   SENDER  rouse       the engine and the sink of a restore, from the image
 *           loop        the same pages in the same order out of memory into the same sink: a loop
 *                       of the same system calls, and nothing else
 *           bare        the same pages in the same order, made into QEMU's bytes beforehand, sent
 *                       in large pieces: what the socket and QEMU can take
 *           decode      nothing is sent and no QEMU is started: the same chunks are read, verified
 *                       and decompressed by one thread (bench_decode.h)
 *
 * The clock of rouse starts when the engine is made, with a QEMU that waits already: what a restore
 * reads ahead while QEMU starts would flatter it. Both clocks stop when QEMU has taken the last
 * byte out of the socket. With -S among QEMU's arguments the guest stays paused after the start.
 *
 * Prints one line of JSON: {"pages": stored pages, "bytes": in them, "seconds", "mib_per_s",
 * "cpu_s": processor time of this process in that time, "qemu_cpu_s": QEMU's}, or for start
 * {"start_ms"}.
 */
#include "bench_decode.h"
#include "bench_tape.h"
#include "bench_vm.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/io.h"
#include "engine/engine.h"
#include "vmm/qemu_incoming.h"
#include "vmm/qemu_writer.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define SEND_BYTES ((size_t)256 << 10)
#define BARE_SOCKET_BYTES (1 << 20)
#define START_TIMEOUT_MS 60000
#define WARM_TIMES 4u
#define FIRMWARE_PAGES 256u
#define LOOP_PAGES 256u /* at once: as many as the engine hands over */

enum phase { PHASE_EAGER, PHASE_WS, PHASE_BACKGROUND, PHASE_START, PHASES };

static const char *const phase_names[PHASES] = {"eager", "ws", "background", "start"};

enum sender { SENDER_ROUSE, SENDER_LOOP, SENDER_BARE, SENDER_DECODE, SENDERS };

static const char *const sender_names[SENDERS] = {"rouse", "loop", "bare", "decode"};

struct job {
	enum phase phase;
	enum sender sender;
	bool run;
	const char *image;
	const char *const *argv;
};

struct result {
	uint64_t pages, begun_ns, ended_ns;
	uint64_t cpu_ns, qemu_cpu_ns; /* from begin to end; until then what was used before */
};

/* Processor time used so far, 0 if that is not told. */
static uint64_t cpu_ns(clockid_t clock)
{
	struct timespec used;

	if (clock_gettime(clock, &used) < 0)
		return 0;
	return (uint64_t)used.tv_sec * UINT64_C(1000000000) + (uint64_t)used.tv_nsec;
}

static uint64_t qemu_cpu_ns(const struct bench_vm *vm)
{
	clockid_t clock;

	/* 0 would be this process. */
	return vm->process.pid > 0 && clock_getcpuclockid(vm->process.pid, &clock) == 0
		       ? cpu_ns(clock)
		       : 0;
}

static void clock_begin(const struct bench_vm *vm, struct result *result)
{
	result->cpu_ns = cpu_ns(CLOCK_PROCESS_CPUTIME_ID);
	result->qemu_cpu_ns = qemu_cpu_ns(vm);
	result->begun_ns = rouse_clock_ns();
}

static void clock_end(const struct bench_vm *vm, struct result *result)
{
	result->ended_ns = rouse_clock_ns();
	result->cpu_ns = cpu_ns(CLOCK_PROCESS_CPUTIME_ID) - result->cpu_ns;
	result->qemu_cpu_ns = qemu_cpu_ns(vm) - result->qemu_cpu_ns;
}

static enum rouse_policy policy_of(enum phase phase)
{
	if (phase == PHASE_EAGER)
		return ROUSE_POLICY_EAGER;
	return phase == PHASE_WS ? ROUSE_POLICY_WS : ROUSE_POLICY_LAZY;
}

/* ---- The bare senders ----------------------------------------------------------------------- */

/* Answers what loading the devices asks for, from the tape, until it is told not to. */
struct answerer {
	struct rouse_sink *sink;
	const struct bench_tape *tape;
	struct rouse_bitmap answered;
	pthread_mutex_t lock;
	bool done;
};

static void *answer_main(void *argument)
{
	struct answerer *a = argument;
	uint64_t page;

	while (a->sink->ops->wait_fault(a->sink, &page) == 0) {
		struct rouse_sink_page answer = {.page = page};

		pthread_mutex_lock(&a->lock);
		if (!a->done) {
			/* A page that is not on the tape is zero. */
			(void)bench_tape_find(a->tape, page, &answer.data);
			(void)a->sink->ops->place(a->sink, &answer, 1, ROUSE_SINK_URGENT, NULL);
			rouse_bitmap_set(&a->answered, page);
		}
		pthread_mutex_unlock(&a->lock);
	}
	return NULL;
}

/* Starts the guest; afterwards nobody but the caller sends. *skip: what is there already. */
static int start_guest(
	struct bench_vm *vm, struct answerer *a, pthread_t *thread, struct rouse_error *error)
{
	uint64_t started_ns;
	int code = rouse_bitmap_init(&a->answered, rouse_reader_page_count(vm->reader));

	if (code == 0)
		code = -pthread_create(thread, NULL, answer_main, a);
	if (code < 0)
		return rouse_error_errno(error, code, "cannot answer");
	code = vm->sink->ops->start(vm->sink, &started_ns, error);
	pthread_mutex_lock(&a->lock);
	a->done = true;
	pthread_mutex_unlock(&a->lock);
	return code;
}

static int send_all(int fd, const uint8_t *bytes, size_t size)
{
	int code = 0;

	while (code == 0 && size > 0) {
		size_t n = size < SEND_BYTES ? size : SEND_BYTES;
		struct iovec piece = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = n};

		code = rouse_io_send(fd, -1, &piece, 1);
		bytes += n;
		size -= n;
	}
	return code == 0 ? bench_await_empty(fd) : code;
}

/* The tape as QEMU's bytes. */
struct encoded {
	uint8_t *bytes;
	size_t size;
	uint64_t pages;
};

static void encoded_finish(struct encoded *encoded)
{
	free(encoded->bytes);
}

static int encode(struct bench_vm *vm, const struct bench_tape *tape,
	const struct rouse_bitmap *skip, struct encoded *encoded, struct rouse_error *error)
{
	int code =
		bench_tape_encode(tape, vm, skip, &encoded->bytes, &encoded->size, &encoded->pages);

	return code == 0 ? 0 : rouse_error_errno(error, code, "cannot encode the pages");
}

static int send_encoded(struct bench_vm *vm, const struct encoded *encoded, struct result *result,
	struct rouse_error *error)
{
	const int buffer = BARE_SOCKET_BYTES;
	int code;

	(void)setsockopt(vm->fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
	clock_begin(vm, result);
	code = send_all(vm->fd, encoded->bytes, encoded->size);
	clock_end(vm, result);
	result->pages = encoded->pages;
	return code == 0 ? 0 : rouse_error_errno(error, code, "cannot send");
}

/* Some pages of the tape, from the @from-th on, into the sink; *stored: those that are not zero. */
static int loop_once(struct bench_vm *vm, const struct bench_tape *tape, uint64_t from,
	uint64_t count, bool before, uint64_t *stored)
{
	struct rouse_sink_page pages[LOOP_PAGES];

	for (uint64_t i = 0; i < count; i++) {
		const uint64_t where = tape->where[from + i];

		pages[i].page = tape->pages[from + i];
		pages[i].data = where == UINT64_MAX ? NULL : tape->data + where * QEMU_PAGE_BYTES;
		*stored +=
			pages[i].data != NULL && !vm->sink->ops->is_placed(vm->sink, pages[i].page);
	}
	return before ? vm->sink->ops->prefetch(vm->sink, pages, count)
		      : vm->sink->ops->place(vm->sink, pages, count, ROUSE_SINK_BACKGROUND, NULL);
}

static int loop(struct bench_vm *vm, const struct bench_tape *tape, bool before,
	struct result *result, struct rouse_error *error)
{
	uint64_t stored = 0;
	int code = 0;

	clock_begin(vm, result);
	for (uint64_t from = 0; code == 0 && from < tape->count; from += LOOP_PAGES) {
		const uint64_t left = tape->count - from;

		code = loop_once(
			vm, tape, from, left < LOOP_PAGES ? left : LOOP_PAGES, before, &stored);
	}
	if (code == 0)
		code = bench_await_empty(vm->fd);
	clock_end(vm, result);
	result->pages = stored;
	return code == 0 ? 0 : rouse_error_errno(error, code, "cannot send");
}

/* No page: only what comes before the first one. */
static int send_no_page(struct bench_vm *vm, struct rouse_error *error)
{
	int code = vm->sink->ops->prefetch(vm->sink, NULL, 0);

	if (code == 0)
		code = bench_await_empty(vm->fd);
	return code == 0 ? 0 : rouse_error_errno(error, code, "cannot begin");
}

/* By both of them, when the guest has started. */
static int bare_after(const struct job *job, struct bench_vm *vm, const struct bench_tape *tape,
	struct result *result, struct rouse_error *error)
{
	struct answerer answerer = {.sink = vm->sink, .tape = tape};
	cleanup_with(encoded_finish) struct encoded encoded = {0};
	pthread_t thread = 0;
	int code;

	(void)pthread_mutex_init(&answerer.lock, NULL);
	code = start_guest(vm, &answerer, &thread, error);
	if (code == 0 && job->sender == SENDER_LOOP)
		code = loop(vm, tape, false, result, error);
	else if (code == 0) {
		code = encode(vm, tape, &answerer.answered, &encoded, error);
		if (code == 0)
			code = send_encoded(vm, &encoded, result, error);
	}
	vm->sink->ops->interrupt(vm->sink);
	if (thread != 0)
		(void)pthread_join(thread, NULL);
	rouse_bitmap_finish(&answerer.answered);
	(void)pthread_mutex_destroy(&answerer.lock);
	return code;
}

/* ---- Rouse ---------------------------------------------------------------------------------- */

/* A sink before the real one, which looks at the clock. */
struct timed_sink {
	struct rouse_sink sink;
	struct bench_vm *vm;
	struct result *result;
	bool background;
	_Atomic uint64_t pages;
};

static struct timed_sink *timed_of(struct rouse_sink *sink)
{
	return (struct timed_sink *)sink;
}

static struct rouse_sink *inner_of(struct rouse_sink *sink)
{
	return timed_of(sink)->vm->sink;
}

static void count_stored(struct rouse_sink *sink, const struct rouse_sink_page *pages, size_t count)
{
	for (size_t i = 0; i < count; i++)
		atomic_fetch_add(&timed_of(sink)->pages, pages[i].data != NULL);
}

static int stop_clock(struct timed_sink *timed)
{
	int code = bench_await_empty(timed->vm->fd);

	clock_end(timed->vm, timed->result);
	timed->result->pages = atomic_load(&timed->pages);
	return code;
}

static int timed_prefetch(
	struct rouse_sink *sink, const struct rouse_sink_page *pages, size_t count)
{
	count_stored(sink, pages, count);
	return inner_of(sink)->ops->prefetch(inner_of(sink), pages, count);
}

static int timed_start(struct rouse_sink *sink, uint64_t *started_ns, struct rouse_error *error)
{
	struct timed_sink *timed = timed_of(sink);
	int code;

	if (!timed->background) {
		code = stop_clock(timed);
		return code == 0 ? -ECANCELED : code;
	}
	code = inner_of(sink)->ops->start(inner_of(sink), started_ns, error);
	clock_begin(timed->vm, timed->result);
	return code;
}

static int timed_wait_fault(struct rouse_sink *sink, uint64_t *page)
{
	return inner_of(sink)->ops->wait_fault(inner_of(sink), page);
}

static int timed_place(struct rouse_sink *sink, const struct rouse_sink_page *pages, size_t count,
	enum rouse_sink_priority priority, size_t *placed)
{
	/* Those that were asked for are few, and are counted where they were asked for in time. */
	if (timed_of(sink)->result->begun_ns != 0)
		count_stored(sink, pages, count);
	return inner_of(sink)->ops->place(inner_of(sink), pages, count, priority, placed);
}

static bool timed_is_placed(struct rouse_sink *sink, uint64_t page)
{
	return inner_of(sink)->ops->is_placed(inner_of(sink), page);
}

static int timed_finish(struct rouse_sink *sink, struct rouse_error *error)
{
	int code = stop_clock(timed_of(sink));

	return code == 0 ? 0 : rouse_error_errno(error, code, "QEMU takes no more");
}

static int timed_stop_guest(struct rouse_sink *sink, struct rouse_error *error)
{
	return inner_of(sink)->ops->stop_guest(inner_of(sink), error);
}

static void timed_interrupt(struct rouse_sink *sink)
{
	inner_of(sink)->ops->interrupt(inner_of(sink));
}

static const struct rouse_sink_ops timed_ops = {
	.prefetch = timed_prefetch,
	.start = timed_start,
	.wait_fault = timed_wait_fault,
	.place = timed_place,
	.is_placed = timed_is_placed,
	.finish = timed_finish,
	.stop_guest = timed_stop_guest,
	.interrupt = timed_interrupt,
};

static int engine(const struct job *job, struct bench_vm *vm, struct result *result,
	struct rouse_error *error)
{
	const struct rouse_engine_config config = {
		.reader = vm->reader,
		.source = vm->source,
		.policy = policy_of(job->phase),
		.background = ROUSE_BACKGROUND_MAX,
	};
	struct timed_sink timed = {.sink.ops = &timed_ops,
		.vm = vm,
		.result = result,
		.background = job->phase == PHASE_BACKGROUND};
	struct rouse_engine *engine = NULL;
	int code;

	if (!timed.background)
		clock_begin(vm, result);
	code = rouse_engine_new(&config, &engine, error);
	if (code == 0)
		code = rouse_engine_run(engine, &timed.sink, error);
	if (!timed.background && code == -ECANCELED)
		code = 0;
	rouse_engine_free(engine);
	return code;
}

/* ---- The bare start ------------------------------------------------------------------------- */

/*
 * The least that devices load with: of each block of memory the first mebibyte, where firmware is,
 * which one of them (kvm-tpr-opt) looks at. The caller frees *bytes.
 */
static int encode_firmware(
	struct bench_vm *vm, uint8_t **bytes, size_t *size, struct rouse_error *error)
{
	struct rouse_bitmap skip = {0};
	struct bench_tape tape;
	uint64_t stored;
	int code = bench_tape_record(&tape, vm, ROUSE_POLICY_EAGER, true, error);

	if (code == 0 && rouse_bitmap_init(&skip, rouse_reader_page_count(vm->reader)) < 0)
		code = rouse_error_errno(error, -ENOMEM, "cannot choose pages");
	for (uint64_t i = 0; code == 0 && i < tape.count; i++) {
		uint32_t block = qemu_block_of(vm->blocks, vm->block_count, tape.pages[i]);

		if (tape.pages[i] - vm->blocks[block].first_page >= FIRMWARE_PAGES)
			rouse_bitmap_set(&skip, tape.pages[i]);
	}
	if (code == 0 && bench_tape_encode(&tape, vm, &skip, bytes, size, &stored) < 0)
		code = rouse_error_errno(error, -ENOMEM, "cannot encode the pages");
	rouse_bitmap_finish(&skip);
	bench_tape_finish(&tape);
	return code;
}

/* A whole migration with these pages. */
static int send_migration(struct bench_vm *vm, const uint8_t *pages, size_t size)
{
	static const uint8_t end[] = {QEMU_VM_EOF, QEMU_VM_VMDESCRIPTION, 0, 0, 0, 0};
	size_t config_size, devices_size;
	const void *config = rouse_reader_section(vm->reader, ROUSE_SECTION_CONFIG, &config_size);
	const void *devices =
		rouse_reader_section(vm->reader, ROUSE_SECTION_DEVICES, &devices_size);
	struct qemu_writer writer;
	int code;

	qemu_writer_init(&writer, vm->fd, -1, vm->blocks, vm->block_count);
	code = qemu_writer_header(&writer, config, config_size);
	if (code == 0)
		code = qemu_writer_ram_start(&writer);
	if (code == 0)
		code = qemu_writer_part_begin(&writer);
	if (code == 0)
		code = qemu_writer_raw(&writer, pages, size);
	if (code == 0)
		code = qemu_writer_part_end(&writer);
	if (code == 0)
		code = qemu_writer_ram_end(&writer);
	if (code == 0)
		code = qemu_writer_raw(&writer, devices, devices_size);
	return code == 0 ? qemu_writer_raw(&writer, end, sizeof(end)) : code;
}

static int wait_started(const struct job *job, struct bench_vm *vm, const uint8_t *pages,
	size_t size, uint64_t *started_ns, struct rouse_error *error)
{
	int code = bench_vm_start_qemu(vm, job->argv, false, error);

	if (code < 0)
		return code;
	code = send_migration(vm, pages, size);
	if (code < 0)
		return rouse_error_errno(error, code, "cannot send the devices");
	code = qemu_incoming_wait_resume(vm->qmp, START_TIMEOUT_MS, started_ns, error);
	if (code == 0)
		return rouse_error_set(error, ROUSE_ERROR_VMM, -ETIMEDOUT, "it does not start");
	return code < 0 ? bench_vm_explain(vm, code, error) : 0;
}

static int measure_start(const struct job *job, struct bench_vm *vm, struct rouse_error *error)
{
	cleanup_free uint8_t *pages = NULL;
	uint64_t begun_ns, started_ns = 0;
	size_t size = 0;
	int code = encode_firmware(vm, &pages, &size, error);

	if (code < 0)
		return code;
	begun_ns = rouse_clock_ns();
	code = wait_started(job, vm, pages, size, &started_ns, error);
	if (code == 0)
		printf("{\"start_ms\": %.3f}\n", (double)(started_ns - begun_ns) / 1e6);
	return code;
}

/* ---- All ------------------------------------------------------------------------------------ */

/*
 * As much memory as the VM has is touched once, in huge pages, and given back. Otherwise the kernel
 * may have to move others' memory out of the way of QEMU's huge pages, and the host of a virtual
 * machine to find memory that was not used before: a second, or nothing, of what is measured here.
 */
static void warm_memory(const struct bench_vm *vm)
{
	const size_t wanted = WARM_TIMES * QEMU_PAGE_BYTES *
			      (size_t)qemu_blocks_pages(vm->blocks, vm->block_count);
	const size_t half = (size_t)sysconf(_SC_AVPHYS_PAGES) / 2 * (size_t)sysconf(_SC_PAGESIZE);
	const size_t bytes = wanted < half ? wanted : half;
	uint8_t *memory =
		mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return;
	(void)madvise(memory, bytes, MADV_HUGEPAGE);
	for (size_t at = 0; at < bytes; at += QEMU_PAGE_BYTES)
		*(volatile uint8_t *)(memory + at) = 1;
	(void)munmap(memory, bytes);
}

static int start_qemu(const struct job *job, struct bench_vm *vm, struct rouse_error *error)
{
	const bool postcopy = job->phase != PHASE_EAGER;
	int code = bench_vm_start_qemu(vm, job->argv, postcopy, error);

	if (code == 0)
		code = bench_vm_make_sink(vm, postcopy, job->run, error);
	if (code == 0)
		warm_memory(vm);
	return code;
}

static int run_bare(const struct job *job, struct bench_vm *vm, struct bench_tape *tape,
	struct result *result, struct rouse_error *error)
{
	const bool before = job->phase != PHASE_BACKGROUND;
	cleanup_with(encoded_finish) struct encoded encoded = {0};
	int code = bench_tape_record(tape, vm, policy_of(job->phase), before, error);

	/* Before QEMU is there, and without the tape: so that both find as much free memory as
	   they do with Rouse. */
	if (code == 0 && before && job->sender == SENDER_BARE) {
		code = encode(vm, tape, NULL, &encoded, error);
		bench_tape_finish(tape);
		*tape = (struct bench_tape){0};
	}
	if (code == 0)
		code = start_qemu(job, vm, error);
	if (code == 0 && !before)
		return bare_after(job, vm, tape, result, error);
	if (code == 0)
		code = send_no_page(vm, error);
	if (code < 0)
		return code;
	return job->sender == SENDER_LOOP ? loop(vm, tape, true, result, error)
					  : send_encoded(vm, &encoded, result, error);
}

static int run_sender(const struct job *job, struct bench_vm *vm, struct bench_tape *tape,
	struct result *result, struct rouse_error *error)
{
	int code;

	if (job->sender == SENDER_BARE || job->sender == SENDER_LOOP)
		return run_bare(job, vm, tape, result, error);
	if (job->sender == SENDER_ROUSE) {
		code = start_qemu(job, vm, error);
		return code == 0 ? engine(job, vm, result, error) : code;
	}
	clock_begin(vm, result);
	code = bench_decode(vm, job->phase == PHASE_WS, &result->pages, error);
	clock_end(vm, result);
	return code;
}

static int measure_pages(const struct job *job, struct bench_vm *vm, struct bench_tape *tape,
	struct rouse_error *error)
{
	struct result result = {0};
	double seconds, bytes;
	int code = run_sender(job, vm, tape, &result, error);

	if (code < 0)
		return code;
	seconds = (double)(result.ended_ns - result.begun_ns) / 1e9;
	bytes = (double)result.pages * QEMU_PAGE_BYTES;
	printf("{\"pages\": %llu, \"bytes\": %.0f, \"seconds\": %.6f, \"mib_per_s\": %.1f, "
	       "\"cpu_s\": %.6f, \"qemu_cpu_s\": %.6f}\n",
		(unsigned long long)result.pages, bytes, seconds, bytes / 1048576 / seconds,
		(double)result.cpu_ns / 1e9, (double)result.qemu_cpu_ns / 1e9);
	return 0;
}

static bool parse(int argc, char **argv, struct job *job)
{
	*job = (struct job){.phase = PHASES, .sender = SENDERS, .run = true};
	if (argc < 6 || strcmp(argv[4], "--") != 0)
		return false;
	for (unsigned int i = 0; i < PHASES; i++) {
		if (strcmp(argv[1], phase_names[i]) == 0)
			job->phase = (enum phase)i;
	}
	for (unsigned int i = 0; i < SENDERS; i++) {
		if (strcmp(argv[2], sender_names[i]) == 0)
			job->sender = (enum sender)i;
	}
	job->image = argv[3];
	job->argv = (const char *const *)argv + 5;
	for (int i = 5; i < argc; i++) {
		if (strcmp(argv[i], "-S") == 0)
			job->run = false;
	}
	return job->phase != PHASES && job->sender != SENDERS;
}

int main(int argc, char **argv)
{
	struct bench_tape tape = {0};
	struct rouse_error error = {0};
	struct bench_vm vm;
	struct job job;
	int code;

	if (!parse(argc, argv, &job)) {
		fprintf(stderr, "usage: bench-place eager|ws|background|start "
				"rouse|loop|bare|decode IMAGE -- "
				"QEMU [ARGUMENT]...\n");
		return 2;
	}
	code = bench_vm_open_image(&vm, job.image, &error);
	if (code == 0)
		code = job.phase == PHASE_START ? measure_start(&job, &vm, &error)
						: measure_pages(&job, &vm, &tape, &error);
	bench_vm_close(&vm);
	bench_tape_finish(&tape);
	if (code < 0)
		fprintf(stderr, "bench-place: %s\n", error.message);
	return code < 0 ? 1 : 0;
}
