/* SPDX-License-Identifier: MIT */
/* Messages for people: "rouse CMD: message" on stderr, or in the system's log. */
#include "tool.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <syslog.h>

static const char *command_name; /* set once, before there are threads */
static bool to_syslog;

void message_set_command(const char *name)
{
	command_name = name;
}

void message_to_syslog(void)
{
	openlog("rouse", LOG_PID, LOG_DAEMON);
	to_syslog = true;
}

static int priority_of(enum message_kind kind)
{
	static const int priorities[] = {
		[MESSAGE_ERROR] = LOG_ERR,
		[MESSAGE_WARNING] = LOG_WARNING,
		[MESSAGE_NOTE] = LOG_INFO,
	};

	return priorities[kind];
}

/* Of a control character at @text, in UTF-8; 0: it is none. */
static size_t control_length(const unsigned char *text)
{
	if (text[0] < 0x20 || text[0] == 0x7f)
		return 1;
	/* U+0080 to U+009F: some terminals obey these, too. */
	return text[0] == 0xc2 && text[1] >= 0x80 && text[1] < 0xa0 ? 2 : 0;
}

char *make_printable(char *text)
{
	unsigned char *to = (unsigned char *)text;

	for (const unsigned char *from = to; *from != '\0';) {
		const size_t length = control_length(from);

		*to++ = length > 0 ? '?' : *from;
		from += length > 0 ? length : 1;
	}
	*to = '\0';
	return text;
}

void message(enum message_kind kind, const char *format, ...)
{
	char text[1200];
	va_list args;

	va_start(args, format);
	/* clang-tidy 14 forgets va_start() when it checks several files in one run. */
	(void)vsnprintf(text, sizeof(text), format, args); /* NOLINT(clang-analyzer-valist.*) */
	va_end(args);
	/* It may name what stands in a file of somebody else. */
	(void)make_printable(text);
	if (to_syslog)
		syslog(priority_of(kind), "%s: %s", command_name, text);
	else
		fprintf(stderr, "rouse%s%s: %s%s\n", command_name != NULL ? " " : "",
			command_name != NULL ? command_name : "",
			kind == MESSAGE_WARNING ? "warning: " : "", text);
}

int report_error(const struct rouse_error *error, int code)
{
	static const int codes[] = {
		[ROUSE_ERROR_NONE] = EXIT_FAILURE,
		[ROUSE_ERROR_SYSTEM] = EXIT_FAILURE,
		[ROUSE_ERROR_USAGE] = EXIT_USAGE,
		[ROUSE_ERROR_DAMAGED] = EXIT_FILE,
		[ROUSE_ERROR_UNSUPPORTED] = EXIT_FILE,
		[ROUSE_ERROR_MISMATCH] = EXIT_FILE,
		[ROUSE_ERROR_REFUSED] = EXIT_REFUSED,
		[ROUSE_ERROR_VMM] = EXIT_VMM,
		[ROUSE_ERROR_CANCELLED] = EXIT_CANCELLED,
	};

	message(MESSAGE_ERROR, "%s", error->message[0] != '\0' ? error->message : "failed");
	if (code == -ECANCELED)
		return EXIT_CANCELLED;
	if ((size_t)error->kind >= sizeof(codes) / sizeof(codes[0]))
		return EXIT_FAILURE;
	return codes[error->kind];
}
