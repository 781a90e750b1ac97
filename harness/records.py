# SPDX-License-Identifier: MIT
"""The guest's own view of a restore: from the records of its requests to stalls and TTR.

A request begins every few milliseconds on each CPU. Between the ends of two requests lies normally
one period; what goes beyond that is a stall of that CPU, which lies just before the end:

    normal        |----|----|----|----|
    with a stall  |----|----|.........----|
                            <- stall ->

A guest does not keep its period exactly, without any restore: the host has other work. So a stall
counts only if it is longer than nearly all (NOISE_QUANTILE) of those that the same guest had when
nothing was restored: before it was saved, and after the last page had been delivered.

The guest's clock stands still while it is saved, so it must be mapped anew after each restore. The
difference host - guest of a record's arrival and end is the offset of the clocks plus the time on
the way; the least one is nearest to the offset.
"""

from typing import NamedTuple

from .ttr import stalled_us, ttr_table_ms, ttr_us

NOISE_QUANTILE = 0.995
NOISE_FLOOR_US = 1000


class Baseline(NamedTuple):
    """How a guest keeps its period when nothing is restored."""
    period_us: int      # median time between the ends of two requests
    noise_us: int       # a longer delay than this one is a stall
    request_us: int     # median length of a request


class GuestView(NamedTuple):
    """What the guest saw of its restore; times since the request to restore."""
    ttr_us: float
    table: list
    stalls: list        # (from_us, to_us), those before the start included
    first_end_us: dict  # cpu -> end of its first request
    records: int
    stalled_us: int     # after the start


def _by_cpu(records):
    cpus = {}
    for record in records:
        cpus.setdefault(record.cpu, []).append(record)
    for of_cpu in cpus.values():
        of_cpu.sort(key=lambda record: record.seq)
    return cpus


def _quantile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))]


def baseline(records):
    """The Baseline of records that were taken while nothing else happened."""
    intervals = []
    for of_cpu in _by_cpu(records).values():
        intervals += [b.end_us - a.end_us for a, b in zip(of_cpu, of_cpu[1:])
                      if b.seq == a.seq + 1]
    if len(intervals) < 50:
        raise ValueError(f"{len(intervals)} requests are too few to know what is normal")
    period = _quantile(intervals, 0.5)
    noise = max(NOISE_FLOOR_US, _quantile([each - period for each in intervals], NOISE_QUANTILE))
    request = _quantile([record.end_us - record.start_us for record in records], 0.5)
    return Baseline(period, noise, request)


def clock_offset_us(records):
    """What to add to the guest's clock to have the host's."""
    return min(record.arrival_us - record.end_us for record in records)


def _with_later_noise(normal, records, complete_us):
    """The same Baseline; its noise is at least that of the records after complete_us."""
    try:
        later = baseline([record for record in records if record.arrival_us > complete_us])
    except ValueError:
        return normal
    return normal._replace(noise_us=max(normal.noise_us, later.noise_us))


def guest_view(records, normal, vcpus, request_us, start_us, complete_us, until_us):
    """The GuestView of one restore. All times are of the host's clock.

    records     those that arrived after the restore was requested
    normal      the Baseline of the same guest before it was saved
    request_us  when the restore was requested
    start_us    when the guest ran its first instruction
    complete_us when the last page was in place
    until_us    until when the guest was watched
    """
    if not records:
        raise ValueError("no request ended after the restore")
    normal = _with_later_noise(normal, records, complete_us)
    offset = clock_offset_us(records) - request_us
    start_us -= request_us
    until_us -= request_us
    stalls = [(0, start_us)] * vcpus
    first_end = {}
    cpus = _by_cpu(records)
    for cpu in range(vcpus):
        # Requests that ended before the save may be told only now; they end before the start.
        ends = [end for end in (record.end_us + offset for record in cpus.get(cpu, []))
                if end > start_us]
        last = start_us
        for end in ends:
            late = end - last - normal.period_us
            if late > normal.noise_us:
                stalls.append((max(start_us, end - late), end))
            last = end
        if ends:
            first_end[cpu] = ends[0]
        if until_us - last > normal.period_us + normal.noise_us + 1_000_000:
            stalls.append((last, until_us))  # it has not answered since
    after = [stall for stall in stalls if stall[0] >= start_us]
    return GuestView(ttr_us(stalls, vcpus), ttr_table_ms(stalls, vcpus), stalls, first_end,
                     sum(map(len, cpus.values())),
                     stalled_us(after, vcpus, start_us, until_us) if after else 0)
