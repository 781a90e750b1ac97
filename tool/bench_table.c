/* SPDX-License-Identifier: MIT */
#include "bench.h"

#include "spread.h"

#include <stdlib.h>
#include <string.h>

/* What the table says of one way. */
struct row {
	const char *storage, *policy;
	char chosen[48];
	struct spread start_ms, ttr_ms, faults, read_bytes;
};

static bool is_of(const json_t *run, const char *storage, const char *policy)
{
	return strcmp(json_string_value(json_object_get(run, "storage")), storage) == 0 &&
	       strcmp(json_string_value(json_object_get(run, "policy")), policy) == 0;
}

static struct spread spread_in(const json_t *runs, const struct row *row, const char *field)
{
	double *values = calloc(json_array_size(runs) + 1, sizeof(*values));
	struct spread spread = {0};
	size_t index, count = 0;
	json_t *run;

	if (values == NULL)
		return spread;
	json_array_foreach(runs, index, run)
	{
		if (is_of(run, row->storage, row->policy))
			values[count++] = json_number_value(json_object_get(run, field));
	}
	spread = spread_of(values, count);
	free(values);
	return spread;
}

/* Of auto: "ws", or "paced/ws" if it was not the same each time. */
static void add_choices(const json_t *runs, struct row *row)
{
	size_t index;
	json_t *run;

	json_array_foreach(runs, index, run)
	{
		const char *chosen = json_string_value(json_object_get(run, "chosen_policy"));
		const size_t used = strlen(row->chosen);

		if (chosen == NULL || strcmp(chosen, row->policy) == 0 ||
			!is_of(run, row->storage, row->policy) ||
			strstr(row->chosen, chosen) != NULL)
			continue;
		(void)snprintf(row->chosen + used, sizeof(row->chosen) - used, "%s%s",
			used > 0 ? "/" : "", chosen);
	}
}

/* The rows of one storage that there are runs for. */
static unsigned int make_rows(const json_t *runs, const struct bench_plan *plan,
	const struct bench_storage *storage, struct row rows[BENCH_MAX_POLICIES])
{
	unsigned int count = 0;

	for (unsigned int i = 0; i < plan->policy_count; i++) {
		struct row row = {.storage = storage->name, .policy = plan->policies[i]};

		row.ttr_ms = spread_in(runs, &row, "ttr_ms");
		if (row.ttr_ms.count == 0)
			continue;
		row.start_ms = spread_in(runs, &row, "start_ms");
		row.faults = spread_in(runs, &row, "faults");
		row.read_bytes = spread_in(runs, &row, "read_bytes");
		add_choices(runs, &row);
		rows[count++] = row;
	}
	return count;
}

static const struct row *best_of(const struct row *rows, unsigned int count)
{
	const struct row *best = rows;

	for (unsigned int i = 1; i < count; i++) {
		if (rows[i].ttr_ms.median < best->ttr_ms.median)
			best = &rows[i];
	}
	return best;
}

struct cell {
	char text[64];
};

static struct cell cell_of(const struct spread *spread)
{
	struct cell cell;

	if (spread->count > 1)
		(void)snprintf(cell.text, sizeof(cell.text), "%.0f ms (%.0f to %.0f)",
			spread->median, spread->least, spread->greatest);
	else
		(void)snprintf(cell.text, sizeof(cell.text), "%.0f ms", spread->median);
	return cell;
}

static void print_rows(FILE *file, const struct row *rows, unsigned int count)
{
	const double best_ms = best_of(rows, count)->ttr_ms.median;

	for (unsigned int i = 0; i < count; i++) {
		const struct row *row = &rows[i];

		fprintf(file, "%-10s %-16s %-10s %26s %26s %8.0f %11s ", row->storage, row->policy,
			row->chosen, cell_of(&row->start_ms).text, cell_of(&row->ttr_ms).text,
			row->faults.median, human_bytes((uint64_t)row->read_bytes.median).text);
		if (best_ms > 0)
			fprintf(file, "%8.2f\n", row->ttr_ms.median / best_ms);
		else
			fprintf(file, "%8s\n", "-");
	}
}

/* Whose rounds lie among those of the best is not told apart from it by them. */
static void print_best(FILE *file, const struct row *rows, unsigned int count)
{
	const struct row *best = best_of(rows, count);
	const char *before = "; not told apart from it by these rounds: ";

	fprintf(file, "%s: %s is responsive soonest, after %.0f ms", best->storage, best->policy,
		best->ttr_ms.median);
	for (unsigned int i = 0; i < count; i++) {
		if (&rows[i] == best || rows[i].ttr_ms.least > best->ttr_ms.greatest)
			continue;
		fprintf(file, "%s%s", before, rows[i].policy);
		before = ", ";
	}
	fprintf(file, "%s\n", best->ttr_ms.count < 2 ? " (one round: a hint, no more)" : "");
}

static void print_pairs(FILE *file, const json_t *report, const char *list)
{
	size_t index;
	json_t *each;

	json_array_foreach(json_object_get(report, list), index, each) fprintf(file, "%s: %s: %s\n",
		list, json_string_value(json_object_get(each, "name")),
		json_string_value(json_object_get(each, "reason")));
}

static void print_warm(FILE *file, const json_t *runs)
{
	size_t index, warm = 0;
	json_t *run;

	json_array_foreach(runs, index, run) warm +=
		json_integer_value(json_object_get(run, "cached_bytes")) > 0;
	if (warm > 0)
		fprintf(file,
			"NOT COLD: %zu of %zu restores began with some of the image in the page "
			"cache\n",
			warm, json_array_size(runs));
}

void bench_table_print(FILE *file, const json_t *report, const struct bench_plan *plan)
{
	const json_t *runs = json_object_get(report, "runs");

	if (json_array_size(runs) > 0)
		fprintf(file, "%-10s %-16s %-10s %26s %26s %8s %11s %8s\n", "storage", "policy",
			"chosen", "first instruction", "TTR(90 %, 100 ms)", "faults", "read",
			"of best");
	for (int sentences = 0; sentences < 2; sentences++) {
		for (unsigned int i = 0; i < plan->storage_count; i++) {
			struct row rows[BENCH_MAX_POLICIES];
			unsigned int count = make_rows(runs, plan, &plan->storages[i], rows);

			if (count == 0)
				continue;
			if (sentences == 0)
				print_rows(file, rows, count);
			else if (count > 1)
				print_best(file, rows, count);
		}
	}
	print_pairs(file, report, "skipped");
	print_pairs(file, report, "failed");
	print_warm(file, runs);
}
