/* SPDX-License-Identifier: MIT */
/*
 * rouse bench: restores of one image in several ways, in turns.
 *
 *	bench_plan.c      what is restored from where, how, in which order     (pure)
 *	bench_subject.c   the image: what it says, and whether it may be started
 *	bench_run.c       one restore: rouse restore as a child, and its end
 *	bench_process.c   processes and signals
 *	bench_qemu.c      the end of the QEMU that it started
 *	bench_orphans.c   and of what else is left of it
 *	bench_guard.c     and of everything, if the benchmark is killed
 *	bench_cold.c      the image out of the page cache
 *	bench_facts.c     the machine that the figures come from
 *	bench_report.c    all runs, as JSON for rouse report
 *	bench_table.c     and as a table for people
 */
#ifndef ROUSE_TOOL_BENCH_H
#define ROUSE_TOOL_BENCH_H

#include "bench_guard.h"
#include "bench_orphans.h"
#include "bench_plan.h"
#include "bench_process.h"
#include "bench_qemu.h"
#include "tool.h"

/** The image that is measured. */
struct bench_subject {
	json_t *metadata; /* NULL if there is none */
	uint64_t memory_bytes;
	bool has_set;
};

/** Finds out about an image. An exit code; what is wrong has been told. */
int bench_subject_look(struct bench_subject *subject, const char *path);
/**
 * Each restore is a start of the VM, and its end a power cut: refuses a VM with writable disks,
 * unless they are said to be no reason, and warns of what makes no sense. An exit code.
 */
int bench_subject_check(const struct bench_subject *subject, bool writable_disks);
void bench_subject_finish(struct bench_subject *subject);

/** How the restores of one benchmark are done. */
struct bench {
	const char *image;
	char *const *command; /* QEMU's, NULL-terminated; NULL: the image's own */
	unsigned int watch_s; /* a restore that takes longer has failed */
	struct bench_signals signals;
	struct bench_orphans orphans;
	struct bench_guard guard;
	char folder[96];   /* of the monitor's socket, this benchmark's own */
	char monitor[108]; /* in it */
};

enum bench_outcome { BENCH_MEASURED, BENCH_FAILED, BENCH_INTERRUPTED };

/** One restore. */
struct bench_run {
	struct bench_way way;
	unsigned int round; /* from 1 */
	enum bench_outcome outcome;
	json_t *report; /* what rouse restore --json printed; NULL unless measured */
	char reason[320];
	uint64_t cached_bytes; /* of the image, that could not be dropped from the page cache */
	struct bench_qemu_facts qemu;
};

/**
 * Makes the folder, takes signals, and becomes the one that orphans are left to: a QEMU outlives
 * the rouse restore that started it. An exit code; the failure has been told.
 */
int bench_open(struct bench *bench);
/** Removes what bench_open() made. */
void bench_close(struct bench *bench);

/** Restores once, from a cold page cache, and ends what was started. Free with bench_run_finish().
 */
void bench_restore(
	struct bench *bench, struct bench_way way, unsigned int round, struct bench_run *run);
void bench_run_finish(struct bench_run *run);

/** The machine, the disk that the image is on, and the plan's storages. The caller's. */
json_t *bench_facts(const char *image, const json_t *metadata, const struct bench_plan *plan);

/* ---- The report: rouse-bench(1) has its members ---------------------------------------------- */

/** @facts is taken over. NULL: no memory. */
json_t *bench_report_new(json_t *facts);
/** @name: of the runs' workload. */
void bench_report_add(
	json_t *report, const struct bench_run *run, const char *name, uint64_t memory_bytes);
/** Notes that something was not measured, and why. */
void bench_report_skip(json_t *report, const char *name, const char *reason);
/** Whether a report there takes the place of the one before: a pipe or a terminal gets all. */
bool bench_report_is_replaced(const char *path);
/** Puts a whole report in the place of the one before. 0 or -errno. */
int bench_report_write(const json_t *report, const char *path);

/** What there is of all policies from all storages: medians, and which is responsive soonest. */
void bench_table_print(FILE *file, const json_t *report, const struct bench_plan *plan);

#endif
