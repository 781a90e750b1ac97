/* SPDX-License-Identifier: MIT */
/* What a restore with --learn found out. */
#include "tool.h"

static json_t *share_json(double share)
{
	return share >= 0 ? json_real(share) : json_null();
}

json_t *learn_report_json(const struct rouse_learn_report *learn)
{
	const struct {
		const char *name;
		uint64_t value;
	} numbers[] = {
		{"runs", learn->runs},
		{"pages", learn->pages},
		{"waiting", learn->waiting},
		{"prefetched", learn->prefetched},
		{"left_out", learn->left_out},
		{"sampled", learn->sampled},
		{"used", learn->used},
		{"missed", learn->missed},
	};
	json_t *json;

	if (!learn->learned)
		return json_null();
	json = json_object();
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		(void)json_object_set_new(
			json, numbers[i].name, json_integer((json_int_t)numbers[i].value));
	(void)json_object_set_new(json, "hit_rate", share_json(learn->hit_rate));
	(void)json_object_set_new(json, "hit_low", json_real(learn->hit_low));
	(void)json_object_set_new(json, "hit_high", json_real(learn->hit_high));
	(void)json_object_set_new(json, "coverage", share_json(learn->coverage));
	(void)json_object_set_new(json, "stale", json_boolean(learn->stale));
	return json;
}

void learn_report_print(const struct rouse_learn_report *learn)
{
	if (!learn->learned)
		return;
	printf("learned from %u restore%s: %llu pages in the set (%s), %llu wait\n", learn->runs,
		learn->runs == 1 ? "" : "s", (unsigned long long)learn->pages,
		human_bytes(learn->pages * 4096).text, (unsigned long long)learn->waiting);
	if (learn->hit_rate >= 0)
		printf("of %llu pages of the set %.0f %% were used (%.0f to %.0f %%, by %llu of "
		       "%llu); it had %.0f %% of what was touched\n",
			(unsigned long long)learn->prefetched, learn->hit_rate * 100,
			learn->hit_low * 100, learn->hit_high * 100,
			(unsigned long long)learn->used, (unsigned long long)learn->sampled,
			learn->coverage * 100);
}
