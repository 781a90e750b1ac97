/* SPDX-License-Identifier: MIT */
/*
 * Locals that clean up after themselves.
 *
 *	cleanup_free char *path = NULL;
 *	cleanup_close int fd = -1;
 *	...
 *	return take_ptr(&path);    // hands it to the caller
 */
#ifndef ROUSE_BASE_CLEANUP_H
#define ROUSE_BASE_CLEANUP_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_free_fn(void *pointer)
{
	free(*(void **)pointer);
}

static inline void cleanup_close_fn(const int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
}

static inline void cleanup_fclose_fn(FILE **file)
{
	if (*file != NULL)
		(void)fclose(*file);
}

/** Frees a pointer from malloc(3) at the end of the scope. */
#define cleanup_free __attribute__((cleanup(cleanup_free_fn)))
/** Closes a descriptor that is not negative at the end of the scope. */
#define cleanup_close __attribute__((cleanup(cleanup_close_fn)))
#define cleanup_fclose __attribute__((cleanup(cleanup_fclose_fn)))
/** Calls @fn with the address of the variable at the end of the scope. */
#define cleanup_with(fn) __attribute__((cleanup(fn)))

/** Hands a pointer on: the variable is NULL afterwards. */
#define take_ptr(variable)                                    \
	({                                                    \
		__typeof__(*(variable)) taken_ = *(variable); \
		*(variable) = NULL;                           \
		taken_;                                       \
	})

static inline int take_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

#endif
