/* SPDX-License-Identifier: MIT */
#include "engine/window_line.h"

void window_line_init(struct window_line *line)
{
	*line = (struct window_line){0};
	line->last = &line->first;
}

void window_line_put(struct window_line *line, struct feed_window *window)
{
	window->next = NULL;
	window->decoded = false;
	*line->last = window;
	line->last = &window->next;
	if (line->undecoded == NULL)
		line->undecoded = window;
}

struct feed_window *window_line_next_to_decode(struct window_line *line)
{
	struct feed_window *window = line->undecoded;

	if (window != NULL)
		line->undecoded = window->next;
	return window;
}

struct feed_window *window_line_take(struct window_line *line)
{
	return line->first != NULL && line->first->decoded ? window_line_drop(line) : NULL;
}

struct feed_window *window_line_drop(struct window_line *line)
{
	struct feed_window *window = line->first;

	if (window == NULL)
		return NULL;
	if (line->undecoded == window)
		line->undecoded = window->next;
	line->first = window->next;
	if (line->first == NULL)
		line->last = &line->first;
	return window;
}
