/* SPDX-License-Identifier: MIT */
#include "api/monitor_path.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"

#include <assert.h>
#include <dirent.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

/* Younger sockets may be on their way between bind(2) and listen(2). */
#define STALE_AFTER_S 10

static_assert(ROUSE_MONITOR_BYTES == sizeof(((struct sockaddr_un *)NULL)->sun_path),
	"a monitor's path is a socket's");

/* Makes the directory for our sockets if it is not there. */
static int runtime_directory(char *path, size_t size, struct rouse_error *error)
{
	const char *base = getenv("XDG_RUNTIME_DIR");
	struct stat status;
	int used;

	/* It may name one that nobody has made, as after su(1). */
	if (base != NULL && base[0] == '/' && (access(base, F_OK) == 0 || errno != ENOENT))
		used = snprintf(path, size, "%s/rouse", base);
	else if (geteuid() == 0)
		used = snprintf(path, size, "/run/rouse");
	else
		used = snprintf(path, size, "/tmp/rouse-%u", (unsigned int)geteuid());
	if (used < 0 || (size_t)used >= size)
		return rouse_error_set(error, ROUSE_ERROR_USAGE, -ENAMETOOLONG,
			"the runtime directory's name is too long: use --monitor PATH");
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return rouse_error_errno(error, -errno, "cannot make %s", path);
	/* In /tmp somebody else may have made it first. */
	if (lstat(path, &status) < 0 || !S_ISDIR(status.st_mode) || status.st_uid != geteuid())
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EPERM,
			"%s is not a directory of this user: use --monitor PATH", path);
	return 0;
}

/* Whether nobody listens at a socket. */
static bool is_deserted(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	cleanup_close int fd = -1;

	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 &&
	       errno == ECONNREFUSED;
}

/* Whether nobody listens at a socket any more. */
static bool is_stale(const char *path)
{
	struct stat status;

	return lstat(path, &status) == 0 && S_ISSOCK(status.st_mode) &&
	       time(NULL) - status.st_mtime >= STALE_AFTER_S && is_deserted(path);
}

/* QEMU removes what has the name of its socket, whatever it is. */
static int check_free(const char *path, struct rouse_error *error)
{
	struct stat status;

	if (lstat(path, &status) < 0)
		return 0;
	if (!S_ISSOCK(status.st_mode))
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EEXIST,
			"%s is there and is not a socket: name another place for the monitor",
			path);
	if (!is_deserted(path))
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EADDRINUSE,
			"%s is the socket of another program: name another place for the monitor",
			path);
	return 0;
}

static void remove_stale_sockets(const char *directory)
{
	DIR *list = opendir(directory);
	const struct dirent *entry;

	if (list == NULL)
		return;
	while ((entry = readdir(list)) != NULL) {
		size_t length = strlen(entry->d_name);
		char path[ROUSE_MONITOR_BYTES];
		int used = snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);

		if (length > 4 && strcmp(entry->d_name + length - 4, ".qmp") == 0 && used > 0 &&
			(size_t)used < sizeof(path) && is_stale(path))
			(void)unlink(path);
	}
	(void)closedir(list);
}

int rouse_monitor_path(
	const char *wanted, char path[ROUSE_MONITOR_BYTES], struct rouse_error *error)
{
	char directory[ROUSE_MONITOR_BYTES];
	int used, code;

	if (wanted != NULL) {
		/* QEMU is started in another directory perhaps: the image's. */
		cleanup_free char *here = wanted[0] == '/' ? NULL : getcwd(NULL, 0);

		if (wanted[0] != '/' && here == NULL)
			return rouse_error_errno(error, -errno, "cannot place the monitor");
		used = snprintf(path, ROUSE_MONITOR_BYTES, "%s%s%s", here != NULL ? here : "",
			here != NULL ? "/" : "", wanted);
	} else {
		code = runtime_directory(directory, sizeof(directory), error);
		if (code < 0)
			return code;
		remove_stale_sockets(directory);
		used = snprintf(path, ROUSE_MONITOR_BYTES, "%s/%d-%llx.qmp", directory,
			(int)getpid(), (unsigned long long)rouse_clock_ns());
	}
	/* A comma ends the path in QEMU's options. */
	if (used < 0 || (size_t)used >= ROUSE_MONITOR_BYTES || strchr(path, ',') != NULL)
		return rouse_error_set(error, ROUSE_ERROR_USAGE, -ENAMETOOLONG,
			"%s cannot be a monitor's path: at most %u bytes, without commas",
			wanted != NULL ? wanted : directory, ROUSE_MONITOR_BYTES - 1);
	return wanted != NULL ? check_free(path, error) : 0;
}
