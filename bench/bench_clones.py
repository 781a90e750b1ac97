#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Many restores at once: of one image, and of as many different ones.

    bench/bench_clones.py [--counts 1,2,8,32] [--images one,different] [--policies lazy,ws]
                          [--backends postcopy,map] ...

A small guest (--ram, 256 MiB and one vCPU), saved and packed once. Then so many `rouse restore` are
started at once, from a cold page cache (checked), each with a QEMU of its own. "different": each
has its own copy of the image; by the backend map all have one flat file. For each VM its TTR, from the request to restore it; the time until
the last page of the last one was in place; the bytes that came from the disk, as the kernel counted
them for each process (getrusage(2)), and beside it what the disk itself counted, others' reads
included. Then all guests check their memory at once. Beside it as many QEMUs that are started bare
at once (bench-place start), which is the limit: that alone keeps two processors busy for long.
Rounds are interleaved.

Writes BUILD/bench/clones.json. Takes some minutes for each round.
"""

import contextlib
import functools
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time

import common
from common import Bench, Report, ToolError, run_demo, spread, verdict
from harness import Guest, cputime, drop_from_cache
from harness.guest import RunDir

PERIOD_US = 20_000       # 32 guests share the processors: requests are seldom
FILL_SHARE = 0.6         # of the guest's free memory
READ_ONCE = 1.1          # bytes from the disk for all clones of one image, of those for one
LAST_OF_ONE = 3.0        # TTR of the last of all clones, of that of a single one
LIMIT_S = 300


def numbers(text):
    return [int(word) for word in text.split(",")]


def parse_arguments():
    parser = common.parser(__doc__, rounds=3, ram=256, resumes=0)
    parser.set_defaults(vcpus=1)
    parser.add_argument("--counts", type=numbers, default=None,
                        help="so many at once (default: 1,2,8,32; with --quick 1,2,8)")
    parser.add_argument("--images", type=run_demo.choose(("one", "different")),
                        default=("one", "different"))
    parser.add_argument("--policies", type=run_demo.choose(("lazy", "ws", "paced", "auto")),
                        default=("lazy", "ws"))
    parser.add_argument("--backends", type=run_demo.choose(("postcopy", "uffd", "map")),
                        default=("postcopy", "map"))
    parser.add_argument("--workload", choices=run_demo.ALL_WORKLOADS, default="idle")
    args = parser.parse_args()
    args.counts = args.counts or ([1, 2, 8] if args.quick else [1, 2, 8, 32])
    return args


# ---- Images --------------------------------------------------------------------------------------

def prepare(bench):
    """Saves a small guest that does not send its records, and packs the image for what it touches
    first. The image's path."""
    image, packed = bench.file("clone.rouse"), bench.file("clone.packed.rouse")
    with Guest.boot(bench.machine) as guest:
        megabytes = int(guest.meminfo()["free_kb"] / 1024 * FILL_SHARE)
        guest.start(bench.args.workload, megabytes, PERIOD_US)
        guest.stamp()
        run_demo.work_for(bench, guest, run_demo.SETTLE_SECONDS, "settling")
        guest.set_quiet(True)
        bench.tool.run("save", "-q", "--qmp", guest.run.qmp, image)
    run_demo.learn_working_set(bench, bench.args.workload, image, packed)
    os.unlink(image)
    return packed


def copies_of(bench, image, count):
    """As many files with the image's content, none of them in the page cache as another's."""
    paths = [bench.file(f"clone-{number}.rouse") for number in range(count)]
    for path in paths:
        if not os.path.exists(path):
            shutil.copyfile(image, path)
    return paths


def disk_read_bytes(path):
    """What the disk of a file has read since it was there, for all; None if it is not on one."""
    device = os.stat(path).st_dev
    try:
        with open(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat",
                  encoding="ascii") as file:
            return int(file.read().split()[2]) * 512
    except OSError:
        return None


def bare_starts_ms(bench, image, count):
    """For each of so many QEMUs that are started bare at once: when it was at its first
    instruction, from when the first of them was asked for."""
    with contextlib.ExitStack() as stack:
        began, processes = time.monotonic(), []
        for _ in range(count):
            run = stack.enter_context(RunDir())
            processes.append((time.monotonic() - began, subprocess.Popen(
                [bench.program("bench-place"), "start", "bare", image, "--",
                 *bench.machine.command(run, qmp=False)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)))
            stack.callback(end, processes[-1][1])
        return [asked_s * 1000 + json.loads(process.communicate(timeout=LIMIT_S)[0])["start_ms"]
                for asked_s, process in processes]


def end(process):
    if process.poll() is None:
        process.kill()
        process.wait()


# ---- One clone -----------------------------------------------------------------------------------

class Clone:
    """A restore that runs, and its guest."""

    def __init__(self, bench, image, options):
        self.run = RunDir()
        self.machine, self.guest, self.used = bench.machine, None, None
        command = [bench.tool.path, "restore", *options, "--json", "--monitor", self.run.qmp, image,
                   "--", *bench.machine.command(self.run, qmp=False)]
        self.report_path = os.path.join(self.run.path, "report")
        with open(self.report_path, "w", encoding="utf-8") as out, \
                open(self.run.errors, "w", encoding="utf-8") as errors:
            self.request_s = time.monotonic()
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out,
                                            stderr=errors)

    def end(self):
        """Waits until its last page is in place; its report."""
        self.used = cputime.wait_child(self.process, LIMIT_S)
        if self.process.returncode != 0:
            raise ToolError(f"rouse restore: {self.run.console_tail()}")
        with open(self.report_path, encoding="utf-8") as file:
            return json.load(file)

    def begin_verify(self):
        self.guest = Guest(self.machine, self.run, self.process)
        self.guest.link.send("verify")

    def errors(self):
        """What the guest found to be wrong, after begin_verify()."""
        return int(self.guest.link.wait("verified", LIMIT_S)[3])

    def close(self):
        end(self.process)
        if self.guest:
            self.guest.close()
        self.run.close()


def restore_all(bench, paths, backend, policy):
    """Restores all of them at once; what an entry of clones.json's "runs" has of it."""
    options = ["--policy", policy, "--backend", backend]
    for path in set(paths):
        drop_from_cache(path)
    if backend == "map":
        drop_from_cache(bench.flat)
        options += ["--flat", bench.flat]
    disk_before = disk_read_bytes(paths[0])
    with contextlib.ExitStack() as stack:
        began = time.monotonic()
        clones = []
        for path in paths:
            clones.append(Clone(bench, path, options))
            stack.callback(clones[-1].close)
        reports = [clone.end() for clone in clones]
        disk = disk_read_bytes(paths[0])
        ends_s = [clone.request_s - began + report["complete_ms"] / 1000
                  for clone, report in zip(clones, reports)]
        for clone in clones:
            clone.begin_verify()
        errors = sum(clone.errors() for clone in clones)
    ram_gib = bench.machine.ram_mb / 1024
    return {
        "ram_gib": ram_gib,
        "ttr_ms": [report["ttr_ms"] for report in reports],
        "start_ms": [report["start_ms"] for report in reports],
        "last_ttr_ms": max((clone.request_s - began) * 1000 + report["ttr_ms"]
                           for clone, report in zip(clones, reports)),
        "faults": sum(report["faults"] for report in reports),
        "total_ms": max(ends_s) * 1000,
        "read_bytes": sum(clone.used.read_bytes for clone in clones),
        "disk_read_bytes": None if disk is None else disk - disk_before,
        "image_bytes": (os.stat(bench.flat).st_blocks * 512 if backend == "map"
                        else os.path.getsize(paths[0])),
        "tool_cpu_s_per_gib": sum(clone.used.cpu_s for clone in clones) / ram_gib / len(clones),
        "integrity_errors": errors,
    }


# ---- All of them ---------------------------------------------------------------------------------

def plan(args):
    """What a round restores: (count, images, backend, policy). There is one flat file."""
    return [(count, images, backend, policy)
            for count in args.counts for images in args.images for backend in args.backends
            for policy in args.policies
            if (count > 1 or images == args.images[0]) and (backend != "map" or images == "one")]


def one_run(bench, image, cell):
    """One entry of clones.json's "runs"."""
    paths = [image] * cell["clones"]
    if cell["images"] == "different":
        paths = copies_of(bench, image, cell["clones"])
    run = {**cell, **restore_all(bench, paths, cell["backend"], cell["policy"])}
    bench.report.add(run)
    return run


def told(run):
    return (f"TTR {spread(run['ttr_ms'])} ms, all there after {run['total_ms']:.0f} ms, "
            f"{run['read_bytes'] / 1e6:.0f} MB read, {run['integrity_errors']} errors")


def measure(bench, image):
    """All rounds: fills the report's runs, and bench.bare."""
    args = bench.args
    for number in range(1, args.rounds + 1):
        for count in args.counts:
            bench.bare[count].append(max(bare_starts_ms(bench, image, count)))
        for count, images, backend, policy in common.rotated(plan(args), number - 1):
            cell = {"workload": args.workload, "round": number, "storage": "disk",
                    "policy": policy, "backend": backend, "clones": count, "images": images}
            bench.attempt(cell, functools.partial(one_run, bench, image, cell), told)


def way_of(run):
    return run["clones"], run["images"], run["backend"], run["policy"]


def median(bench, way, field):
    found = [run[field] for run in bench.report.content["runs"]
             if run[field] is not None and way_of(run) == way]
    return statistics.median(found) if found else None


def show(bench):
    """The table: medians of the rounds; of the VMs' TTR the median and extremes of all."""
    say = bench.terminal.line
    bench.terminal.bold("\nRestores at once: medians of the rounds; TTR(90 %, 100 ms) of all VMs, "
                        "ms: median (least to greatest)")
    say(f"{'at once':>7}  {'images':10}{'backend':9}{'policy':7}{'TTR':>22}{'last TTR':>9}"
        f"{'all there':>10}{'read MB':>8}{'disk MB':>8}{'of the image':>13}{'CPU s/GiB':>10}")
    runs = bench.report.content["runs"]
    for way in sorted(set(map(way_of, runs))):
        ttrs = [ttr for run in runs if way_of(run) == way for ttr in run["ttr_ms"]]
        read, image = median(bench, way, "read_bytes"), median(bench, way, "image_bytes")
        disk = median(bench, way, "disk_read_bytes")
        say(f"{way[0]:7}  {way[1]:10}{way[2]:9}{way[3]:7}{spread(ttrs):>22}"
            f"{median(bench, way, 'last_ttr_ms'):9.0f}{median(bench, way, 'total_ms'):10.0f}"
            f"{read / 1e6:8.0f}{'-' if disk is None else format(disk / 1e6, '.0f'):>8}"
            f"{read / image:13.2f}{median(bench, way, 'tool_cpu_s_per_gib'):10.2f}")
    for count, last_ms in bench.bare.items():
        say(f"{count:7}  QEMUs started bare: the last at its first instruction after "
            f"{spread(last_ms)} ms")


def judge_targets(bench):
    """(met, line) of each target, for the largest number of clones of one image."""
    most = max(bench.args.counts)
    if most == 1:
        return
    for backend, policy in dict.fromkeys(way[2:] for way in plan(bench.args)):
        # What QEMU touches of a mapped file is not read by `rouse restore`: the disk's own count.
        read = "disk_read_bytes" if backend == "map" else "read_bytes"
        for field, name, target in ((read, "bytes from the disk", READ_ONCE),
                                    ("last_ttr_ms", "TTR of the last", LAST_OF_ONE)):
            one, all_of = (median(bench, (count, "one", backend, policy), field)
                           for count in (1, most))
            if (most, "one", backend, policy) in map(way_of, bench.report.content["failed"]):
                all_of = math.inf
            if one and all_of:
                yield verdict(f"{most} clones of one image, {backend}, {policy}: {name}, of that "
                              "of a single one", all_of / one, target)


def run():
    bench = Bench(parse_arguments())
    bench.bare = {count: [] for count in bench.args.counts}
    bench.report = Report(bench.file("clones.json"), bench.facts())
    bench.report.content["bare_start_last_ms"] = bench.bare
    try:
        image = prepare(bench)
        bench.flat = bench.file("clone.flat")
        bench.tool.run("convert", "--quiet", "--flat", image, bench.flat)
        bench.wait_quiet()
        measure(bench, image)
    finally:
        for name in os.listdir(bench.folder):
            if name.startswith("clone") and name.endswith((".rouse", ".wset", ".flat")):
                os.unlink(bench.file(name))
    show(bench)
    bench.report.content["targets"] = bench.told(judge_targets(bench), bench.args.rounds)
    return bench.finish()


if __name__ == "__main__":
    sys.exit(common.main(run))
