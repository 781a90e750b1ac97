#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How fast pages get into a stock QEMU: Rouse beside a loop of the same system calls, and beside a
bare sender of the same bytes.

    bench/bench_place.py [--rounds 5] [--quick] ...

For three phases (bench_place.c has the details): all pages before the start (eager), a working set
before the start (ws), and the background stream after it (background; the guest is paused, so that
its own work does not count). The image is that of the workload "scan", whose working set is nearly
all of its memory; it is in the page cache. "none" is the same image without compression. Rounds are
interleaved. Writes BUILD/bench/place.json.

The limit is what the processors allow: the bare sender's time, or if that is longer the processor
time of the bare sender, of QEMU, and of reading, verifying and decompressing in one thread and warm
memory, shared out evenly to all processors.
"""

import os
import statistics
import sys

import common
from common import Bench, spread, verdict, warm

TARGET = 0.9
PHASES = ("eager", "ws", "background")
SENDERS = ("bare", "loop", "decode", "decode none", "rouse", "rouse none")


def without_compression(bench, saved):
    """The images of @saved, packed anew with codec none: (plain, for the working set)."""
    made = []
    for image, more in ((saved.image, ()), (saved.packed, ("-w", bench.file("scan.wset")))):
        out = image.replace(".rouse", ".none.rouse")
        if not os.path.exists(out) or os.path.getmtime(out) < os.path.getmtime(saved.packed):
            bench.tool.run_json("pack", "--json", "--codec", "none", *more, image, out)
        made.append(out)
    return made


def measure(bench, images):
    """Answers of bench-place by (phase, sender); @images by codec: (plain, for the working set)."""
    answers = {(phase, sender): [] for phase in PHASES for sender in SENDERS}
    steps = bench.args.rounds * len(answers)
    done = 0
    for number in range(bench.args.rounds):
        for phase, sender in common.rotated(answers, number):
            bench.terminal.progress(f"round {number + 1}, {phase}, {sender}", done, steps)
            done += 1
            name, _, codec = sender.partition(" ")
            image = images[codec][1 if phase == "ws" else 0]
            answers[phase, sender].append(
                bench.place(phase, name, image, paused=phase == "background"))
    return answers


class Figures:
    """Medians of what was measured."""

    def __init__(self, answers):
        self.answers = answers

    def all(self, phase, sender, key="mib_per_s"):
        return [answer[key] for answer in self.answers[phase, sender]]

    def of(self, phase, sender, key="mib_per_s"):
        return statistics.median(self.all(phase, sender, key))

    def cpu_ms(self, phase, sender, key="cpu_s"):
        return self.of(phase, sender, key) * 1000

    def limit(self, phase, codec):
        """MiB a second that the processors allow, at most."""
        decode = f"decode {codec}".strip()
        # The chunks of a set hold some pages that are not of it.
        work = self.of(phase, decode, "cpu_s") * self.of(phase, "bare", "pages") \
            / self.of(phase, decode, "pages")
        work += self.of(phase, "bare", "cpu_s") + self.of(phase, "bare", "qemu_cpu_s")
        seconds = max(self.of(phase, "bare", "seconds"), work / os.cpu_count())
        return self.of(phase, "bare", "bytes") / 2**20 / seconds


def report(say, figures):
    say(f"{'phase':12}{'codec':6}{'bare sender':>22}{'limit':>7}{'loop':>22}{'rouse':>22}"
        f"{'of loop':>9}{'of bare':>9}{'of limit':>9}   "
        "CPU ms: bare, loop, decode, rouse; QEMU: bare, loop, rouse")
    for phase in PHASES:
        for codec in ("", "none"):
            rouse, decode = f"rouse {codec}".strip(), f"decode {codec}".strip()
            rate, limit = figures.of(phase, rouse), figures.limit(phase, codec)
            say(f"{phase:12}{codec or 'lz4':6}{spread(figures.all(phase, 'bare')):>22}{limit:7.0f}"
                f"{spread(figures.all(phase, 'loop')):>22}{spread(figures.all(phase, rouse)):>22}"
                f"{rate / figures.of(phase, 'loop'):9.2f}{rate / figures.of(phase, 'bare'):9.2f}"
                f"{rate / limit:9.2f}   "
                + ", ".join(f"{figures.cpu_ms(phase, sender):.0f}"
                            for sender in ("bare", "loop", decode, rouse)) + "; "
                + ", ".join(f"{figures.cpu_ms(phase, sender, 'qemu_cpu_s'):.0f}"
                            for sender in ("bare", "loop", rouse)))


def run():
    bench = Bench(common.parser(__doc__).parse_args())
    saved = bench.prepared("scan")
    images = {"": (saved.image, saved.packed), "none": without_compression(bench, saved)}
    for image in (*images[""], *images["none"]):
        warm(image)
    bench.wait_quiet()
    figures = Figures(measure(bench, images))
    bench.terminal.bold("\nPages into QEMU, MiB/s: medians of the rounds (least to greatest)")
    report(bench.terminal.line, figures)
    targets = bench.told(
        (verdict(f"{phase}: rouse of {name}",
                 figures.of(phase, "rouse") / figures.of(phase, sender), TARGET, at_most=False)
         for phase in PHASES for sender, name in (("loop", "a loop of the same system calls"),
                                                  ("bare", "the bare sender"))),
        bench.args.rounds)
    bench.write("place", {
        "format": 1, "environment": bench.facts(),
        "mib_per_s": {f"{phase}, {sender}": figures.all(phase, sender)
                      for phase, sender in figures.answers},
        "cpu_s": {f"{phase}, {sender}": figures.all(phase, sender, "cpu_s")
                  for phase, sender in figures.answers},
        "qemu_cpu_s": {f"{phase}, {sender}": figures.all(phase, sender, "qemu_cpu_s")
                       for phase, sender in figures.answers},
        "limit_mib_per_s": {f"{phase}, {codec or 'lz4'}": figures.limit(phase, codec)
                            for phase in PHASES for codec in images},
        "pages": {phase: figures.of(phase, "rouse", "pages") for phase in PHASES},
        "targets": targets})
    return 0


if __name__ == "__main__":
    sys.exit(common.main(run))
