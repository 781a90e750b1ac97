#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How pages get into QEMU: postcopy, userfaultfd or a mapped file, side by side.

    bench/bench_backends.py [--workloads idle,kv] [--policies lazy,ws] [--rounds 5] [--quick] ...

The same image restored by each backend of `rouse restore`, from a cold page cache (checked; for
"map" the flat file's as well), rounds interleaved, from the disk as it is. Prints first
instruction, TTR, the guest's own view, faults and their service, processor seconds for each GiB;
writes BUILD/bench/backends.json in the demo's format.
"""

import functools
import os
import statistics
import sys

import common
from common import Bench, Report, matching, run_demo, spread

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


def restored_by(backend, saved, flat):
    """The way of a backend, for run_demo.one_run()."""
    if backend == "map":
        return common.from_image(saved.packed, "--backend", backend, "--flat", flat, cold=(flat,))
    return common.from_image(saved.packed, "--backend", backend)


def measure(bench, saved, flat):
    """All rounds of one workload."""
    ways = [(backend, policy) for policy in bench.args.policies for backend in bench.args.backends
            if (backend, policy) != ("map", "paced")]
    for number in range(1, bench.args.rounds + 1):
        for backend, policy in common.rotated(ways, number - 1):
            more = {"backend": backend}
            bench.attempt({**run_demo.cell_of(saved, "disk", policy, number), **more},
                          functools.partial(run_demo.one_run, bench, saved, "disk", policy, number,
                                            restored_by(backend, saved, flat), more))


def show(bench, workload):
    say = bench.terminal.line
    bench.terminal.bold(f"\n{workload}: medians of the rounds (least to greatest)")
    say(f"{'policy':8}{'backend':10}{'first instruction, ms':>24}{'TTR(90%, 100ms), ms':>24}"
        f"{'the guest itself, ms':>24}{'faults':>8}{'p50 us':>8}{'p99 us':>8}{'s/GiB':>8}")
    for policy in bench.args.policies:
        for backend in bench.args.backends:
            runs = matching(bench.report.content["runs"], workload=workload, policy=policy,
                            backend=backend)
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
    for workload in bench.args.workloads:
        bench.terminal.bold(f"\n{workload}")
        saved = bench.prepared(workload)
        flat = flat_file(bench, saved)
        try:
            bench.wait_quiet()
            measure(bench, saved, flat)
        finally:
            os.unlink(flat)
    for workload in bench.args.workloads:
        show(bench, workload)
    return bench.finish()


if __name__ == "__main__":
    sys.exit(common.main(run))
