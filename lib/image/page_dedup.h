/* SPDX-License-Identifier: MIT */
/*
 * Finds pages that are stored already, by a hash of 128 bits with a secret. Not thread-safe.
 *
 * Two different pages with one hash would be wrong memory after a restore, and the content of pages
 * is chosen by the guest, which may be hostile, or host a hostile program beside others. Hence:
 *
 *   - The hash is two XXH3-64 with independent random secrets, drawn for each image and kept
 *     nowhere. XXH3 is no cryptographic hash: a change in a page can be made invisible to it by
 *     whoever knows 32 bits of its secret (a factor of a product made zero hides the other one).
 *     But one and the same change must be invisible under both secrets, which needs 64 bits
 *     guessed at once for each try, and a try costs a page in the guest and a whole save.
 *   - Tables do not outlive an image: nothing is shared between VMs.
 *
 * By chance two of 2^32 pages collide with a probability of 2^-65.
 */
#ifndef ROUSE_IMAGE_PAGE_DEDUP_H
#define ROUSE_IMAGE_PAGE_DEDUP_H

#include <stdint.h>

struct rouse_dedup;

/** At most @max_pages are remembered, 24 to 48 bytes for each. -ENOMEM, -EIO (no randomness). */
int rouse_dedup_new(uint64_t max_pages, struct rouse_dedup **dedup);
void rouse_dedup_free(struct rouse_dedup *dedup);

/**
 * The place where the locator of pages with the content @data (4 KiB) is kept: 0 if there is none
 * so far, and then the caller stores one that is not 0. Valid until the next call. NULL: the table
 * is full; the page is not in it.
 */
uint64_t *rouse_dedup_find(struct rouse_dedup *dedup, const void *data);

#endif
