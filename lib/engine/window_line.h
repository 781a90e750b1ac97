/* SPDX-License-Identifier: MIT */
/*
 * Windows that have been read, in that order: many threads decode them, one takes them, and never
 * one before those in front of it.
 *
 *   put --> [ read | read | decoding | decoded | decoding | decoded ] --> take: once it is decoded
 *                     ^ next to decode
 *
 * Not locked: the feeder's lock.
 */
#ifndef ROUSE_ENGINE_WINDOW_LINE_H
#define ROUSE_ENGINE_WINDOW_LINE_H

#include "engine/window.h"

struct window_line {
	struct feed_window *first, **last;
	struct feed_window *undecoded; /* the first that no thread has begun with; NULL: none */
};

void window_line_init(struct window_line *line);

/** A window that has been read, behind the others. */
void window_line_put(struct window_line *line, struct feed_window *window);

/** A window to decode, which stays in the line; then set window->decoded. NULL: none. */
struct feed_window *window_line_next_to_decode(struct window_line *line);

/** Takes the window whose turn it is; NULL: it is not decoded yet, or there is none. */
struct feed_window *window_line_take(struct window_line *line);

/** Takes the window in front, whatever its state; NULL: none. When nobody decodes any more. */
struct feed_window *window_line_drop(struct window_line *line);

static inline bool window_line_is_empty(const struct window_line *line)
{
	return line->first == NULL;
}

#endif
