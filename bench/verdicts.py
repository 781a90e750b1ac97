# SPDX-License-Identifier: MIT
"""The project's targets for restores, judged from the runs of a report alone.

Every figure is the median of the rounds of one cell: a workload, a storage and a policy. A target
whose cells were not measured is left out. "ours" is the policy that a user gets, auto, or if that
was not measured ws.
"""

import statistics

from common import verdict

LEAST_SHARE = 0.11      # of the better of eager and lazy, what the paper had: idle, slow
PAPER_WORKLOADS = 2     # and so on so many workloads, slow
OF_LIMIT = 1.25         # of the limit: slow
LIMITED = ("idle", "kv", "sql")
QEMU_TIMES = 10.0       # QEMU's TTR is so many times ours: slow
BEATEN = ("idle", "sql")
NEVER_ABOVE = 1.05      # of the better of eager and lazy: disk, every workload; of a competitor's
AUTO_OF_LIMIT = 1.15    # of the limit: every storage
AUTO_OF_BEST = 1.05     # of the best of the fixed policies: every workload and storage
FIXED = ("eager", "lazy", "ws", "paced")
RIVALS = ("reap", "faasnap")
RIVAL_TIMES = 2.0       # a rival's TTR is so many times ours, in some cell
MAPPED_TIMES = 5.0      # mapped-ram's: 8 GiB, every storage but the fastest
VIEW_SHARE, VIEW_MS = 0.10, 20.0  # the guest's own view is so near to TTR, by one of the two


def _different(runs, field):
    return list(dict.fromkeys(run[field] for run in runs))


class Cells:
    """The runs of a report, and their medians."""

    def __init__(self, runs):
        self.runs = runs
        self.workloads, self.storages, self.policies = (
            _different(runs, field) for field in ("workload", "storage", "policy"))

    def values(self, workload, storage, policy, field="ttr_ms"):
        return [run[field] for run in self.runs
                if (run["workload"], run["storage"], run["policy"]) == (workload, storage, policy)]

    def median(self, workload, storage, policy, field="ttr_ms"):
        """None if there are none."""
        found = self.values(workload, storage, policy, field)
        return statistics.median(found) if found else None

    def limit_ms(self, workload, storage):
        return next((run["limit_ms"] for run in self.runs if run.get("limit_ms") is not None
                     and (run["workload"], run["storage"]) == (workload, storage)), None)

    def ours(self, workload, storage):
        """(policy, its median) of what a user gets; None if it was not measured."""
        for policy in ("auto", "ws"):
            found = self.median(workload, storage, policy)
            if found is not None:
                return policy, found
        return None

    def better_ms(self, workload, storage):
        """The better of eager and lazy; None without both."""
        found = [self.median(workload, storage, policy) for policy in ("eager", "lazy")]
        return None if None in found else min(found)


def judge(runs):
    """(met, line) of every target that these runs can tell about."""
    cells = Cells(runs)
    for workload in cells.workloads:
        for storage in cells.storages:
            yield from _judge_auto(cells, workload, storage)
            yield from _judge_ws(cells, workload, storage)
    yield from _judge_paper(cells)
    yield from _judge_qemu(cells)
    for rival in RIVALS:
        yield from _judge_rival(cells, rival)
    yield from _judge_view(cells)


def _judge_auto(cells, workload, storage):
    """The targets of the policy that chooses."""
    auto = cells.median(workload, storage, "auto")
    if auto is None:
        return
    limit = cells.limit_ms(workload, storage)
    if workload in LIMITED and limit:
        yield verdict(f"{workload}, {storage}: auto ({auto:.0f} ms) of the limit "
                      f"({limit:.0f} ms)", auto / limit, AUTO_OF_LIMIT)
    medians = {policy: found for policy in FIXED
               if (found := cells.median(workload, storage, policy))}
    if medians:
        best = min(medians, key=medians.get)
        yield verdict(f"{workload}, {storage}: auto ({auto:.0f} ms) of the best fixed one ({best}, "
                      f"{medians[best]:.0f} ms)", auto / medians[best], AUTO_OF_BEST)


def _judge_ws(cells, workload, storage):
    ws, better = cells.median(workload, storage, "ws"), cells.better_ms(workload, storage)
    limit = cells.limit_ms(workload, storage)
    if ws is None:
        return
    if storage == "slow" and better and workload == "idle":
        yield verdict(f"idle, slow: ws ({ws:.0f} ms) of the better of eager and lazy "
                      f"({better:.0f} ms)", ws / better, LEAST_SHARE, digits=3)
    if storage == "slow" and limit and workload in LIMITED:
        yield verdict(f"{workload}, slow: ws ({ws:.0f} ms) of the limit ({limit:.0f} ms)",
                      ws / limit, OF_LIMIT)
    if storage == "disk" and better:
        yield verdict(f"{workload}, disk: ws ({ws:.0f} ms) of the better of eager and lazy "
                      f"({better:.0f} ms)", ws / better, NEVER_ABOVE)


def _judge_paper(cells):
    """89 % less than the better of eager and lazy, as the paper had, on several workloads."""
    shares = {workload: cells.median(workload, "slow", "ws") / cells.better_ms(workload, "slow")
              for workload in cells.workloads
              if cells.median(workload, "slow", "ws") and cells.better_ms(workload, "slow")}
    if len(shares) >= PAPER_WORKLOADS:
        least = sorted(shares, key=shares.get)
        told = ", ".join(f"{workload} {shares[workload]:.3f}" for workload in least)
        yield verdict(f"slow, the paper's 89 %: ws of the better of eager and lazy, on "
                      f"{PAPER_WORKLOADS} workloads ({told})",
                      shares[least[PAPER_WORKLOADS - 1]], LEAST_SHARE, digits=3)


def _judge_qemu(cells):
    for workload in BEATEN:
        qemu, ours = cells.median(workload, "slow", "qemu"), cells.ours(workload, "slow")
        if qemu and ours:
            yield verdict(f"{workload}, slow: QEMU's own restore ({qemu:.0f} ms) is so many times "
                          f"{ours[0]} ({ours[1]:.0f} ms)", qemu / ours[1], QEMU_TIMES,
                          at_most=False)


def _judge_rival(cells, rival):
    """Much sooner than another way somewhere, and nowhere later."""
    found = {}
    for workload in cells.workloads:
        for storage in cells.storages:
            theirs, ours = cells.median(workload, storage, rival), cells.ours(workload, storage)
            if theirs and ours:
                found[f"{workload}, {storage} ({rival} {theirs:.0f} ms, {ours[0]} "
                      f"{ours[1]:.0f} ms)"] = theirs / ours[1]
    if found:
        most, least = max(found, key=found.get), min(found, key=found.get)
        yield verdict(f"{rival} is so many times ours where we gain most, {most}", found[most],
                      RIVAL_TIMES, at_most=False)
        yield verdict(f"ours of {rival} where we gain least, {least}", 1 / found[least],
                      NEVER_ABOVE)


def view_apart(cells):
    """[(cell, TTR, the guest's own view)] of the cells in which the two do not agree; ms."""
    apart = []
    for workload in cells.workloads:
        for storage in cells.storages:
            for policy in cells.policies:
                ttr = cells.median(workload, storage, policy)
                view = cells.median(workload, storage, policy, "guest_ttr_ms")
                if ttr is not None and abs(view - ttr) > max(VIEW_SHARE * ttr, VIEW_MS):
                    apart.append((f"{workload}, {storage}, {policy}", ttr, view))
    return apart


def _judge_view(cells):
    if not cells.runs:
        return
    apart = view_apart(cells)
    met, line = verdict(f"cells in which the guest's own view is farther from TTR than "
                        f"{VIEW_SHARE:.0%} and {VIEW_MS:.0f} ms", len(apart), 0, digits=0)
    yield met, line + "".join(f"; {cell}: {view:.0f} of {ttr:.0f} ms"
                              for cell, ttr, view in apart)


def judge_growth(runs):
    """(met, line) of mapped-ram beside ours with the largest RAM, on all storages but "disk"."""
    largest = max((run["ram_gib"] for run in runs), default=0)
    cells = Cells([run for run in runs if run["ram_gib"] == largest])
    for workload in cells.workloads:
        for storage in cells.storages:
            theirs = cells.median(workload, storage, "qemu10-mapped-ram")
            ours = cells.ours(workload, storage)
            if theirs and ours and storage != "disk":
                yield verdict(f"{largest:g} GiB, {storage}: QEMU 10's mapped-ram ({theirs:.0f} ms) "
                              f"is so many times {ours[0]} ({ours[1]:.0f} ms)", theirs / ours[1],
                              MAPPED_TIMES, at_most=False)
