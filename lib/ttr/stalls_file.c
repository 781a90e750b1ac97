/* SPDX-License-Identifier: MIT */
/* The text of a stall log: ttr.h has its grammar. */
#include "ttr/stalls.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/io.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#define MAX_LOG_BYTES ((size_t)1 << 30)
#define FIRST_WORD "rouse-stalls "
#define FIRST_LINE FIRST_WORD "1"

int rouse_stalls_write(const struct rouse_stalls *stalls, FILE *file)
{
	int written = fprintf(file, FIRST_LINE "\nvcpus %u\n", stalls->vcpus);

	for (size_t i = 0; i < stalls->count && written >= 0; i++)
		written = fprintf(file, "%" PRId64 " %" PRId64 "\n", stalls->stalls[i].from,
			stalls->stalls[i].to);
	if (written < 0 || fflush(file) != 0)
		return -errno;
	return 0;
}

int rouse_stalls_check_place(const char *path, struct rouse_error *error)
{
	char first[sizeof(FIRST_WORD) - 1];
	cleanup_close int fd = -1;
	struct stat status;
	ssize_t n;

	/* Into a pipe or a terminal it is written as it comes. */
	if (stat(path, &status) < 0 || !S_ISREG(status.st_mode) || status.st_size == 0)
		return 0;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -errno : rouse_io_read(fd, first, sizeof(first));
	if (n < 0)
		return rouse_error_errno(error, (int)n, "cannot read %s", path);
	if (n == (ssize_t)sizeof(first) && memcmp(first, FIRST_WORD, sizeof(first)) == 0)
		return 0;
	return rouse_error_set(error, ROUSE_ERROR_USAGE, -EEXIST,
		"%s is there and is no stall log: it is not replaced by one; name another file, or "
		"remove it first",
		path);
}

/* The text that is left; numbers and words of the present line are taken off its beginning. */
struct scanner {
	const char *at, *end; /* end: of the line */
	const char *text_end;
	unsigned int line;
};

static bool next_line(struct scanner *scanner)
{
	const char *begin = scanner->line == 0 ? scanner->at : scanner->end + 1;
	const char *newline;

	if (begin >= scanner->text_end)
		return false;
	newline = memchr(begin, '\n', (size_t)(scanner->text_end - begin));
	scanner->at = begin;
	scanner->end = newline != NULL ? newline : scanner->text_end;
	scanner->line++;
	return true;
}

/* Skips comment lines and empty ones. */
static bool next_record(struct scanner *scanner)
{
	while (next_line(scanner)) {
		if (scanner->at < scanner->end && *scanner->at != '#')
			return true;
	}
	return false;
}

static bool take_word(struct scanner *scanner, const char *word)
{
	size_t size = strlen(word);

	if ((size_t)(scanner->end - scanner->at) < size || memcmp(scanner->at, word, size) != 0)
		return false;
	scanner->at += size;
	return true;
}

static bool take_number(struct scanner *scanner, uint64_t *number)
{
	const char *begin = scanner->at;

	*number = 0;
	for (; scanner->at < scanner->end && *scanner->at >= '0' && *scanner->at <= '9';
		scanner->at++) {
		if (*number > (uint64_t)ROUSE_STALLS_MAX_US)
			return false;
		*number = *number * 10 + (uint64_t)(*scanner->at - '0');
	}
	return scanner->at > begin;
}

static bool at_end(const struct scanner *scanner)
{
	return scanner->at == scanner->end;
}

static int bad_line(struct rouse_error *error, const struct scanner *scanner, const char *wanted)
{
	return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN, "stall log, line %u: %s",
		scanner->line, wanted);
}

static int parse_head(
	struct scanner *scanner, struct rouse_stalls **stalls, struct rouse_error *error)
{
	uint64_t vcpus;
	int code;

	if (!next_line(scanner) || !take_word(scanner, FIRST_LINE) || !at_end(scanner))
		return bad_line(error, scanner, "the first line is not \"" FIRST_LINE "\"");
	if (!next_record(scanner) || !take_word(scanner, "vcpus ") ||
		!take_number(scanner, &vcpus) || !at_end(scanner) || vcpus == 0 ||
		vcpus > ROUSE_STALLS_MAX_VCPUS)
		return bad_line(error, scanner, "\"vcpus N\" is expected, N from 1 to 4096");
	code = rouse_stalls_new((unsigned int)vcpus, stalls);
	return code < 0 ? rouse_error_errno(error, code, "stall log") : 0;
}

static void free_stalls(struct rouse_stalls **stalls)
{
	rouse_stalls_free(*stalls);
}

int rouse_stalls_parse(
	const char *text, size_t size, struct rouse_stalls **stalls, struct rouse_error *error)
{
	struct scanner scanner = {.at = text, .end = text, .text_end = text + size};
	cleanup_with(free_stalls) struct rouse_stalls *s = NULL;
	int code = parse_head(&scanner, &s, error);

	if (code < 0)
		return code;
	while (next_record(&scanner)) {
		uint64_t from, to;

		if (!take_number(&scanner, &from) || !take_word(&scanner, " ") ||
			!take_number(&scanner, &to) || !at_end(&scanner))
			return bad_line(error, &scanner, "two numbers are expected, FROM_US TO_US");
		code = rouse_stalls_add(s, from, to);
		if (code == -EINVAL)
			return bad_line(error, &scanner,
				"the stall ends before it begins, or is beyond 203 days");
		if (code < 0)
			return rouse_error_errno(error, code, "stall log");
	}
	*stalls = take_ptr(&s);
	return 0;
}

int rouse_stalls_load(const char *path, struct rouse_stalls **stalls, struct rouse_error *error)
{
	cleanup_free char *text = NULL;
	size_t size = 0;
	int code = rouse_io_read_file(path, MAX_LOG_BYTES, &text, &size);

	if (code < 0)
		return rouse_error_errno(error, code, "cannot read %s", path);
	code = rouse_stalls_parse(text, size, stalls, error);
	if (code < 0)
		(void)rouse_error_prefix(error, "%s", path);
	return code;
}
