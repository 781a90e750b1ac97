/* SPDX-License-Identifier: MIT */
/* Values of options: sizes, rates, durations. */
#include "options.h"

#include <ctype.h>
#include <rouse.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* strtoull(3) and strtod(3) accept signs, spaces, hexadecimal, "nan" and more: this does not. */
static bool starts_with_digit(const char *text)
{
	return isdigit((unsigned char)text[0]) && text[1] != 'x' && text[1] != 'X';
}

bool parse_count(const char *text, uint64_t max, uint64_t *count)
{
	const char *at = text;
	uint64_t number = 0;

	for (; isdigit((unsigned char)*at); at++) {
		if (number > (UINT64_MAX - 9) / 10)
			return false;
		number = number * 10 + (uint64_t)(*at - '0');
	}
	*count = number;
	return at > text && *at == '\0' && number <= max;
}

/* A number that may have a fraction; *end: what follows it. */
static bool parse_number(const char *text, double *number, const char **end)
{
	char *behind;

	if (!starts_with_digit(text))
		return false;
	*number = strtod(text, &behind);
	*end = behind;
	return true;
}

bool parse_fraction(const char *text, double *number)
{
	const char *end;

	return parse_number(text, number, &end) && *end == '\0';
}

/* number * factor, if it fits. */
static bool scale(double number, double factor, uint64_t *result)
{
	double product = number * factor;

	if (!(product < 9e18))
		return false;
	*result = (uint64_t)(product + 0.5);
	return true;
}

bool parse_size(const char *text, uint64_t *bytes)
{
	static const char letters[] = "KMGT";
	double number, factor = 1;
	const char *end, *letter;

	if (!parse_number(text, &number, &end))
		return false;
	letter = *end != '\0' ? strchr(letters, toupper((unsigned char)*end)) : NULL;
	if (letter != NULL) {
		bool thousands = strcasecmp(end + 1, "B") == 0;

		if (!thousands && end[1] != '\0' && strcasecmp(end + 1, "iB") != 0)
			return false;
		for (const char *i = letters; i <= letter; i++)
			factor *= thousands ? 1000 : 1024;
	} else if (*end != '\0' && strcasecmp(end, "B") != 0) {
		return false;
	}
	return scale(number, factor, bytes);
}

bool parse_rate(const char *text, uint64_t *bytes_per_s)
{
	if (strcmp(text, "off") == 0) {
		*bytes_per_s = 0;
		return true;
	}
	if (strcmp(text, "max") == 0) {
		*bytes_per_s = ROUSE_BACKGROUND_MAX;
		return true;
	}
	if (strcmp(text, "auto") == 0) {
		*bytes_per_s = ROUSE_BACKGROUND_AUTO;
		return true;
	}
	return parse_size(text, bytes_per_s) && *bytes_per_s > 0;
}

bool parse_duration(const char *text, uint64_t *us)
{
	static const struct {
		const char *unit;
		double factor;
	} units[] = {{"us", 1}, {"ms", 1e3}, {"s", 1e6}, {"min", 60e6}};
	double number;
	const char *end;

	if (!parse_number(text, &number, &end))
		return false;
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (strcmp(end, units[i].unit) == 0)
			return scale(number, units[i].factor, us);
	}
	return false;
}
