#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What a working set lacks, and how that falls with the restores that it was learnt from.

    bench/bench_recordings.py [--workloads kv,sql] [--counts 1,3,6] [--rounds 3] [--quick] ...

Records one restore more than the largest count, each of the same image. The first N are merged by
two rules: "default", as `rouse wset merge` does (a page that the first one lacks must be in two of
them, and rare ones leave), and "any", with all that any of them touched. What such a set lacks of
what each later one touched is what a restore with it would have to ask for: how many pages that are
not zero, in how many neighbourhoods of 16 pages; and how many of them are near the set (in a
neighbourhood that has a page of it, or one right beside it), which are few of all. Then the image
is packed for each of the sets and restored ("ws") from a cold page cache (checked), rounds
interleaved. Writes BUILD/bench/recordings.json in the demo's format, "recordings" and "rule" added
to each run, and "lacking" to the report.
"""

import functools
import os
import sys

import common
from common import STORAGES, Bench, Report, matching, run_demo, spread
from stream_pages import stored_pages

NEIGHBOURHOOD = 16  # pages; lib/api/pack.c
RULES = {"default": (), "any": ("--confirm", "1", "--keep", "0.001", "--forget", "0.001")}


def parse_arguments():
    parser = common.parser(__doc__, rounds=3)
    parser.add_argument("--workloads", type=run_demo.choose(run_demo.ALL_WORKLOADS),
                        default=("kv", "sql"))
    parser.add_argument("--storages", type=run_demo.choose(tuple(STORAGES)),
                        default=("slow", "net"))
    parser.add_argument("--counts", default=None,
                        type=lambda text: tuple(map(int, text.split(","))),
                        help="of restores (default: 1,3,6; with --quick 1)")
    args = parser.parse_args()
    args.counts = args.counts or ((1,) if args.quick else (1, 3, 6))
    return args


def record_all(bench, saved):
    """The working-set files of the restores."""
    paths = []
    for number in range(max(bench.args.counts) + 1):
        paths.append(bench.file(f"{saved.workload}-{number}.wset"))
        bench.terminal.progress(f"{saved.workload}: recording", number, max(bench.args.counts) + 1)
        run_demo.record(bench, saved.workload, saved.image, paths[-1])
    return paths


def pages_of(bench, path):
    """The numbers of a set's pages."""
    lines = bench.tool.run("wset", "convert", path, "-").splitlines()
    return {int(line.split()[0]) for line in lines if line[:1].isdigit()}


def near(pages):
    """The neighbourhoods of a set's pages, and those that they are right beside."""
    return {beside // NEIGHBOURHOOD for page in pages for beside in (page - 1, page, page + 1)}


def lacking(stored, known, later):
    """What the pages `known` lack of what each of the later sets touched."""
    rest, nearby = stored - known, near(known)
    near_rest = sum(page // NEIGHBOURHOOD in nearby for page in rest)
    asked = [touched & rest for touched in later]
    return {"known": len(known), "pages": [len(each) for each in asked],
            "neighbourhoods": [len({page // NEIGHBOURHOOD for page in each}) for each in asked],
            "near_share": sum(page // NEIGHBOURHOOD in nearby for each in asked for page in each)
            / max(1, sum(map(len, asked))), "near_share_of_all": near_rest / max(1, len(rest))}


def ways_of(counts):
    """(count, rule) of each set; of one restore all rules make the same."""
    return [(count, rule) for count in counts for rule in RULES if count > 1 or rule == "default"]


def lay_out(bench, saved, paths, count, rule):
    """The image packed for the sets of the first `count` restores, and the pages of the set."""
    wset, image = (bench.file(f"{saved.workload}.first-{count}-{rule}{end}")
                   for end in (".wset", ".rouse"))
    bench.tool.run("wset", "merge", *RULES[rule], "-o", wset, *paths[:count])
    bench.tool.run("pack", "-q", saved.image, "-w", wset, image)
    known = pages_of(bench, wset)
    os.unlink(wset)
    return image, known


def measure(bench, saved, images):
    """All rounds of one workload."""
    ways = [(storage, *way) for storage in bench.args.storages for way in images]
    for number in range(1, bench.args.rounds + 1):
        for storage, count, rule in common.rotated(ways, number - 1):
            more = {"recordings": count, "rule": rule}
            bench.attempt({**run_demo.cell_of(saved, storage, "ws", number), **more},
                          functools.partial(run_demo.one_run, bench, saved, storage, "ws", number,
                                            common.from_image(images[count, rule]), more))


def show(bench, workload):
    say, content = bench.terminal.line, bench.report.content
    bench.terminal.bold(f"\n{workload}: what the sets of N restores lack of the later ones")
    say(f"{'N':>3} {'rule':9}{'set':>7}{'pages':>26}{'neighbourhoods':>26}{'of them near':>14}{'of all near':>13}")
    for each in content["lacking"][workload]:
        say(f"{each['recordings']:3} {each['rule']:9}{each['known']:7}{spread(each['pages']):>26}"
            f"{spread(each['neighbourhoods']):>26}{each['near_share']:14.0%}"
            f"{each['near_share_of_all']:13.0%}")
    bench.terminal.bold(f"\n{workload}: medians of the rounds (least to greatest)")
    say(f"{'storage':8}{'N':>3} {'rule':9}{'TTR(90%, 100ms), ms':>26}{'the guest itself, ms':>26}"
        f"{'faults':>20}")
    for storage in bench.args.storages:
        for count, rule in ways_of(bench.args.counts):
            runs = matching(content["runs"], workload=workload, storage=storage, recordings=count,
                            rule=rule)
            if runs:
                say(f"{storage:8}{count:3} {rule:9}" + "".join(
                    f"{spread(run[field] for run in runs):>{width}}" for field, width in
                    (("ttr_ms", 26), ("guest_ttr_ms", 26), ("faults", 20))))


def run():
    bench = Bench(parse_arguments())
    bench.report = Report(bench.file("recordings.json"), bench.facts())
    bench.report.content["lacking"] = {}
    for workload in bench.args.workloads:
        bench.terminal.bold(f"\n{workload}")
        saved = bench.prepared(workload)
        paths = record_all(bench, saved)
        sets = [pages_of(bench, path) for path in paths]
        stored = stored_pages(saved.stream)
        bench.report.content["lacking"][workload] = found = []
        images = {}
        for count, rule in ways_of(bench.args.counts):
            images[count, rule], known = lay_out(bench, saved, paths, count, rule)
            found.append({"recordings": count, "rule": rule,
                          **lacking(stored, known, sets[count:])})
        try:
            bench.wait_quiet()
            measure(bench, saved, images)
        finally:
            for path in (*paths, *images.values()):
                os.unlink(path)
    for workload in bench.args.workloads:
        show(bench, workload)
    return bench.finish()


if __name__ == "__main__":
    sys.exit(common.main(run))
