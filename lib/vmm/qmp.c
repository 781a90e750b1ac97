/* SPDX-License-Identifier: MIT */
/*
 * The QMP client.
 *
 *	socket --recv--> reader --message--> an event: queue it, with its arrival time
 *	                                     a reply with our id: hand it to who waits
 *	                                     another reply: late, of a command that was given up
 */
#include "vmm/qmp.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define QMP_REPLY_TIMEOUT_MS 30000u
/* For the answer to what was sent before a cancel: QEMU does it in any case. */
#define QMP_CANCEL_GRACE_MS 3000
/* For one that has left a command unanswered and has said nothing since: waiting was tried. */
#define QMP_SILENT_REPLY_MS 2000u
#define QMP_CONNECT_RETRY_MS 10
/* A QEMU that floods us with events is broken: do not let it use up our memory. */
#define QMP_MAX_EVENTS 65536u

struct qmp_event {
	struct qmp_event *next;
	json_t *message;
	uint64_t arrived_ns;
};

struct qmp {
	int fd;
	int cancel_fd;
	int peer_pid;
	bool oob;
	bool silent; /* a command was given up, and nothing has come since */
	json_int_t last_id;
	char version[64];
	struct qmp_reader reader;
	struct qmp_event *first, **last;
	unsigned int event_count;
	size_t from, to; /* the part of input that the reader has not seen yet */
	char input[65536];
};

/* Milliseconds until @deadline_ns for poll(2), rounded up so that it does not spin at the end. */
static int deadline_left_ms(uint64_t deadline_ns)
{
	uint64_t now = rouse_clock_ns();

	if (deadline_ns == UINT64_MAX)
		return -1;
	if (now >= deadline_ns)
		return 0;
	now = (deadline_ns - now + 999999) / 1000000;
	return now < 1000000 ? (int)now : 1000000;
}

static uint64_t deadline_in_ms(int64_t timeout_ms)
{
	return timeout_ms < 0 ? UINT64_MAX
			      : rouse_clock_ns() + (uint64_t)timeout_ms * UINT64_C(1000000);
}

/* Waits for @events on the socket. @cancel_fd: or -1. -ETIMEDOUT, -ECANCELED. */
static int qmp_poll(int fd, int cancel_fd, short events, uint64_t deadline_ns)
{
	for (;;) {
		struct pollfd fds[] = {
			{.fd = fd, .events = events},
			{.fd = cancel_fd, .events = POLLIN},
		};
		int n = poll(fds, 2, deadline_left_ms(deadline_ns));

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0 && fds[0].revents != 0)
			return 0;
		if (n > 0 && fds[1].revents != 0)
			return -ECANCELED;
		if (n == 0 && rouse_clock_ns() >= deadline_ns)
			return -ETIMEDOUT;
	}
}

/* -EPIPE for whatever says that the other end is gone. */
static int socket_code(int code)
{
	return code == ECONNRESET || code == EPIPE || code == ENOTCONN ? -EPIPE : -code;
}

static int qmp_receive(struct qmp *qmp, int cancel_fd, uint64_t deadline_ns)
{
	for (;;) {
		ssize_t n = recv(qmp->fd, qmp->input, sizeof(qmp->input), MSG_DONTWAIT);
		int code;

		if (n > 0) {
			qmp->from = 0;
			qmp->to = (size_t)n;
			return 0;
		}
		if (n == 0)
			return -EPIPE;
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return socket_code(errno);
		code = qmp_poll(qmp->fd, cancel_fd, POLLIN, deadline_ns);
		if (code < 0)
			return code;
	}
}

/* The next message, whatever it is. @cancel_fd: or -1. */
static int qmp_next_message(struct qmp *qmp, int cancel_fd, uint64_t deadline_ns, json_t **message)
{
	for (;;) {
		size_t used;
		int code;

		if (qmp->from == qmp->to) {
			code = qmp_receive(qmp, cancel_fd, deadline_ns);
			if (code < 0)
				return code;
		}
		code = qmp_reader_feed(
			&qmp->reader, qmp->input + qmp->from, qmp->to - qmp->from, &used, message);
		if (code < 0)
			return code;
		qmp->from += used;
		if (*message != NULL) {
			qmp->silent = false;
			return 0;
		}
	}
}

static int qmp_queue_event(struct qmp *qmp, json_t *message)
{
	struct qmp_event *event;

	if (qmp->event_count >= QMP_MAX_EVENTS) {
		json_decref(message);
		return -EFBIG;
	}
	event = malloc(sizeof(*event));
	if (event == NULL) {
		json_decref(message);
		return -ENOMEM;
	}
	*event = (struct qmp_event){.message = message, .arrived_ns = rouse_clock_ns()};
	*qmp->last = event;
	qmp->last = &event->next;
	qmp->event_count++;
	return 0;
}

/* By SIGSTOP: it may go on at any time, but nobody can know when. */
static bool peer_is_stopped(const struct qmp *qmp)
{
	cleanup_fclose FILE *file = NULL;
	char path[64], line[128];

	(void)snprintf(path, sizeof(path), "/proc/%d/status", qmp->peer_pid);
	file = fopen(path, "re");
	while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
		if (strncmp(line, "State:", 6) == 0)
			return strchr(line, 'T') != NULL;
	}
	return false;
}

static int error_stopped(const struct qmp *qmp, struct rouse_error *error, const char *doing)
{
	return rouse_error_set(error, ROUSE_ERROR_VMM, -ETIMEDOUT,
		"QEMU does not answer '%s': its process is stopped (SIGSTOP); `kill -CONT %d` lets "
		"it go on",
		doing, qmp->peer_pid);
}

static int error_io(const struct qmp *qmp, struct rouse_error *error, int code, const char *doing)
{
	switch (code) {
	case -EPIPE:
		return rouse_error_set(error, ROUSE_ERROR_VMM, code,
			"QEMU closed its monitor during '%s': it has ended or was killed", doing);
	case -ETIMEDOUT:
		if (peer_is_stopped(qmp))
			return error_stopped(qmp, error, doing);
		return rouse_error_set(
			error, ROUSE_ERROR_VMM, code, "QEMU did not answer '%s' in time", doing);
	case -EUCLEAN:
		return rouse_error_set(error, ROUSE_ERROR_VMM, code,
			"what answers '%s' does not speak QMP", doing);
	case -ECANCELED:
		return rouse_error_set(
			error, ROUSE_ERROR_CANCELLED, code, "cancelled during '%s'", doing);
	default:
		return rouse_error_errno(error, code, "the monitor failed during '%s'", doing);
	}
}

/* All of it, also after a cancel: half a line would spoil the next command. */
static int qmp_send_bytes(struct qmp *qmp, const char *text, size_t size, int pass_fd)
{
	uint64_t deadline_ns = deadline_in_ms(QMP_REPLY_TIMEOUT_MS);
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {0};

	while (size > 0) {
		union {
			const char *in;
			void *out;
		} base = {.in = text}; /* iov_base is not const, though sendmsg(2) only reads */
		struct iovec piece = {.iov_base = base.out, .iov_len = size};
		struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
		ssize_t n;

		if (pass_fd >= 0) {
			control.header = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)),
				.cmsg_level = SOL_SOCKET,
				.cmsg_type = SCM_RIGHTS};
			memcpy(CMSG_DATA(&control.header), &pass_fd, sizeof(int));
			message.msg_control = &control;
			message.msg_controllen = sizeof(control.room);
		}
		n = sendmsg(qmp->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN) {
			int code = qmp_poll(qmp->fd, -1, POLLOUT, deadline_ns);

			if (code < 0)
				return code;
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return socket_code(errno);
		pass_fd = -1; /* it went with the first byte */
		text += n;
		size -= (size_t)n;
	}
	return 0;
}

static int qmp_send(struct qmp *qmp, const char *key, const char *command, json_t *arguments,
	int pass_fd, json_int_t *id)
{
	json_t *message = json_object();
	cleanup_free char *text = NULL;
	size_t size;
	int failed;

	*id = ++qmp->last_id;
	failed = json_object_set_new(message, key, json_string(command));
	failed |= json_object_set_new(message, "id", json_integer(*id));
	if (arguments != NULL)
		failed |= json_object_set_new(message, "arguments", arguments);
	if (!failed)
		text = json_dumps(message, JSON_COMPACT);
	json_decref(message);
	if (text == NULL)
		return -ENOMEM;
	size = strlen(text);
	text[size++] = '\n'; /* takes the place of the NUL */
	return qmp_send_bytes(qmp, text, size, pass_fd);
}

static int error_from_qemu(const json_t *refusal, const char *command, struct rouse_error *error)
{
	const char *class = json_string_value(json_object_get(refusal, "class"));
	const char *text = json_string_value(json_object_get(refusal, "desc"));
	bool unknown = class != NULL && strcmp(class, "CommandNotFound") == 0;

	return rouse_error_set(error, ROUSE_ERROR_VMM, unknown ? -ENOSYS : -EREMOTEIO,
		"QEMU refused '%s': %s", command, text != NULL ? text : "no reason was given");
}

/*
 * Takes messages until the answer with @id is there; what is no answer of ours is put away. QEMU
 * obeys a command whether we wait or not. Who cancels it must know what it did, to undo it: so a
 * cancel only shortens the wait.
 */
static int qmp_wait_reply(struct qmp *qmp, json_int_t id, uint64_t deadline_ns, json_t **reply)
{
	int cancel_fd = qmp->cancel_fd;

	for (;;) {
		json_t *message;
		const json_t *its_id;
		int code = qmp_next_message(qmp, cancel_fd, deadline_ns, &message);

		if (code == -ECANCELED) {
			uint64_t grace_ns = deadline_in_ms(QMP_CANCEL_GRACE_MS);

			cancel_fd = -1;
			deadline_ns = grace_ns < deadline_ns ? grace_ns : deadline_ns;
			continue;
		}
		if (code == -ETIMEDOUT && cancel_fd != qmp->cancel_fd)
			return -ECANCELED;
		if (code < 0)
			return code;
		if (json_object_get(message, "event") != NULL) {
			code = qmp_queue_event(qmp, message);
			if (code < 0)
				return code;
			continue;
		}
		its_id = json_object_get(message, "id");
		if (json_is_integer(its_id) && json_integer_value(its_id) == id) {
			*reply = message;
			return 0;
		}
		json_decref(message);
	}
}

static bool qmp_cancelled(const struct qmp *qmp)
{
	struct pollfd cancel = {.fd = qmp->cancel_fd, .events = POLLIN};

	return poll(&cancel, 1, 0) > 0;
}

static int qmp_command(struct qmp *qmp, unsigned int limit_ms, const char *key, const char *command,
	json_t *arguments, int pass_fd, json_t **result, struct rouse_error *error)
{
	json_t *reply = NULL, *value;
	json_int_t id;
	int code;

	if (qmp_cancelled(qmp)) {
		json_decref(arguments);
		return error_io(qmp, error, -ECANCELED, command);
	}
	if (qmp->silent && limit_ms > QMP_SILENT_REPLY_MS)
		limit_ms = QMP_SILENT_REPLY_MS;
	code = qmp_send(qmp, key, command, arguments, pass_fd, &id);
	if (code == 0)
		code = qmp_wait_reply(qmp, id, deadline_in_ms(limit_ms), &reply);
	if (code == -ETIMEDOUT)
		qmp->silent = true;
	if (code < 0)
		return error_io(qmp, error, code, command);
	value = json_object_get(reply, "return");
	if (value == NULL)
		code = error_from_qemu(json_object_get(reply, "error"), command, error);
	else if (result != NULL)
		*result = json_incref(value);
	json_decref(reply);
	return code;
}

int qmp_execute(struct qmp *qmp, const char *command, json_t *arguments, json_t **result,
	struct rouse_error *error)
{
	return qmp_execute_within(qmp, QMP_REPLY_TIMEOUT_MS, command, arguments, result, error);
}

int qmp_execute_within(struct qmp *qmp, unsigned int limit_ms, const char *command,
	json_t *arguments, json_t **result, struct rouse_error *error)
{
	return qmp_command(qmp, limit_ms, "execute", command, arguments, -1, result, error);
}

int qmp_execute_oob(struct qmp *qmp, const char *command, json_t *arguments, json_t **result,
	struct rouse_error *error)
{
	return qmp_command(qmp, QMP_REPLY_TIMEOUT_MS, qmp->oob ? "exec-oob" : "execute", command,
		arguments, -1, result, error);
}

int qmp_send_fd(struct qmp *qmp, const char *name, int fd, struct rouse_error *error)
{
	return qmp_command(qmp, QMP_REPLY_TIMEOUT_MS, "execute", "getfd",
		json_pack("{s:s}", "fdname", name), fd, NULL, error);
}

int qmp_next_event(struct qmp *qmp, int timeout_ms, json_t **event, uint64_t *arrived_ns,
	struct rouse_error *error)
{
	uint64_t deadline_ns = deadline_in_ms(timeout_ms);
	struct qmp_event *first;

	*event = NULL;
	while (qmp->first == NULL) {
		json_t *message;
		int code = qmp_next_message(qmp, qmp->cancel_fd, deadline_ns, &message);

		if (code == -ETIMEDOUT)
			return 0;
		if (code == 0 && json_object_get(message, "event") == NULL)
			json_decref(message); /* a late answer */
		else if (code == 0)
			code = qmp_queue_event(qmp, message);
		if (code < 0)
			return error_io(qmp, error, code, "waiting for an event");
	}
	first = qmp->first;
	qmp->first = first->next;
	if (qmp->first == NULL)
		qmp->last = &qmp->first;
	qmp->event_count--;
	*event = first->message;
	if (arrived_ns != NULL)
		*arrived_ns = first->arrived_ns;
	free(first);
	return 0;
}

static void qmp_note_version(struct qmp *qmp, const json_t *greeting)
{
	const json_t *qemu = json_object_get(json_object_get(greeting, "version"), "qemu");

	(void)snprintf(qmp->version, sizeof(qmp->version), "%lld.%lld.%lld",
		(long long)json_integer_value(json_object_get(qemu, "major")),
		(long long)json_integer_value(json_object_get(qemu, "minor")),
		(long long)json_integer_value(json_object_get(qemu, "micro")));
}

static bool greeting_offers(const json_t *greeting, const char *capability)
{
	const json_t *offered;
	size_t index;

	json_array_foreach(json_object_get(greeting, "capabilities"), index, offered)
	{
		const char *name = json_string_value(offered);

		if (name != NULL && strcmp(name, capability) == 0)
			return true;
	}
	return false;
}

static int qmp_negotiate(struct qmp *qmp, uint64_t deadline_ns, struct rouse_error *error)
{
	json_t *message, *arguments;
	const json_t *greeting;
	int code = qmp_next_message(qmp, qmp->cancel_fd, deadline_ns, &message);

	if (code == -ETIMEDOUT && peer_is_stopped(qmp))
		return error_stopped(qmp, error, "connecting");
	if (code == -ETIMEDOUT)
		return rouse_error_set(error, ROUSE_ERROR_VMM, code,
			"the QMP socket accepts but QEMU does not greet: another client seems to "
			"hold this monitor; end it, or give QEMU a second -qmp socket");
	if (code < 0)
		return error_io(qmp, error, code, "connecting");
	greeting = json_object_get(message, "QMP");
	if (greeting == NULL) {
		json_decref(message);
		return error_io(qmp, error, -EUCLEAN, "connecting");
	}
	qmp_note_version(qmp, greeting);
	qmp->oob = greeting_offers(greeting, "oob");
	json_decref(message);
	arguments = qmp->oob ? json_pack("{s:[s]}", "enable", "oob") : NULL;
	return qmp_execute(qmp, "qmp_capabilities", arguments, NULL, error);
}

/* Takes @fd over, unless it fails. */
static struct qmp *qmp_new(int fd, const struct rouse_observer *observer)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);
	struct qmp *q = calloc(1, sizeof(*q));

	if (q == NULL)
		return NULL;
	q->fd = fd;
	q->last = &q->first;
	q->cancel_fd = rouse_observer_cancel_fd(observer);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0)
		q->peer_pid = peer.pid;
	return q;
}

static int qmp_attach_until(int fd, uint64_t deadline_ns, const struct rouse_observer *observer,
	struct qmp **qmp, struct rouse_error *error)
{
	struct qmp *q = qmp_new(fd, observer);
	int code;

	if (q == NULL) {
		(void)close(fd);
		return rouse_error_errno(error, -ENOMEM, "cannot talk to QEMU");
	}
	code = qmp_negotiate(q, deadline_ns, error);
	if (code < 0) {
		qmp_close(q);
		return code;
	}
	*qmp = q;
	return 0;
}

/*
 * Throws away what QEMU has said so far. Whether what comes next is the beginning of a line: if
 * nothing was there to be read, the one before us may have read a part of it.
 */
static bool drop_input(struct qmp *qmp)
{
	bool line_ended = false;

	for (;;) {
		ssize_t n = recv(qmp->fd, qmp->input, sizeof(qmp->input), MSG_DONTWAIT);

		if (n > 0)
			line_ended = qmp->input[n - 1] == '\n';
		else if (n == 0 || errno != EINTR)
			return line_ended;
	}
}

int qmp_adopt(
	int fd, const struct rouse_observer *observer, struct qmp **qmp, struct rouse_error *error)
{
	struct qmp *q = qmp_new(fd, observer);

	if (q == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot talk to QEMU");
	q->oob = true;
	/* Answers to what he asked may still come: our numbers are larger than his. */
	q->last_id = (json_int_t)(rouse_clock_ns() >> 1);
	q->reader.joined_late = !drop_input(q);
	*qmp = q;
	return 0;
}

int qmp_attach(int fd, unsigned int timeout_ms, const struct rouse_observer *observer,
	struct qmp **qmp, struct rouse_error *error)
{
	return qmp_attach_until(fd, deadline_in_ms(timeout_ms), observer, qmp, error);
}

/* Tries until a QEMU that is just starting listens. A full queue of the listener is EAGAIN. */
static int socket_connect(int fd, const struct sockaddr_un *address, uint64_t deadline_ns,
	const struct rouse_observer *observer)
{
	for (;;) {
		struct pollfd cancel = {.fd = rouse_observer_cancel_fd(observer), .events = POLLIN};
		int code = 0;

		if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0)
			code = -errno;
		if (code == -EINTR)
			continue;
		if (code != -ENOENT && code != -ECONNREFUSED && code != -EAGAIN)
			return code;
		if (rouse_clock_ns() >= deadline_ns)
			return code == -EAGAIN ? -ETIMEDOUT : code;
		if (poll(&cancel, 1, QMP_CONNECT_RETRY_MS) > 0)
			return -ECANCELED;
	}
}

static int error_connect(struct rouse_error *error, int code, const char *path)
{
	switch (code) {
	case -ETIMEDOUT:
		return rouse_error_set(
			error, ROUSE_ERROR_VMM, code, "other clients hold the QMP socket %s", path);
	case -ENOENT:
	case -ECONNREFUSED:
		return rouse_error_set(error, ROUSE_ERROR_VMM, code,
			"no QEMU listens at the QMP socket %s (%s)", path,
			code == -ENOENT ? "there is no such file" : "connection refused");
	default:
		return rouse_error_errno(error, code, "cannot connect to the QMP socket %s", path);
	}
}

int qmp_connect(const char *path, unsigned int timeout_ms, const struct rouse_observer *observer,
	struct qmp **qmp, struct rouse_error *error)
{
	uint64_t deadline_ns = deadline_in_ms(timeout_ms);
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	cleanup_close int fd = -1;
	int code;

	if (strlen(path) >= sizeof(address.sun_path))
		return error_connect(error, -ENAMETOOLONG, path);
	memcpy(address.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	code = fd < 0 ? -errno : socket_connect(fd, &address, deadline_ns, observer);
	if (code < 0)
		return error_connect(error, code, path);
	return qmp_attach_until(take_fd(&fd), deadline_ns, observer, qmp, error);
}

/* Takes @fresh's connection, with what has been read of it, and frees it with the old one. */
static void take_connection(struct qmp *qmp, struct qmp *fresh)
{
	const struct qmp_reader old_reader = qmp->reader;
	const int old_fd = qmp->fd;

	qmp->fd = fresh->fd;
	qmp->reader = fresh->reader;
	qmp->oob = fresh->oob;
	qmp->silent = false;
	qmp->from = fresh->from;
	qmp->to = fresh->to;
	memcpy(qmp->input, fresh->input, sizeof(qmp->input));
	if (fresh->first != NULL) {
		*qmp->last = fresh->first;
		qmp->last = fresh->last;
		qmp->event_count += fresh->event_count;
		fresh->first = NULL;
	}
	fresh->fd = old_fd;
	fresh->reader = old_reader;
	qmp_close(fresh);
}

int qmp_reconnect(
	struct qmp *qmp, const char *path, unsigned int timeout_ms, struct rouse_error *error)
{
	struct qmp *fresh = NULL;
	int code = qmp_connect(path, timeout_ms, NULL, &fresh, error);

	if (fresh == NULL)
		return code;
	if (fresh->peer_pid != qmp->peer_pid) {
		qmp_close(fresh);
		return rouse_error_set(error, ROUSE_ERROR_VMM, -ESTALE,
			"another process listens at the QMP socket %s now", path);
	}
	take_connection(qmp, fresh);
	return 0;
}

void qmp_close(struct qmp *qmp)
{
	if (qmp == NULL)
		return;
	while (qmp->first != NULL) {
		struct qmp_event *event = qmp->first;

		qmp->first = event->next;
		json_decref(event->message);
		free(event);
	}
	qmp_reader_finish(&qmp->reader);
	(void)close(qmp->fd);
	free(qmp);
}

int qmp_fd(const struct qmp *qmp)
{
	return qmp->fd;
}

int qmp_peer_pid(const struct qmp *qmp)
{
	return qmp->peer_pid;
}

const char *qmp_version(const struct qmp *qmp)
{
	return qmp->version;
}

void qmp_ignore_cancel(struct qmp *qmp)
{
	qmp->cancel_fd = -1;
}

void qmp_heed_cancel(struct qmp *qmp, const struct rouse_observer *observer)
{
	qmp->cancel_fd = rouse_observer_cancel_fd(observer);
}
