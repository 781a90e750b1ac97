# SPDX-License-Identifier: MIT
"""What the benchmarks share: the demo's story, its guests prepared once for all of them, figures.

A benchmark is run from the top of the source tree, after `ninja -C BUILD`:

    bench/bench_restore.py --build build

Images are made in BUILD/bench and stay there, for the next benchmark: they are made anew when the
tool or the guest is newer, and with --fresh.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
sys.path[:0] = [ROOT, os.path.join(ROOT, "demo")]

# pylint: disable=wrong-import-position
import run_demo  # noqa: E402
from harness import (Guest, Machine, build_guest, choose_accel, drop_from_cache,  # noqa: E402
                     paired)
from harness.guest import RunDir  # noqa: E402
from harness.records import Baseline  # noqa: E402
from harness.saving import Throttle, ToolError, restored_by_rouse  # noqa: E402
from run_demo import ERRORS  # noqa: E402
from story_report import Report, environment  # noqa: E402

STORAGES = run_demo.STORAGES | run_demo.FURTHER_STORAGES
NO_LATENCY = Throttle(0, 0)
ENOUGH_ROUNDS = 3  # for a verdict
QUICK_RAM_MB = 512


def parser(text, rounds=5, ram=1024, recordings=6, resumes=8):
    """An ArgumentParser with what all benchmarks take; ram None: without --ram."""
    made = argparse.ArgumentParser(description=text.split("\n\n", maxsplit=1)[0])
    made.add_argument("--build", default="build", help="meson's build directory")
    if ram:
        made.add_argument("--ram", type=int, default=None,
                          help=f"MiB (default: {ram}; with --quick {min(ram, QUICK_RAM_MB)})")
    made.add_argument("--vcpus", type=int, default=2)
    made.add_argument("--accel", choices=("tcg", "kvm"), help="do not try KVM, take this")
    made.add_argument("--rounds", type=int, default=rounds)
    made.add_argument("--quick", action="store_true",
                      help="one round and a smaller guest, to see that it works")
    made.add_argument("--recordings", type=int, default=None, metavar="N",
                      help="learn working sets from so many restores, whose sets are merged "
                      f"(default: {recordings}; with --quick 1)")
    made.add_argument("--resumes", type=int, default=None, metavar="N",
                      help="and go on learning in so many restores, from the slow disk and the "
                      f"network (default: {resumes}; with --quick 0)")
    made.add_argument("--fresh", action="store_true", help="make images anew")
    made.set_defaults(usual_ram=ram, usual_recordings=recordings, usual_resumes=resumes)
    return made


class Bench(run_demo.Story):
    """The demo's Story, with a folder of its own that keeps its images."""

    def __init__(self, args):
        super().__init__(args)
        self.folder = os.path.join(os.path.abspath(args.build), "bench")
        self.skipped = []  # what was not measured: of the report
        os.makedirs(self.folder, exist_ok=True)
        if args.quick:
            args.rounds = 1
        self.recordings = args.recordings or (1 if args.quick else args.usual_recordings)
        self.resumes = args.resumes if args.resumes is not None else \
            (0 if args.quick else args.usual_resumes)
        args.ram = args.ram or \
            (min(args.usual_ram, QUICK_RAM_MB) if args.quick else args.usual_ram)
        if not os.path.exists(self.tool.path):
            raise RuntimeError(f"{self.tool.path} is not there: run ninja -C {args.build} first")
        files = build_guest(args.build)
        accel = args.accel or choose_accel(files)[0]
        self.machine = Machine(files, ram_mb=args.ram, vcpus=args.vcpus, accel=accel)

    def facts(self):
        """Where the figures come from."""
        facts = environment(self.machine, self.folder)
        facts["load"] = os.getloadavg()[0]
        facts["learnt_from"] = {"recordings": self.recordings, "resumes": self.resumes}
        return facts

    def further(self, restored):
        """What each run of a report has beyond the demo's."""
        ram_gib = restored.guest.machine.ram_mb / 1024
        backend = "qemu" if restored.report is None else restored.report.get("backend", "postcopy")
        chosen = restored.report and restored.report.get("policy")
        return {"backend": backend, "chosen_policy": chosen, "ram_gib": ram_gib, "clones": 1,
                "cpu_s_per_gib": None if restored.cpu_s is None else restored.cpu_s / ram_gib}

    def told(self, targets, rounds=ENOUGH_ROUNDS):
        """Says of each (met, line) whether it is met; what a report has of them. rounds: of how
        many they are, if the lines do not say it."""
        told = [{"met": met, "text": line + of_few(rounds)} for met, line in targets]
        for each in told:
            self.terminal.line(each["text"])
        return told

    def tell_skipped(self):
        """Says once more what was not measured, below the tables."""
        for skipped in self.skipped:
            self.terminal.line(f"{skipped['name']}: SKIPPED: {skipped['reason']}")

    def skip(self, name, reason):
        """Says that something is not measured, and why; the report has it, too."""
        self.skipped.append({"name": name, "reason": reason})
        self.say(f"{name}: SKIPPED: {reason}")

    def known_storages(self, names):
        """Those of some storages that this tool can be as slow as; the others are skipped."""
        text = self.tool.run("restore", "--help")
        latency = re.search(r"--throttle .*LATENCY", text) is not None
        known = [name for name in names if latency or not (STORAGES[name] or NO_LATENCY).latency_us]
        for name in sorted(set(names) - set(known)):
            self.skip(name, "rouse restore --throttle has no LATENCY")
        return known

    def program(self, name):
        return os.path.join(os.path.abspath(self.args.build), "bench", name)

    def _newest_input(self):
        return max(map(os.path.getmtime,
                       (self.tool.path, run_demo.__file__, *self.machine.files)))

    def kept(self, path, files, machine):
        """The list of a Baseline that an earlier benchmark left at `path`, of that machine; None if
        one of the files is older than what made it."""
        try:
            oldest = min(map(os.path.getmtime, (path, *files)))
            with open(path, encoding="ascii") as file:
                content = json.load(file)
        except (OSError, ValueError):
            return None
        if self.args.fresh or oldest < self._newest_input() or content["machine"] != machine:
            return None
        return content["normal"]

    def _saved(self, workload, normal):
        image, packed, stream = (self.file(workload + end)
                                 for end in (".rouse", ".packed.rouse", ".qemu"))
        return run_demo.Saved(workload, self.machine, image, packed, stream, normal)

    def prepared(self, workload):
        """run_demo.Saved of a workload: a guest that was booted, filled, saved and packed."""
        machine = [self.machine.ram_mb, self.machine.vcpus, self.machine.accel, self.recordings,
                   self.resumes]
        saved = self._saved(workload, None)
        normal = self.kept(self.file(workload + ".json"), (saved.image, saved.packed, saved.stream),
                           machine)
        if normal:
            self.say(f"{workload}: the images that are there")
            return saved._replace(normal=Baseline(*normal))
        saved = run_demo.prepare(self, workload)
        with open(self.file(workload + ".json"), "w", encoding="ascii") as file:
            json.dump({"machine": machine, "normal": list(saved.normal)}, file)
        return saved

    def inspect(self, image):
        return self.tool.run_json("inspect", "--json", image)

    def bare_start_ms(self, saved):
        """QEMU's bare start: the devices, firmware's memory, the first instruction."""
        return self.place("start", "bare", saved.image)["start_ms"]

    def place(self, phase, sender, image, paused=False):
        """One run of bench-place; its answer."""
        with RunDir() as run:
            command = [self.program("bench-place"), phase, sender, image, "--",
                       *self.machine.command(run, qmp=False), *(["-S"] if paused else [])]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300,
                                  check=False, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise ToolError(f"bench-place {phase} {sender}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def wait_quiet(self, limit=0.7, seconds=60):
        """Waits a little for a machine that has nothing else to do, unless in a hurry (--quick);
        says how busy it is."""
        until = time.monotonic() + (0 if self.args.quick else seconds)
        while os.getloadavg()[0] > limit and time.monotonic() < until:
            time.sleep(2)
        self.say(f"load before the measurement: {os.getloadavg()[0]:.2f}")

    def write(self, name, content):
        """BUILD/bench/NAME.json"""
        path = self.file(name + ".json")
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.write("\n")
        os.replace(path + ".new", path)
        self.say(os.path.relpath(path))


@contextlib.contextmanager
def restoring(bench, image, policy, *options):
    """A restore that is under way: yields its process, its RunDir and its Guest."""
    with RunDir() as run:
        command = [bench.tool.path, "restore", "--policy", policy, "--monitor", run.qmp, *options,
                   image, "--", *bench.machine.command(run, qmp=False)]
        with open(run.errors, "w", encoding="utf-8") as errors:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=errors,
                                       stderr=errors)
            guest = None
            try:
                guest = Guest(bench.machine, run, process)
                yield process, run, guest
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()
                if guest:
                    guest.close()


def from_image(path, *options, cold=()):
    """A way for run_demo.one_run(): `rouse restore` of that image with these options; `cold` are
    further files that must not be in the page cache."""
    def way(story, saved, policy, throttle):
        for each in (path, *cold):
            drop_from_cache(each)
        return restored_by_rouse(story.tool, saved.machine, path, policy, throttle, options)
    return way


def spread(values, digits=0):
    """"median (least to greatest)" of some values."""
    values = list(values)
    return (f"{statistics.median(values):.{digits}f} "
            f"({min(values):.{digits}f} to {max(values):.{digits}f})")


def warm(path):
    """Reads a file, so that it is in the page cache."""
    with open(path, "rb", buffering=0) as file:
        buffer = bytearray(1 << 20)
        while file.readinto(buffer):
            pass


def different(runs, field):
    """The values of a field, each once, in the order of the runs."""
    return list(dict.fromkeys(run[field] for run in runs))


def matching(runs, **fields):
    """The runs of a report that have these values."""
    return [run for run in runs if all(run[name] == value for name, value in fields.items())]


def rotated(items, number):
    """The items in the order of a round, of 0, 1, 2, ...: nobody is always late in a round, nor
    always behind the same one.

    Each second round is the one before it backwards, so that over both each item's mean place is
    the same; each two rounds begin further on, and forwards or backwards in turn.
    """
    items, pair = list(items), number // 2
    first = pair * (len(items) // 3 + 1) % len(items) if items else 0
    turned = items[first:] + items[:first]
    return turned[::-1] if (number + pair) % 2 else turned


def of_few(rounds):
    """What is said behind a verdict of too few rounds."""
    return "" if rounds >= ENOUGH_ROUNDS else f" [of {rounds} round{'s' if rounds > 1 else ''} only]"


def verdict(what, value, target, at_most=True, digits=2):
    """A line about a target, and whether it is met."""
    met = value <= target if at_most else value >= target
    sign = "at most" if at_most else "at least"
    return met, (f"{'met   ' if met else 'MISSED'}  {what}: {value:.{digits}f} "
                 f"({sign} {target:g})")


def verdict_of_interval(what, value, low, high, target):
    """The same of a share with an interval: met or missed only if the whole interval is."""
    met = paired.at_most(low, high, target)
    word = {True: "met   ", False: "MISSED", None: "UNSURE"}[met]
    interval = "no interval" if low is None else f"{low:.3f} to {high:.3f}"
    return met, f"{word}  {what}: {value:.3f}, {interval} (at most {target:g})"


def main(function):
    """Runs a benchmark's main function; 1 if it failed. A target that is missed is no failure."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A shell starts what runs in the background with SIGINT ignored, and the tool keeps to that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return function()
    except KeyboardInterrupt:
        print("interrupted; no guest is left", file=sys.stderr)
        return 130
    except ERRORS as err:
        print(f"failed: {err}", file=sys.stderr)
        return 1


__all__ = ["Bench", "Report", "ToolError", "ERRORS", "different", "main", "matching", "parser",
           "restoring", "rotated", "run_demo", "spread", "verdict", "verdict_of_interval", "warm"]
