/* SPDX-License-Identifier: MIT */
/* rouse_scan(): which pages a live process accesses, by scanning. */
#include "api/live_qemu.h"
#include "api/scan_session.h"
#include "base/error.h"

#include <string.h>

#define DEFAULT_PERIOD_US UINT64_C(1000000)
#define MAX_PERIOD_US UINT64_C(86400000000)
#define DEFAULT_COUNT 10u
#define DEFAULT_MIN_BYTES (UINT64_C(16) << 20)

void rouse_scan_options_init(struct rouse_scan_options *options)
{
	memset(options, 0, sizeof(*options));
	options->size = sizeof(*options);
	options->period_us = DEFAULT_PERIOD_US;
	options->count = DEFAULT_COUNT;
	options->min_bytes = DEFAULT_MIN_BYTES;
	options->decay = 1;
}

static int make_rule(
	const struct rouse_scan_options *options, struct scan_rule *rule, struct rouse_error *error)
{
	if (options->last > 0) {
		if (scan_rule_set_last(rule, options->last) < 0)
			return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
				"a page may have to be in the last 1 to %u scans, not %u",
				SCAN_RULE_MAX_LAST, options->last);
		return 0;
	}
	if (scan_rule_set(rule, options->decay, options->threshold) < 0)
		return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
			"the decay must be 0 to 1, the threshold 0 to %u", SCAN_RULE_MAX_SCANS);
	return 0;
}

static int check_options(const struct rouse_scan_options *given, struct rouse_scan_options *options,
	struct rouse_error *error)
{
	size_t size = given->size < sizeof(*options) ? given->size : sizeof(*options);

	rouse_scan_options_init(options);
	memcpy(options, given, size);
	if ((options->pid > 0) == (options->qmp_socket != NULL))
		return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
			"a scan needs a process id or a QMP socket, and not both");
	if (options->count == 0 || options->count > SCAN_RULE_MAX_SCANS)
		return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
			"the number of scans must be 1 to %u", SCAN_RULE_MAX_SCANS);
	if (options->period_us == 0 || options->period_us > MAX_PERIOD_US)
		return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
			"the period of scans must be more than 0 and at most a day");
	if ((unsigned int)options->source > ROUSE_SCAN_WRITES)
		return rouse_error_set(
			error, ROUSE_ERROR_USAGE, -EINVAL, "there is no such source of a scan");
	return options->out != NULL ? rouse_wset_check_place(options->out, error) : 0;
}

static int run(struct scan_session *session, struct live_qemu *live, const char *out,
	struct rouse_error *error)
{
	struct rouse_wset *wset;
	int code = scan_session_start(session, error);

	if (code == 0) {
		live_qemu_retranslate_shortly(live);
		code = scan_session_run(session, error);
	}
	if (code < 0 || out == NULL)
		return code;
	code = scan_session_wset(session, &wset, error);
	if (code < 0)
		return code;
	code = rouse_wset_write(wset, out, error);
	rouse_wset_close(wset);
	return code;
}

int rouse_scan(const struct rouse_scan_options *given, struct rouse_scan_report *report,
	const struct rouse_observer *observer, struct rouse_error *error)
{
	struct rouse_scan_options options;
	struct scan_session_config config = {.observer = observer};
	struct scan_session *session = NULL;
	struct live_qemu live = {0};
	struct rouse_error local;
	int code;

	if (error == NULL)
		error = &local;
	code = check_options(given, &options, error);
	if (code == 0)
		code = make_rule(&options, &config.rule, error);
	if (code == 0)
		code = live_qemu_open(&live, options.qmp_socket, options.pid, observer, error);
	if (code == 0) {
		config.pid = live.pid;
		config.qmp = live.qmp;
		config.min_bytes = options.min_bytes;
		config.period_us = options.period_us;
		config.count = options.count;
		config.source = options.source;
		code = scan_session_new(&config, &session, error);
	}
	if (code == 0)
		code = run(session, &live, options.out, error);
	if (code == 0 && report != NULL) {
		scan_session_get_report(session, report);
		report->retranslated = live.retranslated;
	}
	scan_session_free(session);
	live_qemu_close(&live);
	return code;
}
