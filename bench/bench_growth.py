#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Whether a larger VM with the same working set is responsive as soon.

    bench/bench_growth.py [--ram 1,4,8] [--policies ws,auto] [--storages disk,slow] ...

The demo's `idle` guest with each size of RAM: nearly all of it is filled, the requests read 1024
pages and write 256 in each. So what must be there soon is the same, but for the kernel's own: page
tables, the list of pages. The image of each is as large as its RAM asks for. Beside ours: QEMU 10's
own restore from a file (bench/peers.py; others by --policies). Restores from a cold page cache;
rounds are interleaved. A set is learnt for as long as a restore of that size can miss pages: 5 s
for each GiB. BUILD/bench/growth.json has the demo's format.

A guest of 8 GiB takes five minutes to prepare, and three more for QEMU 10; all of them take
25 GB on the disk. Each restore of 8 GiB takes some 10 s, and 80 s from the slow storage: those
other than "disk", whose throttle decides, take part in the first round only.
"""

import functools
import os
import sys

import common
import peers
import verdicts
from common import STORAGES, Bench, Report, matching, run_demo, spread
from story_report import FURTHER_POLICIES, PEERS, POLICIES

WORKLOAD = "idle"
# What the slower storages take to bring all of a GiB, nearly: pages can be missed for so long.
RECORD_SECONDS_PER_GIB = 5


def sizes(text):
    """MiB, of a list of GiB."""
    return sorted(round(float(word) * 1024) for word in text.split(","))


def parse_arguments():
    parser = common.parser(__doc__, rounds=3, ram=None, resumes=0)
    parser.add_argument("--ram", dest="sizes", type=sizes, metavar="GiB,...", default=None,
                        help="GiB (default: 1,4,8; with --quick 0.5,1)")
    parser.add_argument("--policies", default=("ws", "auto", peers.MAPPED_RAM),
                        type=run_demo.choose([each for each in POLICIES + FURTHER_POLICIES + PEERS
                                              if each != "qemu"]))
    parser.add_argument("--storages", type=run_demo.choose(tuple(STORAGES)), default=None,
                        help="default: disk,slow,mid,net; with --quick disk")
    args = parser.parse_args()
    args.sizes = args.sizes or ([512, 1024] if args.quick else [1024, 4096, 8192])
    args.storages = args.storages or (("disk",) if args.quick else tuple(STORAGES))
    args.policies = list(args.policies)
    args.ram = args.sizes[0]
    return args


def prepare(ways, ram_mb):
    """run_demo.Saved of a guest of that size. There is no stream for QEMU."""
    bench = ways.bench
    bench.machine = bench.machine._replace(ram_mb=ram_mb)
    bench.record_seconds = max(run_demo.RECORD_SECONDS[WORKLOAD],
                               round(RECORD_SECONDS_PER_GIB * ram_mb / 1024))
    image, packed = (bench.file(f"growth-{ram_mb}{end}") for end in (".rouse", ".packed.rouse"))
    normal = run_demo.save_guest(bench, WORKLOAD, image)
    run_demo.learn_working_set(bench, WORKLOAD, image, packed)
    saved = run_demo.Saved(WORKLOAD, bench.machine, image, packed, None, normal)
    ways.prepare(saved, f"growth-{ram_mb}")
    return saved


def plan(ways, prepared, number):
    """What a round restores: (MiB, storage, policy)."""
    args = ways.bench.args
    cells = [(ram_mb, storage, policy) for storage in args.storages for policy in args.policies
             for ram_mb in args.sizes if number == 1 or storage == "disk"]
    return [(ram_mb, storage, policy) for ram_mb, storage, policy in
            common.rotated(cells, number - 1) if ways.possible(prepared[ram_mb], storage, policy)]


def measure(ways, prepared):
    """All rounds."""
    bench = ways.bench
    for number in range(1, bench.args.rounds + 1):
        for ram_mb, storage, policy in plan(ways, prepared, number):
            saved = prepared[ram_mb]
            bench.attempt({"ram_gib": ram_mb / 1024,
                           **run_demo.cell_of(saved, storage, policy, number)},
                          functools.partial(ways.one_run, saved, storage, policy, number))


def show(bench, prepared):
    """The table."""
    args, say = bench.args, bench.terminal.line
    for ram_mb in args.sizes:
        image = bench.inspect(prepared[ram_mb].packed)
        say(f"{ram_mb} MiB: working set of {image['wset_pages']} pages, "
            f"{image['wset_stored_bytes'] / 1e6:.1f} MB stored, of "
            f"{os.path.getsize(prepared[ram_mb].packed) / 1e6:.0f} MB")
    bench.terminal.bold("\nmedians of the rounds (least to greatest), ms")
    say(f"{'MiB':>6}  {'storage':8}{'policy':18}{'first instruction':>24}{'TTR(90%, 100ms)':>24}")
    for storage in args.storages:
        for policy in args.policies:
            for ram_mb in args.sizes:
                runs = matching(bench.report.content["runs"], ram_gib=ram_mb / 1024,
                                storage=storage, policy=policy)
                if runs:
                    say(f"{ram_mb:6}  {storage:8}{policy:18}"
                        + "".join(f"{spread(run[field] for run in runs):>24}"
                                  for field in ("start_ms", "ttr_ms")))


def run():
    bench = Bench(parse_arguments())
    bench.args.storages = bench.known_storages(bench.args.storages)
    bench.report = Report(bench.file("growth.json"), bench.facts())
    content = bench.report.content
    content["skipped"] = bench.skipped
    try:
        ways = peers.Ways(bench)
        prepared = {ram_mb: prepare(ways, ram_mb) for ram_mb in bench.args.sizes}
        bench.wait_quiet()
        measure(ways, prepared)
        show(bench, prepared)
    finally:
        for name in os.listdir(bench.folder):
            if name.startswith("growth-"):
                os.unlink(bench.file(name))
    content["targets"] = bench.told(verdicts.judge_growth(content["runs"], content["failed"]))
    bench.tell_skipped()
    return bench.finish()


if __name__ == "__main__":
    sys.exit(common.main(run))
