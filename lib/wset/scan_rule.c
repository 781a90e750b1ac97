/* SPDX-License-Identifier: MIT */
#include "wset/scan_rule.h"

#include <errno.h>

int scan_rule_set(struct scan_rule *rule, double decay, double threshold)
{
	/* So written that a NaN is refused, too. */
	if (!(decay >= 0 && decay <= 1) || !(threshold >= 0 && threshold <= SCAN_RULE_MAX_SCANS))
		return -EINVAL;
	rule->decay = (uint32_t)(decay * SCAN_RULE_DECAY_ONE);
	rule->threshold = (uint64_t)(threshold * (double)SCAN_RULE_ONE);
	return 0;
}

int scan_rule_set_last(struct scan_rule *rule, unsigned int scans)
{
	if (scans == 0 || scans > SCAN_RULE_MAX_LAST)
		return -EINVAL;
	rule->decay = SCAN_RULE_DECAY_ONE / 2;
	rule->threshold = SCAN_RULE_ONE >> (scans - 1);
	return 0;
}

void scan_rule_age(const struct scan_rule *rule, struct scan_page *pages, size_t count)
{
	for (size_t i = 0; i < count; i++)
		pages[i].score = pages[i].score * rule->decay / SCAN_RULE_DECAY_ONE;
}

void scan_rule_note(struct scan_page *page, uint32_t scan)
{
	page->score += SCAN_RULE_ONE;
	if (page->first == 0)
		page->first = scan;
}

bool scan_rule_holds(const struct scan_rule *rule, const struct scan_page *page)
{
	return page->first != 0 && page->score >= rule->threshold;
}
