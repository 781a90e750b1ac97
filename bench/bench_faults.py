#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How long a fault takes: its service inside Rouse, and what a vCPU waits for it.

    bench/bench_faults.py [--rounds 5] [--quick] ...

From the request read off QEMU's connection to the page's bytes written, from a warm page cache,
lazy restores of guests that fault a lot (scan, kv). With the background stream (at 0.9 GiB/s, and
"max") the figures are those of `rouse restore --json`. Without it ("off") a restore never ends,
because some pages are never asked for: it is interrupted after some seconds, and the stall log says
how long each fault took, rounded up to whole microseconds; half of one is taken off.

What the vCPUs wait for a fault, by QEMU's own count, beside a background stream at full speed and
at 0.9 GiB/s: of the engine, and of a bare handler in its place, which has every page in
memory and answers with that page alone (bench_answer.c has the details).

Rounds are interleaved. Writes BUILD/bench/faults.json.
"""

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time

import common
from common import Bench, ToolError, run_demo, spread, verdict, warm
from harness import Guest
from harness.guest import RunDir
from harness.saving import read_stall_log

P50_US = 25
P99_US = 150
SEEN_OF_BARE = 1.3
HANDLERS = ("bare", "lazy-background", "lazy")
RATE = round(0.9 * (1 << 30))
OFF_SECONDS = 3
ROUNDING_US = 0.5


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))]


def with_background(bench, image, rate="max"):
    report = bench.file("faults-report")
    with common.restoring(bench, image, "lazy", "--quiet", "--background", rate, "--report",
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


def waited(bench, image, handler, rate):
    """What bench-answer says of one restore."""
    with RunDir() as run:
        with subprocess.Popen([bench.program("bench-answer"), handler, str(rate), image, "--",
                               *bench.machine.command(run, qmp=False)], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                with contextlib.closing(Guest(bench.machine, run, process)):
                    out, err = process.communicate(timeout=120)
            finally:
                process.kill()
    if process.returncode != 0:
        raise ToolError(f"bench-answer {handler}: {err.strip()}")
    return json.loads(out)


def measure_waits(bench, workloads):
    """Answers of bench-answer by (workload, rate, handler)."""
    ways = [(workload, rate, handler) for workload in workloads for rate in (0, RATE)
            for handler in HANDLERS]
    found = {way: [] for way in ways}
    for number in range(bench.args.rounds):
        for workload, rate, handler in common.rotated(ways, number):
            bench.terminal.progress(f"round {number + 1}, {workload}, {handler}", number,
                                    bench.args.rounds)
            found[workload, rate, handler].append(
                waited(bench, workloads[workload].image, handler, rate))
    return found


def show_waits(bench, found):
    """The table; (met, line) of each target."""
    say, targets = bench.terminal.line, []
    bench.terminal.bold("\nWhat a vCPU waits for a fault, us: medians of the rounds "
                        "(least to greatest)")
    say(f"{'workload':10}{'background':12}{'handler':17}{'faults':>8}{'us':>22}{'MiB/s':>20}")
    for (workload, rate, handler), rounds in found.items():
        say(f"{workload:10}{format(rate / 1e6, '.0f') + ' MB/s' if rate else 'max':12}{handler:17}"
            f"{statistics.median(each['faults'] for each in rounds):8.0f}"
            f"{spread(each['blocked_us'] for each in rounds):>22}"
            f"{spread(each['mib_per_s'] for each in rounds):>20}")
    for (workload, rate, handler), rounds in found.items():
        if handler != "bare":
            bare, ours = (statistics.median(each["blocked_us"] for each in found[way])
                          for way in ((workload, rate, "bare"), (workload, rate, handler)))
            if bare > 0:
                targets.append(verdict(
                    f"{workload}, background {'at 0.9 GiB/s' if rate else 'max'}: a vCPU's wait, "
                    f"{handler}, of that for a bare handler", ours / bare, SEEN_OF_BARE))
    return targets


def at_rate(bench, image):
    return with_background(bench, image, str(RATE))


MODES = {"off": without_background, "at 0.9 GiB/s": at_rate, "max": with_background}


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
    waits = measure_waits(bench, workloads)
    bench.terminal.bold("\nService of a fault, us: medians of the rounds (least to greatest)")
    say = bench.terminal.line
    say(f"{'workload':10}{'background':14}{'faults':>8}{'p50':>24}{'p90':>24}{'p99':>24}{'max':>9}")
    targets = []
    for (workload, mode), rounds in found.items():
        columns = [spread((each[name] for each in rounds), 1) for name in ("p50", "p90", "p99")]
        say(f"{workload:10}{mode:14}{statistics.median(each['faults'] for each in rounds):8.0f}"
            + "".join(f"{column:>24}" for column in columns)
            + f"{max(each['max'] for each in rounds):9.0f}")
        if mode != "off":
            for name, target in (("p50", P50_US), ("p99", P99_US)):
                value = statistics.median(each[name] for each in rounds)
                targets.append(verdict(f"{workload}, background {mode}: {name} us", value,
                                       target, digits=1))
    targets += show_waits(bench, waits)
    bench.write("faults", {
        "format": 1, "environment": bench.facts(),
        "rounds": {f"{workload}, {mode}": rounds for (workload, mode), rounds in found.items()},
        "waits": [{"workload": workload, "rate": rate, "handler": handler, "rounds": rounds}
                  for (workload, rate, handler), rounds in waits.items()],
        "targets": bench.told(targets, bench.args.rounds)})
    return 0


if __name__ == "__main__":
    sys.exit(common.main(run))
