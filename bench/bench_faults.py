#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How long a fault's service takes inside Rouse, with and without the background stream.

    bench/bench_faults.py [--rounds 5] [--quick] ...

From the request read off QEMU's connection to the page's bytes written, from a warm page cache,
lazy restores of guests that fault a lot (scan, kv). With the background stream ("max") the figures
are those of `rouse restore --json`. Without it ("off") a restore never ends, because some pages are
never asked for: it is interrupted after some seconds, and the stall log says how long each fault
took, rounded up to whole microseconds; half of one is taken off.
Rounds are interleaved. Writes BUILD/bench/faults.json.
"""

import contextlib
import json
import os
import signal
import statistics
import sys
import time

import common
from common import Bench, ToolError, run_demo, spread, verdict, warm
from harness.saving import read_stall_log

P50_US = 25
P99_US = 150
OFF_SECONDS = 3
ROUNDING_US = 0.5


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))]


def with_background(bench, image):
    report = bench.file("faults-report")
    with common.restoring(bench, image, "lazy", "--quiet", "--background", "max", "--report",
                          report) as (process, run, _):
        if process.wait(120) != 0:
            raise ToolError(f"rouse restore: {run.console_tail()}")
    with open(report, encoding="utf-8") as file:
        answer = json.load(file)
    os.unlink(report)
    return {"faults": answer["faults"], **answer["fault_us"]}


def without_background(bench, image):
    log = bench.file("faults-stalls")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(log)
    with common.restoring(bench, image, "lazy", "--background", "off", "--stall-log",
                          log) as (process, run, _):
        time.sleep(OFF_SECONDS)
        process.send_signal(signal.SIGINT)
        process.wait(30)
        if not os.path.exists(log):
            raise ToolError(f"rouse restore: {run.console_tail()}")
    services = [to - begin - ROUNDING_US for begin, to in read_stall_log(log) if begin > 0]
    os.unlink(log)
    if not services:
        raise ToolError("no fault in a restore on demand")
    return {"faults": len(services), "p50": percentile(services, 0.5),
            "p90": percentile(services, 0.9), "p99": percentile(services, 0.99),
            "max": max(services)}


MODES = {"off": without_background, "max": with_background}


def measure(bench, workloads):
    ways = [(workload, mode) for workload in workloads for mode in MODES]
    found = {way: [] for way in ways}
    done = 0
    for number in range(bench.args.rounds):
        for workload, mode in common.rotated(ways, number):
            bench.terminal.progress(f"round {number + 1}, {workload}, background {mode}", done,
                                    bench.args.rounds * len(ways))
            done += 1
            found[workload, mode].append(MODES[mode](bench, workloads[workload].image))
    return found


def run():
    parser = common.parser(__doc__)
    parser.add_argument("--workloads", type=run_demo.choose(run_demo.ALL_WORKLOADS),
                        default=("scan", "kv"))
    bench = Bench(parser.parse_args())
    workloads = {workload: bench.prepared(workload) for workload in bench.args.workloads}
    for saved in workloads.values():
        warm(saved.image)
    bench.wait_quiet()
    found = measure(bench, workloads)
    bench.terminal.bold("\nService of a fault, us: medians of the rounds (least to greatest)")
    say = bench.terminal.line
    say(f"{'workload':10}{'background':12}{'faults':>8}{'p50':>22}{'p90':>22}{'p99':>22}{'max':>9}")
    targets = []
    for (workload, mode), rounds in found.items():
        columns = [spread((each[name] for each in rounds), 1) for name in ("p50", "p90", "p99")]
        say(f"{workload:10}{mode:12}{statistics.median(each['faults'] for each in rounds):8.0f}"
            + "".join(f"{column:>22}" for column in columns)
            + f"{max(each['max'] for each in rounds):9.0f}")
        if mode == "max":
            for name, target in (("p50", P50_US), ("p99", P99_US)):
                value = statistics.median(each[name] for each in rounds)
                targets.append(verdict(f"{workload}, with the background stream: {name} us", value,
                                       target, digits=1))
    for _, line in targets:
        say(line)
    bench.write("faults", {
        "format": 1, "environment": bench.facts(),
        "rounds": {f"{workload}, {mode}": rounds for (workload, mode), rounds in found.items()},
        "targets": [{"met": met, "text": line} for met, line in targets]})
    return 0


if __name__ == "__main__":
    sys.exit(common.main(run))
