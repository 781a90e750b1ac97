/* SPDX-License-Identifier: MIT */
#include "progress.h"

#include "tool.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BAR_INTERVAL_US 100000u
#define LINE_INTERVAL_US 3000000u
#define BAR_CELLS 24

static uint64_t now_us(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000;
}

static bool can_write(void)
{
	struct pollfd fd = {.fd = STDERR_FILENO, .events = POLLOUT};

	return poll(&fd, 1, 0) == 1 && (fd.revents & POLLOUT) != 0;
}

void progress_init(struct progress *progress, bool quiet)
{
	const char *term = getenv("TERM");

	*progress = (struct progress){.shown = !quiet};
	progress->terminal =
		isatty(STDERR_FILENO) == 1 && term != NULL && strcmp(term, "dumb") != 0;
}

void progress_clear(struct progress *progress)
{
	if (progress->drawn)
		fputs("\r\033[K", stderr);
	progress->drawn = false;
}

struct amount {
	char text[48];
};

/* So much of what is counted, in words. */
static struct amount amount_of(const struct rouse_progress *now, uint64_t value)
{
	struct amount amount;

	if (now->unit == ROUSE_PROGRESS_MICROSECONDS)
		(void)snprintf(
			amount.text, sizeof(amount.text), "%s", human_us((double)value).text);
	else if (now->unit == ROUSE_PROGRESS_SCANS)
		(void)snprintf(amount.text, sizeof(amount.text), "%llu", (unsigned long long)value);
	else
		(void)snprintf(amount.text, sizeof(amount.text), "%s", human_bytes(value).text);
	return amount;
}

/* "312.5 MiB/s, 3 s left", or nothing yet; of a time or scans only what is left. */
static void describe_rate(const struct progress *progress, const struct rouse_progress *now,
	uint64_t time_us, char *text, size_t room)
{
	double seconds = (double)(time_us - progress->begin_us) / 1e6;
	double rate = seconds > 0.2 && now->done > progress->begin_done
			      ? (double)(now->done - progress->begin_done) / seconds
			      : 0;

	text[0] = '\0';
	if (now->unit != ROUSE_PROGRESS_BYTES && rate > 0 && now->total > now->done)
		(void)snprintf(
			text, room, ", %.0f s left", (double)(now->total - now->done) / rate);
	else if (now->unit != ROUSE_PROGRESS_BYTES)
		return;
	else if (rate >= 1 && now->total > now->done)
		(void)snprintf(text, room, ", %s/s, %.0f s left", human_bytes((uint64_t)rate).text,
			(double)(now->total - now->done) / rate);
	else if (rate >= 1)
		(void)snprintf(text, room, ", %s/s", human_bytes((uint64_t)rate).text);
}

static unsigned int percent_of(const struct rouse_progress *now)
{
	if (now->total == 0)
		return 0;
	if (now->done >= now->total)
		return 100;
	return (unsigned int)((double)now->done * 100 / (double)now->total);
}

static void draw_bar(struct progress *progress, const struct rouse_progress *now, const char *rate)
{
	char bar[BAR_CELLS + 1];
	unsigned int full = percent_of(now) * BAR_CELLS / 100;

	memset(bar, '-', BAR_CELLS);
	memset(bar, '#', full);
	bar[BAR_CELLS] = '\0';
	if (now->total > 0)
		fprintf(stderr, "\r\033[K%-12s [%s] %3u %%  %s of %s%s", now->phase, bar,
			percent_of(now), amount_of(now, now->done).text,
			amount_of(now, now->total).text, rate);
	else
		fprintf(stderr, "\r\033[K%-12s %s%s", now->phase, amount_of(now, now->done).text,
			rate);
	progress->drawn = true;
}

static void print_line(const struct rouse_progress *now, const char *rate)
{
	if (now->total > 0)
		message(MESSAGE_NOTE, "%s: %u %% (%s of %s%s)", now->phase, percent_of(now),
			amount_of(now, now->done).text, amount_of(now, now->total).text, rate);
	else
		message(MESSAGE_NOTE, "%s: %s%s", now->phase, amount_of(now, now->done).text, rate);
}

void progress_update(struct progress *progress, const struct rouse_progress *now)
{
	uint64_t time_us = now_us();
	char rate[80];

	if (!progress->shown || now->phase == NULL)
		return;
	if (strncmp(progress->phase, now->phase, sizeof(progress->phase) - 1) != 0) {
		(void)snprintf(progress->phase, sizeof(progress->phase), "%s", now->phase);
		progress->begin_us = time_us;
		progress->begin_done = now->done;
		/* The first line of a phase: not before the phase has lasted for a while. */
		progress->last_us = time_us;
	}
	if (time_us - progress->last_us < (progress->terminal ? BAR_INTERVAL_US : LINE_INTERVAL_US))
		return;
	progress->last_us = time_us;
	if (!can_write())
		return;
	describe_rate(progress, now, time_us, rate, sizeof(rate));
	if (progress->terminal)
		draw_bar(progress, now, rate);
	else
		print_line(now, rate);
}
