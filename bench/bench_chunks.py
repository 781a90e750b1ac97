#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How many pages a chunk should have: what is read and decompressed at once.

    bench/bench_chunks.py [--workloads idle,kv] [--pages 4,16,64] [--rounds 3] [--quick] ...

The same image, laid out for the same working set with chunks of different sizes, restored with the
set ("ws") and without it ("lazy", on the same image) from a cold page cache (checked), rounds
interleaved and rotated. Larger chunks compress better and bring more neighbours with a fault; a
fault waits longer for them, and more of them is not wanted. Prints size, TTR, faults, their service
and what was read; writes BUILD/bench/chunks.json in the demo's format, "chunk_pages" added.
"""

import os
import statistics
import sys

import common
from common import ERRORS, STORAGES, Bench, Report, run_demo, spread
from harness import drop_from_cache
from harness.saving import restored_by_rouse

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


def one_run(bench, saved, path, way, number):
    storage, policy, pages = way
    drop_from_cache(path)
    with restored_by_rouse(bench.tool, saved.machine, path, policy, STORAGES[storage]) as restored:
        run, prefetched_bytes = run_demo.describe(bench, saved, storage, policy, number, restored)
        run["integrity_errors"] = run_demo.check_integrity(
            bench, restored, f"{saved.workload}, {way}, round {number}")
        run.update(bench.further(restored))
    run["chunk_pages"] = pages
    bench.report.add(run, prefetched_bytes)
    return run


def measure(bench, saved, paths):
    """All rounds of one workload. Returns how many restores failed."""
    args, failed = bench.args, 0
    ways = [(storage, policy, pages) for storage in args.storages for policy in args.policies
            for pages in args.pages]
    for number in range(1, args.rounds + 1):
        for way in common.rotated(ways, (number - 1) * len(ways) // max(args.rounds, 1)):
            what = f"{saved.workload}, round {number}, {way[0]}, {way[1]}, {way[2]} pages"
            try:
                run = one_run(bench, saved, paths[way[2]], way, number)
            except ERRORS as err:
                failed += 1
                bench.say(f"{what}: FAILED: {err}")
                continue
            bench.say(f"{what}: TTR {run['ttr_ms']:.0f} ms, {run['faults']} faults, "
                      f"{run['integrity_errors']} errors")
    return failed


def show(bench, workload, paths):
    say = bench.terminal.line
    bench.terminal.bold(f"\n{workload}: medians of the rounds (least to greatest)")
    say(f"{'storage':8}{'policy':8}{'pages':>6}{'image MB':>10}{'TTR(90%, 100ms), ms':>26}"
        f"{'faults':>8}{'p50 us':>9}{'p99 us':>9}{'read MB':>9}")
    for storage in bench.args.storages:
        for policy in bench.args.policies:
            for pages in bench.args.pages:
                runs = [run for run in bench.report.content["runs"]
                        if (run["workload"], run["storage"], run["policy"], run["chunk_pages"])
                        == (workload, storage, policy, pages)]
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
    failed = 0
    for workload in bench.args.workloads:
        bench.terminal.bold(f"\n{workload}")
        saved = bench.prepared(workload)
        paths = {pages: lay_out(bench, saved, pages) for pages in bench.args.pages}
        try:
            bench.wait_quiet()
            failed += measure(bench, saved, paths)
            show(bench, workload, paths)
        finally:
            for path in paths.values():
                os.unlink(path)
    bench.report.write()
    errors = bench.report.errors()
    bench.say(f"{len(bench.report.content['runs'])} restores, {failed} failed, {errors} integrity "
              f"errors; {os.path.relpath(bench.report.path)}")
    return 1 if failed or errors else 0


if __name__ == "__main__":
    sys.exit(common.main(run))
