#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How much slower a guest runs while it is scanned or traced, and what that costs the processors.

    bench/bench_scan_cost.py [--workloads idle,kv] [--memory anon,memfd] [--ways scan,trace] ...

For each workload and kind of RAM one guest. It works without a rest, in spans of some seconds: A,
in which nothing happens, and B, in which `rouse scan` or `rouse trace` runs, in the order A B B A.
Each pair of neighbours gives a ratio of requests a second; the median of the pairs counts, with the
interval of the sign test. Where two A stand side by side the same is computed of them: it must hold
0 ("A/A"). "faults" is what the page faults that B adds take of the vCPUs' time: counted, not timed. `--ways nothing,scan` measures B without anything, too. Then the guest checks its memory.

Writes BUILD/bench/scan_cost.json. docs/estimators.md says how to read it. Takes less than three
minutes for each workload and kind of RAM.
"""

import sys

import common
import scan_cost
from common import ERRORS, Bench, run_demo, verdict_of_interval

SCAN_SLOWDOWN = 0.03
TARGET_WORKLOADS = ("idle", "kv", "sql")


def parse_arguments():
    parser = common.parser(__doc__)
    parser.add_argument("--workloads", type=run_demo.choose(run_demo.ALL_WORKLOADS),
                        default=TARGET_WORKLOADS)
    parser.add_argument("--memory", type=run_demo.choose(("anon", "memfd")),
                        default=("anon", "memfd"), help="kinds of the guest's RAM")
    parser.add_argument("--ways", type=run_demo.choose(tuple(scan_cost.WAYS)),
                        default=("scan", "trace"))
    parser.add_argument("--loads", type=run_demo.choose(tuple(scan_cost.LOADS)), default=("busy",),
                        help="busy: requests without a rest; paced: one every 5 ms on each vCPU")
    parser.add_argument("--seconds", type=int, default=4, help="of a span")
    args = parser.parse_args()
    if args.seconds <= scan_cost.STEADY_AFTER_S:
        parser.error(f"--seconds: more than {scan_cost.STEADY_AFTER_S}")
    return args


def blocks_of(args, way):
    """--rounds counts blocks of two pairs. What a trace costs needs fewer of them to be seen."""
    return (args.rounds + 1) // 2 if way == "trace" else args.rounds


def measure_guest(bench, workload, memory):
    """All ways and loads of one guest: [run]."""
    args, what = bench.args, f"{workload}, {memory}"
    bench.machine = bench.machine._replace(ram=memory)
    runs = []
    with run_demo.boot_workload(bench, workload) as guest:
        guest.stamp()
        run_demo.work_for(bench, guest, run_demo.SETTLE_SECONDS, f"{what}: settling")
        for way in args.ways:
            for load in args.loads:
                found = scan_cost.measure(bench, guest, what, way, load, blocks_of(args, way),
                                          args.seconds)
                if found:
                    runs.append({"workload": workload, "ram": memory, "way": way, "load": load,
                                 "span_s": args.seconds, **found})
                    bench.say(f"{what}, {way}, {load}: {share(found)} slower")
        errors = guest.verify().errors
    for each in runs:
        each["integrity_errors"] = errors
    return runs


def percent(value, low, high):
    interval = "" if low is None else f" ({low:+.1f} to {high:+.1f})"
    return f"{value:+.1f}{interval}"


def share(found):
    low, high = found["slowdown_low"], found["slowdown_high"]
    return percent(found["slowdown"] * 100, low and low * 100, high and high * 100) + " %"


def of(median, scale=100):
    """A Median of a run, for the table."""
    if not median:
        return "-"
    low, high = median["low"], median["high"]
    return percent(median["value"] * scale, low and low * scale, high and high * scale)


def show(bench):
    say = bench.terminal.line
    bench.terminal.bold("\nMedians of the pairs (interval of 95 %): slower, %; processor time "
                        "beyond that without it, % of a core")
    say(f"{'':29}{'pairs':>6}{'slower':>23}{'after 1 s':>23}{'by CPU time':>23}{'A/A':>23}"
        f"{'A/A, CPU time':>23}{'faults':>8}{'rouse':>7}{'vCPUs':>7}{'QEMU':>7}{'wrong':>7}")
    for run in bench.runs:
        name = f"{run['workload']}, {run['ram']}, {run['way']}, {run['load']}"
        cpu = run["cpu_percent"]
        say(f"{name:29}{run['pairs']:6}{share(run)[:-2]:>23}{of(run['slowdown_steady']):>23}"
            f"{of(run['slowdown_cpu']):>23}{of(run['slowdown_control']):>23}"
            f"{of(run['slowdown_cpu_control']):>23}{run['faults']['slowdown'] * 100:8.2f}"
            + "".join(f"{cpu[each]['value']:7.1f}" for each in ("tool", "vcpus", "qemu"))
            + f"{run['integrity_errors']:7}")


def judge_targets(runs):
    return [verdict_of_interval(f"{run['workload']}, {run['ram']}: slower while it is scanned",
                                run["slowdown"], run["slowdown_low"], run["slowdown_high"],
                                SCAN_SLOWDOWN)
            for run in runs if run["way"] == "scan" and run["load"] == "busy"
            and run["workload"] in TARGET_WORKLOADS]


def run():
    bench = Bench(parse_arguments())
    bench.runs, failed = [], 0
    facts = bench.facts()
    ways = [(workload, memory) for workload in bench.args.workloads for memory in bench.args.memory]
    bench.wait_quiet()
    for workload, memory in ways:
        try:
            bench.runs += measure_guest(bench, workload, memory)
        except ERRORS as err:
            failed += 1
            bench.say(f"{workload}, {memory}: FAILED: {err}")
    show(bench)
    bench.write("scan_cost", {"format": 1, "environment": facts, "runs": bench.runs,
                              "targets": bench.told(judge_targets(bench.runs))})
    errors = sum(each["integrity_errors"] for each in bench.runs)
    return 1 if failed or errors else 0


if __name__ == "__main__":
    sys.exit(common.main(run))
