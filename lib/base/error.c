/* SPDX-License-Identifier: MIT */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int rouse_error_set(
	struct rouse_error *error, enum rouse_error_kind kind, int code, const char *format, ...)
{
	if (error != NULL) {
		va_list args;

		error->code = code;
		error->kind = kind;
		va_start(args, format);
		(void)vsnprintf(error->message, sizeof(error->message), format, args);
		va_end(args);
	}
	return code;
}

int rouse_error_errno(struct rouse_error *error, int code, const char *format, ...)
{
	if (error != NULL) {
		va_list args;
		size_t used;

		error->code = code;
		error->kind = code == -ECANCELED ? ROUSE_ERROR_CANCELLED : ROUSE_ERROR_SYSTEM;
		va_start(args, format);
		(void)vsnprintf(error->message, sizeof(error->message), format, args);
		va_end(args);
		used = strlen(error->message);
		(void)snprintf(error->message + used, sizeof(error->message) - used, ": %s",
			strerrordesc_np(-code));
	}
	return code;
}

int rouse_error_prefix(struct rouse_error *error, const char *format, ...)
{
	char old[sizeof(error->message)];
	va_list args;
	size_t used;

	if (error == NULL)
		return -EIO;
	memcpy(old, error->message, sizeof(old));
	va_start(args, format);
	(void)vsnprintf(error->message, sizeof(error->message), format, args);
	va_end(args);
	used = strlen(error->message);
	(void)snprintf(error->message + used, sizeof(error->message) - used, ": %s", old);
	return error->code;
}
