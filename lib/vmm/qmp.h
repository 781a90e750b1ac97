/* SPDX-License-Identifier: MIT */
/*
 * QMP, QEMU's monitor: a client over a unix socket. One thread at a time. docs: QEMU's
 * docs/interop/qmp-spec.txt.
 */
#ifndef ROUSE_VMM_QMP_H
#define ROUSE_VMM_QMP_H

#include "base/observer.h"

#include <errno.h>
#include <jansson.h>

#define QMP_MAX_MESSAGE (16u << 20)

/* The reader: bytes into messages, without I/O. For untrusted input; fuzzed. */
struct qmp_reader {
	char *buffer; /* one unfinished line */
	size_t used, room;
	/*
	 * Somebody else may have read the beginning of the first line: if it makes no sense it is
	 * the rest of that, and dropped. The rest of an object is none.
	 */
	bool joined_late;
};

void qmp_reader_finish(struct qmp_reader *reader);
/**
 * Feeds bytes up to and including the end of the first message among them; *used: how many. One
 * message in *message (the caller's reference), or NULL if it is not complete yet.
 * -EUCLEAN: not JSON, or not an object; -EFBIG: longer than QMP_MAX_MESSAGE; -ENOMEM.
 */
int qmp_reader_feed(
	struct qmp_reader *reader, const char *bytes, size_t size, size_t *used, json_t **message);

struct qmp;

/**
 * Connects and negotiates; with out-of-band commands if QEMU has them. @timeout_ms: for the
 * connection to be possible (a QEMU that is just starting) and for the greeting. -ENOENT,
 * -ECONNREFUSED: no QEMU there; -ETIMEDOUT: another client holds the monitor; -EUCLEAN: not QMP;
 * -ECANCELED.
 */
int qmp_connect(const char *path, unsigned int timeout_ms, const struct rouse_observer *observer,
	struct qmp **qmp, struct rouse_error *error);
/** The same over a socket that is connected already; takes @fd over, also when it fails. */
int qmp_attach(int fd, unsigned int timeout_ms, const struct rouse_observer *observer,
	struct qmp **qmp, struct rouse_error *error);
/**
 * Takes over a connection that somebody else negotiated, with out-of-band commands, and who is
 * gone. What QEMU has said to him is thrown away, half a line too. Nothing is sent: the main loop
 * may stand still. Takes @fd over, unless it fails: then there may be more to be done with it.
 * -ENOMEM.
 */
int qmp_adopt(
	int fd, const struct rouse_observer *observer, struct qmp **qmp, struct rouse_error *error);
/**
 * Connects anew, in place, after -EPIPE of a QEMU that lives: @qmp stays valid, events that came
 * are kept, those in between are lost. No cancel ends it. After an error @qmp is as it was. Errors:
 * as qmp_connect(); -ESTALE: another process listens there by now.
 */
int qmp_reconnect(
	struct qmp *qmp, const char *path, unsigned int timeout_ms, struct rouse_error *error);
void qmp_close(struct qmp *qmp);

/** The connection: to poll(2) for, then qmp_next_event(). */
int qmp_fd(const struct qmp *qmp);

/**
 * Runs a command and waits for its answer: 30 s (-ETIMEDOUT), and two seconds for each further
 * command as long as QEMU then stays silent, so that who puts several things back waits once.
 * @arguments: a reference that is taken over, or NULL. *result: the caller's reference; @result may
 * be NULL.
 * QEMU's error becomes kind VMM with QEMU's own words and -EREMOTEIO, -ENOSYS for CommandNotFound.
 * -EPIPE: QEMU is gone. Events that arrive meanwhile are kept for qmp_next_event().
 * After a cancel no command is sent (-ECANCELED). One that was sent before is waited for a few
 * seconds more, so that the caller knows what QEMU did. If no answer comes (-ECANCELED then, too,
 * and -ETIMEDOUT, -EPIPE) QEMU may still obey it: qmp_unknown().
 */
int qmp_execute(struct qmp *qmp, const char *command, json_t *arguments, json_t **result,
	struct rouse_error *error);
/** The same with a limit of its own: for what is not worth a long wait. */
int qmp_execute_within(struct qmp *qmp, unsigned int limit_ms, const char *command,
	json_t *arguments, json_t **result, struct rouse_error *error);
/** As qmp_execute(), out of band, if QEMU has it; otherwise in band. */
int qmp_execute_oob(struct qmp *qmp, const char *command, json_t *arguments, json_t **result,
	struct rouse_error *error);
/** Whether a command that ended with @code may have been obeyed, or may still be. */
static inline bool qmp_unknown(int code)
{
	return code < 0 && code != -EREMOTEIO && code != -ENOSYS;
}
/** `getfd`: hands a descriptor to QEMU under a name. @fd stays the caller's. */
int qmp_send_fd(struct qmp *qmp, const char *name, int fd, struct rouse_error *error);

/**
 * The next event, waiting up to @timeout_ms (0: only what is there, -1: for ever). *event: the
 * caller's reference, NULL if none came. *arrived_ns: CLOCK_MONOTONIC. -EPIPE, -ECANCELED.
 */
int qmp_next_event(struct qmp *qmp, int timeout_ms, json_t **event, uint64_t *arrived_ns,
	struct rouse_error *error);

/** The process at the other end, by SO_PEERCRED; 0 if unknown. */
int qmp_peer_pid(const struct qmp *qmp);

/** QEMU's version out of the greeting, e.g. "7.2.22". */
const char *qmp_version(const struct qmp *qmp);

/**
 * From now on the observer's cancel object ends no command: for putting things back in order after
 * it was fired.
 */
void qmp_ignore_cancel(struct qmp *qmp);
/** From now on @observer's cancel object ends commands again. */
void qmp_heed_cancel(struct qmp *qmp, const struct rouse_observer *observer);

#endif
