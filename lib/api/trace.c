/* SPDX-License-Identifier: MIT */
/* rouse_trace(): which pages a live process touches. */
#include "wset/trace.h"
#include "api/live_qemu.h"
#include "api/trace_session.h"
#include "base/clock.h"
#include "base/error.h"

#include <string.h>

#define DEFAULT_US UINT64_C(10000000)
#define DEFAULT_MIN_BYTES (UINT64_C(16) << 20)

void rouse_trace_options_init(struct rouse_trace_options *options)
{
	memset(options, 0, sizeof(*options));
	options->size = sizeof(*options);
	options->duration_us = DEFAULT_US;
	options->min_bytes = DEFAULT_MIN_BYTES;
}

static int check_options(const struct rouse_trace_options *given,
	struct rouse_trace_options *options, struct rouse_error *error)
{
	size_t size = given->size < sizeof(*options) ? given->size : sizeof(*options);

	rouse_trace_options_init(options);
	memcpy(options, given, size);
	if ((options->pid > 0) == (options->qmp_socket != NULL))
		return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
			"a trace needs a process id or a QMP socket, and not both");
	return options->out != NULL ? rouse_wset_check_place(options->out, error) : 0;
}

static int run(struct trace_session *session, struct live_qemu *live,
	const struct rouse_trace_options *options, struct rouse_error *error)
{
	struct rouse_wset *wset;
	struct rouse_error ignored;
	int ended, code = trace_session_start(session, options->duration_us, error);

	if (code < 0)
		return code;
	live_qemu_retranslate(live);
	ended = trace_session_wait(session, options->duration_us, error);
	code = trace_session_stop(session, ended < 0 ? &ignored : error);
	if (ended < 0)
		return ended;
	if (code < 0 || options->out == NULL)
		return code;
	code = trace_session_wset(session, 0, &wset, error);
	if (code < 0)
		return code;
	code = rouse_wset_write(wset, options->out, error);
	rouse_wset_close(wset);
	return code;
}

int rouse_trace(const struct rouse_trace_options *given, struct rouse_trace_report *report,
	const struct rouse_observer *observer, struct rouse_error *error)
{
	struct rouse_trace_options options;
	struct trace_session_config config = {.observer = observer};
	struct trace_session *session = NULL;
	struct live_qemu live = {0};
	struct rouse_error local;
	int code;

	if (error == NULL)
		error = &local;
	code = check_options(given, &options, error);
	if (code == 0)
		code = live_qemu_open(&live, options.qmp_socket, options.pid, observer, error);
	if (code == 0) {
		config.pid = live.pid;
		config.qmp = live.qmp;
		config.min_bytes = options.min_bytes;
		code = trace_session_new(&config, &session, error);
	}
	if (code == 0)
		code = run(session, &live, &options, error);
	if (code == 0 && report != NULL) {
		trace_session_get_report(session, report);
		report->retranslated = live.retranslated;
	}
	trace_session_free(session);
	live_qemu_close(&live);
	return code;
}

int rouse_trace_disarm(
	int pid, bool *found, const struct rouse_observer *observer, struct rouse_error *error)
{
	struct target *target;
	bool unused;
	int code = target_open(pid, &target, error);

	if (code < 0)
		return code;
	code = trace_disarm(target, observer, found != NULL ? found : &unused, error);
	target_close(target);
	return code;
}
