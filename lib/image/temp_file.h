/* SPDX-License-Identifier: MIT */
/*
 * A file that is complete or absent (invariant 5): it has no name, where the file system can do
 * that, or a temporary one, until it is committed. A process that is killed leaves nothing behind
 * where O_TMPFILE works, and a .NAME.XXXXXX.tmp elsewhere. One that is killed within a commit may
 * leave that anywhere: the new file, or the one that it replaced.
 */
#ifndef ROUSE_IMAGE_TEMP_FILE_H
#define ROUSE_IMAGE_TEMP_FILE_H

#include <rouse.h>

#include <stdbool.h>
#include <sys/stat.h>

struct rouse_temp_file {
	int fd;           /* open for reading and writing, mode 0600: guest memory is private */
	int directory_fd; /* of the target */
	char *name;       /* of the target, without its directory */
	char *temporary;  /* the temporary name; NULL: it has none */
	bool only_that;   /* rouse_temp_file_replaces() was called */
	struct stat replaced;
};

/**
 * Errors: those of open(2); -EINVAL: @path names a directory, a device or the like, which renaming
 * would replace; -EEXIST: it names a file of another kind than those that Rouse writes.
 */
int rouse_temp_file_open(const char *path, struct rouse_temp_file *file, struct rouse_error *error);

/**
 * The file @replaced, which has the final name now, is to be replaced, and no other: one that gets
 * that name meanwhile, a newer checkpoint, stays, and the commit fails with -EBUSY, kind REFUSED.
 */
void rouse_temp_file_replaces(struct rouse_temp_file *file, const struct stat *replaced);

/**
 * fsync, the final name, fsync of the directory. Then, or if it fails, close with discard(). If it
 * fails there is no new file, and the one that was there before is there: also if only the last
 * step fails. A directory that takes neither back any more, or has no hard links for the file that
 * was there, keeps the new one: the message says so.
 */
int rouse_temp_file_commit(struct rouse_temp_file *file, struct rouse_error *error);

/**
 * A further file in the same directory that never gets a name. Its descriptor, open for reading and
 * writing, or -errno.
 */
int rouse_temp_file_open_nameless(const struct rouse_temp_file *file);

/** Closes the file, and removes it if it was not committed. */
void rouse_temp_file_discard(struct rouse_temp_file *file);

#endif
