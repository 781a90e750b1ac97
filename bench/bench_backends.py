#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How pages get into QEMU: postcopy, userfaultfd or a mapped file, side by side.

    bench/bench_backends.py [--workloads idle,kv] [--policies lazy,ws] [--rounds 5] [--quick] ...

The same image restored by each backend of `rouse restore`, from a cold page cache (checked; for
"map" the flat file's as well), rounds interleaved and rotated, from the disk as it is. Prints first
instruction, TTR, the guest's own view, faults and their service, processor seconds for each GiB;
writes BUILD/bench/backends.json in the demo's format.
"""

import os
import statistics
import sys

import common
from common import ERRORS, Bench, Report, run_demo, spread
from harness import drop_from_cache
from harness.saving import restored_by_rouse

BACKENDS = ("postcopy", "uffd", "map")
POLICIES = ("eager", "lazy", "ws", "paced")


def parse_arguments():
    parser = common.parser(__doc__)
    parser.add_argument("--workloads", type=run_demo.choose(run_demo.ALL_WORKLOADS),
                        default=("idle", "kv", "scan"))
    parser.add_argument("--policies", type=run_demo.choose(POLICIES), default=("lazy", "ws"))
    parser.add_argument("--backends", type=run_demo.choose(BACKENDS), default=BACKENDS)
    return parser.parse_args()


def flat_file(bench, saved):
    path = bench.file(f"{saved.workload}.flat")
    bench.tool.run("convert", "--quiet", "--flat", saved.packed, path)
    return path


def one_run(bench, saved, flat, way, number):
    backend, policy = way
    options = ["--backend", backend]
    drop_from_cache(saved.packed)
    if backend == "map":
        drop_from_cache(flat)
        options += ["--flat", flat]
    with restored_by_rouse(bench.tool, saved.machine, saved.packed, policy,
                           options=options) as restored:
        run, prefetched_bytes = run_demo.describe(bench, saved, "disk", policy, number, restored)
        run["integrity_errors"] = run_demo.check_integrity(
            bench, restored, f"{saved.workload}, {backend}, {policy}, round {number}")
        run.update(bench.further(restored))
        run["backend"] = backend
    bench.report.add(run, prefetched_bytes)
    return run


def measure(bench, saved, flat):
    """All rounds of one workload. Returns how many restores failed."""
    ways = [(backend, policy) for policy in bench.args.policies for backend in bench.args.backends
            if (backend, policy) != ("map", "paced")]
    failed = 0
    for number in range(1, bench.args.rounds + 1):
        for way in common.rotated(ways, number - 1):
            what = f"{saved.workload}, round {number}, {', '.join(way)}"
            try:
                run = one_run(bench, saved, flat, way, number)
            except ERRORS as err:
                failed += 1
                bench.say(f"{what}: FAILED: {err}")
                continue
            bench.say(f"{what}: first instruction {run['start_ms']:.0f} ms, TTR "
                      f"{run['ttr_ms']:.0f} ms, the guest says {run['guest_ttr_ms']:.0f} ms, "
                      f"{run['faults']} faults, {run['integrity_errors']} errors")
    return failed


def show(bench, workload):
    say = bench.terminal.line
    bench.terminal.bold(f"\n{workload}: medians of the rounds (least to greatest)")
    say(f"{'policy':8}{'backend':10}{'first instruction, ms':>24}{'TTR(90%, 100ms), ms':>24}"
        f"{'the guest itself, ms':>24}{'faults':>8}{'p50 us':>8}{'p99 us':>8}{'s/GiB':>8}")
    for policy in bench.args.policies:
        for backend in bench.args.backends:
            runs = [run for run in bench.report.content["runs"]
                    if (run["workload"], run["policy"], run["backend"])
                    == (workload, policy, backend)]
            if not runs:
                continue
            columns = [spread(run[field] for run in runs)
                       for field in ("start_ms", "ttr_ms", "guest_ttr_ms")]
            p50, p99 = (statistics.median(run["fault_us"][name] for run in runs)
                        for name in ("p50", "p99"))
            faults = statistics.median(run["faults"] for run in runs)
            used = [run["cpu_s_per_gib"] for run in runs if run["cpu_s_per_gib"] is not None]
            cpu = f"{statistics.median(used):8.2f}" if used else f"{'':8}"
            say(f"{policy:8}{backend:10}" + "".join(f"{column:>24}" for column in columns)
                + f"{faults:8.0f}{p50:8.0f}{p99:8.0f}{cpu}")


def run():
    bench = Bench(parse_arguments())
    bench.report = Report(bench.file("backends.json"), bench.facts())
    failed = 0
    for workload in bench.args.workloads:
        bench.terminal.bold(f"\n{workload}")
        saved = bench.prepared(workload)
        flat = flat_file(bench, saved)
        try:
            bench.wait_quiet()
            failed += measure(bench, saved, flat)
        finally:
            os.unlink(flat)
    for workload in bench.args.workloads:
        show(bench, workload)
    bench.report.write()
    errors = bench.report.errors()
    bench.say(f"{len(bench.report.content['runs'])} restores, {failed} failed, {errors} integrity "
              f"errors; {os.path.relpath(bench.report.path)}")
    return 1 if failed or errors else 0


if __name__ == "__main__":
    sys.exit(common.main(run))
