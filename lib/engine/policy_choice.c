/* SPDX-License-Identifier: MIT */
#include "engine/policy_choice.h"

#include "engine/paced_start.h"

/* Longer than any restore: keeps what hostile numbers give inside an integer. */
#define LONGEST_NS 1e15

#define TIE_US 2000u

static double later(double a, double b)
{
	return a > b ? a : b;
}

static double transfer_ns(uint64_t bytes, double bytes_per_s)
{
	return (double)bytes / bytes_per_s * 1e9;
}

static uint64_t to_us(double ns)
{
	return (uint64_t)((ns < LONGEST_NS ? ns : LONGEST_NS) / 1000.0);
}

/* How far apart the pages of the set arrive. */
static double wset_page_ns(const struct rouse_policy_facts *facts)
{
	const double read_ns = transfer_ns(facts->wset_bytes, facts->bytes_per_s) +
			       (double)facts->scattered_reads * facts->random_read_ns;

	return later(read_ns / (double)facts->wset_pages, ROUSE_POLICY_PLACE_NS);
}

void rouse_policy_facts_touch(struct rouse_policy_facts *facts, uint64_t k, uint32_t time_us)
{
	const double arrival = (double)(k + 1) * wset_page_ns(facts);
	const double slack = rouse_policy_late_is_cheap(facts) ? 0 : ROUSE_PACED_SLACK_NS;
	const double counted = later(0, time_us * 1000.0 * ROUSE_PACED_START_SHARE - slack);
	const double start = arrival - counted; /* once it is there, it is not late any more */

	facts->late_ns = later(facts->late_ns, start);
}

static double predict_eager(const struct rouse_policy_facts *facts)
{
	const double read_ns = transfer_ns(facts->stored_bytes, facts->bytes_per_s);

	return later(read_ns,
		ROUSE_POLICY_START_NS + (double)facts->stored_pages * ROUSE_POLICY_PLACE_NS);
}

/* Reading and the VMM's start go on at the same time, placing does not. */
static double predict_ws(const struct rouse_policy_facts *facts)
{
	const double count = (double)facts->wset_pages;

	return later(
		count * wset_page_ns(facts), ROUSE_POLICY_START_NS + count * ROUSE_POLICY_PLACE_NS);
}

bool rouse_policy_late_is_cheap(const struct rouse_policy_facts *facts)
{
	return facts->random_read_ns < ROUSE_POLICY_CHEAP_READ_NS &&
	       facts->bytes_per_s > ROUSE_POLICY_CHEAP_BYTES_PER_S;
}

static double predict_paced(const struct rouse_policy_facts *facts)
{
	const double first_ns = ROUSE_PACED_FIRST_PAGES * wset_page_ns(facts);

	if (rouse_policy_late_is_cheap(facts) && first_ns < facts->late_ns)
		return ROUSE_POLICY_START_NS + first_ns;
	return ROUSE_POLICY_START_NS + facts->late_ns;
}

static double predict_lazy(const struct rouse_policy_facts *facts)
{
	const double faults = (double)facts->stored_bytes / 1e6 * ROUSE_POLICY_FAULTS_PER_MB;

	return faults * (facts->random_read_ns + ROUSE_POLICY_FAULT_NS);
}

static enum rouse_policy find_best(const uint64_t *ttr_us)
{
	/* The simpler ones last: they win a tie. */
	static const enum rouse_policy order[] = {
		ROUSE_POLICY_PACED, ROUSE_POLICY_LAZY, ROUSE_POLICY_EAGER, ROUSE_POLICY_WS};
	enum rouse_policy best = ROUSE_POLICY_AUTO;

	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
		const uint64_t us = ttr_us[order[i]];
		uint64_t limit = best == ROUSE_POLICY_AUTO ? UINT64_MAX : ttr_us[best];

		if (order[i] == ROUSE_POLICY_WS && best == ROUSE_POLICY_PACED)
			limit += TIE_US;
		if (us > 0 && us <= limit)
			best = order[i];
	}
	return best;
}

void rouse_policy_predict(
	const struct rouse_policy_facts *facts, struct rouse_policy_prediction *prediction)
{
	uint64_t *us = prediction->ttr_us;

	*prediction = (struct rouse_policy_prediction){0};
	us[ROUSE_POLICY_EAGER] = to_us(predict_eager(facts));
	us[ROUSE_POLICY_LAZY] = to_us(ROUSE_POLICY_START_NS + predict_lazy(facts));
	if (facts->wset_pages > 0) {
		us[ROUSE_POLICY_WS] = to_us(predict_ws(facts));
		us[ROUSE_POLICY_PACED] = to_us(predict_paced(facts));
	}
	prediction->best = find_best(us);
}
