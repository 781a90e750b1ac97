/* SPDX-License-Identifier: MIT */
/*
 * Stamped memory: regions whose pages hold content_fill(page, generation). The generations are in
 * a table of their own, so that all pages can be recomputed and compared: a page that is lost, old,
 * zero or of another place does not pass.
 */
#ifndef GUEST_STAMP_H
#define GUEST_STAMP_H

#include <stddef.h>
#include <stdint.h>

#define STAMP_PAGE 4096

struct stamp_result {
	uint64_t pages, errors;
};

/** Maps and fills @mb MiB: of anonymous memory, or of a new file @path if it is not NULL. */
int stamp_region_new(const char *path, size_t mb, const char *label);
/**
 * Gives every eighth page a new generation, and starts a thread that goes on doing so with a small
 * part of the pages, again and again. Returns the number of pages of all regions.
 */
uint64_t stamp_renew(void);
/** Compares every page of every region with what it should hold. */
struct stamp_result stamp_verify(void);
/** The number of pages of all regions. */
uint64_t stamp_pages(void);
/** The address of a page, 0 <= index < stamp_pages(). For reading only. */
const volatile uint64_t *stamp_page(uint64_t index);

#endif
