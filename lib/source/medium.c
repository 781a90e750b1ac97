/* SPDX-License-Identifier: MIT */
#include "source/medium.h"

#include "base/error.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

int rouse_medium_size(int fd, uint64_t *size)
{
	struct stat status;
	off_t end;

	if (fstat(fd, &status) < 0)
		return -errno;
	if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode))
		return -EINVAL;
	end = lseek(fd, 0, SEEK_END);
	if (end < 0)
		return -errno;
	*size = (uint64_t)end;
	return 0;
}

int rouse_medium_refuse(const char *path, int code, struct rouse_error *error)
{
	if (code == -EINVAL)
		return rouse_error_set(error, ROUSE_ERROR_USAGE, code,
			"%s is neither a regular file nor a block device", path);
	return rouse_error_errno(error, code, "cannot open %s", path);
}

static struct flock last_byte(short type)
{
	return (struct flock){
		.l_type = type, .l_whence = SEEK_SET, .l_start = INT64_MAX - 1, .l_len = 1};
}

void rouse_medium_join(int fd)
{
	struct flock lock = last_byte(F_RDLCK);

	(void)fcntl(fd, F_OFD_SETLK, &lock);
}

bool rouse_medium_is_shared(int fd)
{
	struct flock lock = last_byte(F_WRLCK);

	return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}
