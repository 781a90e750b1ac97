# SPDX-License-Identifier: MIT
"""Time-to-responsiveness, computed from stalls: written from the definition (docs/ttr.md), and not
from the C library, so that each can check the other.

Time 0 is the request to restore. Stalls are (from_us, to_us) of one vCPU each; at any moment at
most `vcpus` of them count. For a window, u = 1 - (stalled vCPU time in it) / (vcpus * its length).

TTR(U, w) is the least T such that every window of length >= w that starts at or after T has u >= U.

With s(t) the number of vCPUs stalled at t, let F(t) be the integral from 0 to t of
s - (1 - U) * vcpus. A window [a, b] is bad if and only if F(b) > F(a). So TTR is the last moment a
at which the highest F at or after a + w is above F(a):

    F   |      /\\          a bad window begins at a, if from a + w on
        |     /  \\    /\\   any point of the curve lies above F(a)
        |    /    \\__/  \\
        |   a             \\___
        +------------------------ t

F is piecewise linear, so is that highest value seen from the right, and it is enough to look at the
pieces from right to left.
"""

UTILIZATIONS = (0.50, 0.75, 0.90, 0.95, 0.99)
WINDOWS_US = (10_000, 100_000, 1_000_000)


def _steps(stalls, vcpus):
    """The number of stalled vCPUs as steps: [(time, number from then on)], beginning at 0."""
    changes = {0: 0}
    for begin, end in stalls:
        if end > begin:
            changes[begin] = changes.get(begin, 0) + 1
            changes[end] = changes.get(end, 0) - 1
    steps = []
    count = 0
    for time in sorted(changes):
        count += changes[time]
        steps.append((time, min(count, vcpus)))
    return steps


def stalled_us(stalls, vcpus, begin, end):
    """Stalled time in [begin, end), of all vCPUs together."""
    total = 0
    steps = _steps(stalls, vcpus) + [(float("inf"), 0)]
    for (time, count), (until, _) in zip(steps, steps[1:]):
        total += count * max(0, min(until, end) - max(time, begin))
    return total


def utilization(stalls, vcpus, begin, window):
    """The utilization of the window that begins at `begin`."""
    return 1 - stalled_us(stalls, vcpus, begin, begin + window) / (vcpus * window)


def _excess(steps, vcpus, share):
    """F at the steps, and its slope after each."""
    allowed = (1 - share) * vcpus
    points = []
    value = 0.0
    for index, (time, count) in enumerate(steps):
        points.append((time, value, count - allowed))
        if index + 1 < len(steps):
            value += (count - allowed) * (steps[index + 1][0] - time)
    return points


def _highest_after(points):
    """H(t), the highest F at or after t, as [(time, value, slope)] from 0 on: it never rises."""
    pieces = []
    best = float("-inf")  # H at the end of the piece that is looked at
    for index in range(len(points) - 1, -1, -1):
        time, value, slope = points[index]
        until = points[index + 1][0] if index + 1 < len(points) else float("inf")
        if slope >= 0 or value <= best:
            # It rises to its end, or lies below what comes: H is level here. (The last piece
            # always falls, because its count is 0.)
            pieces.append((time, best, 0.0))
        else:
            # H follows F down to `best`, and is level from there on.
            crossing = time + (value - best) / -slope if best > float("-inf") else until
            if crossing < until:
                pieces.append((crossing, best, 0.0))
            pieces.append((time, value, slope))
        best = max(best, value)
    return pieces[::-1]


def _at(pieces, time):
    """Value and slope, to the right of `time`, of a curve given in pieces."""
    low, high = 0, len(pieces) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if pieces[middle][0] <= time:
            low = middle
        else:
            high = middle - 1
    begin, value, slope = pieces[low]
    return value + slope * (time - begin), slope


def ttr_us(stalls, vcpus, share=0.90, window=100_000):
    """TTR(share, window) in microseconds."""
    curve = _excess(_steps(stalls, vcpus), vcpus, share)
    highest = _highest_after(curve)
    times = {piece[0] for piece in curve}
    times |= {piece[0] - window for piece in highest if piece[0] > window}
    epsilon = 1e-6  # of a microsecond of one vCPU: less is rounding
    upper = float("inf")
    for begin in sorted(times, reverse=True):
        value, slope = _at(curve, begin)
        above, above_slope = _at(highest, begin + window)
        gap, gap_slope = above - value, above_slope - slope
        # The gap is linear from begin to upper: where is it last above zero?
        at_end = gap + gap_slope * (upper - begin) if upper < float("inf") else -1
        if at_end > epsilon:
            return upper
        if gap > epsilon:
            return begin + gap / -gap_slope
        upper = begin
    return 0.0


def ttr_table_ms(stalls, vcpus):
    """The table of a report, as the tool prints it with --json."""
    return [{"utilization": share, "window_ms": window / 1000,
             "ttr_ms": ttr_us(stalls, vcpus, share, window) / 1000}
            for share in UTILIZATIONS for window in WINDOWS_US]
