# SPDX-License-Identifier: MIT
"""Comparing two states on a machine that is never quiet: pairs of neighbours, and how sure it is.

    A B  B A  A B  B A  ...        each letter is a span of some seconds; each two are a pair

What changes slowly (the machine becomes busier, the guest's caches warmer) is the same for both
halves of a pair, and as often against A as against B: the order of each second pair is turned.
What comes and goes spoils single pairs, so the median of the pairs counts. Its interval is that of
the sign test: between the k-th least and the k-th greatest pair, where k is such that a fair coin
gives fewer than k heads, or fewer than k tails, with a chance of 1 - SURE at most. That assumes
nothing of the noise but that the pairs do not depend on each other. It needs six pairs.
"""

import math
import statistics
from typing import NamedTuple

SURE = 0.95


class Median(NamedTuple):
    """A median and its interval; low and high are None if there are too few values for one."""
    value: float
    low: float
    high: float
    count: int


def abba(blocks):
    """Which spans are B's, in order: 2 * blocks pairs."""
    return [False, True, True, False] * blocks


def median_interval(values, sure=SURE):
    """The Median of independent values."""
    values = sorted(values)
    count = len(values)
    skip = -1  # values that lie outside of the interval, at each end
    outside = 0.0
    for k in range(count // 2):
        outside += 2 * math.comb(count, k) / 2 ** count
        if outside > 1 - sure:
            break
        skip = k
    low, high = (values[skip], values[-1 - skip]) if skip >= 0 else (None, None)
    return Median(statistics.median(values), low, high, count)


def at_most(low, high, target):
    """Whether what lies between low and high is `target` at most: None if that cannot be told."""
    if low is None or low <= target < high:
        return None
    return high <= target


def pair_up(spans, of_b):
    """[(a, b)] of what was measured in spans in the order of abba(); None is a span that failed,
    and its pair is left out."""
    pairs = []
    for at in range(0, len(spans) - 1, 2):
        one, two = spans[at:at + 2]
        if one is not None and two is not None:
            pairs.append((two, one) if of_b[at] else (one, two))
    return pairs


def control_pairs(spans, of_b):
    """[(a, a)] of the spans without B that stand side by side: where blocks meet. They must show no
    difference."""
    return [(one, two) for at, (one, two) in enumerate(zip(spans, spans[1:]))
            if not of_b[at] and not of_b[at + 1] and one is not None and two is not None]
