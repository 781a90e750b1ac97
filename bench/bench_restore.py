#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How soon a restored guest is responsive: every policy, beside what others do and the limit.

    bench/bench_restore.py [--workloads idle,kv] [--rounds 5] [--quick] ...

The demo's guests, prepared as the demo does it, restored from a cold page cache (checked) in
rounds: in each round every storage, with the policies whose turn it is, in an order that changes
from round to round, and once QEMU's bare start. Prints medians with the least and the greatest, and every target
of the project beside what was measured; BUILD/bench/report.json is in the demo's format, and each
run has "limit_ms", "backend", "ram_gib", "clones" and "cpu_s_per_gib" too. "settings" says how each
policy is set, "skipped" what could not be measured here, and why (bench/peers.py).
BUILD/bench/report.html is a page of it to look at.

    limit = QEMU's bare start + bytes of the working set in the image / what the disk reads a second
            + one latency of the disk

QEMU's bare start: the time from starting QEMU with the same command to the guest's first
instruction, with the same devices and of its memory only the first MiB, without which they do not
load (bench-place start). The disk's rate is the throttle's, and for "disk" that of one sequential
read of the image. Rounds that would end after --minutes are left out, and told.
docs/performance.md says more.
"""

import functools
import statistics
import sys
import time

import common
import peers
import verdicts
from common import STORAGES, Bench, Report, run_demo, spread
from story_page import Page
from story_report import FURTHER_POLICIES, PEERS, POLICIES, read_rate
from harness import drop_from_cache

ALL_POLICIES = POLICIES + FURTHER_POLICIES + PEERS
NAME = max(map(len, ALL_POLICIES)) + 1  # width of a policy's column
# Which round a policy takes part in, from the first one on: what is close to others in each; what
# differs by seconds, and takes most of the time, in each fifth.
EVERY = {"auto": 1, "ws": 1, "paced": 1, "faasnap": 2}
EVERY_OTHER_POLICY = 5
CACHED = ("cold: what is restored from, for every policy: dropped from the page cache before each "
          "restore, and mincore(2) found none of it there. Warm: programs, libraries, firmware, "
          "the guest's kernel. What is kept below a virtual disk is not known.")


def parse_arguments():
    parser = common.parser(__doc__, rounds=6)
    parser.add_argument("--workloads", type=run_demo.choose(run_demo.ALL_WORKLOADS), default=None,
                        help="default: idle,kv,sql,scan; with --quick idle,sql")
    parser.add_argument("--storages", type=run_demo.choose(tuple(STORAGES)), default=None,
                        help="default: disk,slow,mid,net; with --quick disk,slow, and sql only "
                        "from slow")
    parser.add_argument("--policies", type=run_demo.choose(ALL_POLICIES), default=ALL_POLICIES)
    parser.add_argument("--minutes", type=float, default=None,
                        help="leave further rounds out that would end later (default: 75; with "
                        "--quick 8.5, and restores of the only round, too)")
    args = parser.parse_args()
    args.minutes = args.minutes or (8.5 if args.quick else 75)
    args.left_out = {("sql", "disk")} if args.quick and not args.storages else set()
    args.workloads = args.workloads or \
        (("idle", "sql") if args.quick else ("idle", "kv", "sql", "scan"))
    args.storages = args.storages or (("disk", "slow") if args.quick else tuple(STORAGES))
    args.policies = list(args.policies)
    return args


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


def plan(ways, saved, number):
    """What a round restores: all storages, each with the policies whose turn it is."""
    args = ways.bench.args
    cells = [(storage, policy) for storage in args.storages for policy in args.policies
             if (saved.workload, storage) not in args.left_out
             and (number - 1) % EVERY.get(policy, EVERY_OTHER_POLICY) == 0]
    return [cell for cell in common.rotated(cells, number - 1) if ways.possible(saved, *cell)]


def measure(ways, saved, limit, until):
    """All rounds of one workload; those after the first only if they will end before `until` (of
    time.monotonic()), with --quick single restores as well."""
    bench = ways.bench
    took = {}  # by (storage, policy): seconds of the last restore
    for number in range(1, bench.args.rounds + 1):
        cells = plan(ways, saved, number)
        if number > 1 and time.monotonic() + sum(took.get(cell, 0) for cell in cells) > until:
            bench.say(f"{saved.workload}: rounds {number} to {bench.args.rounds}: SKIPPED: they "
                      f"would not end within {bench.args.minutes:g} minutes for all workloads")
            break
        limit.starts_ms.append(bench.bare_start_ms(saved))
        for storage, policy in cells:
            began = time.monotonic()
            if bench.args.quick and began > until:
                bench.skip(f"{saved.workload}, {storage}, {policy}",
                           f"the {bench.args.minutes:g} minutes are over")
                continue
            bench.attempt(run_demo.cell_of(saved, storage, policy, number),
                          functools.partial(ways.one_run, saved, storage, policy, number))
            took[storage, policy] = time.monotonic() - began


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


def show_table(bench, workload, limit):
    say, cells = bench.terminal.line, verdicts.Cells(bench.report.content["runs"])
    bench.terminal.bold(f"\n{workload}: medians of the rounds (least to greatest), ms")
    say(f"working set: {limit.wset_pages} pages, {limit.wset_bytes / 1e6:.1f} MB in the image; "
        f"QEMU's bare start: {spread(limit.starts_ms)} ms")
    say(f"{'storage':8}{'policy':{NAME}}{'first instruction':>24}{'TTR(90%, 100ms)':>24}"
        f"{'the guest itself':>24}{'faults':>8}{'TTR/limit':>11}{'CPU s/GiB':>11}")
    for storage in bench.args.storages:
        if (workload, storage) in bench.args.left_out:
            continue
        for policy in bench.args.policies:
            if not cells.values(workload, storage, policy):
                continue
            fields = [spread(cells.values(workload, storage, policy, field))
                      for field in ("start_ms", "ttr_ms", "guest_ttr_ms")]
            faults = cells.median(workload, storage, policy, "faults")
            ratio = cells.median(workload, storage, policy) / limit.ms(storage)
            used = [each for each in cells.values(workload, storage, policy, "cpu_s_per_gib")
                    if each is not None]
            say(f"{storage:8}{policy:{NAME}}" + "".join(f"{field:>24}" for field in fields)
                + f"{faults:8.0f}{ratio:11.2f}"
                + (f"{statistics.median(used):11.2f}" if used else f"{'-':>11}"))
        say(f"{storage:8}{'limit':{NAME}}{'':24}{limit.ms(storage):>10.0f}")


def conclude(bench, limits):
    """Tables, what was skipped, settings and targets; all of it is in the report, too."""
    content = bench.report.content
    for workload, limit in limits.items():
        show_table(bench, workload, limit)
    bench.terminal.bold("\nHow each is set")
    bench.terminal.line(CACHED)
    for policy, text in content["settings"].items():
        bench.terminal.line(f"{policy:{NAME}}{text}")
    bench.tell_skipped()
    bench.terminal.bold("\nTargets, medians of the rounds")
    content["targets"] = bench.told(verdicts.judge(content["runs"], content["failed"]))


def run():
    args = parse_arguments()
    bench = Bench(args)
    args.storages = bench.known_storages(args.storages)
    bench.report = Report(bench.file("report.json"), bench.facts())
    bench.report.content.update(limits={}, skipped=bench.skipped, cached=CACHED)
    bench.page = Page(bench, common.ERRORS)
    for workload, storage in args.left_out & {(workload, storage) for workload in args.workloads
                                              for storage in args.storages}:
        bench.skip(f"{workload}, {storage}", "--quick leaves it out")
    ways = peers.Ways(bench)
    limits = {}
    for index, workload in enumerate(args.workloads):
        bench.terminal.bold(f"\n{workload}")
        saved = bench.prepared(workload)
        ways.prepare(saved)
        limits[workload] = Limit(bench, saved)
        bench.wait_quiet()
        left_s = args.minutes * 60 - (time.monotonic() - bench.began)
        measure(ways, saved, limits[workload],
                time.monotonic() + left_s / (len(args.workloads) - index))
        note_limits(bench, workload, limits[workload])
        bench.page.keep_memory(saved, run_demo.record)
    conclude(bench, limits)
    return bench.finish()


if __name__ == "__main__":
    sys.exit(common.main(run))
