#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the background stream costs the guest, and what it gives: restores at each of its rates.

    bench/bench_background.py [--rounds 5] [--rates off,100MB,200MB,auto,max] [--policies ws] ...

For each workload, storage, policy and rate, from a cold cache: TTR by Rouse's stalls and by the
guest's own requests, which also feel that processors are busy; when the last page was there; the
faults and their service; for how long the vCPUs waited for a processor. With "off" a restore never
ends: it is watched for some seconds and interrupted. Rounds are interleaved. Writes
BUILD/bench/background.json.
"""

import contextlib
import os
import signal
import statistics
import sys
import time

import common
from common import Bench, ToolError, run_demo, spread, verdict
from harness import drop_from_cache, now_us
from harness.records import guest_view
from harness.saving import read_stall_log, restored_by_rouse
from harness.ttr import ttr_us

RATES = ("off", "100MB", "200MB", "auto", "max")
OFF_SECONDS = 4
AGREE_MS = 20
AGREE_SHARE = 0.10


def image_of(saved, policy):
    return saved.packed if policy == "ws" else saved.image


def delivered(bench, saved, storage, policy, rate):
    """A restore to its end."""
    image = image_of(saved, policy)
    drop_from_cache(image)
    with restored_by_rouse(bench.tool, saved.machine, image, policy, run_demo.STORAGES[storage],
                           ("--background", rate)) as restored:
        view = guest_view(restored.guest.link.records, saved.normal, saved.machine.vcpus,
                          restored.request_us, restored.start_us, restored.complete_us, now_us())
        errors = run_demo.check_integrity(bench, restored, f"{saved.workload}, {storage}, {rate}")
    report = restored.report
    return {"guest_ttr_ms": view.ttr_us / 1000, "guest_stalled_ms": view.stalled_us / 1000,
            "ttr_ms": report["ttr_ms"], "complete_ms": report["complete_ms"],
            "faults": report["faults"], "p50_us": report["fault_us"]["p50"],
            "p99_us": report["fault_us"]["p99"],
            "vcpu_wait_ms": report.get("vcpu_wait_ms"),
            "background_rate": report.get("background_rate"), "integrity_errors": errors}


def interrupted(bench, saved, storage, policy, _rate):
    """A restore without background: it does not end by itself."""
    image = image_of(saved, policy)
    log = bench.file("background-stalls")
    throttle = run_demo.STORAGES[storage]
    options = ["--throttle", throttle.option()] if throttle else []
    drop_from_cache(image)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(log)
    request_us = now_us()
    with common.restoring(bench, image, policy, "--background", "off", "--stall-log", log,
                          *options) as (process, run, guest):
        time.sleep(OFF_SECONDS)
        until_us = now_us()
        records = list(guest.link.records)
        process.send_signal(signal.SIGINT)
        process.wait(30)
        if not os.path.exists(log):
            raise ToolError(f"rouse restore: {run.console_tail()}")
    stalls = read_stall_log(log)
    os.unlink(log)
    vcpus = saved.machine.vcpus
    start_us = request_us + max(end for begin, end in stalls if begin == 0)
    services = sorted(end - begin for begin, end in stalls if begin > 0) or [0]
    view = guest_view(records, saved.normal, vcpus, request_us, start_us, until_us, until_us)
    return {"guest_ttr_ms": view.ttr_us / 1000, "guest_stalled_ms": view.stalled_us / 1000,
            "ttr_ms": ttr_us(stalls, vcpus) / 1000, "complete_ms": None,
            "faults": len(stalls) - vcpus, "p50_us": statistics.median(services),
            "p99_us": services[min(len(services) - 1, int(len(services) * 0.99))],
            "vcpu_wait_ms": None, "background_rate": 0, "integrity_errors": 0}


def measure(bench, workloads):
    args = bench.args
    ways = [(workload, storage, policy, rate) for workload in workloads
            for storage in args.storages for policy in args.policies for rate in args.rates]
    found = {way: [] for way in ways}
    done = 0
    for number in range(args.rounds):
        for way in common.rotated(ways, number):
            bench.terminal.progress(f"round {number + 1}, {', '.join(way)}", done,
                                    args.rounds * len(ways))
            done += 1
            one = interrupted if way[3] == "off" else delivered
            found[way].append(one(bench, workloads[way[0]], *way[1:]))
    return found


def median(rounds, name):
    values = [each[name] for each in rounds if each[name] is not None]
    return statistics.median(values) if values else None


def tell(bench, found):
    say = bench.terminal.line
    bench.terminal.bold("\nMedians of the rounds (least to greatest), milliseconds")
    say(f"{'':26}{'the guest itself':>22}{'TTR':>20}{'last page':>11}{'faults':>8}{'p99 us':>8}"
        f"{'vCPUs waited':>14}{'MB/s':>7}")
    for (workload, storage, policy, rate), rounds in found.items():
        columns = []
        for name, width in (("complete_ms", 11), ("faults", 8), ("p99_us", 8), ("vcpu_wait_ms", 14),
                            ("background_rate", 7)):
            value = median(rounds, name)
            value = value / 1e6 if value and name == "background_rate" else value
            columns.append(f"{'-' if value is None else format(value, '.0f'):>{width}}")
        say(f"{workload + ', ' + storage + ', ' + policy + ', ' + rate:26}"
            f"{spread(each['guest_ttr_ms'] for each in rounds):>22}"
            f"{spread(each['ttr_ms'] for each in rounds):>20}{''.join(columns)}")


def targets(found):
    lines = []
    for (workload, storage, policy, rate), rounds in found.items():
        if rate != "auto":
            continue
        guest = median(rounds, "guest_ttr_ms")
        what = f"{workload}, {storage}, {policy}, auto"
        if workload == "idle" and policy == "ws":
            gap = statistics.median(abs(each["guest_ttr_ms"] - each["ttr_ms"]) for each in rounds)
            allowed = max(AGREE_MS, AGREE_SHARE * median(rounds, "ttr_ms"))
            lines.append(verdict(f"{what}: ms between the guest and TTR", gap, allowed))
        fast = found.get((workload, storage, policy, "max"))
        if fast:
            lines.append(verdict(f"{what}: the guest itself, beside max",
                                 guest / median(fast, "guest_ttr_ms"), 1.0))
    return lines


def run():
    parser = common.parser(__doc__)
    parser.add_argument("--workloads", type=run_demo.choose(run_demo.ALL_WORKLOADS),
                        default=("idle", "kv"))
    parser.add_argument("--storages", type=run_demo.choose(tuple(run_demo.STORAGES)),
                        default=tuple(run_demo.STORAGES))
    parser.add_argument("--policies", type=run_demo.choose(("lazy", "ws")), default=("ws",))
    parser.add_argument("--rates", type=lambda text: text.split(","), default=RATES)
    bench = Bench(parser.parse_args())
    workloads = {workload: bench.prepared(workload) for workload in bench.args.workloads}
    bench.wait_quiet()
    found = measure(bench, workloads)
    tell(bench, found)
    bench.write("background", {
        "format": 1, "environment": bench.facts(),
        "rounds": {", ".join(way): rounds for way, rounds in found.items()},
        "targets": bench.told(targets(found), bench.args.rounds)})
    errors = sum(each["integrity_errors"] for rounds in found.values() for each in rounds)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(common.main(run))
