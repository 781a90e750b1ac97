# SPDX-License-Identifier: MIT
"""How good an estimated working set is, beside the pages that the guest really touched."""

from typing import NamedTuple, Optional


class Judgement(NamedTuple):
    """Shares from 0 to 1; None where there is nothing to divide by.

    precision          of the set, the share that is in the truth
    recall             of the truth, the share that is in the set
    order_correlation  Spearman's rank correlation of the two orders, over the pages in both: 1 is
                       the same order, 0 none, -1 the opposite one
    """
    precision: Optional[float]
    recall: Optional[float]
    order_correlation: Optional[float]


def _share(part, whole):
    return part / whole if whole else None


def order_correlation(first, second):
    """Spearman's rank correlation of two orders of pages, over those in both. None: too few."""
    others = {page: place for place, page in enumerate(second)}
    places = [others[page] for page in first if page in others]
    count = len(places)
    if count < 2:
        return None
    ranks = {place: rank for rank, place in enumerate(sorted(places))}
    squares = sum((rank - ranks[place]) ** 2 for rank, place in enumerate(places))
    return 1 - 6 * squares / (count * (count * count - 1))


def judge(pages, truth):
    """Judges a set. Both are lists of pages (anything that can be compared), no page twice, in the
    order of first touch."""
    both = len(set(pages) & set(truth))
    return Judgement(_share(both, len(pages)), _share(both, len(truth)),
                     order_correlation(pages, truth))
