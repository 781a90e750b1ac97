/* SPDX-License-Identifier: MIT */
/* Values of options that several commands have. */
#include "tool.h"

#include <string.h>

/* Longer ones do not count (struct rouse_throttle). */
#define LATENCY_MAX_US 60000000u

const struct option_value codec_values[] = {
	{"lz4", ROUSE_CODEC_LZ4},
	{"zstd", ROUSE_CODEC_ZSTD},
	{"none", ROUSE_CODEC_NONE},
	{NULL, 0},
};

const struct option_value scan_source_values[] = {
	{"auto", ROUSE_SCAN_AUTO},
	{"page-idle", ROUSE_SCAN_PAGE_IDLE},
	{"presence", ROUSE_SCAN_PRESENCE},
	{"writes", ROUSE_SCAN_WRITES},
	{NULL, 0},
};

/* Splits a copy of @text at its first comma; *second is NULL without one. */
static bool split(const char *text, char copy[64], char **second)
{
	char *comma;

	if (snprintf(copy, 64, "%s", text) >= 64)
		return false;
	comma = strchr(copy, ',');
	*second = comma != NULL ? comma + 1 : NULL;
	if (comma != NULL)
		*comma = '\0';
	return true;
}

bool parse_percent(const char *text, double *percent)
{
	char number[64];
	size_t length;

	if (snprintf(number, sizeof(number), "%s", text) >= (int)sizeof(number))
		return false;
	length = strlen(number);
	if (length > 0 && number[length - 1] == '%')
		number[length - 1] = '\0';
	return parse_fraction(number, percent) && *percent <= 100;
}

bool parse_share(const char *text, double *share)
{
	return parse_fraction(text, share) && *share > 0 && *share <= 1;
}

bool parse_ttr_point(const char *text, struct rouse_ttr_point *point)
{
	char first[64];
	char *window;
	double percent;

	if (!split(text, first, &window) || window == NULL || !parse_percent(first, &percent))
		return false;
	point->utilization = percent / 100;
	return parse_duration(window, &point->window_us);
}

bool parse_throttle(const char *text, struct rouse_throttle *throttle)
{
	char rate[64], rest[64];
	char *reads, *latency;

	*throttle = (struct rouse_throttle){0};
	if (!split(text, rate, &reads) || !parse_size(rate, &throttle->bytes_per_s))
		return false;
	if (reads == NULL)
		return true;
	if (!split(reads, rest, &latency) ||
		!parse_count(rest, UINT32_MAX, &throttle->random_reads_per_s))
		return false;
	return latency == NULL || (parse_duration(latency, &throttle->latency_us) &&
					  throttle->latency_us <= LATENCY_MAX_US);
}
