#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Is --throttle as slow as the kernel's own limits? Compared with cgroup io limits.

    bench/bench_throttle.py [--rounds 3] [--quick] ...

Two averages, each once with `rouse`'s throttle and once with the kernel's (cgroup v1
blkio.throttle or v2 io.max) on the same file, from a cold page cache:

    sequential   rouse cat of the whole file: bytes/s
    random       4 KiB reads at random places, one after the other, through the source layer: reads/s

One limit at a time for the kernel: it counts every request as an operation, where the throttle
counts reads that do not go on where the last one ended. Needs root and a cgroup controller; says
what is absent and ends otherwise. The cgroup is one of its own, and is removed.
"""

import contextlib
import os
import json
import statistics
import subprocess
import sys
import time

import common
import iolimit
from common import Bench, spread
from harness import drop_from_cache

FILE_BYTES = 300_000_000
RANDOM_READS = 300
AGREE = 0.10


def run_in(group, command):
    """Runs a command inside a cgroup, or where we are; returns seconds and output."""
    def enter():
        if group:
            iolimit.enter(group, os.getpid())
    began = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True,
                          preexec_fn=enter, timeout=300)
    return time.monotonic() - began, done.stdout


def make_file(path):
    with open(path, "wb") as file:
        for _ in range(FILE_BYTES // 1_000_000):
            file.write(os.urandom(1_000_000))
        file.flush()
        os.fsync(file.fileno())


def sequential(bench, path, throttle, group):
    options = ["--throttle", throttle.option()] if throttle else []
    command = ["sh", "-c", 'exec "$0" cat "$@" >/dev/null', bench.tool.path, *options, path]
    return FILE_BYTES / run_in(group, command)[0]


def random_reads(bench, path, throttle, group):
    limits = [str(throttle.bytes_per_s), str(throttle.random_reads_per_s)] if throttle else []
    command = [bench.program("bench-source"), path, str(RANDOM_READS), *limits]
    return json.loads(run_in(group, command)[1])["reads_per_s"]


KINDS = {"sequential": sequential, "random": random_reads}


def measure(bench, path):
    throttle = common.run_demo.STORAGES["slow"]
    rates = {"sequential": throttle.bytes_per_s, "random": throttle.random_reads_per_s}
    disk = iolimit.whole_disk(path)
    found = {(kind, who): [] for kind in KINDS for who in ("rouse", "kernel")}
    for number in range(bench.args.rounds):
        for kind, who in common.rotated(found, number):
            bench.terminal.progress(f"round {number + 1}, {kind}, {who}", number,
                                    bench.args.rounds)
            drop_from_cache(path)
            if who == "rouse":
                found[kind, who].append(KINDS[kind](bench, path, throttle, None))
            else:
                with iolimit.limited_group(disk, kind, rates[kind]) as group:
                    found[kind, who].append(KINDS[kind](bench, path, None, group))
    return found


def run():
    bench = Bench(common.parser(__doc__, rounds=3).parse_args())
    path = bench.file("throttle.data")
    try:
        make_file(path)
        found = measure(bench, path)
    except iolimit.Absent as why:
        bench.say(f"skipped: cgroup io limits: {why}")
        return 0
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    say = bench.terminal.line
    bench.terminal.bold("\nThe throttle beside the kernel's: medians (least to greatest)")
    targets = []
    for kind, unit, scale in (("sequential", "MB/s", 1e6), ("random", "reads/s", 1)):
        ours, kernels = ([each / scale for each in found[kind, who]] for who in ("rouse", "kernel"))
        apart = abs(statistics.median(ours) / statistics.median(kernels) - 1)
        say(f"{kind:12}rouse {spread(ours, 1)}, kernel {spread(kernels, 1)} {unit}")
        targets.append(common.verdict(f"{kind}: apart by", apart, AGREE, digits=3))
    bench.write("throttle", {"format": 1, "environment": bench.facts(),
                             "rates": {f"{kind}, {who}": values
                                       for (kind, who), values in found.items()},
                             "targets": bench.told(targets, bench.args.rounds)})
    return 0


if __name__ == "__main__":
    sys.exit(common.main(run))
