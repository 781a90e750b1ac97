#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How fast pages get into a stock QEMU: Rouse beside a bare sender of the same bytes.

    bench/bench_place.py [--rounds 5] [--quick] ...

For three phases (bench_place.c has the details): all pages before the start (eager), a working set
before the start (ws), and the background stream after it (background; the guest is paused, so that
its own work does not count). The image is that of the workload "scan", whose working set is nearly
all of its memory; it is in the page cache. Rounds are interleaved. Writes BUILD/bench/place.json.
"""

import statistics
import sys

import common
from common import Bench, spread, verdict, warm

TARGET = 0.9
PHASES = ("eager", "ws", "background")
SENDERS = ("bare", "rouse")


def measure(bench, saved):
    rates = {(phase, sender): [] for phase in PHASES for sender in SENDERS}
    pages = {}
    steps = bench.args.rounds * len(rates)
    done = 0
    for number in range(bench.args.rounds):
        for phase, sender in common.rotated(rates, number):
            bench.terminal.progress(f"round {number + 1}, {phase}, {sender}", done, steps)
            done += 1
            image = saved.packed if phase == "ws" else saved.image
            answer = bench.place(phase, sender, image, paused=phase == "background")
            rates[phase, sender].append(answer["mib_per_s"])
            pages[phase, sender] = answer["pages"]
    return rates, pages


def run():
    bench = Bench(common.parser(__doc__).parse_args())
    saved = bench.prepared("scan")
    warm(saved.image)
    warm(saved.packed)
    bench.wait_quiet()
    rates, pages = measure(bench, saved)
    bench.terminal.bold("\nPages into QEMU, MiB/s: medians of the rounds (least to greatest)")
    say = bench.terminal.line
    say(f"{'phase':12}{'pages':>9}{'bare sender':>24}{'rouse':>24}")
    targets = []
    for phase in PHASES:
        say(f"{phase:12}{pages[phase, 'rouse']:9}"
            f"{spread(rates[phase, 'bare']):>24}{spread(rates[phase, 'rouse']):>24}")
        bare, rouse = (statistics.median(rates[phase, sender]) for sender in SENDERS)
        targets.append(verdict(f"{phase}: rouse of the bare sender", rouse / bare, TARGET,
                               at_most=False))
    for _, line in targets:
        say(line)
    bench.write("place", {
        "format": 1, "environment": bench.facts(),
        "mib_per_s": {f"{phase}, {sender}": rates[phase, sender] for phase, sender in rates},
        "pages": {phase: pages[phase, "rouse"] for phase in PHASES},
        "targets": [{"met": met, "text": line} for met, line in targets]})
    return 0


if __name__ == "__main__":
    sys.exit(common.main(run))
