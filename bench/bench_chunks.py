#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How many pages a chunk should have: what is read and decompressed at once.

    bench/bench_chunks.py [--workloads idle,kv] [--pages 4,16,64] [--rounds 3] [--quick] ...

The same image, laid out for the same working set with chunks of different sizes, restored with the
set ("ws") and without it ("lazy", on the same image) from a cold page cache (checked), rounds
interleaved. Larger chunks compress better and bring more neighbours with a fault; a
fault waits longer for them, and more of them is not wanted. Prints size, TTR, faults, their service
and what was read; writes BUILD/bench/chunks.json in the demo's format, "chunk_pages" added.
"""

import functools
import os
import statistics
import sys

import common
from common import STORAGES, Bench, Report, matching, run_demo, spread

PAGES = (4, 8, 16, 32, 64, 128)
POLICIES = ("ws", "lazy")


def parse_arguments():
    parser = common.parser(__doc__, rounds=3)
    parser.add_argument("--workloads", type=run_demo.choose(run_demo.ALL_WORKLOADS),
                        default=("idle", "kv"))
    parser.add_argument("--storages", type=run_demo.choose(tuple(STORAGES)),
                        default=("disk", "slow", "net"))
    parser.add_argument("--policies", type=run_demo.choose(POLICIES), default=POLICIES)
    parser.add_argument("--pages", type=lambda text: tuple(map(int, text.split(","))),
                        default=PAGES, help="of a chunk")
    return parser.parse_args()


def lay_out(bench, saved, pages):
    """The image with chunks of so many pages."""
    path = bench.file(f"{saved.workload}.chunks-{pages}.rouse")
    bench.tool.run("pack", "-q", saved.image, "-w", bench.file(f"{saved.workload}.wset"),
                   "--chunk-pages", pages, path)
    return path


def measure(bench, saved, paths):
    """All rounds of one workload."""
    args = bench.args
    ways = [(storage, policy, pages) for storage in args.storages for policy in args.policies
            for pages in args.pages]
    for number in range(1, args.rounds + 1):
        for storage, policy, pages in common.rotated(ways, number - 1):
            more = {"chunk_pages": pages}
            bench.attempt({**run_demo.cell_of(saved, storage, policy, number), **more},
                          functools.partial(run_demo.one_run, bench, saved, storage, policy, number,
                                            common.from_image(paths[pages]), more))


def show(bench, workload, paths):
    say = bench.terminal.line
    bench.terminal.bold(f"\n{workload}: medians of the rounds (least to greatest)")
    say(f"{'storage':8}{'policy':8}{'pages':>6}{'image MB':>10}{'TTR(90%, 100ms), ms':>26}"
        f"{'faults':>8}{'p50 us':>9}{'p99 us':>9}{'read MB':>9}")
    for storage in bench.args.storages:
        for policy in bench.args.policies:
            for pages in bench.args.pages:
                runs = matching(bench.report.content["runs"], workload=workload, storage=storage,
                                policy=policy, chunk_pages=pages)
                if not runs:
                    continue
                faults, p50, p99, read = (
                    statistics.median(each) for each in zip(*(
                        (run["faults"], run["fault_us"]["p50"], run["fault_us"]["p99"],
                         run["read_bytes"] / 1e6) for run in runs)))
                say(f"{storage:8}{policy:8}{pages:6}{os.path.getsize(paths[pages]) / 1e6:10.0f}"
                    f"{spread(run['ttr_ms'] for run in runs):>26}{faults:8.0f}{p50:9.0f}{p99:9.0f}"
                    f"{read:9.0f}")


def run():
    bench = Bench(parse_arguments())
    bench.report = Report(bench.file("chunks.json"), bench.facts())
    for workload in bench.args.workloads:
        bench.terminal.bold(f"\n{workload}")
        saved = bench.prepared(workload)
        paths = {pages: lay_out(bench, saved, pages) for pages in bench.args.pages}
        try:
            bench.wait_quiet()
            measure(bench, saved, paths)
            show(bench, workload, paths)
        finally:
            for path in paths.values():
                os.unlink(path)
    return bench.finish()


if __name__ == "__main__":
    sys.exit(common.main(run))
