#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How soon a restored guest is responsive: every policy, beside QEMU's own way and the limit.

    bench/bench_restore.py [--workloads idle,kv] [--rounds 5] [--quick] ...

The demo's guests, prepared as the demo does it, restored from a cold page cache (checked) in rounds:
in each round every storage and policy once, in an order that is rotated from round to round, and
once QEMU's bare start. Prints medians with the least and the greatest, and every target of the
project beside what was measured; BUILD/bench/report.json is in the demo's format, and each run has
"limit_ms" too:

    limit = QEMU's bare start + bytes of the working set in the image / what the disk reads a second

QEMU's bare start: the time from starting QEMU with the same command to the guest's first
instruction, with the same devices and of its memory only the first MiB, without which they do not
load (bench-place start). The disk's rate is the throttle's for "slow", and for "disk" that of one
sequential read of the image.
docs/performance.md says more.
"""

import os
import statistics
import sys

import common
from common import ERRORS, Bench, Report, run_demo, spread, verdict
from story_report import FURTHER_POLICIES, POLICIES, read_rate
from harness import drop_from_cache

LEAST_SHARE = 0.11      # of the better of eager and lazy: idle, slow
OF_LIMIT = 1.25         # of the limit: slow
LIMITED = ("idle", "kv", "sql")
QEMU_TIMES = 5.0        # QEMU's TTR is so many times ours: slow
BEATEN = ("idle", "sql")
NEVER_ABOVE = 1.05      # of the better of eager and lazy: disk, every workload


def parse_arguments():
    parser = common.parser(__doc__)
    parser.add_argument("--workloads", type=run_demo.choose(run_demo.ALL_WORKLOADS),
                        default=("idle", "kv", "sql", "scan"))
    parser.add_argument("--storages", type=run_demo.choose(tuple(run_demo.STORAGES)),
                        default=tuple(run_demo.STORAGES))
    parser.add_argument("--policies", type=run_demo.choose(POLICIES + FURTHER_POLICIES),
                        default=POLICIES)
    return parser.parse_args()


class Limit:
    """The limit of one workload."""

    def __init__(self, bench, saved):
        image = bench.inspect(saved.packed)
        drop_from_cache(saved.packed)
        self.wset_bytes = image["wset_stored_bytes"]
        self.wset_pages = image["wset_pages"]
        self.front_bytes = image["front_bytes"]
        self.rates = {"slow": run_demo.STORAGES["slow"].bytes_per_s,
                      "disk": read_rate(saved.packed)}
        self.starts_ms = []

    def ms(self, storage):
        return statistics.median(self.starts_ms) + self.wset_bytes / self.rates[storage] * 1000


def measure(bench, saved, limit):
    """All rounds of one workload. Returns how many restores failed."""
    failed = 0
    ways = [(storage, policy) for storage in bench.args.storages for policy in bench.args.policies]
    for number in range(1, bench.args.rounds + 1):
        limit.starts_ms.append(bench.bare_start_ms(saved))
        for storage, policy in common.rotated(ways, number - 1):
            what = f"{saved.workload}, round {number}, {storage}, {policy}"
            try:
                run = run_demo.one_run(bench, saved, storage, policy, number)
            except ERRORS as err:
                failed += 1
                bench.say(f"{what}: FAILED: {err}")
                continue
            bench.say(f"{what}: first instruction {run['start_ms']:.0f} ms, TTR "
                      f"{run['ttr_ms']:.0f} ms, the guest says {run['guest_ttr_ms']:.0f} ms, "
                      f"{run['faults']} faults, {run['integrity_errors']} errors")
    return failed


def note_limits(bench, workload, limit):
    """Every run gets its limit, and report.json what the limits are made of."""
    for run in bench.report.content["runs"]:
        if run["workload"] == workload:
            run["limit_ms"] = limit.ms(run["storage"])
    bench.report.content["limits"][workload] = {
        "bare_start_ms": limit.starts_ms, "wset_bytes": limit.wset_bytes,
        "wset_pages": limit.wset_pages, "front_bytes": limit.front_bytes,
        "bytes_per_s": limit.rates}
    bench.report.write()


def values(bench, workload, storage, policy, field="ttr_ms"):
    return [run[field] for run in bench.report.content["runs"]
            if (run["workload"], run["storage"], run["policy"]) == (workload, storage, policy)]


def median(bench, workload, storage, policy):
    found = values(bench, workload, storage, policy)
    return statistics.median(found) if found else None


def show_table(bench, workload, limit):
    say = bench.terminal.line
    bench.terminal.bold(f"\n{workload}: medians of the rounds (least to greatest), ms")
    say(f"working set: {limit.wset_pages} pages, {limit.wset_bytes / 1e6:.1f} MB in the image; "
        f"QEMU's bare start: {spread(limit.starts_ms)} ms")
    say(f"{'storage':8}{'policy':8}{'first instruction':>24}{'TTR(90%, 100ms)':>24}"
        f"{'the guest itself':>24}{'faults':>8}{'TTR/limit':>11}")
    for storage in bench.args.storages:
        for policy in bench.args.policies:
            if not values(bench, workload, storage, policy):
                continue
            fields = [spread(values(bench, workload, storage, policy, field))
                      for field in ("start_ms", "ttr_ms", "guest_ttr_ms")]
            faults = statistics.median(values(bench, workload, storage, policy, "faults"))
            ratio = median(bench, workload, storage, policy) / limit.ms(storage)
            say(f"{storage:8}{policy:8}" + "".join(f"{field:>24}" for field in fields)
                + f"{faults:8.0f}{ratio:11.2f}")
        say(f"{storage:8}{'limit':8}{'':24}{limit.ms(storage):>10.0f}")


def judge_workload(bench, workload, limit):
    """The targets that a workload can tell about: (met, line) of each."""
    def of(storage, policy):
        return median(bench, workload, storage, policy)

    for storage in bench.args.storages:
        ws, eager, lazy, qemu = (of(storage, policy) for policy in ("ws", "eager", "lazy", "qemu"))
        if ws is None:
            continue
        better = min(eager, lazy) if eager and lazy else None
        if storage == "slow":
            if better and workload == "idle":
                yield verdict(f"idle, slow: ws ({ws:.0f} ms) of the better of eager and lazy "
                              f"({better:.0f} ms)", ws / better, LEAST_SHARE, digits=3)
            if workload in LIMITED:
                yield verdict(f"{workload}, slow: ws ({ws:.0f} ms) of the limit "
                              f"({limit.ms(storage):.0f} ms)", ws / limit.ms(storage), OF_LIMIT)
            if qemu and workload in BEATEN:
                yield verdict(f"{workload}, slow: QEMU's own restore ({qemu:.0f} ms) is so many "
                              f"times ws ({ws:.0f} ms)", qemu / ws, QEMU_TIMES, at_most=False)
        elif better:
            yield verdict(f"{workload}, disk: ws ({ws:.0f} ms) of the better of eager and lazy "
                          f"({better:.0f} ms)", ws / better, NEVER_ABOVE)


def run():
    args = parse_arguments()
    bench = Bench(args)
    bench.report = Report(bench.file("report.json"), bench.facts())
    bench.report.content["limits"] = {}
    limits = {}
    failed = 0
    for workload in args.workloads:
        bench.terminal.bold(f"\n{workload}")
        saved = bench.prepared(workload)
        limits[workload] = Limit(bench, saved)
        bench.wait_quiet()
        failed += measure(bench, saved, limits[workload])
        note_limits(bench, workload, limits[workload])
    for workload in args.workloads:
        show_table(bench, workload, limits[workload])
    bench.terminal.bold("\nTargets, medians of the rounds")
    judged = [each for workload in args.workloads
              for each in judge_workload(bench, workload, limits[workload])]
    for _, line in judged:
        bench.terminal.line(line)
    bench.report.content["targets"] = [{"met": met, "text": line} for met, line in judged]
    bench.report.write()
    errors = bench.report.errors()
    bench.say(f"{len(bench.report.content['runs'])} restores, {failed} failed, {errors} integrity "
              f"errors; {os.path.relpath(bench.report.path)}")
    return 1 if failed or errors else 0


if __name__ == "__main__":
    sys.exit(common.main(run))
