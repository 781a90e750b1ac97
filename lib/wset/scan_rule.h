/* SPDX-License-Identifier: MIT */
/*
 * Which pages of a scan belong to the working set: by how often and how recently they were
 * accessed. Pure.
 *
 * Each page has a score. With every scan it is multiplied by the decay d, and 1 is added if the
 * page was accessed since the scan before:
 *
 *	score after N scans = sum of d^(N-i) over the scans i that saw the page
 *
 * A page belongs to the set if its score is at least the threshold.
 *
 *	threshold 0             seen in any scan
 *	d = 1,   threshold = m  seen in at least m scans: how often
 *	d = 1/2, threshold = d^(k-1)
 *	                        seen in the last k scans: how recently. Once among them is worth
 *	                        d^(k-1) or more, and all earlier scans together less than that
 *
 * between them both count. The score is rounded down, so that the last one stays exact.
 */
#ifndef ROUSE_WSET_SCAN_RULE_H
#define ROUSE_WSET_SCAN_RULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SCAN_RULE_ONE (UINT64_C(1) << 32) /* of a score */
#define SCAN_RULE_DECAY_ONE 65536u
#define SCAN_RULE_MAX_LAST 32u
#define SCAN_RULE_MAX_SCANS 65535u /* a score fits 64 bits, times the decay */

struct scan_rule {
	uint32_t decay;     /**< of SCAN_RULE_DECAY_ONE */
	uint64_t threshold; /**< of SCAN_RULE_ONE; 0: every page that was ever seen */
};

/** All zero: never seen. */
struct scan_page {
	uint64_t score;
	uint32_t first; /**< the first scan that saw it, from 1; 0: none did */
};

/**
 * A rule from fractions. @decay: 0 to 1; @threshold: 0 or more, not above SCAN_RULE_MAX_SCANS.
 * -EINVAL.
 */
int scan_rule_set(struct scan_rule *rule, double decay, double threshold);
/** Seen in the last @scans, 1 to SCAN_RULE_MAX_LAST. -EINVAL. */
int scan_rule_set_last(struct scan_rule *rule, unsigned int scans);

/** A new scan begins. */
void scan_rule_age(const struct scan_rule *rule, struct scan_page *pages, size_t count);
/** Scan number @scan, from 1, has seen the page. Once per scan and page. */
void scan_rule_note(struct scan_page *page, uint32_t scan);
bool scan_rule_holds(const struct scan_rule *rule, const struct scan_page *page);

#endif
