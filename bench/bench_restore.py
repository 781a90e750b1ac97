#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How soon a restored guest is responsive: every policy, beside QEMU's own way and the limit.

    bench/bench_restore.py [--workloads idle,kv] [--rounds 5] [--quick] ...

The demo's guests, prepared as the demo does it, restored from a cold page cache (checked) in
rounds: in each round every storage and policy once, in an order that is rotated from round to
round, and once QEMU's bare start. Prints medians with the least and the greatest, and every target
of the project beside what was measured; BUILD/bench/report.json is in the demo's format, and each
run has "limit_ms", "backend", "ram_gib", "clones" and "cpu_s_per_gib" too:

    limit = QEMU's bare start + bytes of the working set in the image / what the disk reads a second
            + one latency of the disk

QEMU's bare start: the time from starting QEMU with the same command to the guest's first
instruction, with the same devices and of its memory only the first MiB, without which they do not
load (bench-place start). The disk's rate is the throttle's, and for "disk" that of one sequential
read of the image. Rounds that would end after --minutes are left out, and told.
docs/performance.md says more.
"""

import os
import statistics
import sys
import time

import common
from common import ERRORS, STORAGES, Bench, Report, run_demo, spread, verdict
from story_report import FURTHER_POLICIES, POLICIES, read_rate
from harness import drop_from_cache

LEAST_SHARE = 0.11      # of the better of eager and lazy: idle, slow
OF_LIMIT = 1.25         # of the limit: slow
LIMITED = ("idle", "kv", "sql")
QEMU_TIMES = 5.0        # QEMU's TTR is so many times ours: slow
BEATEN = ("idle", "sql")
NEVER_ABOVE = 1.05      # of the better of eager and lazy: disk, every workload
AUTO_OF_LIMIT = 1.15    # of the limit: every storage
AUTO_OF_BEST = 1.05     # of the best of the fixed policies: every workload and storage
FIXED = ("eager", "lazy", "ws", "paced")
FURTHER_EVERY = 2       # the further storages take part in each second round


def parse_arguments():
    parser = common.parser(__doc__)
    parser.add_argument("--workloads", type=run_demo.choose(run_demo.ALL_WORKLOADS),
                        default=("idle", "kv", "sql", "scan"))
    parser.add_argument("--storages", type=run_demo.choose(tuple(STORAGES)),
                        default=tuple(STORAGES))
    parser.add_argument("--policies", type=run_demo.choose(POLICIES + FURTHER_POLICIES),
                        default=POLICIES + FURTHER_POLICIES)
    parser.add_argument("--minutes", type=float, default=45,
                        help="leave further rounds out that would end later (default: 45)")
    return parser.parse_args()


class Limit:
    """The limit of one workload."""

    def __init__(self, bench, saved):
        image = bench.inspect(saved.packed)
        drop_from_cache(saved.packed)
        self.wset_bytes = image["wset_stored_bytes"]
        self.wset_pages = image["wset_pages"]
        self.front_bytes = image["front_bytes"]
        self.rates = {name: throttle.bytes_per_s for name, throttle in STORAGES.items() if throttle}
        self.rates["disk"] = read_rate(saved.packed)
        self.starts_ms = []

    def ms(self, storage):
        throttle = STORAGES[storage]
        latency_ms = throttle.latency_us / 1000 if throttle else 0
        return (statistics.median(self.starts_ms) + latency_ms
                + self.wset_bytes / self.rates[storage] * 1000)


def plan(bench, number):
    """What a round restores: the further storages take part in each second one."""
    ways = [(storage, policy) for storage in bench.args.storages for policy in bench.args.policies
            if storage not in run_demo.FURTHER_STORAGES or number % FURTHER_EVERY == 1]
    return common.rotated(ways, number - 1)


def measure(bench, saved, limit, until):
    """All rounds of one workload; those after the first only if they will end before `until` (of
    time.monotonic()). Returns how many restores failed."""
    failed = 0
    began = time.monotonic()
    for number in range(1, bench.args.rounds + 1):
        now = time.monotonic()
        if number > 1 and now + (now - began) / (number - 1) > until:
            bench.say(f"{saved.workload}: rounds {number} to {bench.args.rounds}: SKIPPED: they "
                      f"would not end within {bench.args.minutes:g} minutes for all workloads")
            break
        limit.starts_ms.append(bench.bare_start_ms(saved))
        for storage, policy in plan(bench, number):
            failed += not measure_one(bench, saved, storage, policy, number)
    return failed


def measure_one(bench, saved, storage, policy, number):
    """One restore; whether it did not fail."""
    what = f"{saved.workload}, round {number}, {storage}, {policy}"
    try:
        run = run_demo.one_run(bench, saved, storage, policy, number)
    except ERRORS as err:
        bench.say(f"{what}: FAILED: {err}")
        return False
    bench.say(f"{what}: first instruction {run['start_ms']:.0f} ms, TTR {run['ttr_ms']:.0f} ms, "
              f"the guest says {run['guest_ttr_ms']:.0f} ms, {run['faults']} faults, "
              f"{run['integrity_errors']} errors")
    return True


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
        f"{'the guest itself':>24}{'faults':>8}{'TTR/limit':>11}{'CPU s/GiB':>11}")
    for storage in bench.args.storages:
        for policy in bench.args.policies:
            if not values(bench, workload, storage, policy):
                continue
            fields = [spread(values(bench, workload, storage, policy, field))
                      for field in ("start_ms", "ttr_ms", "guest_ttr_ms")]
            faults = statistics.median(values(bench, workload, storage, policy, "faults"))
            ratio = median(bench, workload, storage, policy) / limit.ms(storage)
            used = [each for each in values(bench, workload, storage, policy, "cpu_s_per_gib")
                    if each is not None]
            say(f"{storage:8}{policy:8}" + "".join(f"{field:>24}" for field in fields)
                + f"{faults:8.0f}{ratio:11.2f}"
                + (f"{statistics.median(used):11.2f}" if used else f"{'-':>11}"))
        say(f"{storage:8}{'limit':8}{'':24}{limit.ms(storage):>10.0f}")


def judge_workload(bench, workload, limit):
    """The targets that a workload can tell about: (met, line) of each."""
    def of(storage, policy):
        return median(bench, workload, storage, policy)

    for storage in bench.args.storages:
        yield from judge_auto(workload, storage, limit, {
            policy: of(storage, policy) for policy in (*FIXED, "auto") if of(storage, policy)})
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
        elif better and storage == "disk":
            yield verdict(f"{workload}, disk: ws ({ws:.0f} ms) of the better of eager and lazy "
                          f"({better:.0f} ms)", ws / better, NEVER_ABOVE)


def judge_auto(workload, storage, limit, medians):
    """The targets of the policy that chooses: (met, line) of each. medians: {policy: TTR, ms}."""
    auto = medians.pop("auto", None)
    if auto is None:
        return
    if workload in LIMITED:
        yield verdict(f"{workload}, {storage}: auto ({auto:.0f} ms) of the limit "
                      f"({limit.ms(storage):.0f} ms)", auto / limit.ms(storage), AUTO_OF_LIMIT)
    if medians:
        best = min(medians, key=medians.get)
        yield verdict(f"{workload}, {storage}: auto ({auto:.0f} ms) of the best fixed one ({best}, "
                      f"{medians[best]:.0f} ms)", auto / medians[best], AUTO_OF_BEST)


def run():
    args = parse_arguments()
    bench = Bench(args)
    args.storages = bench.known_storages(args.storages)
    bench.report = Report(bench.file("report.json"), bench.facts())
    bench.report.content["limits"] = {}
    limits = {}
    failed = 0
    for index, workload in enumerate(args.workloads):
        bench.terminal.bold(f"\n{workload}")
        saved = bench.prepared(workload)
        limits[workload] = Limit(bench, saved)
        bench.wait_quiet()
        left_s = args.minutes * 60 - (time.monotonic() - bench.began)
        failed += measure(bench, saved, limits[workload],
                          time.monotonic() + left_s / (len(args.workloads) - index))
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
