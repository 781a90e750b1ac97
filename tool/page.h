/* SPDX-License-Identifier: MIT */
/*
 * The page of rouse report: what is put into it, and how it is written.
 *
 * The page is a template (report/ makes it) with one mark in it; the data stands in its place, as
 * JSON. The page's scripts trust its form, so all that comes from files is checked here:
 *
 *   {"title": text, "rouse": version,
 *    "sources":    [{"file", "kind": "restore"|"runs"|"estimators", "environment": {name: text},
 *                    "targets": [{"met", "text"}], "skipped": [{"name", "reason"}],
 *                    "failed": [{"name", "reason"}]}],
 *    "runs":       [{"workload", "storage", "policy", "ttr_ms", ...}],       page_input.c
 *    "estimators": [{"workload", "ram", "estimator", "recall", ...}],        page_input.c
 *    "stalls":     [{"name", "start_ms", "utilization", "bmu", "latency"}],  page_stalls.c
 *    "memory":     {"pages", "cell_pages", "totals", "cells"} or null}       page_memory.c
 *
 * All numbers are finite and those of times, bytes and counts are not negative. Functions return
 * an exit code and have said what is wrong.
 */
#ifndef ROUSE_TOOL_PAGE_H
#define ROUSE_TOOL_PAGE_H

#include "tool.h"

/* More would be no page to look at. */
#define PAGE_MAX_FILES 64u
#define PAGE_MAX_STALLS 16u
#define PAGE_MAX_RUNS 20000u
#define PAGE_MAX_FILE_BYTES ((size_t)16 << 20)
#define PAGE_MAX_TEXT 240u

/** What stands in the template once, in the place of the data. */
#define PAGE_MARK "@ROUSE_REPORT_DATA@"

/** FILE or NAME=FILE; a file that is there under the whole of it is taken as such. */
struct page_file {
	const char *path; /* points into the argument */
	char name[64];    /* what is before the "=", or the file's own name without its ending */
	bool named;
};

/** False: there is no path, or NAME is too long. */
bool page_file_parse(const char *argument, struct page_file *file);

/** A text from outside, which may not be UTF-8. */
json_t *page_text(const char *text);

/** The data of a page without anything in it. NULL: no memory. */
json_t *page_data_new(const char *title);

/** Adds a report of restore, of the demo or a benchmark, or of estimators: the file tells which. */
int page_add_report(json_t *data, const struct page_file *file);
/** The same from @size bytes of text. Pure: no I/O but messages. */
int page_add_report_text(json_t *data, const struct page_file *file, const char *text, size_t size);

/** Adds logs of stalls. They are shown over the same time. */
int page_add_stalls(json_t *data, const struct page_file *files, size_t count);

/** Adds the map of the memory. @wset: what was prefetched; @touched: what was touched; or NULL. */
int page_add_memory(json_t *data, const char *wset, const char *touched);

/** A buffer from malloc(3) with a whole file in it, and a 0 behind. NULL: that has been said. */
char *page_read_file(const char *path, size_t limit, size_t *size);

/**
 * The data as it may stand within <script>: JSON in ASCII, without <, > and &. malloc(3); NULL: no
 * memory.
 */
char *page_data_text(const json_t *data);

/** Writes the page to @out, which is complete or as it was before. @template NULL: the installed
 *  one. */
int page_write(const json_t *data, const char *template, const char *out);

#endif
