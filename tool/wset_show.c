/* SPDX-License-Identifier: MIT */
#include "wset_show.h"

#define PAGE_BYTES 4096u
#define STEPS 4u /* of weight: 0 to 0.25, to 0.5, to 0.75, to 1 */

/* What the histories of the set's pages say, all together. */
struct summary {
	uint64_t by_weight[STEPS];
	uint64_t age_sum, oldest; /* restores since a page was last seen to be touched */
	double weight_sum;        /* pages that the next restore is expected to touch */
};

static struct summary sum_up(const struct rouse_wset *wset, const struct rouse_wset_info *info)
{
	struct summary summary = {.weight_sum = 0};
	struct rouse_wset_page_info page;

	for (uint64_t i = 0; i < info->pages && rouse_wset_get_entry(wset, i, &page) == 0; i++) {
		uint64_t age = info->runs - page.last;
		unsigned int step = (unsigned int)(page.weight * STEPS);

		summary.by_weight[step < STEPS ? step : STEPS - 1]++;
		summary.weight_sum += page.weight;
		summary.age_sum += age;
		if (age > summary.oldest)
			summary.oldest = age;
	}
	return summary;
}

static double per_page(double sum, uint64_t pages)
{
	return pages > 0 ? sum / (double)pages : 0;
}

static json_t *blocks_json(const struct rouse_wset *wset)
{
	json_t *list = json_array();
	struct rouse_block_info block;

	for (uint32_t i = 0; rouse_wset_get_block(wset, i, &block) == 0; i++)
		(void)json_array_append_new(
			list, json_pack("{s:s, s:I, s:I}", "name", block.name, "used_bytes",
				      (json_int_t)block.used_bytes, "first_page",
				      (json_int_t)block.first_page));
	return list;
}

static json_t *pages_json(const struct rouse_wset *wset)
{
	json_t *list = json_array();
	struct rouse_wset_page_info page;

	for (uint64_t i = 0; rouse_wset_get_entry(wset, i, &page) == 0; i++)
		(void)json_array_append_new(list,
			json_pack("{s:I, s:I, s:o, s:i, s:i, s:i, s:f, s:b}", "page",
				(json_int_t)page.page, "time_us", (json_int_t)page.time_us, "vcpu",
				page.vcpu >= 0 ? json_integer(page.vcpu) : json_null(), "count",
				(int)page.count, "looks", (int)page.looks, "last", (int)page.last,
				"weight", page.weight, "waiting", page.waiting));
	return list;
}

static json_t *look_json(const struct rouse_wset_info *info)
{
	if (info->sampled == 0)
		return json_null();
	return json_pack("{s:I, s:I, s:I, s:I, s:f}", "prefetched", (json_int_t)info->prefetched,
		"sampled", (json_int_t)info->sampled, "used", (json_int_t)info->used, "missed",
		(json_int_t)info->missed, "hit_rate", (double)info->used / (double)info->sampled);
}

int wset_show_json(const struct rouse_wset *wset, bool pages)
{
	struct rouse_wset_info info;
	struct summary summary;
	json_t *json, *weights = json_array();

	rouse_wset_get_info(wset, &info);
	summary = sum_up(wset, &info);
	for (unsigned int i = 0; i < STEPS; i++)
		(void)json_array_append_new(
			weights, json_integer((json_int_t)summary.by_weight[i]));
	json = json_pack("{s:s, s:i, s:I, s:I, s:o, s:I, s:I, s:b, s:f, s:o, s:f, s:I}", "type",
		"working-set", "version", (int)info.version, "pages", (json_int_t)info.pages,
		"bytes", (json_int_t)info.pages * PAGE_BYTES, "span_ms", json_ms(info.span_us),
		"runs", (json_int_t)info.runs, "waiting", (json_int_t)info.waiting, "complete",
		info.complete, "weight", per_page(summary.weight_sum, info.pages),
		"pages_by_weight", weights, "age", per_page((double)summary.age_sum, info.pages),
		"oldest", (json_int_t)summary.oldest);
	(void)json_object_set_new(json, "look", look_json(&info));
	(void)json_object_set_new(json, "ram_bytes", json_integer((json_int_t)info.ram_bytes));
	(void)json_object_set_new(json, "blocks", blocks_json(wset));
	if (pages)
		(void)json_object_set_new(json, "page_list", pages_json(wset));
	return print_json(json);
}

static void print_learned(const struct rouse_wset *wset, const struct rouse_wset_info *info)
{
	const struct summary summary = sum_up(wset, info);

	printf("%-14s%u restores; %llu more pages wait for another touch\n", "learned from",
		info->runs, (unsigned long long)info->waiting);
	printf("%-14s%.2f on average; %llu pages up to 0.25, %llu to 0.5, %llu to 0.75, %llu "
	       "above\n",
		"likelihood", per_page(summary.weight_sum, info->pages),
		(unsigned long long)summary.by_weight[0], (unsigned long long)summary.by_weight[1],
		(unsigned long long)summary.by_weight[2], (unsigned long long)summary.by_weight[3]);
	printf("%-14slast seen in use %.1f restores ago on average, %llu at most\n", "age",
		per_page((double)summary.age_sum, info->pages), (unsigned long long)summary.oldest);
	if (info->sampled > 0)
		printf("%-14sof %llu pages %llu were looked at and %llu in use (%.0f %%); %llu "
		       "others were touched\n",
			"latest", (unsigned long long)info->prefetched,
			(unsigned long long)info->sampled, (unsigned long long)info->used,
			100 * (double)info->used / (double)info->sampled,
			(unsigned long long)info->missed);
}

static void print_pages(const struct rouse_wset *wset)
{
	struct rouse_wset_page_info page;

	printf("page time_us vcpu count looks last weight\n");
	for (uint64_t i = 0; rouse_wset_get_entry(wset, i, &page) == 0; i++) {
		printf("%llu %llu ", (unsigned long long)page.page,
			(unsigned long long)page.time_us);
		if (page.vcpu >= 0)
			printf("%d", page.vcpu);
		else
			printf("-");
		printf(" %u %u %u %.2f%s\n", page.count, page.looks, page.last, page.weight,
			page.waiting ? " waits" : "");
	}
}

int wset_show_print(const struct rouse_wset *wset, bool pages)
{
	struct rouse_wset_info info;
	struct rouse_block_info block;

	rouse_wset_get_info(wset, &info);
	printf("%-14sRouse working set, format %u%s\n", "type", info.version,
		info.complete ? "" : ", incomplete: touches of some pages may be missing");
	printf("%-14s%llu, %s; the last one touched %s after the start\n", "pages",
		(unsigned long long)info.pages, human_bytes(info.pages * PAGE_BYTES).text,
		human_us((double)info.span_us).text);
	if (info.version > 1)
		print_learned(wset, &info);
	for (uint32_t i = 0; rouse_wset_get_block(wset, i, &block) == 0; i++)
		printf("%-14s%s, %s\n", i == 0 ? "blocks" : "", block.name,
			human_bytes(block.used_bytes).text);
	if (pages)
		print_pages(wset);
	return EXIT_SUCCESS;
}
