/* SPDX-License-Identifier: MIT */
#include "engine/fault_service.h"

#include "base/clock.h"
#include "engine/fault_ahead.h"
#include "engine/feeder.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* Decompressed chunks that are kept: faults come in neighbourhoods. */
#define CACHE_CHUNKS 32u
/* A guest waits: before everything else on the machine that is not as urgent, where allowed. */
#define FAULT_NICE (-15) /* where realtime scheduling is not */
/*
 * A read that takes so long was a seek, or went to another machine. As much again, before the
 * answer and after it, brings a quarter of a mebibyte along even at 1 Gbit/s, and saves further
 * such reads.
 */
#define SLOW_READ_NS UINT64_C(2000000)
#define SLOW_UNTIL_SEEN_NS (2 * SLOW_READ_NS) /* what one is taken for before the first */
#define NO_MEMORY_NAP_NS 10000000
#define TOUCH_BYTES ((size_t)2 << 20)
#define READ_WEIGHT 4u /* of the average: the last read counts so many-th */
/*
 * Where reads are expected to be slow, what the slowest one took is forgotten by an eighth with
 * each: storage that sells so many reads a second takes one in a few at once. So it takes six quick
 * ones to show that they are quick.
 */
#define READ_FORGOTTEN 8u
/* What reading a byte that nobody asked for takes, at 1 Gbit/s: no part of a random read. */
#define EXTRA_BYTE_NS 8u

struct chunk_cache {
	uint8_t *data; /* CACHE_CHUNKS chunks */
	size_t chunk_bytes;
	uint64_t number[CACHE_CHUNKS]; /* UINT64_MAX: empty */
	uint64_t used[CACHE_CHUNKS];   /* the fault that used it last */
	uint16_t pages[CACHE_CHUNKS];
};

struct fault_log {
	struct rouse_fault *faults;
	uint64_t room;
	atomic_uint_fast64_t count;
};

struct rouse_fault_service {
	struct rouse_reader *reader;
	struct rouse_source *source;
	struct rouse_sink *sink;
	bool around;
	struct stage_clock *stages;
	pthread_t thread;
	bool joined;
	atomic_bool ending;
	atomic_bool slow_expected; /* see rouse_fault_service_expect_slow_reads() */

	/* Of the thread. */
	struct chunk_cache cache;
	struct fault_span span;
	struct fault_pattern pattern;
	uint64_t read_ns; /* what a read took lately: note_read() */

	struct fault_log served, overtaken;
	atomic_uint_fast64_t stored_count, around_count, ahead_count;
	atomic_uint_fast64_t read_locator; /* see rouse_fault_service_take_read() */

	pthread_mutex_t lock;
	pthread_cond_t ended_cond;
	int code;
	uint64_t damaged;
};

static uint8_t *cache_slot(struct chunk_cache *cache, size_t i)
{
	return cache->data + i * cache->chunk_bytes;
}

/* The slot of a chunk, or the one to replace with *hit false. */
static size_t cache_find(const struct chunk_cache *cache, uint64_t number, bool *hit)
{
	size_t oldest = 0;

	for (size_t i = 0; i < CACHE_CHUNKS; i++) {
		if (cache->number[i] == number) {
			*hit = true;
			return i;
		}
		if (cache->used[i] < cache->used[oldest])
			oldest = i;
	}
	*hit = false;
	return oldest;
}

/* What a read takes; 0: nobody knows. */
static uint64_t known_read_ns(const struct rouse_fault_service *s)
{
	if (s->read_ns == 0 && atomic_load_explicit(&s->slow_expected, memory_order_relaxed))
		return SLOW_UNTIL_SEEN_NS;
	return s->read_ns;
}

/* Whether reads for faults take so long that bringing neighbours along costs little. */
static bool reads_are_slow(const struct rouse_fault_service *s)
{
	return s->around && known_read_ns(s) > SLOW_READ_NS;
}

/* A read took @ns, which brought @extra bytes along. */
static void note_read(struct rouse_fault_service *s, uint64_t ns, uint64_t extra)
{
	const uint64_t known_ns = known_read_ns(s), kept_ns = known_ns - known_ns / READ_FORGOTTEN;
	const uint64_t extra_ns = extra * EXTRA_BYTE_NS;

	ns -= extra_ns < ns ? extra_ns : ns;
	if (atomic_load_explicit(&s->slow_expected, memory_order_relaxed))
		s->read_ns = ns > kept_ns ? ns : kept_ns;
	else if (known_ns == 0)
		s->read_ns = ns;
	else
		s->read_ns = known_ns - known_ns / READ_WEIGHT + ns / READ_WEIGHT;
}

/*
 * Only up to the first @front pages of it: the guest waits for the last of these. Decompressing
 * begins anew for the rest (complete_chunk()), so not where little is left; nor where a fault
 * brings nothing along: there one follows the other, and waits for what this thread still does.
 */
static int load_chunk(struct rouse_fault_service *s, uint64_t number, uint32_t front, size_t slot,
	uint64_t asked_ns)
{
	uint64_t begun_ns;
	uint32_t decoded, pages;
	int code = fault_span_choose(&s->span, number, reads_are_slow(s));

	s->cache.number[slot] = UINT64_MAX;
	if (code < 0)
		return code;
	pages = fault_span_chunk(&s->span, number)->pages;
	if (front <= pages && (!s->around || front > pages / 4 * 3))
		front = pages;
	/* Before the read: whoever follows it must not begin another one elsewhere. */
	atomic_store_explicit(&s->read_locator, fault_span_end(&s->span), memory_order_relaxed);
	begun_ns = rouse_clock_ns();
	stage_clock_add(s->stages, ROUSE_STAGE_WAIT_FAULT, begun_ns - asked_ns, 1);
	code = fault_span_read(&s->span, s->source);
	if (code == 0)
		code = fault_span_decode_front(
			&s->span, number, front, cache_slot(&s->cache, slot), &decoded);
	if (code == 0) {
		s->cache.number[slot] = number;
		s->cache.pages[slot] = (uint16_t)decoded;
	}
	note_read(s, rouse_clock_ns() - begun_ns, fault_span_extra_bytes(&s->span, number));
	return code;
}

/* The rest of a chunk that was just loaded, when nobody waits any more. */
static int complete_chunk(struct rouse_fault_service *s, uint64_t number, size_t slot)
{
	const uint16_t pages = fault_span_chunk(&s->span, number)->pages;
	int code;

	if (s->cache.pages[slot] == pages)
		return 0;
	code = fault_span_decode_behind(
		&s->span, number, cache_slot(&s->cache, slot), s->cache.pages[slot]);
	if (code == 0)
		s->cache.pages[slot] = pages;
	else
		s->cache.number[slot] = UINT64_MAX;
	return code;
}

/* A page of the chunk in @slot; NULL: the chunk has no such page. */
static const void *cached_page(const struct chunk_cache *cache, size_t slot, uint64_t locator)
{
	if (rouse_locator_slot(locator) >= cache->pages[slot])
		return NULL;
	return cache->data + slot * cache->chunk_bytes +
	       (size_t)rouse_locator_slot(locator) * ROUSE_IMAGE_PAGE_BYTES;
}

/* A fault, and what was found for it. */
struct answer {
	struct rouse_sink_page page; /* content NULL: zeros */
	struct rouse_sink_asker asker;
	uint64_t chunk;
	size_t slot; /* of the cache */
	bool read;   /* the chunk was read for it */
};

static int find_content(struct rouse_fault_service *s, struct answer *answer)
{
	uint64_t locator;
	bool hit;
	int code;

	s->damaged = ROUSE_FEEDER_NO_CHUNK;
	code = rouse_reader_locate(s->reader, answer->page.page, ROUSE_READ_URGENT, &locator);
	if (code < 0 || locator == ROUSE_LOCATOR_ZERO)
		return code;
	answer->chunk = rouse_locator_chunk(locator);
	s->damaged = answer->chunk;
	answer->slot = cache_find(&s->cache, answer->chunk, &hit);
	if (!hit) {
		code = load_chunk(s, answer->chunk, rouse_locator_slot(locator) + 1u, answer->slot,
			answer->asker.asked_ns);
		if (code < 0)
			return code;
		answer->read = true;
	}
	s->cache.used[answer->slot] =
		atomic_load_explicit(&s->served.count, memory_order_relaxed) + 1;
	answer->page.data = cached_page(&s->cache, answer->slot, locator);
	return answer->page.data != NULL ? 0 : -EUCLEAN;
}

static int place_zeros_around(struct rouse_fault_service *s, const struct answer *answer)
{
	size_t placed;
	int code = fault_ahead_place_zeros(&s->span, s->sink, answer->page.page, &placed);

	atomic_fetch_add_explicit(&s->around_count, placed, memory_order_relaxed);
	return code;
}

static int place_around(struct rouse_fault_service *s, const struct answer *answer)
{
	size_t placed;
	int code = fault_span_place_around(&s->span, s->sink, answer->page.page, answer->chunk,
		cache_slot(&s->cache, answer->slot), &placed);

	atomic_fetch_add_explicit(&s->around_count, placed, memory_order_relaxed);
	atomic_fetch_add_explicit(&s->stored_count, placed, memory_order_relaxed);
	return code;
}

/* How many pages behind its own came with a fault, at most, and how many in front. */
static struct fault_reach reach_of(const struct rouse_fault_service *s, const struct answer *answer)
{
	const uint64_t behind = answer->read ? fault_span_last(&s->span) - answer->chunk : 0;
	const uint64_t front = answer->read ? answer->chunk - s->span.first : 0;

	return (struct fault_reach){
		.behind = (uint32_t)(behind + 1) * (FAULT_AROUND_PAGES + 1) - 1,
		.front = (uint32_t)(front + 1) * (FAULT_AROUND_PAGES + 1) - 1,
	};
}

static int place_ahead(struct rouse_fault_service *s, const struct answer *answer)
{
	const uint64_t page = answer->page.page;
	struct fault_extra extra;
	int code = fault_ahead_place(&s->span, s->source, s->sink, page,
		fault_pattern_note(&s->pattern, page, reach_of(s, answer)), &extra);

	atomic_fetch_add_explicit(
		&s->ahead_count, extra.stored + extra.zeros, memory_order_relaxed);
	if (extra.stored == 0)
		return code;
	atomic_store_explicit(&s->read_locator, fault_span_end(&s->span), memory_order_relaxed);
	atomic_fetch_add_explicit(&s->stored_count, extra.stored, memory_order_relaxed);
	return code;
}

static void log_fault(struct fault_log *log, const struct answer *answer, uint64_t placed_ns)
{
	uint64_t i = atomic_load_explicit(&log->count, memory_order_relaxed);
	uint64_t service_ns = placed_ns - answer->asker.asked_ns;

	if (i >= log->room)
		return;
	log->faults[i] = (struct rouse_fault){
		.asked_ns = answer->asker.asked_ns,
		.page = (uint32_t)answer->page.page,
		.service_ns = service_ns < UINT32_MAX ? (uint32_t)service_ns : UINT32_MAX,
		.thread = answer->asker.thread,
		.of_vmm = answer->asker.of_vmm,
	};
	atomic_store_explicit(&log->count, i + 1, memory_order_release);
}

static void note_fault(struct rouse_fault_service *s, const struct answer *answer, bool overtaken,
	uint64_t placed_ns)
{
	if (!overtaken && answer->page.data != NULL)
		atomic_fetch_add_explicit(&s->stored_count, 1, memory_order_relaxed);
	log_fault(overtaken ? &s->overtaken : &s->served, answer, placed_ns);
}

/*
 * Finds the page and places it. Without memory for it the guest waits, as it would for memory of
 * its own, until there is some or the restore ends.
 */
static int answer_fault(
	struct rouse_fault_service *s, struct answer *answer, uint64_t *begun_ns, size_t *placed)
{
	const struct timespec nap = {.tv_nsec = NO_MEMORY_NAP_NS};

	for (;;) {
		int code = find_content(s, answer);

		*begun_ns = rouse_clock_ns();
		if (code == 0)
			code = s->sink->ops->place(
				s->sink, &answer->page, 1, ROUSE_SINK_URGENT, placed);
		if (code != -ENOMEM)
			return code;
		if (atomic_load(&s->ending))
			return -ECANCELED;
		(void)nanosleep(&nap, NULL);
	}
}

/* What was read in front of it and with it first: reading what is behind takes a while. */
static int place_what_was_read(struct rouse_fault_service *s, const struct answer *answer)
{
	const uint32_t read = s->span.count;
	int code = place_around(s, answer);

	if (code == 0 && !atomic_load(&s->ending) &&
		fault_span_read_behind(&s->span, s->source) == 0 && s->span.count > read)
		code = place_around(s, answer);
	return code;
}

/* What comes with a fault's page. Nobody has asked for it: without memory it does not come. */
static int place_extras(struct rouse_fault_service *s, const struct answer *answer)
{
	int code = 0;

	if (answer->read)
		code = place_what_was_read(s, answer);
	if (code == 0 && answer->page.data == NULL)
		code = place_zeros_around(s, answer);
	if (code == 0)
		code = place_ahead(s, answer);
	return code == -ENOMEM ? 0 : code;
}

/* *asked: whether a request was there; a failure is our own then, not the sink's end. */
static int serve_one(struct rouse_fault_service *s, bool *asked)
{
	struct rouse_sink *sink = s->sink;
	struct answer answer = {0};
	uint64_t begun_ns, placed_ns;
	size_t placed = 0;
	int code = sink->ops->wait_fault(sink, &answer.page.page);

	*asked = code == 0;
	if (code < 0)
		return code;
	answer.asker.asked_ns = rouse_clock_ns();
	if (sink->ops->asker != NULL)
		sink->ops->asker(sink, &answer.asker);
	/* The request and the page have crossed: it is on its way already. */
	if (sink->ops->is_placed(sink, answer.page.page))
		return 0;
	code = answer_fault(s, &answer, &begun_ns, &placed);
	if (code < 0)
		return code;
	placed_ns = rouse_clock_ns();
	stage_clock_add(s->stages, ROUSE_STAGE_PLACE_DEMAND, placed_ns - begun_ns, 1);
	note_fault(s, &answer, placed == 0, placed_ns);
	if (answer.read)
		code = complete_chunk(s, answer.chunk, answer.slot);
	return code == 0 && s->around ? place_extras(s, &answer) : code;
}

/*
 * Nobody answers any more: whoever waits for the sink, a start above all, must hear of it. The sink
 * learns it from a wait_fault() that fails.
 */
static void end_sink(struct rouse_sink *sink)
{
	uint64_t ignored;

	sink->ops->interrupt(sink);
	while (sink->ops->wait_fault(sink, &ignored) == 0)
		;
}

/*
 * Realtime at its lowest: a nice value alone lets the guest's own processors and the background
 * interrupt an answer, which was four times as long then in its 99th percentile
 * (docs/performance.md, "The service of a fault"). The thread runs while there are requests, and so
 * much of a processor is the guest's own wait; the kernel leaves others their twentieth
 * (sched_rt_runtime_us). A limit on realtime without a pause (RLIMIT_RTTIME) would end the process
 * in a long burst of faults.
 */
static void take_priority(void)
{
	const struct sched_param lowest = {.sched_priority = sched_get_priority_min(SCHED_RR)};
	struct rlimit rttime;

	if (getrlimit(RLIMIT_RTTIME, &rttime) < 0 || rttime.rlim_cur != RLIM_INFINITY ||
		pthread_setschedparam(pthread_self(), SCHED_RR, &lowest) != 0)
		(void)setpriority(PRIO_PROCESS, (id_t)gettid(), FAULT_NICE);
}

/*
 * So that no fault waits for the kernel to find memory for the chunk that is decompressed for it.
 * Not for all that large chunks may need: the slots of the cache are used from the first one on.
 */
static void touch_buffers(struct rouse_fault_service *s)
{
	const size_t all = CACHE_CHUNKS * s->cache.chunk_bytes;

	memset(s->cache.data, 0, all < TOUCH_BYTES ? all : TOUCH_BYTES);
	if (s->cache.chunk_bytes < TOUCH_BYTES)
		fault_span_touch(&s->span);
}

static void *fault_main(void *argument)
{
	struct rouse_fault_service *s = argument;
	bool asked = false;
	int code = 0;

	touch_buffers(s);
	take_priority();
	while (code == 0)
		code = serve_one(s, &asked);
	/* First why, then that it is over: who finds the sink ended asks us for the reason. */
	pthread_mutex_lock(&s->lock);
	s->code = code;
	pthread_cond_broadcast(&s->ended_cond);
	pthread_mutex_unlock(&s->lock);
	if (asked)
		end_sink(s->sink);
	return NULL;
}

static void log_finish(struct fault_log *log)
{
	if (log->faults != NULL)
		(void)munmap(log->faults, log->room * sizeof(*log->faults));
}

/* This is reserved, and costs memory only for faults that happen. */
static int log_init(struct fault_log *log, uint64_t room)
{
	void *faults = mmap(NULL, room * sizeof(*log->faults), PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (faults == MAP_FAILED)
		return -ENOMEM;
	log->faults = faults;
	log->room = room;
	return 0;
}

static void service_free(struct rouse_fault_service *s)
{
	log_finish(&s->served);
	log_finish(&s->overtaken);
	free(s->cache.data);
	fault_span_finish(&s->span);
	(void)pthread_cond_destroy(&s->ended_cond);
	(void)pthread_mutex_destroy(&s->lock);
	free(s);
}

static int service_allocate(struct rouse_fault_service *s)
{
	const struct rouse_disk_superblock *superblock = rouse_reader_superblock(s->reader);
	/* A page faults once. */
	const uint64_t room = rouse_reader_page_count(s->reader) + 1;

	s->cache.chunk_bytes = (size_t)le32_get(superblock->chunk_pages) * ROUSE_IMAGE_PAGE_BYTES;
	s->cache.data = malloc(CACHE_CHUNKS * s->cache.chunk_bytes);
	for (size_t i = 0; i < CACHE_CHUNKS; i++)
		s->cache.number[i] = UINT64_MAX;
	if (s->cache.data == NULL || log_init(&s->served, room) < 0 ||
		log_init(&s->overtaken, room) < 0)
		return -ENOMEM;
	return fault_span_init(&s->span, s->reader, s->stages);
}

int rouse_fault_service_start(struct rouse_reader *reader, struct rouse_source *source,
	struct rouse_sink *sink, bool around, struct stage_clock *stages,
	struct rouse_fault_service **service)
{
	struct rouse_fault_service *s = calloc(1, sizeof(*s));
	pthread_condattr_t monotonic;
	int code;

	if (s == NULL)
		return -ENOMEM;
	s->reader = reader;
	s->source = source;
	s->sink = sink;
	s->around = around;
	s->stages = stages;
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_condattr_init(&monotonic);
	(void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&s->ended_cond, &monotonic);
	(void)pthread_condattr_destroy(&monotonic);
	code = service_allocate(s);
	if (code == 0)
		code = -pthread_create(&s->thread, NULL, fault_main, s);
	if (code < 0) {
		service_free(s);
		return code;
	}
	*service = s;
	return 0;
}

void rouse_fault_service_expect_slow_reads(struct rouse_fault_service *s)
{
	atomic_store_explicit(&s->slow_expected, true, memory_order_relaxed);
}

int rouse_fault_service_wait(struct rouse_fault_service *s, int timeout_ms, uint64_t *damaged)
{
	const struct timespec deadline = rouse_clock_in_ms(timeout_ms > 0 ? timeout_ms : 0);
	int waited = 0, code;

	pthread_mutex_lock(&s->lock);
	while (s->code == 0 && waited == 0 && timeout_ms != 0)
		waited = timeout_ms < 0
				 ? pthread_cond_wait(&s->ended_cond, &s->lock)
				 : pthread_cond_timedwait(&s->ended_cond, &s->lock, &deadline);
	code = s->code;
	if (code == -EUCLEAN && damaged != NULL)
		*damaged = s->damaged;
	pthread_mutex_unlock(&s->lock);
	return code;
}

uint64_t rouse_fault_service_count(const struct rouse_fault_service *s)
{
	return atomic_load_explicit(&s->served.count, memory_order_acquire);
}

uint64_t rouse_fault_service_stored_count(const struct rouse_fault_service *s)
{
	return atomic_load_explicit(&s->stored_count, memory_order_relaxed);
}

uint64_t rouse_fault_service_around_count(const struct rouse_fault_service *s)
{
	return atomic_load_explicit(&s->around_count, memory_order_relaxed);
}

uint64_t rouse_fault_service_ahead_count(const struct rouse_fault_service *s)
{
	return atomic_load_explicit(&s->ahead_count, memory_order_relaxed);
}

uint64_t rouse_fault_service_take_read(struct rouse_fault_service *s)
{
	return atomic_exchange_explicit(&s->read_locator, 0, memory_order_relaxed);
}

const struct rouse_fault *rouse_fault_service_log(const struct rouse_fault_service *s)
{
	return s->served.faults;
}

uint64_t rouse_fault_service_overtaken(
	const struct rouse_fault_service *s, const struct rouse_fault **log)
{
	*log = s->overtaken.faults;
	return atomic_load_explicit(&s->overtaken.count, memory_order_acquire);
}

void rouse_fault_service_end(struct rouse_fault_service *s)
{
	if (s->joined)
		return;
	atomic_store(&s->ending, true);
	s->sink->ops->interrupt(s->sink);
	(void)pthread_join(s->thread, NULL);
	s->joined = true;
}

void rouse_fault_service_stop(struct rouse_fault_service *s)
{
	if (s == NULL)
		return;
	rouse_fault_service_end(s);
	service_free(s);
}
