/* SPDX-License-Identifier: MIT */
/* Logs of stalls as curves: utilization over time, bounded mutator utilization, latencies. */
#include "page.h"

#include <stdlib.h>
#include <string.h>

#define CURVE_POINTS 400u
/* Below that a restore is over so soon that windows of 100 ms show nothing of it. */
#define SHORT_US 1000000u
#define SHORT_WINDOW_US 10000u
#define WINDOW_US 100000u
/* The least utilization is found to 1/2^12, finer than a pixel. */
#define HALVINGS 12

/* What a log's stalls are, sorted out. */
struct curve {
	struct rouse_stalls *stalls;
	uint64_t start_us; /* the first instruction: the end of the last stall that begins at 0 */
	uint64_t end_us;   /* of the last stall */
	double *faults_us; /* how long those after the start took; sorted */
	size_t fault_count;
};

static int compare_doubles(const void *a, const void *b)
{
	const double *p = a, *q = b;

	return (*p > *q) - (*p < *q);
}

static bool sort_out(struct curve *curve)
{
	uint64_t from, to;
	size_t count = 0;

	while (rouse_stalls_get_stall(curve->stalls, count, &from, &to) == 0) {
		if (from == 0 && to > curve->start_us)
			curve->start_us = to;
		if (to > curve->end_us)
			curve->end_us = to;
		count++;
	}
	curve->faults_us = calloc(count + 1, sizeof(*curve->faults_us));
	if (curve->faults_us == NULL)
		return false;
	for (size_t i = 0; rouse_stalls_get_stall(curve->stalls, i, &from, &to) == 0; i++) {
		if (from > 0)
			curve->faults_us[curve->fault_count++] = (double)(to - from);
	}
	qsort(curve->faults_us, curve->fault_count, sizeof(*curve->faults_us), compare_doubles);
	return true;
}

static json_t *point(double x, double y)
{
	return json_pack("[f, f]", x, y);
}

/* [[ms, utilization of the window that begins there], ...] from 0 to @end_us. */
static json_t *utilization(const struct curve *curve, uint64_t end_us, uint64_t window_us)
{
	json_t *list = json_array();

	for (unsigned int i = 0; i <= CURVE_POINTS; i++) {
		uint64_t at_us =
			end_us / CURVE_POINTS * i + end_us % CURVE_POINTS * i / CURVE_POINTS;

		(void)json_array_append_new(
			list, point((double)at_us / 1000,
				      rouse_stalls_utilization(curve->stalls, at_us, window_us)));
	}
	return list;
}

/* The greatest U that every window of @window_us or longer has, that begins at the start or later.
 */
static double least_utilization(const struct curve *curve, uint64_t window_us)
{
	double low = 0, high = 1;

	for (int i = 0; i < HALVINGS; i++) {
		struct rouse_ttr_point middle = {
			.utilization = (low + high) / 2, .window_us = window_us};

		if (rouse_stalls_ttr(curve->stalls, &middle) <= curve->start_us)
			low = middle.utilization;
		else
			high = middle.utilization;
	}
	return high >= 1 ? 1 : low;
}

/* [[window in ms, least utilization], ...] for windows of 1 ms to 10 s, six each decade. */
static json_t *bmu(const struct curve *curve)
{
	static const double steps[] = {1, 1.5, 2, 3, 5, 7};
	json_t *list = json_array();

	for (unsigned int decade = 1; decade <= 10000; decade *= 10) {
		for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
			const double window_ms = decade * steps[i];

			if (window_ms <= 10000)
				(void)json_array_append_new(list,
					point(window_ms, least_utilization(curve,
								 (uint64_t)(window_ms * 1000))));
		}
	}
	return list;
}

/* [[us, share of the faults that took at most so long], ...], at most 200 of them. */
static json_t *latency(const struct curve *curve)
{
	size_t count = curve->fault_count, points = count < 200 ? count : 200;
	json_t *list = json_array();

	for (size_t i = 1; i <= points; i++) {
		size_t rank = count * i / points; /* counts are below 2^27: no overflow */

		(void)json_array_append_new(
			list, point(curve->faults_us[rank - 1], (double)rank / (double)count));
	}
	return list;
}

static json_t *curve_json(const struct curve *curve, const char *name, uint64_t end_us)
{
	uint64_t window_us = end_us < SHORT_US ? SHORT_WINDOW_US : WINDOW_US;
	struct rouse_ttr_point ttr = {.utilization = 0.9, .window_us = WINDOW_US};

	return json_pack("{s:o, s:o, s:o, s:I, s:o, s:o, s:o, s:o}", "name", page_text(name),
		"start_ms", json_ms(curve->start_us), "ttr_ms",
		json_ms(rouse_stalls_ttr(curve->stalls, &ttr)), "faults",
		(json_int_t)curve->fault_count, "window_ms", json_ms(window_us), "utilization",
		utilization(curve, end_us, window_us), "bmu", bmu(curve), "latency",
		latency(curve));
}

static int load(const struct page_file *file, struct curve *curve)
{
	struct rouse_error error = {0};
	int code = rouse_stalls_load(file->path, &curve->stalls, &error);

	if (code < 0)
		return report_error(&error, code);
	if (sort_out(curve))
		return EXIT_SUCCESS;
	message(MESSAGE_ERROR, "%s: not enough memory", file->path);
	return EXIT_FAILURE;
}

int page_add_stalls(json_t *data, const struct page_file *files, size_t count)
{
	struct curve curves[PAGE_MAX_STALLS] = {0};
	uint64_t end_us = 1000;
	int exit_code = EXIT_SUCCESS;

	for (size_t i = 0; i < count && exit_code == EXIT_SUCCESS; i++) {
		exit_code = load(&files[i], &curves[i]);
		if (curves[i].end_us > end_us)
			end_us = curves[i].end_us;
	}
	/* What comes behind the last stall is part of the picture: all is well there. */
	end_us += end_us / 20;
	for (size_t i = 0; i < count; i++) {
		if (exit_code == EXIT_SUCCESS)
			(void)json_array_append_new(json_object_get(data, "stalls"),
				curve_json(&curves[i], files[i].name, end_us));
		free(curves[i].faults_us);
		rouse_stalls_free(curves[i].stalls);
	}
	return exit_code;
}
