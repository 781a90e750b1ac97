/* SPDX-License-Identifier: MIT */
#include "vmm/proc_socket.h"

#include "base/cleanup.h"
#include "base/io.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define ACCEPTS 0x10000u /* __SO_ACCEPTCON of the kernel's net.h: it listens */

static void close_directory(DIR **directory)
{
	if (*directory != NULL)
		(void)closedir(*directory);
}
#define cleanup_closedir cleanup_with(close_directory)

bool proc_runs_as(int pid, uid_t user)
{
	cleanup_free char *text = NULL;
	const char *at;
	char path[64];
	size_t size;

	/* The owner of /proc/PID is root for whoever wants that. */
	(void)snprintf(path, sizeof(path), "/proc/%d/status", pid);
	if (rouse_io_read_file(path, 65536, &text, &size) < 0)
		return false;
	at = strstr(text, "\nUid:\t"); /* real, effective, ... */
	at = at != NULL ? strchr(at + strlen("\nUid:\t"), '\t') : NULL;
	return at != NULL && strtoul(at + 1, NULL, 10) == user;
}

int proc_socket_find(int pid, uint64_t inode)
{
	char path[64], wanted[64], target[64];
	cleanup_closedir DIR *list = NULL;
	const struct dirent *entry;

	(void)snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	(void)snprintf(wanted, sizeof(wanted), "socket:[%llu]", (unsigned long long)inode);
	list = opendir(path);
	if (list == NULL)
		return -errno;
	while ((entry = readdir(list)) != NULL) {
		ssize_t n = readlinkat(dirfd(list), entry->d_name, target, sizeof(target) - 1);

		if (n <= 0)
			continue;
		target[n] = '\0';
		if (strcmp(target, wanted) == 0)
			return (int)strtol(entry->d_name, NULL, 10);
	}
	return -ENOENT;
}

/*
 *	Num              RefCount Protocol Flags    Type St Inode Path
 *	0000000000000000: 00000002 00000000 00010000 0001 01 12345 /run/vm.qmp
 */
bool proc_socket_parse_listener(char *line, uint64_t *inode, const char **path)
{
	unsigned int flags;
	unsigned long long number;
	int at = 0;

	line[strcspn(line, "\n")] = '\0';
	if (sscanf(line, "%*s %*s %*s %x %*s %*s %llu %n", &flags, &number, &at) != 2 || at == 0 ||
		(flags & ACCEPTS) == 0 || line[at] != '/')
		return false;
	*inode = number;
	*path = line + at;
	return true;
}

/* The process of @user that has the socket. 0: none is seen. */
static int holder_of(uint64_t inode, uid_t user)
{
	cleanup_closedir DIR *list = opendir("/proc");
	const struct dirent *entry;

	while (list != NULL && (entry = readdir(list)) != NULL) {
		const int pid = (int)strtol(entry->d_name, NULL, 10);

		if (pid > 0 && proc_socket_find(pid, inode) >= 0 && proc_runs_as(pid, user))
			return pid;
	}
	return 0;
}

/* Without asking it anything. -EAGAIN: none, or several. */
static int find_listener(const char *path)
{
	cleanup_free char *full = realpath(path, NULL), *line = NULL;
	cleanup_fclose FILE *list = fopen("/proc/net/unix", "re");
	struct stat status;
	size_t room = 0;
	int found = 0;

	if (full == NULL || list == NULL || stat(full, &status) < 0)
		return -EAGAIN;
	while (getline(&line, &room, list) > 0) {
		const char *bound;
		uint64_t inode;
		int pid;

		if (!proc_socket_parse_listener(line, &inode, &bound) ||
			(strcmp(bound, full) != 0 && strcmp(bound, path) != 0))
			continue;
		pid = holder_of(inode, status.st_uid);
		if (pid > 0 && found > 0 && pid != found)
			return -EAGAIN;
		found = pid > 0 ? pid : found;
	}
	return found > 0 ? found : -EAGAIN;
}

int proc_socket_listener(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct ucred peer = {0};
	socklen_t size = sizeof(peer);
	cleanup_close int fd = -1;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return errno == EAGAIN ? find_listener(path) : -errno;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
		return -errno;
	return peer.pid > 0 ? peer.pid : -ESRCH;
}
