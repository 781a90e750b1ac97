# SPDX-License-Identifier: MIT
"""The project's targets for restores, judged from a report alone: its runs, and what failed.

Every figure is the median of the rounds of one cell: a workload, a storage and a policy. A target
whose cells were not measured is left out. "ours" is the policy that a user gets, auto, or if that
was not measured ws.

A restore that failed, or had a wrong page, is never responsive: where Rouse is judged by such a
cell the figure is "inf", and the target missed. What Rouse is compared with counts by those
of its restores that did not fail; without any there is no comparison. A verdict of fewer than
ENOUGH_ROUNDS rounds says so.
"""

import math
import statistics
from typing import NamedTuple

from common import ENOUGH_ROUNDS, different, matching, of_few, verdict

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
COMPLETE = ("eager", "qemu")  # all pages are there at the start
RIVAL_TIMES = 2.0       # a rival's TTR is so many times ours, in some cell
MAPPED_TIMES = 5.0      # mapped-ram's: 8 GiB, every storage but the fastest
VIEW_SHARE, VIEW_MS = 0.10, 20.0  # the guest's own view is so near to TTR, by one of the two
START_FREE_MS = 10.0    # of a VM that starts at the limit and never waits TTR is so much less: ttr.md
GROWTH = 1.10           # of the TTR with the least RAM
MAPPED_RAM = "qemu10-mapped-ram"


class Target(NamedTuple):
    """A verdict(), and the cells that it is of."""
    verdict: tuple
    cells: tuple


class Cells:
    """The cells of a report."""

    def __init__(self, runs, failed=()):
        """failed: restores without a result; of each the workload, the storage and the policy."""
        self.runs = [run for run in runs if not run.get("integrity_errors")]
        self.failed = [*failed, *(run for run in runs if run.get("integrity_errors"))]
        self.workloads, self.storages, self.policies = (
            different([*runs, *failed], field) for field in ("workload", "storage", "policy"))

    @staticmethod
    def _of(runs, workload, storage, policy):
        return matching(runs, workload=workload, storage=storage, policy=policy)

    def matching(self, workload, storage, policy):
        """The restores of a cell that did not fail."""
        return self._of(self.runs, workload, storage, policy)

    def values(self, workload, storage, policy, field="ttr_ms"):
        return [run[field] for run in self.matching(workload, storage, policy)]

    def median(self, workload, storage, policy, field="ttr_ms"):
        """Of the restores that did not fail; None if there are none."""
        found = self.values(workload, storage, policy, field)
        return statistics.median(found) if found else None

    def judged(self, workload, storage, policy):
        """The median TTR by which a policy of Rouse is judged: without end if one failed; None if
        it was not measured."""
        if self._of(self.failed, workload, storage, policy):
            return math.inf
        return self.median(workload, storage, policy)

    def told(self, target):
        """(met, line) of a Target."""
        met, line = target.verdict
        rounds = [len(self.values(*cell)) for cell in target.cells]
        few = min((count for count in rounds if count), default=ENOUGH_ROUNDS)
        return met, line + of_few(few)

    def limit_ms(self, workload, storage):
        return next((run["limit_ms"] for run in self.runs if run.get("limit_ms") is not None
                     and (run["workload"], run["storage"]) == (workload, storage)), None)

    def ours(self, workload, storage):
        """(policy, its median) of what a user gets; None if it was not measured."""
        for policy in ("auto", "ws"):
            found = self.judged(workload, storage, policy)
            if found is not None:
                return policy, found
        return None

    def chosen(self, workload, storage, policy):
        """The policies that the one that chooses took."""
        return different([run for run in self._of(self.runs, workload, storage, policy)
                          if run.get("chosen_policy")], "chosen_policy")

    def better_ms(self, workload, storage):
        """The better of eager and lazy; None without both."""
        found = [self.median(workload, storage, policy) for policy in ("eager", "lazy")]
        return None if None in found else min(found)


def judge(runs, failed=()):
    """(met, line) of every target that these runs can tell about."""
    cells = Cells(runs, failed)
    return [cells.told(target) for target in _targets(cells)]


def _targets(cells):
    yield from _judge_failures(cells)
    for workload in cells.workloads:
        for storage in cells.storages:
            yield from _judge_auto(cells, workload, storage)
            yield from _judge_ws(cells, workload, storage)
    yield from _judge_paper(cells)
    yield from _judge_qemu(cells)
    for rival in RIVALS:
        yield from _judge_rival(cells, rival)
    yield from _judge_view(cells)


def _target(cells, what, value, target, **more):
    return Target(verdict(what, value, target, **more), tuple(cells))


def _judge_failures(cells):
    """Only if there are some: that none failed is not worth a line."""
    ours = [run for run in cells.failed if not run["policy"].startswith("qemu")]
    if ours:
        names = ", ".join(different([{"name": f"{run['workload']} {run['storage']} {run['policy']}"}
                                     for run in ours], "name"))
        yield _target((), f"restores by Rouse that failed or had a wrong page ({names})",
                      len(ours), 0, digits=0)


def of_start(ttr, limit):
    """The same beside a TTR, where the limit is when the first instruction runs."""
    return f"{ttr / max(1.0, limit - START_FREE_MS):.2f} of the TTR of a VM that starts then"


def _judge_auto(cells, workload, storage):
    """The targets of the policy that chooses."""
    auto = cells.judged(workload, storage, "auto")
    if auto is None:
        return
    here = (workload, storage, "auto")
    limit = cells.limit_ms(workload, storage)
    if workload in LIMITED and limit:
        yield _target([here], f"{workload}, {storage}: auto ({auto:.0f} ms) of the limit "
                      f"({limit:.0f} ms; {of_start(auto, limit)})", auto / limit, AUTO_OF_LIMIT)
    medians = {policy: found for policy in FIXED
               if (found := cells.median(workload, storage, policy))}
    if medians:
        yield _judge_choice(cells, here, auto, medians)


def _judge_choice(cells, here, auto, medians):
    """auto beside the best fixed policy. Where it took the same one each time the two are one way
    to restore, measured twice: they are judged by all restores of both, since by the half of them
    only chance parts them."""
    workload, storage, _ = here
    chosen = cells.chosen(*here)
    told = f"auto ({auto:.0f} ms"
    if len(chosen) == 1 and chosen[0] in medians and auto < math.inf:
        same = chosen[0]
        told += f"; it took {same} each time, {medians[same]:.0f} ms: one way"
        auto = medians[same] = statistics.median(
            [*cells.values(*here), *cells.values(workload, storage, same)])
        told += f", {auto:.0f} ms"
    best = min(medians, key=medians.get)
    among = "" if len(medians) == len(FIXED) else f" among {', '.join(medians)}"
    return _target([here, *((workload, storage, policy) for policy in medians)],
                   f"{workload}, {storage}: {told}) of the best fixed one{among} ({best}, "
                   f"{medians[best]:.0f} ms)", auto / medians[best], AUTO_OF_BEST)


def _judge_ws(cells, workload, storage):
    ws, better = cells.judged(workload, storage, "ws"), cells.better_ms(workload, storage)
    limit = cells.limit_ms(workload, storage)
    if ws is None:
        return
    here = (workload, storage, "ws")
    compared = [(workload, storage, policy) for policy in ("ws", "eager", "lazy")]
    if storage == "slow" and better and workload == "idle":
        yield _target(compared, f"idle, slow: ws ({ws:.0f} ms) of the better of eager and lazy "
                      f"({better:.0f} ms)", ws / better, LEAST_SHARE, digits=3)
    if storage == "slow" and limit and workload in LIMITED:
        yield _target([here], f"{workload}, slow: ws ({ws:.0f} ms) of the limit ({limit:.0f} ms; "
                      f"{of_start(ws, limit)})", ws / limit, OF_LIMIT)
    if storage == "disk" and better:
        yield _target(compared, f"{workload}, disk: ws ({ws:.0f} ms) of the better of eager and "
                      f"lazy ({better:.0f} ms)", ws / better, NEVER_ABOVE)


def _judge_paper(cells):
    """89 % less than the better of eager and lazy, as the paper had, on several workloads."""
    shares = {workload: cells.judged(workload, "slow", "ws") / cells.better_ms(workload, "slow")
              for workload in cells.workloads
              if cells.judged(workload, "slow", "ws") and cells.better_ms(workload, "slow")}
    if len(shares) >= PAPER_WORKLOADS:
        least = sorted(shares, key=shares.get)
        told = ", ".join(f"{workload} {shares[workload]:.3f}" for workload in least)
        yield _target([(workload, "slow", policy) for workload in least[:PAPER_WORKLOADS]
                       for policy in ("ws", "eager", "lazy")],
                      f"slow, the paper's 89 %: ws of the better of eager and lazy, on "
                      f"{PAPER_WORKLOADS} workloads ({told})",
                      shares[least[PAPER_WORKLOADS - 1]], LEAST_SHARE, digits=3)


def _judge_qemu(cells):
    for workload in BEATEN:
        qemu, ours = cells.median(workload, "slow", "qemu"), cells.ours(workload, "slow")
        if qemu and ours:
            yield _target([(workload, "slow", "qemu"), (workload, "slow", ours[0])],
                          f"{workload}, slow: QEMU's own restore ({qemu:.0f} ms) is so many times "
                          f"{ours[0]} ({ours[1]:.0f} ms)", qemu / ours[1], QEMU_TIMES,
                          at_most=False)


def _judge_rival(cells, rival):
    """Much sooner than another way somewhere, and nowhere later."""
    found, compared = {}, {}
    for workload in cells.workloads:
        for storage in cells.storages:
            theirs, ours = cells.median(workload, storage, rival), cells.ours(workload, storage)
            if theirs and ours:
                name = (f"{workload}, {storage} ({rival} {theirs:.0f} ms, {ours[0]} "
                        f"{ours[1]:.0f} ms)")
                found[name] = theirs / ours[1]
                compared[name] = [(workload, storage, policy) for policy in (rival, ours[0])]
    if found:
        most, least = max(found, key=found.get), min(found, key=found.get)
        yield _target(compared[most], f"{rival} is so many times ours where we gain most, {most}",
                      found[most], RIVAL_TIMES, at_most=False)
        yield _target(compared[least], f"ours of {rival} where we gain least, {least}",
                      1 / found[least] if found[least] else math.inf, NEVER_ABOVE)


class Apart(NamedTuple):
    """A cell in which the guest's own view is not TTR."""
    cell: str
    ttr_ms: float
    view_ms: float
    after: bool  # the guest's stalls went on when the last page was there: they are not of pages


def _ends_after(cells, *cell):
    """Whether the guest's own view lies behind the last page in most of a cell's restores."""
    behind = [run["guest_ttr_ms"] > run["complete_ms"] for run in cells.matching(*cell)
              if run.get("complete_ms") is not None]
    return 2 * sum(behind) > len(behind)


def view_apart(cells):
    """The list of Apart: of the cells in which the guest's own view and TTR do not agree."""
    apart = []
    for workload in cells.workloads:
        for storage in cells.storages:
            for policy in cells.policies:
                ttr = cells.median(workload, storage, policy)
                view = cells.median(workload, storage, policy, "guest_ttr_ms")
                if ttr is not None and abs(view - ttr) > max(VIEW_SHARE * ttr, VIEW_MS):
                    apart.append(Apart(f"{workload}, {storage}, {policy}", ttr, view,
                                       _ends_after(cells, workload, storage, policy)))
    return apart


def view_of_eager(cells):
    """What the guest's own view is behind TTR where nothing is done after the start: milliseconds,
    the median of a workload's eager restores by Rouse and by QEMU. [(workload, milliseconds)]."""
    found = []
    for workload in cells.workloads:
        late = [run["guest_ttr_ms"] - run["ttr_ms"] for storage in cells.storages
                for policy in COMPLETE for run in cells.matching(workload, storage, policy)]
        if late:
            found.append((workload, statistics.median(late)))
    return found


def _judge_view(cells):
    if not cells.runs:
        return
    apart = view_apart(cells)
    (met, line), _ = _target((), f"cells in which the guest's own view is farther from TTR than "
                             f"{VIEW_SHARE:.0%} and {VIEW_MS:.0f} ms", len(apart), 0, digits=0)
    line += "".join(f"; {each.cell}: {each.view_ms:.0f} of {each.ttr_ms:.0f} ms"
                    + (" (after the last page)" if each.after else "") for each in apart)
    late = view_of_eager(cells)
    if apart and late:
        line += "; where all pages are there at the start it is later by " + ", ".join(
            f"{ms:.0f} ms ({workload})" for workload, ms in late)
    yield Target((met, line), tuple((workload, storage, policy) for workload in cells.workloads
                                    for storage in cells.storages for policy in cells.policies))


def judge_growth(runs, failed=()):
    """(met, line) of TTR with the largest RAM beside that with the least, of Rouse's policies, and
    of mapped-ram beside ours with the largest, on all storages but "disk"."""
    sizes = sorted(different([*runs, *failed], "ram_gib"))
    least, most = (Cells(matching(runs, ram_gib=size), matching(failed, ram_gib=size))
                   for size in (min(sizes, default=0), max(sizes, default=0)))
    told = []
    for cell in ((workload, storage, policy) for workload in most.workloads
                 for storage in most.storages for policy in most.policies):
        grown, from_ms = most.judged(*cell), least.median(*cell)
        if cell[2] != MAPPED_RAM and len(sizes) > 1 and grown and from_ms:
            told.append(most.told(_target(
                [cell], f"{cell[1]}, {cell[2]}: TTR with {sizes[-1]:g} GiB, of that with "
                f"{sizes[0]:g} GiB", grown / from_ms, GROWTH)))
    return told + [most.told(target) for target in _judge_mapped(most, max(sizes, default=0))]


def _judge_mapped(cells, ram_gib):
    for workload in cells.workloads:
        for storage in cells.storages:
            theirs = cells.median(workload, storage, MAPPED_RAM)
            ours = cells.ours(workload, storage)
            if theirs and ours and storage != "disk":
                yield _target([(workload, storage, policy) for policy in (MAPPED_RAM, ours[0])],
                              f"{ram_gib:g} GiB, {storage}: QEMU 10's mapped-ram ({theirs:.0f} ms) "
                              f"is so many times {ours[0]} ({ours[1]:.0f} ms)", theirs / ours[1],
                              MAPPED_TIMES, at_most=False)
