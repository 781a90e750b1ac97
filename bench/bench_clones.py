#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Many restores at once: of one image, and of as many different ones.

    bench/bench_clones.py [--counts 1,2,8,32] [--images one,different] [--policies lazy,ws] ...

A small guest (--ram, 256 MiB and one vCPU), saved and packed once. Then so many `rouse restore` are
started at once, from a cold page cache (checked), each with a QEMU of its own. "different": each
has its own copy of the image. For each VM its TTR, from the request to restore it; the time until
the last page of the last one was in place; the bytes that came from the disk, as the kernel counted
them for each process (getrusage(2)), and beside it what the disk itself counted, others' reads
included. Then all guests check their memory at once. Rounds are interleaved.

Writes BUILD/bench/clones.json. Takes some minutes for each round.
"""

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time

import common
from common import ERRORS, Bench, ToolError, run_demo, spread, verdict
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
    parser = common.parser(__doc__, rounds=3, ram=256)
    parser.set_defaults(vcpus=1)
    parser.add_argument("--counts", type=numbers, default=None,
                        help="so many at once (default: 1,2,8,32; with --quick 1,2,8)")
    parser.add_argument("--images", type=run_demo.choose(("one", "different")),
                        default=("one", "different"))
    parser.add_argument("--policies", type=run_demo.choose(("lazy", "ws", "paced", "auto")),
                        default=("lazy", "ws"))
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


# ---- One clone -----------------------------------------------------------------------------------

class Clone:
    """A restore that runs, and its guest."""

    def __init__(self, bench, image, policy):
        self.run = RunDir()
        self.machine, self.guest, self.used = bench.machine, None, None
        command = [bench.tool.path, "restore", "--policy", policy, "--json", "--monitor",
                   self.run.qmp, image, "--", *bench.machine.command(self.run, qmp=False)]
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
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.guest:
            self.guest.close()
        self.run.close()


def restore_all(bench, paths, policy):
    """Restores all of them at once; an entry of clones.json's "runs"."""
    for path in set(paths):
        drop_from_cache(path)
    disk_before = disk_read_bytes(paths[0])
    with contextlib.ExitStack() as stack:
        began = time.monotonic()
        clones = []
        for path in paths:
            clones.append(Clone(bench, path, policy))
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
        "backend": reports[0].get("backend", "postcopy"), "ram_gib": ram_gib,
        "ttr_ms": [report["ttr_ms"] for report in reports],
        "start_ms": [report["start_ms"] for report in reports],
        "last_ttr_ms": max((clone.request_s - began) * 1000 + report["ttr_ms"]
                           for clone, report in zip(clones, reports)),
        "faults": sum(report["faults"] for report in reports),
        "total_ms": max(ends_s) * 1000,
        "read_bytes": sum(clone.used.read_bytes for clone in clones),
        "disk_read_bytes": None if disk is None else disk - disk_before,
        "image_bytes": os.path.getsize(paths[0]),
        "tool_cpu_s_per_gib": sum(clone.used.cpu_s for clone in clones) / ram_gib / len(clones),
        "integrity_errors": errors,
    }


# ---- All of them ---------------------------------------------------------------------------------

def measure(bench, image):
    """All rounds: fills bench.runs; how many failed."""
    args, failed = bench.args, 0
    ways = [(count, images, policy) for count in args.counts for images in args.images
            for policy in args.policies if count > 1 or images == args.images[0]]
    for number in range(1, args.rounds + 1):
        for count, images, policy in common.rotated(ways, number - 1):
            what = f"round {number}, {count} at once, {images}, {policy}"
            paths = [image] * count if images == "one" else copies_of(bench, image, count)
            try:
                run = restore_all(bench, paths, policy)
            except ERRORS as err:
                failed += 1
                bench.say(f"{what}: FAILED: {err}")
                continue
            bench.runs.append({"workload": args.workload, "storage": "disk", "policy": policy,
                               "round": number, "clones": count, "images": images, **run})
            bench.say(f"{what}: TTR {spread(run['ttr_ms'])} ms, all there after "
                      f"{run['total_ms']:.0f} ms, {run['read_bytes'] / 1e6:.0f} MB read, "
                      f"{run['integrity_errors']} errors")
    return failed


def median(bench, count, images, policy, field):
    found = [run[field] for run in bench.runs if run[field] is not None and
             (run["clones"], run["images"], run["policy"]) == (count, images, policy)]
    return statistics.median(found) if found else None


def show(bench):
    """The table: medians of the rounds; of the VMs' TTR the median and extremes of all."""
    say = bench.terminal.line
    bench.terminal.bold("\nRestores at once: medians of the rounds; TTR(90 %, 100 ms) of all VMs, "
                        "ms: median (least to greatest)")
    say(f"{'at once':>7}  {'images':10}{'policy':8}{'TTR':>24}{'last TTR':>10}{'all there':>11}"
        f"{'read MB':>9}{'disk MB':>9}{'of the image':>14}{'CPU s/GiB':>11}")
    ways = dict.fromkeys((run["clones"], run["images"], run["policy"]) for run in bench.runs)
    for way in sorted(ways):
        ttrs = [ttr for run in bench.runs if (run["clones"], run["images"], run["policy"]) == way
                for ttr in run["ttr_ms"]]
        read, image = median(bench, *way, "read_bytes"), median(bench, *way, "image_bytes")
        disk = median(bench, *way, "disk_read_bytes")
        say(f"{way[0]:7}  {way[1]:10}{way[2]:8}{spread(ttrs):>24}"
            f"{median(bench, *way, 'last_ttr_ms'):10.0f}{median(bench, *way, 'total_ms'):11.0f}"
            f"{read / 1e6:9.0f}{'-' if disk is None else format(disk / 1e6, '.0f'):>9}"
            f"{read / image:14.2f}{median(bench, *way, 'tool_cpu_s_per_gib'):11.2f}")


def judge_targets(bench):
    """(met, line) of each target, for the largest number of clones of one image."""
    most = max(bench.args.counts)
    for policy in bench.args.policies:
        for field, name, target in (("read_bytes", "bytes from the disk", READ_ONCE),
                                    ("last_ttr_ms", "TTR of the last", LAST_OF_ONE)):
            one, all_of = (median(bench, count, "one", policy, field) for count in (1, most))
            if one and all_of and most > 1:
                yield verdict(f"{most} clones of one image, {policy}: {name}, of that of a single "
                              "one", all_of / one, target)


def run():
    bench = Bench(parse_arguments())
    bench.runs = []
    facts = bench.facts()
    try:
        image = prepare(bench)
        bench.wait_quiet()
        failed = measure(bench, image)
    finally:
        for name in os.listdir(bench.folder):
            if name.startswith("clone") and name.endswith((".rouse", ".wset")):
                os.unlink(bench.file(name))
    show(bench)
    targets = list(judge_targets(bench))
    for _, line in targets:
        bench.terminal.line(line)
    bench.write("clones", {"format": 1, "environment": facts, "runs": bench.runs,
                           "targets": [{"met": met, "text": line} for met, line in targets]})
    errors = sum(each["integrity_errors"] for each in bench.runs)
    return 1 if failed or errors else 0


if __name__ == "__main__":
    sys.exit(common.main(run))
