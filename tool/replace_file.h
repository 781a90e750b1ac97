/* SPDX-License-Identifier: MIT */
/* Files that are replaced whole: written beside their name and renamed, so that nobody sees half.
 */
#ifndef ROUSE_TOOL_REPLACE_FILE_H
#define ROUSE_TOOL_REPLACE_FILE_H

#include <jansson.h>
#include <stdbool.h>

/**
 * Whether @path stands for an open file: a link in or into /dev or /proc, as /dev/stdout is. A
 * rename would take the place of the link, whatever it leads to.
 */
bool replace_is_open_file(const char *path);
/** Whether both names are one, or lead to one file that is there. */
bool replace_is_same_file(const char *one, const char *other);
/**
 * Whether it can be replaced: there is nothing yet, or a regular file, perhaps behind a link. What
 * cannot (a pipe, a link to a file that is not there) is opened and written in place.
 */
bool replace_is_possible(const char *path);
/**
 * Whether a text may take the place of what is there, if anything is: an image, a disk or the like
 * would be a slip of the name. If not, a message says so.
 */
bool replace_check_text(const char *path);
/**
 * Opens a new file beside @path, or beside what a link there leads to, with the permissions of
 * what is there or else of any new one. The descriptor, or -errno. *temporary: its name, for
 * replace_end().
 */
int replace_begin(const char *path, char **temporary);
/** With @code 0 gives it its name, else removes it. Frees @temporary. @code, or -errno. */
int replace_end(char *temporary, int code);
/** Writes JSON: whole, or in place what cannot be replaced (a pipe). 0 or -errno. */
int replace_by_json(const json_t *json, const char *path, size_t flags);

#endif
