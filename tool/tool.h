/* SPDX-License-Identifier: MIT */
/* What the subcommands share: messages, exit codes, watching and cancelling a job, reports. */
#ifndef ROUSE_TOOL_TOOL_H
#define ROUSE_TOOL_TOOL_H

#include "options.h"

#include <rouse.h>

#include <jansson.h>
#include <stdio.h>

/* Exit codes, as rouse(1) documents them. 0 and 1 are EXIT_SUCCESS and EXIT_FAILURE. */
enum {
	EXIT_USAGE = 2,
	EXIT_FILE = 3,    /* damaged, of a newer format, or of another VM */
	EXIT_REFUSED = 4, /* by this machine, the user's rights or the VM's state */
	EXIT_VMM = 5,     /* it died, or answered with an error */
	EXIT_CANCELLED = 130,
};

extern const struct command command_save, command_restore, command_inspect, command_verify,
	command_pack, command_convert, command_wset, command_cat, command_ttr, command_scan,
	command_trace, command_bench, command_report, command_doctor;

/* ---- Messages (message.c) ------------------------------------------------------------------ */

enum message_kind { MESSAGE_ERROR, MESSAGE_WARNING, MESSAGE_NOTE };

/** The subcommand that messages begin with: "rouse NAME: ". */
void message_set_command(const char *name);
/** From now on messages go to the system's log instead of stderr. */
void message_to_syslog(void);
/** Says something on stderr. From any thread. */
void message(enum message_kind kind, const char *format, ...) __attribute__((format(printf, 2, 3)));
/** Puts ? in the place of each control character: no text of others commands a terminal. @text. */
char *make_printable(char *text);
/** Says what went wrong, and returns the exit code for it. */
int report_error(const struct rouse_error *error, int code);

/* ---- Watching a job (watch.c) --------------------------------------------------------------- */

struct watch;

/**
 * Watches a job: progress and log on stderr, SIGINT, SIGTERM and SIGHUP cancel it; a second signal,
 * more than a second later, kills. One at a time. @quiet: errors and warnings only. NULL if that
 * fails: it has been reported.
 */
struct watch *watch_begin(bool quiet, bool verbose);
/** For the library; its event function may be set. Valid until watch_end(). */
struct rouse_observer *watch_observer(struct watch *watch);
/** Something for the event function, which is called with the watch as its user. */
void watch_set_context(struct watch *watch, void *context);
void *watch_context(const struct watch *watch);
/** Takes the progress off the terminal and the signals' handlers away. NULL is fine. */
void watch_end(struct watch *watch);

/* ---- Numbers for people (human.c) ----------------------------------------------------------- */

struct human {
	char text[32];
};

/** "12.3 MiB". */
struct human human_bytes(uint64_t bytes);
/** "12.3 ms", "4.5 s". */
struct human human_us(double us);

/* ---- Reports (report.c) --------------------------------------------------------------------- */

/** Prints @json and drops it. An exit code. */
int print_json(json_t *json);

json_t *save_report_json(const struct rouse_save_report *report);
void save_report_print(const struct rouse_save_report *report, const char *image);
json_t *restore_report_json(
	const struct rouse_restore_report *report, const struct rouse_ttr_point *point);
void restore_report_print(
	const struct rouse_restore_report *report, const struct rouse_ttr_point *point);
json_t *write_report_json(const struct rouse_write_report *report);
void write_report_print(const struct rouse_write_report *report, const char *out);
/** The member "learn" of a restore's report, and its lines for people. */
json_t *stages_json(const struct rouse_stage_time times[ROUSE_STAGE_COUNT]);
void stages_print(const struct rouse_stage_time times[ROUSE_STAGE_COUNT]);
json_t *learn_report_json(const struct rouse_learn_report *learn);
void learn_report_print(const struct rouse_learn_report *learn);
json_t *trace_report_json(const struct rouse_trace_report *report);
/** @out: the file that was written, or NULL. */
void trace_report_print(const struct rouse_trace_report *report, const char *out);
json_t *scan_report_json(const struct rouse_scan_report *report);
/** @out: the file that was written, or NULL. */
void scan_report_print(const struct rouse_scan_report *report, const char *out);
/** [{"utilization", "window_ms", "ttr_ms"}, ...] */
json_t *ttr_table_json(const uint64_t table_us[ROUSE_TTR_UTILIZATIONS][ROUSE_TTR_WINDOWS]);
void ttr_table_print(const uint64_t table_us[ROUSE_TTR_UTILIZATIONS][ROUSE_TTR_WINDOWS]);
/** Microseconds as milliseconds. */
json_t *json_ms(uint64_t us);

/* ---- Files (file_kind.c) --------------------------------------------------------------------- */

enum file_kind { FILE_OTHER, FILE_WSET, FILE_STALLS, FILE_QEMU, FILE_FLAT };

/** What the first bytes say; of a flat file, which begins with the memory of a VM, the last.
 * FILE_OTHER also for an image, and when it cannot be read. */
enum file_kind file_kind(const char *path);

/* ---- Options that several commands have (shared.c) ------------------------------------------ */

extern const struct option_value codec_values[];
/** Of enum rouse_policy (policy_values.c). */
extern const struct option_value policy_values[];
/** Whether it is refused without a working set (policy_values.c). */
bool policy_needs_set(enum rouse_policy policy);
/** Of enum rouse_scan_source. */
extern const struct option_value scan_source_values[];
/** 90,100ms */
bool parse_ttr_point(const char *text, struct rouse_ttr_point *point);
/** RATE[,READS[,LATENCY]]; 0 as RATE or READS: no limit. */
bool parse_throttle(const char *text, struct rouse_throttle *throttle);

/** 50 or 50%, up to 100. */
bool parse_percent(const char *text, double *percent);
/** A share above 0, up to 1. */
bool parse_share(const char *text, double *share);

/** The rows for a struct rouse_layout at @offset. */
#define LAYOUT_OPTIONS(offset_)                                                                \
	{.name = "codec",                                                                      \
		.kind = OPTION_ENUM,                                                           \
		.offset = (offset_) + offsetof(struct rouse_layout, codec),                    \
		.argument = "lz4|zstd|none",                                                   \
		.values = codec_values,                                                        \
		.help = "compress with this (default: lz4)"},                                  \
		{.name = "level",                                                              \
			.kind = OPTION_LEVEL,                                                  \
			.offset = (offset_) + offsetof(struct rouse_layout, level),            \
			.argument = "N",                                                       \
			.help = "level of the codec (default: the codec's own)"},              \
		{.name = "chunk-pages",                                                        \
			.kind = OPTION_COUNT,                                                  \
			.offset = (offset_) + offsetof(struct rouse_layout, chunk_pages),      \
			.argument = "N",                                                       \
			.help = "pages compressed together, 1 to 512 (default: 16)"},          \
	{                                                                                      \
		.name = "threads", .kind = OPTION_COUNT,                                       \
		.offset = (offset_) + offsetof(struct rouse_layout, threads), .argument = "N", \
		.help = "threads that compress (default: one per processor, 4 at most)"        \
	}

#define FLAG_OPTION(type_, member_, letter_, name_, help_)                 \
	{                                                                  \
		.name = (name_), .letter = (letter_), .kind = OPTION_FLAG, \
		.offset = offsetof(type_, member_), .help = (help_)        \
	}

#define STRING_OPTION(type_, member_, letter_, name_, argument_, help_)                      \
	{                                                                                    \
		.name = (name_), .letter = (letter_), .kind = OPTION_STRING,                 \
		.offset = offsetof(type_, member_), .argument = (argument_), .help = (help_) \
	}

#endif
