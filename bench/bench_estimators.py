#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How good each estimator of the working set is, beside the truth.

    bench/bench_estimators.py [--workloads idle,kv] [--memory anon,memfd] [--rounds 3] [--quick] ...

In each round, for each workload, kind of RAM and estimator: a guest inside whose QEMU a plugin
notes every page that it touches (bench/truth_plugin.c; so this is for TCG) is saved with the
estimator while it works, and goes on. What the estimator found is held against what the guest
touched in the same seconds after that checkpoint. Another guest, without the plugin, is saved in
the same ways, for the pauses, and watched for some spans and not watched for others
(bench/scan_cost.py): that shows what an estimator costs the running VM. Then the images are
restored, in turns, from a cold cache. Estimators that the tool does not have are skipped, by name.

Prints a table, and writes BUILD/bench/estimators.json. docs/estimators.md explains the columns.
"""

import contextlib
import math
import os
import statistics
import sys

import common
import estimators
import scan_cost
from common import ERRORS, Bench, run_demo, spread, verdict, verdict_of_interval
from estimators import BASELINE, PLAIN, RESTORE, SAVE, TABLE
from harness import drop_from_cache
from harness.judge import judge
from harness.saving import restored_by_rouse
from harness.truth import TruthError, why_not

STORAGES = run_demo.STORAGES
FAILURES = (*ERRORS, TruthError)
COST_BLOCKS = {"scan": 5, "trace": 3}  # of A B B A: two pairs each
COST_SPAN_S = 4
TARGETS = {"trace": {"recall": 0.95, "precision": 0.9}, "scan": {"recall": 0.85}}
TARGET_WORKLOADS = ("idle", "kv", "sql")
OF_PERFECT = 1.1         # the TTR with a traced set, of that with the perfect one
ARM_MS_PER_GIB = 40
SCAN_SLOWDOWN = 0.03


def parse_arguments():
    parser = common.parser(__doc__, rounds=3)
    parser.add_argument("--workloads", type=run_demo.choose(run_demo.ALL_WORKLOADS),
                        default=run_demo.ALL_WORKLOADS)
    parser.add_argument("--memory", type=run_demo.choose(("anon", "memfd")),
                        default=("anon", "memfd"), help="kinds of the guest's RAM")
    parser.add_argument("--estimators", default=None,
                        type=run_demo.choose([each.name for each in TABLE]))
    parser.add_argument("--seconds", type=int, default=0, help="after the checkpoint that count "
                        "(default: 4 for idle and scan, 12 for kv and sql, or as many as a restore "
                        "from the slow storage may take, if those are more)")
    parser.add_argument("--storages", type=run_demo.choose(tuple(STORAGES)),
                        default=tuple(STORAGES))
    parser.add_argument("--seed", type=int, default=0, help="of the random baseline")
    return parser.parse_args()


def longest_restore_s(ram_mb):
    """Until when a restore from the slow storage can miss a page: by then it could have read the
    RAM without any compression. A shorter truth would say nothing of pages that are touched behind
    it and before they have been delivered, and their misses count in the TTR."""
    return math.ceil((ram_mb << 20) / STORAGES["slow"].bytes_per_s)


class Way:
    """One workload in one kind of RAM."""

    def __init__(self, bench, workload, memory):
        self.bench, self.workload, self.memory = bench, workload, memory
        self.name = f"{workload}, {memory}"
        self.seconds = bench.args.seconds or max(run_demo.RECORD_SECONDS[workload],
                                                 longest_restore_s(bench.args.ram))
        self.costs = {}  # of scan_cost: measured in the first round
        bench.machine = bench.machine._replace(ram=memory)

    def image(self, estimator):
        return self.bench.file(f"estimated-{estimator.name}.rouse")

    def packed(self, estimator):
        return self.bench.file(f"estimated-{estimator.name}.packed.rouse")

    @contextlib.contextmanager
    def working_guest(self, machine):
        """A guest at work that has got used to it."""
        kept, self.bench.machine = self.bench.machine, machine
        try:
            guest = run_demo.boot_workload(self.bench, self.workload)
        finally:
            self.bench.machine = kept
        with guest:
            run_demo.work_for(self.bench, guest, run_demo.SETTLE_SECONDS, f"{self.name}: settling")
            yield guest


# ---- What an estimator finds ---------------------------------------------------------------------

def make_sets(way, chosen, number):
    """{estimator's name: Made} of one round."""
    bench, made = way.bench, {}
    for estimator in [PLAIN, *(each for each in chosen if each.kind == SAVE)]:
        bench.terminal.progress(f"{way.name}: {estimator.name}", len(made), len(chosen))
        # Each has a guest of its own: under TCG QEMU keeps what it translated while another watched.
        with bench.failures(f"{way.name}, {estimator.name}"), \
                estimators.judged_guest(bench, way.working_guest) as (guest, truth):
            made[estimator.name] = estimators.save_judged(bench, guest, truth, estimator,
                                                          way.image(estimator), way.seconds)
    if PLAIN.name not in made:
        return {}
    plain = made.pop(PLAIN.name)
    for estimator in (each for each in chosen if each.kind != SAVE):
        with bench.failures(f"{way.name}, {estimator.name}"):
            if estimator.kind == RESTORE:
                made[estimator.name] = estimators.restore_judged(
                    bench, plain.image, estimator, way.packed(estimator), way.seconds)
            elif estimator.kind == BASELINE:
                made[estimator.name] = estimators.baseline_of(
                    bench, estimator, plain, way.packed(estimator), bench.args.seed + number)
    return {each.name: made[each.name] for each in chosen if each.name in made}


def entry(way, number, made):
    """What estimators.json has of one set, but for what is measured later."""
    found, truth = judge(made.pages, made.truth.pages), made.truth
    pages = set(made.pages)
    kinds = {"data": set(truth.pages) - truth.code - truth.tables, "code": truth.code,
             "tables": truth.tables}
    baseline = made.estimator.kind != SAVE
    return {
        "workload": way.workload, "ram": way.memory, "estimator": made.estimator.name,
        "round": number, "seconds": way.seconds,
        "precision": found.precision, "recall": found.recall,
        **{f"recall_{name}": len(pages & kind) / len(kind) if kind else None
           for name, kind in kinds.items()},
        "order_correlation": found.order_correlation,
        "set_bytes": len(made.pages) * 4096, "truth_bytes": len(truth.pages) * 4096,
        "truth_pages": {name: len(kind) for name, kind in kinds.items()},
        "lost_touches": truth.lost,
        "arm_pause_ms": 0 if baseline else None, "disarm_pause_ms": 0 if baseline else None,
        "slowdown": 0 if baseline else None, "slowdown_low": None, "slowdown_high": None,
        "slowdown_faults": None,
        "skipped_pages": 0 if baseline else None,
        "ttr_ms": None, "ttr_disk_ms": None, "integrity_errors": made.errors,
    }


# ---- What it costs -------------------------------------------------------------------------------

def look_up(report, name):
    """A number of the tool's report, wherever in it; None if it has none of that name."""
    if isinstance(report.get(name), (int, float)):
        return report[name]
    inner = (look_up(value, name) for value in report.values() if isinstance(value, dict))
    return next((value for value in inner if value is not None), None)


def pauses_of(way, guest, estimator):
    """Saves a guest with an estimator; {field of an entry: what the tool's report says}."""
    bench, image = way.bench, way.bench.file("estimated-cost.rouse")
    *_, report = estimators.save_watched(bench, guest, estimator, image, way.seconds)
    os.unlink(image)
    return {name: look_up(report, name)
            for name in ("arm_pause_ms", "disarm_pause_ms", "skipped_pages")}


def measure_slowdowns(way, guest, saving):
    """Fills the way's costs: {name of what watches: what scan_cost says}."""
    blocks = {name: 1 if way.bench.args.quick else count for name, count in COST_BLOCKS.items()}
    for name in sorted({each.cost for each in saving if each.cost} - set(way.costs)):
        found = scan_cost.measure(way.bench, guest, way.name, name, "busy", blocks[name],
                                  COST_SPAN_S)
        if found:
            way.costs[name] = {field: found[field]
                               for field in ("slowdown", "slowdown_low", "slowdown_high")}
            way.costs[name]["slowdown_faults"] = found["faults"]["slowdown"]


def add_costs(way, entries):
    """Measures the estimators of the save on a guest without the plugin."""
    saving = [each for each in TABLE if each.kind == SAVE and each.name in entries]
    if not saving:
        return
    machine = way.bench.machine._replace(watched=True)
    with way.working_guest(machine) as guest:
        for estimator in saving:
            what = f"{way.name}, {estimator.name}, its cost"
            way.bench.terminal.progress(what, 0, 1)
            with way.bench.failures(what):
                entries[estimator.name].update(pauses_of(way, guest, estimator))
        with way.bench.failures(f"{way.name}, the slowdown"):
            measure_slowdowns(way, guest, saving)
    for estimator in saving:
        entries[estimator.name].update(way.costs.get(estimator.cost, {}))


# ---- What it is worth ----------------------------------------------------------------------------

def restore(way, made, storage):
    """TTR of one restore, ms, and the wrong pages after it."""
    drop_from_cache(made.image)
    with restored_by_rouse(way.bench.tool, way.bench.machine, made.image, made.estimator.policy,
                           STORAGES[storage]) as restored:
        errors = run_demo.check_integrity(way.bench, restored,
                                          f"{way.name}, {made.estimator.name}, {storage}")
        return restored.report["ttr_ms"], errors


def add_ttr(way, number, made, entries):
    fields = {"slow": "ttr_ms", "disk": "ttr_disk_ms"}
    ways = [(name, storage) for storage in way.bench.args.storages for name in made]
    for done, (name, storage) in enumerate(common.rotated(ways, number * 3)):
        what = f"{way.name}, round {number}, {name}, {storage}"
        way.bench.terminal.progress(what, done, len(ways))
        with way.bench.failures(what):
            ttr_ms, errors = restore(way, made[name], storage)
            entries[name][fields[storage]] = ttr_ms
            entries[name]["integrity_errors"] += errors


# ---- The table -----------------------------------------------------------------------------------

def shown(entries, field, digits, scale=1.0, wide=False):
    values = [each[field] * scale for each in entries if each[field] is not None]
    if not values:
        return "-"
    return spread(values, digits) if wide else f"{statistics.median(values):.{digits}f}"


COLUMNS = (("MB", 6, "set_bytes", 1, 1e-6), ("precision", 11, "precision", 3, 1),
           ("recall", 8, "recall", 3, 1), ("data", 7, "recall_data", 3, 1),
           ("code", 7, "recall_code", 3, 1), ("tables", 7, "recall_tables", 3, 1), ("order", 7, "order_correlation", 2, 1),
           ("arm ms", 8, "arm_pause_ms", 1, 1), ("disarm", 8, "disarm_pause_ms", 1, 1),
           ("slower %", 10, "slowdown", 1, 100),
           ("faults %", 10, "slowdown_faults", 2, 100), ("skipped", 9, "skipped_pages", 0, 1))


def show_table(bench, way):
    mine = [each for each in bench.runs if (each["workload"], each["ram"]) ==
            (way.workload, way.memory)]
    if not mine:
        return
    bench.terminal.bold(f"\n{way.name}: {way.seconds} s after the checkpoint, the truth is "
                        f"{shown(mine, 'truth_bytes', 1, 1e-6, True)} MB; medians of the rounds")
    bench.terminal.line(f"{'':16}" + "".join(f"{name:>{width}}" for name, width, *_ in COLUMNS)
                        + f"{'TTR slow, ms':>24}{'TTR disk, ms':>22}{'wrong':>7}")
    for name in dict.fromkeys(each["estimator"] for each in mine):
        of = [each for each in mine if each["estimator"] == name]
        bench.terminal.line(
            f"{name:16}" + "".join(f"{shown(of, field, digits, scale):>{width}}"
                                   for _, width, field, digits, scale in COLUMNS)
            + f"{shown(of, 'ttr_ms', 0, 1, True):>24}{shown(of, 'ttr_disk_ms', 0, 1, True):>22}"
            + f"{sum(each['integrity_errors'] for each in of):7}")


def judge_targets(bench, way):
    """(met, line) of each target that this way can tell about."""
    def median(name, field):
        values = [each[field] for each in bench.runs if each[field] is not None and
                  (each["workload"], each["ram"], each["estimator"]) ==
                  (way.workload, way.memory, name)]
        return statistics.median(values) if values else None

    def told(name, field, target, at_most, value=None):
        value = median(name, field) if value is None else value
        if value is not None:
            yield verdict(f"{way.name}, {name}: {field}", value, target, at_most, 3)

    if way.workload not in TARGET_WORKLOADS:
        return
    for name, fields in TARGETS.items():
        for field, target in fields.items():
            yield from told(name, field, target, at_most=False)
    yield from told("trace", "arm_pause_ms", ARM_MS_PER_GIB * bench.args.ram / 1024, True)
    slowdown = [median("scan", field) for field in ("slowdown", "slowdown_low", "slowdown_high")]
    if slowdown[0] is not None:
        yield verdict_of_interval(f"{way.name}, scan: slowdown", *slowdown, SCAN_SLOWDOWN)
    traced, perfect = median("trace", "ttr_ms"), median("perfect", "ttr_ms")
    # What is missed behind the truth says nothing of the sets: see longest_restore_s().
    if traced and perfect and max(traced, perfect) < way.seconds * 1000:
        yield from told("trace", "TTR of that with the perfect set", OF_PERFECT, True,
                        traced / perfect)


# ---- All of it -----------------------------------------------------------------------------------

class EstimatorBench(Bench):
    """With what has been measured so far, and what failed."""

    def __init__(self, args):
        super().__init__(args)
        self.runs, self.failed = [], 0
        self.facts_at_start = self.facts()

    def fail(self, what, err):
        self.failed += 1
        self.say(f"{what}: FAILED: {err}")

    @contextlib.contextmanager
    def failures(self, what):
        """A failure inside is told and counted, and the benchmark goes on."""
        try:
            yield
        except FAILURES as err:
            self.fail(what, err)

    def write_runs(self, targets=()):
        self.write("estimators", {
            "format": 1, "environment": self.facts_at_start, "runs": self.runs,
            "targets": self.told(targets)})

    def choose(self):
        """The estimators to judge; says which are skipped."""
        chosen = []
        for estimator in TABLE:
            if self.args.estimators and estimator.name not in self.args.estimators:
                continue
            if estimators.known(self.tool, estimator):
                chosen.append(estimator)
            else:
                self.say(f"{estimator.name}: SKIPPED: this rouse does not have it")
        return chosen

    def remove_images(self):
        for name in os.listdir(self.folder):
            if name.startswith("estimated-"):
                os.unlink(self.file(name))


def one_round(way, chosen, number):
    bench = way.bench
    made = make_sets(way, chosen, number)
    entries = {name: entry(way, number, each) for name, each in made.items()}
    add_costs(way, entries)
    add_ttr(way, number, made, entries)
    bench.runs += entries.values()
    bench.write_runs()
    bench.remove_images()


def run():
    bench = EstimatorBench(parse_arguments())
    reason = "guests run under KVM" if bench.machine.accel != "tcg" else \
        why_not(bench.args.build, [bench.machine.qemu])
    if reason:
        bench.say(f"SKIPPED: {reason}: without a TCG plugin there is no truth (--accel tcg)")
        return 0
    chosen = bench.choose()
    ways = [Way(bench, workload, memory) for workload in bench.args.workloads
            for memory in bench.args.memory]
    try:
        for number in range(1, bench.args.rounds + 1):
            for way in common.rotated(ways, number - 1):
                bench.machine = bench.machine._replace(ram=way.memory)
                bench.terminal.bold(f"\n{way.name}, round {number} of {bench.args.rounds}")
                with bench.failures(f"{way.name}, round {number}"):
                    one_round(way, chosen, number)
    finally:
        bench.remove_images()
    for way in ways:
        show_table(bench, way)
    bench.write_runs([each for way in ways for each in judge_targets(bench, way)])
    errors = sum(each["integrity_errors"] for each in bench.runs)
    bench.say(f"{len(bench.runs)} sets judged, {bench.failed} failed, {errors} integrity errors")
    return 1 if bench.failed or errors else 0


if __name__ == "__main__":
    sys.exit(common.main(run))
