/* SPDX-License-Identifier: MIT */
/*
 * The connection for the pages, made without QEMU's main loop: `getfd` is no out-of-band command,
 * `migrate-recover` is. So QEMU has to listen at a path. Whoever connected there first would be the
 * one whose pages the VM gets: it lies in a directory that only QEMU and we may enter.
 */
#include "vmm/qemu_rescue.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <fcntl.h>
#include <liburing.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define RECOVER_TIMEOUT_NS UINT64_C(5000000000) /* for QEMU to notice that a Rouse has died */
#define NOT_PAUSED "postcopy is paused"         /* in QEMU's words when nothing broke off */

/* A path for an AF_UNIX socket, and the directory that it is alone in. */
struct meeting_place {
	char directory[PATH_MAX];
	struct sockaddr_un address;
};

static int set_path(struct meeting_place *place)
{
	const size_t length = strlen(place->directory);

	if (length + sizeof("/pages") > sizeof(place->address.sun_path))
		return -ENAMETOOLONG;
	/* To QEMU a comma would end it. */
	if (strchr(place->directory, ',') != NULL)
		return -EINVAL;
	place->address.sun_family = AF_UNIX;
	memcpy(place->address.sun_path, place->directory, length);
	memcpy(place->address.sun_path + length, "/pages", sizeof("/pages"));
	return 0;
}

/* Makes sure that only we can enter, and QEMU if it runs as another user. */
static int guard_directory(const struct meeting_place *place, uid_t qemu)
{
	cleanup_close int fd = -1;
	struct stat status;

	fd = open(place->directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &status) < 0)
		return -errno;
	if ((status.st_mode & 0077) != 0)
		return -EPERM;
	if (status.st_uid != geteuid())
		return status.st_uid == qemu ? 0 : -EPERM;
	if (qemu != status.st_uid && fchown(fd, qemu, (gid_t)-1) < 0)
		return -errno;
	return 0;
}

/* Beside the VM's socket: QEMU could make a socket there before. */
static int make_place_beside(
	struct meeting_place *place, const char *socket, uint64_t nonce, uid_t qemu)
{
	cleanup_free char *base = realpath(socket, NULL);
	char *slash = base != NULL ? strrchr(base, '/') : NULL;
	int used, code;

	if (slash == NULL)
		return -ENOENT;
	used = snprintf(place->directory, sizeof(place->directory), "%.*s/rouse-%016llx",
		(int)(slash - base), base, (unsigned long long)nonce);
	if (used < 0 || (size_t)used >= sizeof(place->directory))
		return -ENAMETOOLONG;
	code = set_path(place);
	if (code < 0)
		return code;
	/* One that a Rouse left that died at this point serves as well. */
	if (mkdir(place->directory, 0700) < 0 && errno != EEXIST)
		return -errno;
	code = guard_directory(place, qemu);
	if (code < 0)
		(void)rmdir(place->directory);
	return code;
}

static int make_place(
	struct meeting_place *place, const char *socket, uint64_t nonce, struct rouse_error *error)
{
	struct stat status;
	uid_t qemu;
	int code;

	*place = (struct meeting_place){0};
	/* QEMU runs as the user who made its socket: the connection was left in it only then. */
	if (stat(socket, &status) < 0)
		return rouse_error_errno(error, -errno, "%s", socket);
	qemu = status.st_uid;
	code = make_place_beside(place, socket, nonce, qemu);
	if (code == 0)
		return 0;
	(void)snprintf(place->directory, sizeof(place->directory), "/tmp/rouse-XXXXXX");
	if (mkdtemp(place->directory) == NULL)
		return rouse_error_errno(error, -errno, "cannot make a directory for QEMU in /tmp");
	code = set_path(place);
	if (code == 0)
		code = guard_directory(place, qemu);
	if (code == 0)
		return 0;
	(void)rmdir(place->directory);
	return rouse_error_errno(error, code, "cannot make a directory for QEMU in /tmp");
}

static void remove_place(const struct meeting_place *place)
{
	(void)unlink(place->address.sun_path);
	(void)rmdir(place->directory);
}

/* Says why QEMU does not recover; what a restore that is complete has left in it is removed. */
static int explain(struct qmp *qmp, struct rouse_error *error)
{
	char status[64];
	int code;

	if (error == NULL || strstr(error->message, NOT_PAUSED) == NULL)
		return error != NULL ? error->code : -EREMOTEIO;
	code = qemu_incoming_status(qmp, status, sizeof(status), error);
	if (code < 0)
		return code;
	if (strcmp(status, "completed") == 0 || strcmp(status, "none") == 0)
		qemu_rescue_withdraw(qmp);
	return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EBUSY,
		"that VM has no restore that broke off (its migration is \"%s\")", status);
}

static int listen_there(
	struct qmp *qmp, const struct meeting_place *place, struct rouse_error *error)
{
	const uint64_t deadline = rouse_clock_ns() + RECOVER_TIMEOUT_NS;
	struct rouse_error why = {0};

	for (;;) {
		char uri[sizeof("unix:") + sizeof(place->address.sun_path)];
		int code;

		(void)snprintf(uri, sizeof(uri), "unix:%s", place->address.sun_path);
		code = qmp_execute_oob(
			qmp, "migrate-recover", json_pack("{s:s}", "uri", uri), NULL, &why);
		if (code == 0)
			return 0;
		if (code != -EREMOTEIO || rouse_clock_ns() > deadline) {
			*error = why;
			return code;
		}
		/* That QEMU has noticed is an event, but it may have been sent before. */
		(void)poll(NULL, 0, 10);
	}
}

/* Linked requests, run to their end: what connect(2) and send(2) would have returned, or -errno. */
static int run_linked(struct io_uring *ring, int fd, const struct meeting_place *place,
	const struct qemu_first_words *first, int results[2])
{
	struct io_uring_sqe *connecting = io_uring_get_sqe(ring);
	struct io_uring_sqe *sending = io_uring_get_sqe(ring);
	int code;

	io_uring_prep_connect(
		connecting, fd, (const struct sockaddr *)&place->address, sizeof(place->address));
	io_uring_sqe_set_data64(connecting, 0);
	connecting->flags |= IOSQE_IO_LINK;
	io_uring_prep_send(sending, fd, first->bytes, first->size, MSG_NOSIGNAL | MSG_DONTWAIT);
	io_uring_sqe_set_data64(sending, 1);
	code = io_uring_submit_and_wait(ring, 2);
	/* A filter may forbid this and not the making of a ring: nothing was taken then. */
	if (code < 0 && code != -EINTR && io_uring_sq_ready(ring) == 2)
		return -EINVAL;
	for (int i = 0; i < 2 && (code >= 0 || code == -EINTR); i++) {
		struct io_uring_cqe *cqe;

		do
			code = io_uring_wait_cqe(ring, &cqe);
		while (code == -EINTR);
		if (code < 0)
			break;
		results[io_uring_cqe_get_data64(cqe)] = cqe->res;
		io_uring_cqe_seen(ring, cqe);
	}
	return code < 0 ? code : 0;
}

/*
 * Connects, and says the first words, by one io_uring_enter(2): SIGKILL ends us when it returns to
 * us, and before that the kernel runs what is left of the two (as task work). So there is no
 * connection without the first words. -ENOTSUP: no io_uring here, and nothing was done.
 */
static int connect_saying(int fd, const struct meeting_place *place,
	const struct qemu_first_words *first, struct rouse_error *error)
{
	struct io_uring ring;
	int results[2] = {-EINVAL, -EINVAL};
	int code = io_uring_queue_init(2, &ring, 0);

	if (code < 0)
		return -ENOTSUP;
	code = run_linked(&ring, fd, place, first, results);
	io_uring_queue_exit(&ring);
	if (code == 0 && results[0] < 0)
		code = results[0];
	/* Not to be had, or a kernel of before 5.6, which does not know these requests. */
	if (code == -EINVAL)
		return -ENOTSUP;
	if (code < 0)
		return rouse_error_errno(error, code, "cannot connect to QEMU for the pages");
	if (results[1] == (int)first->size)
		return 0;
	return rouse_error_errno(error, results[1] < 0 ? results[1] : -ENOBUFS,
		"cannot write to the migration connection");
}

/* By two system calls: a SIGKILL just between them ends QEMU 7.2 (qemu_takeover_request()). */
static int connect_and_say(int fd, const struct meeting_place *place,
	const struct qemu_first_words *first, struct rouse_error *error)
{
	if (connect(fd, (const struct sockaddr *)&place->address, sizeof(place->address)) < 0)
		return rouse_error_errno(error, -errno, "cannot connect to QEMU for the pages");
	return qemu_incoming_say_first(fd, first, error);
}

int qemu_rescue_recover(struct qmp *qmp, const char *socket_path,
	const struct qemu_rescue_name *name, const struct qemu_first_words *first, int *fd,
	struct rouse_error *error)
{
	struct meeting_place place;
	struct rouse_error why = {0};
	cleanup_close int ours = -1;
	bool refused = false;
	int code = make_place(&place, socket_path, name->nonce, error);

	if (code < 0)
		return code;
	ours = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	code = ours < 0 ? rouse_error_errno(&why, -errno, "cannot make a socket")
			: listen_there(qmp, &place, &why);
	refused = code == -EREMOTEIO;
	if (code == 0) {
		code = connect_saying(ours, &place, first, &why);
		if (code == -ENOTSUP)
			code = connect_and_say(ours, &place, first, &why);
	}
	remove_place(&place);
	/* Not before: whoever comes next finds the place by what this may remove from QEMU. */
	if (refused)
		code = explain(qmp, &why);
	if (code < 0 && error != NULL)
		*error = why;
	if (code == 0)
		*fd = take_fd(&ours);
	return code;
}
