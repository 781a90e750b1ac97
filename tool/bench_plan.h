/* SPDX-License-Identifier: MIT */
/* What rouse bench restores, from where, how, and in which order. Pure. */
#ifndef ROUSE_TOOL_BENCH_PLAN_H
#define ROUSE_TOOL_BENCH_PLAN_H

#include <stdbool.h>

#define BENCH_MAX_STORAGES 16u
#define BENCH_MAX_POLICIES 32u
#define BENCH_MAX_ROUNDS 1000u

struct bench_storage {
	char name[32];
	char throttle[64]; /* for rouse restore --throttle; empty: the disk as it is */
};

/** One way to restore. */
struct bench_way {
	const struct bench_storage *storage; /* the plan's */
	const char *policy;                  /* a word of policy_values */
};

/** Zero-initialise it. */
struct bench_plan {
	struct bench_storage storages[BENCH_MAX_STORAGES];
	unsigned int storage_count;
	const char *policies[BENCH_MAX_POLICIES];
	unsigned int policy_count;
	unsigned int rounds;
};

/** NAME=RATE[,READS[,LATENCY]]. False: it is not, or NAME stands for another storage already. */
bool bench_storage_parse(const char *text, struct bench_storage *storage);

/**
 * Fills in the storages: those of @list, words with commas between them that are known or stand in
 * @own; then those of @own that it does not have. NULL: the disk as it is, and all of @own. False:
 * a word is neither, or there are too many; *wrong is the word then.
 */
bool bench_plan_storages(struct bench_plan *plan, const char *list, const struct bench_storage *own,
	unsigned int own_count, char wrong[32]);

/** Fills in the policies: those of @list, as above, or all if it is NULL. */
bool bench_plan_policies(struct bench_plan *plan, const char *list, char wrong[32]);
/** Takes a policy out. */
void bench_plan_leave_out(struct bench_plan *plan, const char *policy);

/** How many restores there are in a round. */
unsigned int bench_plan_ways(const struct bench_plan *plan);
/**
 * The @index-th of a round, both from 0. Each round has every way once and begins with another one:
 * none is always behind the same, and a machine that becomes slower is slower for all.
 */
struct bench_way bench_plan_way(
	const struct bench_plan *plan, unsigned int round, unsigned int index);

#endif
