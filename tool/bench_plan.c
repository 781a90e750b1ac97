/* SPDX-License-Identifier: MIT */
#include "bench_plan.h"

#include "tool.h"

#include <string.h>

/* The same as in the demo and the benchmarks of the source tree. */
static const struct bench_storage known_storages[] = {
	{"disk", ""},
	{"slow", "100MB,100"},
	{"mid", "500MB,0,1ms"},
	{"net", "125MB,0,20ms"},
};

static const struct bench_storage *find_storage(
	const struct bench_storage *storages, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++) {
		if (strcmp(storages[i].name, name) == 0)
			return &storages[i];
	}
	return NULL;
}

static const struct bench_storage *find_known(const char *name)
{
	return find_storage(
		known_storages, sizeof(known_storages) / sizeof(known_storages[0]), name);
}

/* What may stand in a list and in a table. */
static bool is_name(const char *text)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789._-";

	return *text != '\0' && text[strspn(text, letters)] == '\0';
}

bool bench_storage_parse(const char *text, struct bench_storage *storage)
{
	const char *equals = strchr(text, '=');
	struct rouse_throttle throttle;

	if (equals == NULL || equals == text || equals - text >= (int)sizeof(storage->name))
		return false;
	(void)snprintf(storage->name, sizeof(storage->name), "%.*s", (int)(equals - text), text);
	return is_name(storage->name) && find_known(storage->name) == NULL &&
	       parse_throttle(equals + 1, &throttle) &&
	       snprintf(storage->throttle, sizeof(storage->throttle), "%s", equals + 1) <
		       (int)sizeof(storage->throttle);
}

/* The next word of a list, which goes on behind it; a long one is cut off. False at its end. */
static bool next_word(const char **list, char word[32])
{
	size_t length;

	if (*list == NULL)
		return false;
	length = strcspn(*list, ",");
	(void)snprintf(word, 32, "%.*s", length < 31 ? (int)length : 31, *list);
	*list = (*list)[length] == ',' ? *list + length + 1 : NULL;
	return true;
}

static bool add_storage(struct bench_plan *plan, const struct bench_storage *storage)
{
	if (find_storage(plan->storages, plan->storage_count, storage->name) != NULL)
		return true;
	if (plan->storage_count == BENCH_MAX_STORAGES)
		return false;
	plan->storages[plan->storage_count++] = *storage;
	return true;
}

bool bench_plan_storages(struct bench_plan *plan, const char *list, const struct bench_storage *own,
	unsigned int own_count, char wrong[32])
{
	if (list == NULL)
		list = known_storages[0].name;
	while (next_word(&list, wrong)) {
		const struct bench_storage *storage = find_storage(own, own_count, wrong);

		if (storage == NULL)
			storage = find_known(wrong);
		if (storage == NULL || !add_storage(plan, storage))
			return false;
	}
	for (unsigned int i = 0; i < own_count; i++) {
		(void)snprintf(wrong, 32, "%s", own[i].name);
		if (!add_storage(plan, &own[i]))
			return false;
	}
	return true;
}

static bool has_policy(const struct bench_plan *plan, const char *word)
{
	for (unsigned int i = 0; i < plan->policy_count; i++) {
		if (plan->policies[i] == word)
			return true;
	}
	return false;
}

static bool add_policy(struct bench_plan *plan, const char *word)
{
	if (has_policy(plan, word))
		return true;
	if (plan->policy_count == BENCH_MAX_POLICIES)
		return false;
	plan->policies[plan->policy_count++] = word;
	return true;
}

bool bench_plan_policies(struct bench_plan *plan, const char *list, char wrong[32])
{
	const struct option_value *each;

	for (each = policy_values; list == NULL && each->word != NULL; each++) {
		if (!add_policy(plan, each->word))
			return false;
	}
	while (next_word(&list, wrong)) {
		each = policy_values;
		while (each->word != NULL && strcmp(each->word, wrong) != 0)
			each++;
		if (each->word == NULL || !add_policy(plan, each->word))
			return false;
	}
	return true;
}

void bench_plan_leave_out(struct bench_plan *plan, const char *policy)
{
	unsigned int kept = 0;

	for (unsigned int i = 0; i < plan->policy_count; i++) {
		if (strcmp(plan->policies[i], policy) != 0)
			plan->policies[kept++] = plan->policies[i];
	}
	plan->policy_count = kept;
}

unsigned int bench_plan_ways(const struct bench_plan *plan)
{
	return plan->storage_count * plan->policy_count;
}

struct bench_way bench_plan_way(
	const struct bench_plan *plan, unsigned int round, unsigned int index)
{
	const unsigned int at = (index + round) % bench_plan_ways(plan);

	return (struct bench_way){.storage = &plan->storages[at / plan->policy_count],
		.policy = plan->policies[at % plan->policy_count]};
}
