/* SPDX-License-Identifier: MIT */
/* Leaving a monitor connection in QEMU, and finding it there again. */
#include "vmm/qemu_rescue.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "vmm/proc_socket.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>

#define FD_NAME "rouse-monitor"
/* For another Rouse that looks at the same connection: it takes microseconds. */
#define OWNING_TIMEOUT_NS UINT64_C(1000000000)

static int pidfd_open_of(int pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	return fd < 0 ? -errno : fd;
}

static socklen_t make_address(const struct qemu_rescue_name *name, struct sockaddr_un *address)
{
	char text[QEMU_RESCUE_TEXT];
	size_t length;

	qemu_rescue_name_format(name, text);
	length = strlen(text);
	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	memcpy(address->sun_path + 1, text, length);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length);
}

/*
 * Anybody may bind any address, and a connection that somebody else made would have the VM's memory
 * sent to him. So the other end must be of the user that made the VM's socket: a QEMU that listens
 * there, or a Rouse that started QEMU. The process that holds our end must be his, too: others get
 * sockets that root made as their standard input.
 */
static bool is_genuine(int fd, const struct qemu_rescue_name *name, uid_t owner)
{
	struct sockaddr_un wanted, address = {0};
	socklen_t wanted_size = make_address(name, &wanted), size = sizeof(address);
	struct ucred peer;
	socklen_t peer_size = sizeof(peer);

	return getsockname(fd, (struct sockaddr *)&address, &size) == 0 && size == wanted_size &&
	       memcmp(&address, &wanted, size) == 0 &&
	       getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_size) == 0 && peer.uid == owner;
}

/* Takes the connection out of the process that it names. A descriptor, or -errno. */
static int fetch(const struct qemu_rescue_name *name, uint64_t inode, uid_t owner)
{
	cleanup_close int process = pidfd_open_of(name->pid);
	cleanup_close int fd = -1;
	int number;

	if (process < 0)
		return process;
	if (!proc_runs_as(name->pid, owner))
		return -ENOENT;
	number = proc_socket_find(name->pid, inode);
	if (number < 0)
		return number == -EACCES ? -EPERM : number;
	fd = (int)syscall(SYS_pidfd_getfd, process, number, 0);
	if (fd < 0)
		return -errno;
	return is_genuine(fd, name, owner) ? take_fd(&fd) : -ENOENT;
}

/* The Rouse that a connection belongs to; 0: it has died or given it up. A zombie has died, too. */
static int living_owner(int fd)
{
	int pid = fcntl(fd, F_GETOWN);
	cleanup_close int process = -1;
	struct pollfd ended = {.events = POLLIN};

	if (pid <= 0)
		return 0;
	process = pidfd_open_of(pid);
	if (process < 0)
		return 0;
	ended.fd = process;
	return poll(&ended, 1, 0) > 0 ? 0 : pid;
}

static int error_may_not(struct rouse_error *error, int code)
{
	return rouse_error_set(error, ROUSE_ERROR_REFUSED, code,
		"this user may not take the monitor connection of a Rouse that died out of QEMU "
		"(pidfd_getfd, as for a debugger): run it as root");
}

static int name_connection(struct qmp *qmp, const char *socket, int pid, uint64_t checkpoint,
	struct qemu_rescue_name *name, uid_t *owner)
{
	struct sockaddr_un address;
	struct stat status;
	socklen_t size;

	if (stat(socket, &status) < 0)
		return -errno;
	*owner = status.st_uid;
	*name = (struct qemu_rescue_name){.device = status.st_dev,
		.inode = status.st_ino,
		.checkpoint = checkpoint,
		.pid = pid};
	if (getrandom(&name->nonce, sizeof(name->nonce), 0) != (ssize_t)sizeof(name->nonce))
		return -EAGAIN;
	size = make_address(name, &address);
	if (bind(qmp_fd(qmp), (const struct sockaddr *)&address, size) < 0 ||
		fcntl(qmp_fd(qmp), F_SETOWN, getpid()) < 0)
		return -errno;
	return 0;
}

int qemu_rescue_deposit(struct qmp *qmp, const char *socket, int pid, uint64_t checkpoint,
	struct rouse_error *error)
{
	struct qemu_rescue_name name = {0};
	cleanup_close int fd = -1;
	struct stat status = {0};
	uid_t owner = 0;
	int code = name_connection(qmp, socket, pid, checkpoint, &name, &owner);

	if (code == 0 && fstat(qmp_fd(qmp), &status) < 0)
		code = -errno;
	if (code < 0)
		return rouse_error_errno(error, code, "cannot name the monitor connection");
	code = qmp_send_fd(qmp, FD_NAME, qmp_fd(qmp), error);
	if (code < 0)
		return code;
	fd = fetch(&name, status.st_ino, owner);
	if (fd >= 0)
		return 0;
	qemu_rescue_withdraw(qmp);
	return fd == -EPERM ? error_may_not(error, fd)
			    : rouse_error_errno(error, fd, "cannot find it in QEMU again");
}

void qemu_rescue_withdraw(struct qmp *qmp)
{
	/* What does not answer is gone, and so is what it held. */
	(void)qmp_execute(qmp, "closefd", json_pack("{s:s}", "fdname", FD_NAME), NULL, NULL);
}

void qemu_rescue_disown(int fd)
{
	if (fcntl(fd, F_GETOWN) == getpid())
		(void)fcntl(fd, F_SETOWN, 0);
}

/*
 * A descriptor that locks QEMU against other takeovers until it is closed. -EWOULDBLOCK. Who may
 * not take QEMU's files may not open this directory either, and so keeps nobody from it.
 */
static int lock_takeover(int pid)
{
	const uint64_t deadline = rouse_clock_ns() + OWNING_TIMEOUT_NS;
	cleanup_close int fd = -1;
	char path[32];

	(void)snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EINTR && (errno != EWOULDBLOCK || rouse_clock_ns() > deadline))
			return -errno;
		(void)poll(NULL, 0, 1);
	}
	return take_fd(&fd);
}

/*
 * To see that a connection has no owner and to become that are two steps. Two takeovers that began
 * together would send QEMU pages of one VM by two connections.
 */
static int become_owner(int fd, int pid, struct rouse_error *error)
{
	cleanup_close int lock = lock_takeover(pid);
	int owner;

	if (lock == -EWOULDBLOCK)
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EBUSY,
			"another process is about to take that VM over");
	if (lock == -ENOENT)
		return lock;
	if (lock < 0)
		return rouse_error_errno(error, lock, "cannot lock QEMU against other takeovers");
	owner = living_owner(fd);
	if (owner > 0)
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EBUSY,
			"that VM's restore did not break off: the rouse with process number %d "
			"serves it",
			owner);
	if (fcntl(fd, F_SETOWN, getpid()) < 0)
		return rouse_error_errno(error, -errno, "cannot own the monitor connection");
	return 0;
}

/* One line of /proc/net/unix. 0: found; -ENOENT: it is something else. */
static int try_line(const char *line, const struct stat *socket, struct qemu_rescue_name *name,
	int *fd, struct rouse_error *error)
{
	cleanup_close int found = -1;
	uint64_t inode;
	int code;

	if (qemu_rescue_parse_line(line, name, &inode) < 0 || name->device != socket->st_dev ||
		name->inode != socket->st_ino)
		return -ENOENT;
	found = fetch(name, inode, socket->st_uid);
	if (found == -EPERM)
		return error_may_not(error, found);
	if (found < 0)
		return -ENOENT;
	code = become_owner(found, name->pid, error);
	if (code == 0)
		*fd = take_fd(&found);
	return code;
}

int qemu_rescue_find(
	const char *socket, struct qemu_rescue_name *name, int *fd, struct rouse_error *error)
{
	cleanup_fclose FILE *list = NULL;
	cleanup_free char *line = NULL;
	struct stat status;
	size_t room = 0;
	int result = -ENOENT;

	if (stat(socket, &status) < 0)
		return -ENOENT;
	list = fopen("/proc/net/unix", "re");
	if (list == NULL)
		return -ENOENT;
	while (getline(&line, &room, list) > 0) {
		int code = try_line(line, &status, name, fd, error);

		/* Somebody else's imitation must not hide the right one behind it. */
		if (code == 0)
			return 0;
		if (code != -ENOENT)
			result = code;
	}
	return result;
}
