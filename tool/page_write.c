/* SPDX-License-Identifier: MIT */
/* Files whole, the data as text that is safe in a page, and the page itself. */
#include "page.h"

#include "replace_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_TEMPLATE_BYTES ((size_t)16 << 20)

/* What is seen of a template's absence, and what to do. */
#define NO_TEMPLATE                                                                          \
	"the page's template is not there: it is made when Rouse is built where npm is and " \
	"may fetch packages (Debian: apt install npm; then ninja -C build, and install "     \
	"again); --template FILE names one"

static char *no_file(const char *path, char *buffer, FILE *file, const char *why)
{
	message(MESSAGE_ERROR, "cannot read %s: %s", path, why);
	free(buffer);
	if (file != NULL)
		(void)fclose(file);
	return NULL;
}

char *page_read_file(const char *path, size_t limit, size_t *size)
{
	FILE *file = fopen(path, "re");
	size_t room = (size_t)64 << 10, used = 0;
	char *buffer = file != NULL ? malloc(room + 1) : NULL;

	if (buffer == NULL)
		return no_file(path, NULL, file, strerror(errno));
	/* A pipe does not tell how much there is. */
	for (;;) {
		char *larger;

		used += fread(buffer + used, 1, room - used, file);
		if (ferror(file) != 0)
			return no_file(path, buffer, file, strerror(errno));
		if (used < room)
			break;
		if (used > limit)
			return no_file(path, buffer, file, "it is too large");
		room *= 2;
		larger = realloc(buffer, room + 1);
		if (larger == NULL)
			return no_file(path, buffer, file, strerror(ENOMEM));
		buffer = larger;
	}
	if (used > limit)
		return no_file(path, buffer, file, "it is too large");
	(void)fclose(file);
	buffer[used] = '\0';
	*size = used;
	return buffer;
}

/* These could end the script, or begin a comment in it; in JSON they stand in texts only. */
static const char *escape_of(char c)
{
	switch (c) {
	case '<':
		return "\\u003c";
	case '>':
		return "\\u003e";
	case '&':
		return "\\u0026";
	default:
		return NULL;
	}
}

char *page_data_text(const json_t *data)
{
	/* ASCII: U+2028 and its like, which are newlines to some, come as escapes, too. */
	char *json = json_dumps(data, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(7));
	char *text = json != NULL ? malloc(6 * strlen(json) + 1) : NULL, *to = text;

	for (const char *from = json; text != NULL && *from != '\0'; from++) {
		const char *escape = escape_of(*from);

		if (escape != NULL)
			to = stpcpy(to, escape);
		else
			*to++ = *from;
	}
	if (text != NULL)
		*to = '\0';
	free(json);
	return text;
}

/* ---- The template ---------------------------------------------------------------------------
 */

/* Beside the program: in the tree that was built, or where it was installed. */
static char *find_template(void)
{
	static const char *const places[] = {"../report/report.html", "../share/rouse/report.html"};
	char program[PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", program, sizeof(program) - 1);
	char *slash, *path;

	if (length <= 0)
		return NULL;
	program[length] = '\0';
	slash = strrchr(program, '/');
	if (slash == NULL)
		return NULL;
	*slash = '\0';
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		if (asprintf(&path, "%s/%s", program, places[i]) < 0)
			return NULL;
		if (access(path, R_OK) == 0)
			return path;
		free(path);
	}
	return access(ROUSE_TEMPLATE, R_OK) == 0 ? strdup(ROUSE_TEMPLATE) : NULL;
}

/* *text: the template, to be freed; *mark: where in it the data goes. */
static int read_template(const char *given, char **text, char **mark)
{
	char *found = given == NULL ? find_template() : NULL;
	const char *path = given != NULL ? given : found;
	size_t size;

	if (path == NULL) {
		message(MESSAGE_ERROR, NO_TEMPLATE);
		return EXIT_REFUSED;
	}
	*text = page_read_file(path, MAX_TEMPLATE_BYTES, &size);
	*mark = *text != NULL ? strstr(*text, PAGE_MARK) : NULL;
	if (*text != NULL &&
		(*mark == NULL || strstr(*mark + 1, PAGE_MARK) != NULL || strlen(*text) != size)) {
		message(MESSAGE_ERROR, "%s is no template of a page", path);
		free(*text);
		*text = NULL;
	}
	free(found);
	return *text != NULL ? EXIT_SUCCESS : EXIT_FILE;
}

/* ---- The file ---------------------------------------------------------------------------------
 */

static int write_parts(int fd, const char *template, const char *mark, const char *text)
{
	const size_t before = (size_t)(mark - template);
	FILE *file = fdopen(fd, "w");
	int code = 0;

	if (file == NULL) {
		code = -errno;
		(void)close(fd);
		return code;
	}
	if (fwrite(template, 1, before, file) != before || fputs(text, file) < 0 ||
		fputs(mark + strlen(PAGE_MARK), file) < 0 || fflush(file) != 0 || fsync(fd) < 0)
		code = -errno;
	if (fclose(file) != 0 && code == 0)
		code = -errno;
	return code;
}

/* Writes beside @out and renames: nobody sees half a page. */
static int replace_file(const char *out, const char *template, const char *mark, const char *text)
{
	char *temporary = NULL;
	const int fd = replace_begin(out, &temporary);

	if (fd < 0)
		return fd;
	return replace_end(temporary, write_parts(fd, template, mark, text));
}

int page_write(const json_t *data, const char *given, const char *out)
{
	char *template = NULL, *mark = NULL, *text;
	struct stat status;
	int exit_code = read_template(given, &template, &mark), code = 0;

	if (exit_code != EXIT_SUCCESS)
		return exit_code;
	text = page_data_text(data);
	exit_code = EXIT_FAILURE;
	if (text == NULL)
		message(MESSAGE_ERROR, "not enough memory for the page");
	else if (stat(out, &status) == 0 && !S_ISREG(status.st_mode))
		message(MESSAGE_ERROR, "%s is there and is not a regular file", out);
	else if (replace_is_open_file(out))
		message(MESSAGE_ERROR,
			"%s stands for an open file, as standard output is: name the file itself",
			out);
	else if ((code = replace_file(out, template, mark, text)) < 0)
		message(MESSAGE_ERROR, "cannot write %s: %s", out, strerror(-code));
	else
		exit_code = EXIT_SUCCESS;
	free(text);
	free(template);
	return exit_code;
}
