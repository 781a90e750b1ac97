/* SPDX-License-Identifier: MIT */
#include "engine/pacer.h"

#include <math.h>
#include <rouse.h>

#define MB 1e6
/*
 * Slower than this the guest loses more by what it misses later than it wins by processors; a
 * gibibyte is there after three to four seconds. But a machine that can barely place that much
 * would be left to the background: there it gets a share of what the machine can do, while the
 * guest misses nothing. Either makes sure that a restore ends: the share, too, has a least, for
 * what is known of the speed may be wrong.
 */
#define LEAST_RATE (300 * MB)
#define LEAST_SHARE 0.5
#define LEAST_SHARED_RATE (16 * MB)
#define MISS_REMEMBERED_NS UINT64_C(1000000000)
#define MOST_RATE (4000 * MB) /* more than a socket carries: no limit */
#define PERIOD_NS UINT64_C(10000000)
/* In a longer one something stood still, QEMU or we: it says nothing of the machine. */
#define LEARN_MOST_NS 100e6
/* Share of the processors' time that they may wait: what TTR(90 %) allows. */
#define BUDGET 0.10
#define GROWTH 1.1
#define LEAST_CUT 0.5
#define RATE_USED 0.7 /* below it the source is what limits: the rate stays */
/* Placing takes this share of the time and the rate is not reached: this is what can be placed. */
#define PLACING_LIMITS 0.6
#define RATE_REACHED 0.95
/* What is known of the speed grows old: it is believed to double in ten seconds. */
#define SPEED_DOUBLES_NS 10e9
/* What a late sender may catch up on: little, since a burst is what the guest feels. */
#define AUTO_CREDIT_NS UINT64_C(2000000)
#define FIXED_CREDIT_NS UINT64_C(100000000)

static double least_rate(const struct rouse_pacer *pacer, uint64_t now_ns)
{
	const double share = LEAST_SHARE * pacer->speed;

	if (pacer->has_missed && now_ns - pacer->missed_ns < MISS_REMEMBERED_NS)
		return LEAST_RATE;
	if (share <= 0 || share > LEAST_RATE)
		return LEAST_RATE;
	return share > LEAST_SHARED_RATE ? share : LEAST_SHARED_RATE;
}

void rouse_pacer_init(struct rouse_pacer *pacer, uint64_t background, double speed, uint64_t now_ns)
{
	*pacer = (struct rouse_pacer){
		.limited = background != ROUSE_BACKGROUND_MAX,
		.adaptive = background == ROUSE_BACKGROUND_AUTO,
		.rate = (double)background,
		.speed = speed,
		.due_ns = now_ns,
	};
	/* While a guest catches up on its timers. */
	if (pacer->adaptive)
		pacer->rate = least_rate(pacer, now_ns);
}

bool rouse_pacer_wants_sample(const struct rouse_pacer *pacer, uint64_t now_ns)
{
	return pacer->adaptive && (!pacer->sampled || now_ns - pacer->sampled_ns >= PERIOD_NS);
}

/*
 * A sender that nobody holds back, and that is late, shows what the machine can place. Not where
 * placing took longer than the sample: a piece is told of after the sample that it has made due, so
 * that was of the time before.
 */
static bool shows_speed(const struct rouse_pacer *pacer, double elapsed_ns)
{
	const double used_ns = (double)pacer->bytes * 1e9 / pacer->rate;
	const double placing_ns = (double)pacer->placing_ns;

	return pacer->bytes > 0 && elapsed_ns <= LEARN_MOST_NS && placing_ns <= elapsed_ns &&
	       placing_ns >= PLACING_LIMITS * elapsed_ns && used_ns < RATE_REACHED * elapsed_ns;
}

static void learn_speed(struct rouse_pacer *pacer, double elapsed_ns)
{
	double reached;

	if (shows_speed(pacer, elapsed_ns)) {
		reached = (double)pacer->bytes * 1e9 / (double)pacer->placing_ns;
		pacer->speed = pacer->speed > 0 ? (pacer->speed + reached) / 2 : reached;
	} else if (pacer->speed > 0 && pacer->speed < MOST_RATE) {
		pacer->speed = fmin(pacer->speed * exp2(elapsed_ns / SPEED_DOUBLES_NS), MOST_RATE);
	}
}

static double adapted(
	const struct rouse_pacer *pacer, double elapsed_ns, double share, double least)
{
	const double used_ns = (double)pacer->bytes * 1e9 / pacer->rate;
	double rate = pacer->rate;

	if (share > BUDGET)
		rate *= BUDGET / share > LEAST_CUT ? BUDGET / share : LEAST_CUT;
	else if (used_ns >= RATE_USED * elapsed_ns)
		rate *= GROWTH;
	return rate < least ? least : rate > MOST_RATE ? MOST_RATE : rate;
}

void rouse_pacer_sample(
	struct rouse_pacer *pacer, uint64_t now_ns, uint64_t wait_ns, int processors)
{
	if (!pacer->adaptive)
		return;
	if (pacer->sampled && now_ns > pacer->sampled_ns) {
		double elapsed_ns = (double)(now_ns - pacer->sampled_ns);
		double waited_ns =
			wait_ns > pacer->wait_ns ? (double)(wait_ns - pacer->wait_ns) : 0;
		double least;

		learn_speed(pacer, elapsed_ns);
		least = least_rate(pacer, now_ns);
		pacer->rate = processors > 0 ? adapted(pacer, elapsed_ns,
						       waited_ns / (elapsed_ns * processors), least)
					     : least;
	}
	pacer->sampled = true;
	pacer->sampled_ns = now_ns;
	pacer->wait_ns = wait_ns;
	pacer->bytes = 0;
	pacer->placing_ns = 0;
}

void rouse_pacer_missed(struct rouse_pacer *pacer, uint64_t now_ns)
{
	pacer->has_missed = true;
	pacer->missed_ns = now_ns;
}

uint64_t rouse_pacer_placed(
	struct rouse_pacer *pacer, uint64_t now_ns, uint64_t bytes, uint64_t placing_ns)
{
	const uint64_t credit_ns = pacer->adaptive ? AUTO_CREDIT_NS : FIXED_CREDIT_NS;
	double step_ns;

	pacer->bytes += bytes;
	pacer->placing_ns += placing_ns;
	if (!pacer->limited)
		return 0;
	step_ns = (double)bytes * 1e9 / pacer->rate;
	/* A rate of a byte a second must not overflow. */
	pacer->due_ns += step_ns < 1e18 ? (uint64_t)step_ns : UINT64_C(1000000000000000000);
	if (pacer->due_ns + credit_ns < now_ns)
		pacer->due_ns = now_ns - credit_ns;
	return pacer->due_ns > now_ns ? pacer->due_ns : 0;
}
