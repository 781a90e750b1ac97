/* SPDX-License-Identifier: MIT */
#include "api/restore_policy.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/observer.h"
#include "engine/policy_choice.h"
#include "vmm/qemu_incoming.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROBE_READS 3
#define PROBE_BULK (1u << 20)
/* Of what is predicted without probing: on a disk that seeks it takes a tenth of that. */
#define PROBE_WORTH_US 500000u
/* A first read that took so long may have been unlucky; longer than that the medium is like that.
 */
#define DOUBTFUL_NS 2e6
#define CERTAIN_NS 10e6
/* What the medium gives. Above 0, both. */
struct medium {
	double bytes_per_s, random_read_ns;
};

static double at_least_one(double value)
{
	return value > 1 ? value : 1;
}

static double rate_of(uint64_t bytes, double ns)
{
	return at_least_one((double)bytes / at_least_one(ns) * 1e9);
}

/*
 * By what was read on opening. The less that was, the more of the latency is in its bandwidth; but
 * then the set is small too, and the policies that use it do not differ much.
 */
static void look_at_opening(const struct rouse_reader *reader, struct medium *medium)
{
	struct rouse_reader_opening opening;

	rouse_reader_get_opening(reader, &opening);
	medium->random_read_ns = at_least_one((double)opening.first_ns);
	medium->bytes_per_s = rate_of(opening.rest_bytes, (double)opening.rest_ns);
}

static double timed_read_ns(
	struct rouse_source *source, uint64_t offset, void *buffer, size_t size, int *code)
{
	const uint64_t begun_ns = rouse_clock_ns();

	if (*code == 0)
		*code = rouse_source_read(source, offset, buffer, size, ROUSE_READ_BULK);
	return (double)(rouse_clock_ns() - begun_ns);
}

static int by_value(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* One more random read costs less than taking a fast medium for one that seeks. */
static void look_again(const struct restore_policy_question *question, struct medium *medium)
{
	const uint64_t size = rouse_source_size(question->source);
	uint8_t buffer[ROUSE_IMAGE_PAGE_BYTES];
	int code = 0;
	double ns;

	if (medium->random_read_ns < DOUBTFUL_NS || medium->random_read_ns > CERTAIN_NS ||
		size < sizeof(buffer))
		return;
	/* Far from the front, behind which there may be a hole. */
	ns = timed_read_ns(
		question->source, (size - sizeof(buffer)) / 8 * 7, buffer, sizeof(buffer), &code);
	if (code == 0 && ns < medium->random_read_ns)
		medium->random_read_ns = at_least_one(ns);
}

/* Reads here and there among the chunks. False: the image is too small for it, or unreadable. */
static bool probe(const struct restore_policy_question *question, struct medium *medium)
{
	const struct rouse_disk_superblock *superblock = rouse_reader_superblock(question->reader);
	const uint64_t from = le64_get(superblock->front_bytes);
	const uint64_t size = rouse_source_size(question->source);
	cleanup_free uint8_t *buffer = malloc(PROBE_BULK);
	double ns[PROBE_READS], bulk_ns;
	int code = 0;

	if (buffer == NULL || size < from || size - from < (uint64_t)8 * PROBE_BULK)
		return false;
	for (size_t i = 0; i < PROBE_READS; i++)
		ns[i] = timed_read_ns(question->source,
			from + (size - from) / (PROBE_READS + 1) * (i + 1), buffer,
			ROUSE_IMAGE_PAGE_BYTES, &code);
	bulk_ns = timed_read_ns(
		question->source, from + (size - from) / 8, buffer, PROBE_BULK, &code);
	qsort(ns, PROBE_READS, sizeof(ns[0]), by_value);
	medium->random_read_ns = at_least_one(ns[PROBE_READS / 2]);
	medium->bytes_per_s = rate_of(PROBE_BULK, bulk_ns - medium->random_read_ns);
	return code == 0;
}

/* The image's own set: packed at its front. */
static void take_own_set(const struct rouse_image_wset *own, struct rouse_policy_facts *facts)
{
	facts->wset_pages = own->page_count;
	for (uint32_t i = 0; i < own->chunk_count; i++)
		facts->wset_bytes += own->chunks[i].stored_bytes;
	for (uint32_t i = 0; i < own->page_count; i++)
		rouse_policy_facts_touch(facts, i, own->pages[i].time_us);
}

/* A set that was given: its pages lie all over the image, a few in each chunk. */
static void take_given_set(
	const struct rouse_wset *set, uint32_t chunk_pages, struct rouse_policy_facts *facts)
{
	const double page_bytes = facts->stored_pages == 0 ? 0
							   : (double)facts->stored_bytes /
								     (double)facts->stored_pages;

	facts->wset_pages = set->page_count;
	facts->wset_bytes = (uint64_t)(page_bytes * set->page_count);
	facts->scattered_reads = set->page_count / (chunk_pages > 0 ? chunk_pages : 1) + 1;
	for (uint32_t i = 0; i < set->page_count; i++)
		rouse_policy_facts_touch(facts, i, set->pages[i].time_us);
}

static void gather(const struct restore_policy_question *question, const struct medium *medium,
	struct rouse_policy_facts *facts)
{
	const struct rouse_disk_superblock *superblock = rouse_reader_superblock(question->reader);

	*facts = (struct rouse_policy_facts){
		.stored_bytes = le64_get(superblock->stored_bytes),
		.stored_pages = le64_get(superblock->page_count) - le64_get(superblock->zero_pages),
		.bytes_per_s = medium->bytes_per_s,
		.random_read_ns = medium->random_read_ns,
	};
	if (question->set != NULL)
		take_given_set(question->set, le32_get(superblock->chunk_pages), facts);
	else
		take_own_set(rouse_reader_wset(question->reader), facts);
}

static bool has_set(const struct restore_policy_question *question)
{
	return question->set != NULL || rouse_reader_wset(question->reader)->page_count > 0;
}

static void explain(struct restore_policy_choice *choice, const struct medium *medium)
{
	(void)snprintf(choice->reason, sizeof(choice->reason),
		"predicted to be responsive soonest on a medium of %.0f MB/s and %.2f ms for a "
		"random read",
		medium->bytes_per_s / 1e6, medium->random_read_ns / 1e6);
}

/* What there is to know, and what follows from it. False: the image is too small to measure. */
static bool measure(const struct restore_policy_question *question, struct medium *medium,
	struct rouse_policy_facts *facts, struct rouse_policy_prediction *prediction)
{
	const bool packed = question->set == NULL && has_set(question);

	/* With a packed set the TTR may be 40 ms: too short for probing, and the front tells. */
	if (packed) {
		look_at_opening(question->reader, medium);
		look_again(question, medium);
	} else if (!probe(question, medium)) {
		return false;
	}
	gather(question, medium, facts);
	rouse_policy_predict(facts, prediction);
	/* A large set takes long anyway; and what was read first may have been near, or a burst. */
	if (packed && prediction->ttr_us[ROUSE_POLICY_WS] > PROBE_WORTH_US &&
		probe(question, medium)) {
		gather(question, medium, facts);
		rouse_policy_predict(facts, prediction);
	}
	return true;
}

/* A measured medium: opening may have been unlucky. */
static void note_medium(
	struct restore_policy_choice *choice, const struct rouse_policy_facts *facts)
{
	choice->late_is_cheap = rouse_policy_late_is_cheap(facts);
	if (choice->late_is_cheap)
		choice->slow_reads = false;
}

static void predict(
	const struct restore_policy_question *question, struct restore_policy_choice *choice)
{
	struct rouse_policy_prediction prediction;
	struct rouse_policy_facts facts;
	struct medium medium;

	if (!measure(question, &medium, &facts, &prediction)) {
		choice->policy = has_set(question) ? ROUSE_POLICY_WS : ROUSE_POLICY_LAZY;
		(void)snprintf(choice->reason, sizeof(choice->reason),
			"the image is too small to measure its medium");
		return;
	}
	choice->policy = prediction.best;
	note_medium(choice, &facts);
	memcpy(choice->predicted_us, prediction.ttr_us, sizeof(choice->predicted_us));
	explain(choice, &medium);
}

/* PACED that was asked for: it starts by what a late page costs. */
static void look_at_paced(
	const struct restore_policy_question *question, struct restore_policy_choice *choice)
{
	struct rouse_policy_prediction prediction;
	struct rouse_policy_facts facts;
	struct medium medium;

	if (has_set(question) && !question->options->resume &&
		measure(question, &medium, &facts, &prediction))
		note_medium(choice, &facts);
}

static void choose(
	const struct restore_policy_question *question, struct restore_policy_choice *choice)
{
	const struct rouse_restore_options *options = question->options;
	const bool watching = options->record != NULL || options->learn != NULL;
	struct rouse_error why;

	/* Better late than not at all; but what was asked to be recorded cannot be seen then. */
	if (options->qmp_socket == NULL && !watching && qemu_incoming_may_postcopy(&why) < 0) {
		rouse_log(question->observer, ROUSE_LOG_WARNING, "restoring eagerly: %s",
			why.message);
		choice->policy = ROUSE_POLICY_EAGER;
		(void)snprintf(choice->reason, sizeof(choice->reason),
			"userfaultfd is not permitted: nothing can be restored on demand");
	} else if (watching || options->resume) {
		choice->policy = has_set(question) ? ROUSE_POLICY_WS : ROUSE_POLICY_LAZY;
		(void)snprintf(choice->reason, sizeof(choice->reason), "%s",
			options->resume ? "a restore that is taken over has begun already"
					: "it shows all touches that are to be recorded");
	} else {
		predict(question, choice);
	}
}

/* A short read says nothing of the rate, but for a long one. */
static bool reads_are_slow(const struct rouse_reader *reader)
{
	struct rouse_reader_opening opening;
	struct medium medium;

	rouse_reader_get_opening(reader, &opening);
	look_at_opening(reader, &medium);
	return medium.random_read_ns >= ROUSE_POLICY_CHEAP_READ_NS ||
	       ((double)opening.rest_ns >= ROUSE_POLICY_CHEAP_READ_NS &&
		       medium.bytes_per_s <= ROUSE_POLICY_CHEAP_BYTES_PER_S);
}

void restore_policy_choose(
	const struct restore_policy_question *question, struct restore_policy_choice *choice)
{
	*choice = (struct restore_policy_choice){
		.policy = question->options->policy,
		.slow_reads = reads_are_slow(question->reader),
	};
	if (choice->policy == ROUSE_POLICY_AUTO)
		choose(question, choice);
	else if (choice->policy == ROUSE_POLICY_PACED)
		look_at_paced(question, choice);
}
