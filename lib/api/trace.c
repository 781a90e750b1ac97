/* SPDX-License-Identifier: MIT */
/* rouse_trace(): which pages a live process touches. */
#include "wset/trace.h"
#include "api/trace_session.h"
#include "base/clock.h"
#include "base/error.h"

#include <string.h>

#define CONNECT_TIMEOUT_MS 3000
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
	return 0;
}

static int open_session(const struct rouse_trace_options *options,
	const struct rouse_observer *observer, struct trace_session **session,
	struct rouse_error *error)
{
	struct trace_session_config config = {
		.pid = options->pid, .min_bytes = options->min_bytes, .observer = observer};
	int code = 0;

	if (options->qmp_socket != NULL) {
		code = qmp_connect(
			options->qmp_socket, CONNECT_TIMEOUT_MS, observer, &config.qmp, error);
		if (code < 0)
			return code;
		config.pid = qmp_peer_pid(config.qmp);
		if (config.pid <= 0)
			code = rouse_error_set(error, ROUSE_ERROR_REFUSED, -ESRCH,
				"QEMU's process id is not known here: use --pid");
	}
	if (code == 0)
		code = trace_session_new(&config, session, error);
	qmp_close(config.qmp);
	return code;
}

static int run(struct trace_session *session, const struct rouse_trace_options *options,
	struct rouse_error *error)
{
	struct rouse_wset *wset;
	struct rouse_error ignored;
	int ended, code = trace_session_start(session, options->duration_us, error);

	if (code < 0)
		return code;
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
	struct trace_session *session = NULL;
	struct rouse_error local;
	int code;

	if (error == NULL)
		error = &local;
	code = check_options(given, &options, error);
	if (code == 0)
		code = open_session(&options, observer, &session, error);
	if (code < 0)
		return code;
	code = run(session, &options, error);
	if (code == 0 && report != NULL)
		trace_session_get_report(session, report);
	trace_session_free(session);
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
