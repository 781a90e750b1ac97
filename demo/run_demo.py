#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The whole story on a real guest: saved while it works, restored in every way, measured.

    demo/run [--help]        or: make demo [FULL=1] [ROUNDS=N] [RAM=MB]

For each workload: boot a guest, let it work, save it with `rouse save`; learn its working set from
one restore; then restore it again and again, from a cold page cache, under each policy and in
QEMU's own way, in turns. The guest checks its own memory after each. Results: a table, report.json,
and report.html, a page of it to look at.
"""

import argparse
import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from typing import NamedTuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from harness import (Guest, GuestError, Machine, QmpError, build_guest, choose_accel,
                     drop_from_cache, now_us)
from harness.link import LinkError
from harness.records import baseline, guest_view
from harness.saving import Throttle, Tool, ToolError, restored_by_qemu, restored_by_rouse
from harness.terminal import Terminal
from harness.ttr import ttr_table_ms, ttr_us
from story_page import Page
from story_report import NO_FAULTS, POLICIES, Report, environment, read_rate, told

# What ends one restore, and not the others.
ERRORS = (ToolError, GuestError, LinkError, QmpError, RuntimeError, TimeoutError, OSError,
          subprocess.SubprocessError)
DEFAULT_WORKLOADS = ("idle", "kv")
ALL_WORKLOADS = ("idle", "kv", "scan", "sql")
STORAGES = {"disk": None, "slow": Throttle(100_000_000, 100)}
# Those that the benchmarks have beside them: a disk behind a fast network, and 1 Gbit/s to afar.
FURTHER_STORAGES = {"mid": Throttle(500_000_000, 0, 1000), "net": Throttle(125_000_000, 0, 20_000)}
SETTLE_SECONDS = 3     # a workload runs for so long before it is looked at
# Where restores that go on learning read from, by turns: what stalls are like there a recording from
# a fast disk does not know.
RESUME_STORAGES = (STORAGES["slow"], FURTHER_STORAGES["net"])
BASELINE_SECONDS = 5   # and for so long to learn what is normal
# For so long a restore records first touches before anything comes unasked. Of 4 s "scan" waits for
# pages for all but 0.6 on some machines, and the set then lacks a fifth of what it reads.
RECORD_SECONDS = {"idle": 4, "kv": 12, "scan": 12, "sql": 12}
IDLE_NONZERO_MB = 700  # of 1 GiB
# Those that begin with a working set: they read the image that is packed for it.
PACKED_POLICIES = ("ws", "paced", "auto", "reap", "faasnap")
TTR_AGREES_MS = 1.0    # the tool's TTR and the harness's own, of the same stalls


class Saved(NamedTuple):
    """One workload's guest, saved: what all its restores begin with."""
    workload: str
    machine: Machine
    image: str      # as `rouse save` wrote it
    packed: str     # the same, laid out for the working set
    stream: str     # the same state as a plain migration file, for QEMU
    normal: object  # Baseline


class Story:
    """What all steps need."""

    recordings = 1  # restores that a working set is learnt from
    resumes = 0     # and that it learns from afterwards, as those of who resumes all day
    record_seconds = None  # of each; None: RECORD_SECONDS of the workload

    def __init__(self, args):
        self.args = args
        self.terminal = Terminal()
        self.tool = Tool(args.build)
        self.folder = os.path.join(os.path.abspath(args.build), "demo")
        self.report = None
        self.page = None  # or a Page to be made of it
        self.machine = None
        self.began = time.monotonic()

    def further(self, restored):  # pylint: disable=unused-argument
        """What a run of the report has beyond describe(): of the benchmarks."""
        return {}

    def say(self, text):
        self.terminal.line(f"{time.monotonic() - self.began:6.1f} s  {text}")

    def attempt(self, cell, one, say=told):
        """Makes a run of the report and tells of it. Whether it did not fail: what fails is told,
        noted in the report, and ends nothing else.

        cell  what tells the runs from others, as in "runs": {"workload": "idle", ...}
        one   makes the run; has added it to the report when it returns it
        say   what to tell of it
        """
        what = ", ".join(value if isinstance(value, str) else f"{name} {value:g}"
                         for name, value in cell.items())
        try:
            run = one()
        except ERRORS as err:
            self.say(f"{what}: FAILED: {err}")
            self.report.add_failed(what, cell, str(err).strip() or type(err).__name__)
            return False
        self.say(f"{what}: {say(run)}")
        return True

    def finish(self):
        """The last words about the report; the exit code."""
        content, errors = self.report.content, self.report.errors()
        self.report.write()
        self.say(f"{len(content['runs'])} restores, {len(content['failed'])} failed, {errors} "
                 f"integrity errors; {os.path.relpath(self.report.path)}")
        if self.page:
            self.page.write()
        return 1 if content["failed"] or errors else 0

    def file(self, name):
        return os.path.join(self.folder, name)

    def remove_images(self):
        """Removes what takes much room. (The folder is also meson's: it holds the guest driver.)"""
        for name in os.listdir(self.folder):
            if name.endswith((".rouse", ".qemu", ".wset", ".new")):
                with contextlib.suppress(OSError):
                    os.unlink(self.file(name))


# ---- Saving --------------------------------------------------------------------------------------

def work_for(story, guest, seconds, text):
    """Lets the guest work, with progress."""
    for step in range(int(seconds * 5)):
        story.terminal.progress(text, step, seconds * 5)
        time.sleep(0.2)


def boot_workload(story, workload):
    """Boots a guest and fills its memory."""
    story.terminal.progress(f"{workload}: booting", 0, 1)
    guest = Guest.boot(story.machine)
    began = time.monotonic()

    def on_progress(label, done, total):
        story.terminal.progress(f"{workload}: filling memory ({label})", done, total)
    try:
        pages = guest.start(workload, on_progress=on_progress)
    except BaseException:
        guest.close()
        raise
    story.say(f"{workload}: booted in {guest.boot_s:.1f} s, memory filled in "
              f"{time.monotonic() - began:.1f} s, {pages} stamped pages")
    return guest


@contextlib.contextmanager
def working_guest(story, workload):
    """Boots a guest and lets it work, until it may be saved; yields it and its Baseline."""
    with boot_workload(story, workload) as guest:
        work_for(story, guest, SETTLE_SECONDS, f"{workload}: settling")
        seen = len(guest.link.records)
        work_for(story, guest, BASELINE_SECONDS, f"{workload}: learning what is normal")
        normal = baseline(guest.link.records[seen:])
        guest.stamp()
        story.terminal.progress(f"{workload}: saving", 0, 1)
        yield guest, normal


def save_guest(story, workload, image):
    """Boots a guest, lets it work and saves it while it does; returns its Baseline."""
    with working_guest(story, workload) as (guest, normal):
        saved = story.tool.run_json("save", "--json", "--qmp", guest.run.qmp, image)
    unique = saved["pages"] - saved["zero_pages"] - saved["duplicate_pages"]
    nonzero_mb = (saved["pages"] - saved["zero_pages"]) * 4096 / 1e6
    story.say(f"{workload}: saved in {saved['elapsed_ms'] / 1000:.1f} s: "
              f"{saved['image_bytes'] / 1e6:.0f} MB for {nonzero_mb:.0f} MB that are not zero; "
              f"LZ4 ratio {unique * 4096 / saved['stored_bytes']:.2f}")
    if workload == "idle" and nonzero_mb < IDLE_NONZERO_MB * story.machine.ram_mb / 1024:
        raise GuestError(f"idle: only {nonzero_mb:.0f} MB are not zero")
    return normal


def recorded_seconds(story, workload):
    return story.record_seconds or RECORD_SECONDS[workload]


def record(story, workload, image, wset):
    """Restores once, and records what the guest touches first."""
    with restored_by_rouse(story.tool, story.machine, image, "lazy",
                           options=("--record", f"{wset}:{recorded_seconds(story, workload)}")
                           ) as restored:
        check_integrity(story, restored, "the recording restore")


def pack(story, image, wset, packed):
    return story.tool.run_json("pack", "--json", image, "-w", wset, packed)


def go_on_learning(story, workload, wset, packed):
    """Restores with what is known, from a cold cache, and learns from each (--learn)."""
    for number in range(story.resumes):
        story.terminal.progress(f"{workload}: restores that go on learning", number, story.resumes)
        drop_from_cache(packed)
        with restored_by_rouse(story.tool, story.machine, packed, "ws",
                               RESUME_STORAGES[number % len(RESUME_STORAGES)],
                               ("--learn", wset)) as restored:
            check_integrity(story, restored, "a restore that learns")


def learn_working_set(story, workload, image, packed):
    """Records what the guest touches first in one restore, or more of them, which are merged, lays
    the image out for that, and goes on learning."""
    wset = story.file(f"{workload}.wset")
    for number in range(story.recordings):
        story.terminal.progress(f"{workload}: restores that record the working set", number,
                                story.recordings)
        record(story, workload, image, wset if number == 0 else wset + ".new")
        if number > 0:
            story.tool.run("wset", "merge", "-o", wset, wset, wset + ".new")
    report = pack(story, image, wset, packed)
    more = f" of each of {story.recordings} restores" if story.recordings > 1 else ""
    if story.resumes:
        go_on_learning(story, workload, wset, packed)
        report = pack(story, image, wset, packed)
        more += f", and what {story.resumes} more have learnt"
    story.say(f"{workload}: working set of {report['wset_pages']} pages "
              f"({report['wset_pages'] * 4096 / 1e6:.0f} MB), touched in the first "
              f"{recorded_seconds(story, workload)} s" + more)


def prepare(story, workload):
    """Everything that is done once for a workload."""
    image, packed, stream = (story.file(workload + end) for end in (".rouse", ".packed.rouse",
                                                                    ".qemu"))
    normal = save_guest(story, workload, image)
    story.terminal.progress(f"{workload}: the same state as QEMU's own migration file", 0, 1)
    story.tool.run("convert", "-q", image, stream)
    learn_working_set(story, workload, image, packed)
    return Saved(workload, story.machine, image, packed, stream, normal)


# ---- Restoring -----------------------------------------------------------------------------------

def check_integrity(story, restored, what):
    """Lets the guest check its memory while it goes on working; returns the number of errors."""
    verified = restored.guest.verify()
    if verified.errors:
        story.say(f"INTEGRITY: {what}: {verified.errors} of {verified.pages} pages are wrong")
    return verified.errors


def restore(story, saved, policy, throttle):
    """The context manager of one restore, from a cold cache."""
    path = {"qemu": saved.stream}.get(
        policy, saved.packed if policy in PACKED_POLICIES else saved.image)
    drop_from_cache(path)
    if policy == "qemu":
        return restored_by_qemu(saved.machine, path, story.tool, throttle)
    return restored_by_rouse(story.tool, saved.machine, path, policy, throttle)


def check_ttr(story, restored, vcpus, what):
    """The tool's TTR must be what the harness computes, on its own, from the same stalls."""
    ours = ttr_us(restored.stalls, vcpus) / 1000
    tools = restored.report["ttr_ms"]
    if abs(ours - tools) > TTR_AGREES_MS:
        story.say(f"TTR of {what}: the tool says {tools:.1f} ms, its stall log {ours:.1f} ms")


def stored_bytes(path):
    """A file's bytes, holes left out."""
    status = os.stat(path)
    return min(status.st_size, status.st_blocks * 512)


def describe(story, saved, storage, policy, number, restored):
    """One entry of report.json's "runs", and the bytes that came before the start."""
    vcpus = saved.machine.vcpus
    if not restored.guest.link.records:
        raise GuestError("no request of the guest ended after the restore\n"
                         + restored.guest.run.console_tail())
    view = guest_view(restored.guest.link.records, saved.normal, vcpus, restored.request_us,
                      restored.start_us, restored.complete_us, now_us())
    run = {"workload": saved.workload, "storage": storage, "policy": policy, "round": number}
    report = restored.report
    if report is None:
        size = stored_bytes(saved.stream)
        report = {"start_ms": (restored.start_us - restored.request_us) / 1000,
                  "ttr_ms": ttr_us(restored.stalls, vcpus) / 1000,
                  "ttr_table": ttr_table_ms(restored.stalls, vcpus),
                  "complete_ms": (restored.start_us - restored.request_us) / 1000,
                  "faults": 0, "fault_us": NO_FAULTS, "prefetched_pages": 0, "prefetched_bytes": 0,
                  "image_bytes": size, "read_bytes": size,
                  "ram_bytes": saved.machine.ram_mb << 20}
    else:
        check_ttr(story, restored, vcpus, f"{saved.workload}, {storage}, {policy}")
    for field in ("start_ms", "ttr_ms", "ttr_table", "complete_ms"):
        run[field] = report[field]
    run["guest_ttr_ms"] = view.ttr_us / 1000
    for field in ("faults", "fault_us", "prefetched_pages", "image_bytes", "read_bytes",
                  "ram_bytes"):
        run[field] = report[field]
    return run, report["prefetched_bytes"]


def cell_of(saved, storage, policy, number):
    """What tells a run from others: for Story.attempt()."""
    return {"workload": saved.workload, "round": number, "storage": storage, "policy": policy}


def one_run(story, saved, storage, policy, number, way=restore, more=()):
    """One restore of the report; way: what makes it, called as restore() is; more: fields."""
    with way(story, saved, policy, (STORAGES | FURTHER_STORAGES)[storage]) as restored:
        run, prefetched_bytes = describe(story, saved, storage, policy, number, restored)
        what = f"{saved.workload}, {storage}, {policy}, round {number}"
        run["integrity_errors"] = check_integrity(story, restored, what)
        run.update(story.further(restored))
        run.update(more)
    story.report.add(run, prefetched_bytes)
    if story.page:
        story.page.keep_stalls(run, restored.stalls, saved.machine.vcpus)
    return run


def plan(story):
    """The runs of one workload: for each round and storage in turn, a list of them."""
    rounds = {"disk": story.args.rounds, "slow": story.args.rounds_slow}
    return [[(storage, policy, number) for policy in story.args.policies]
            for number in range(1, max(rounds.values()) + 1)
            for storage in story.args.storages if number <= rounds[storage]]


def all_runs(story, saved, until):
    """Restores in all ways. A first round of each storage is always done. A further one only if it
    will end before `until` (of time.monotonic()), as the last one of that storage says; otherwise
    it is left out, and told.
    """
    done = 0
    took = {}
    batches = plan(story)
    total = sum(map(len, batches))
    for batch in batches:
        storage, _, number = batch[0]
        if time.monotonic() + took.get(storage, 0) > until and number > 1:
            story.say(f"{saved.workload}, round {number}, {storage}: SKIPPED: it would not end "
                      f"within {story.args.minutes:g} minutes for the whole demo")
            continue
        began = time.monotonic()
        for storage, policy, number in batch:
            story.terminal.progress(f"{saved.workload}, round {number}, {storage}, {policy}", done,
                                    total)
            story.attempt(cell_of(saved, storage, policy, number),
                          functools.partial(one_run, story, saved, storage, policy, number))
            done += 1
        took[storage] = time.monotonic() - began


# ---- The story -----------------------------------------------------------------------------------

def tell_workload(story, workload, until):
    story.terminal.bold(f"\n{workload}")
    saved = prepare(story, workload)
    drop_from_cache(saved.stream)
    rate = read_rate(saved.stream)
    story.report.content["environment"]["disk"]["read_bytes_per_s"] = round(rate)
    slow = STORAGES["slow"]
    story.say(f"the disk reads {rate / 1e6:.0f} MB/s; \"slow\" is {slow.bytes_per_s / 1e6:.0f} MB/s "
              f"and {slow.random_reads_per_s} random reads/s")
    all_runs(story, saved, until)
    story.page.keep_memory(saved, record)
    if not story.args.keep:
        story.remove_images()


def tell(story):
    args = story.args
    story.terminal.bold("Rouse: saved guests, and how soon they are responsive again")
    os.makedirs(story.folder, exist_ok=True)
    story.remove_images()
    story.terminal.progress("making the guest from Debian packages", 0, 1)
    files = build_guest(args.build)
    accel, why = (args.accel, "as asked for") if args.accel else choose_accel(files)
    story.machine = Machine(files, ram_mb=args.ram, vcpus=args.vcpus, accel=accel)
    story.report = Report(story.file("report.json"), environment(story.machine, story.folder))
    story.page = Page(story, ERRORS)
    story.say(f"the guest: {args.ram} MiB, {args.vcpus} vCPUs, {accel} ({why})")
    for index, workload in enumerate(args.workloads):
        left_s = args.minutes * 60 - (time.monotonic() - story.began)
        share_s = left_s / (len(args.workloads) - index)
        tell_workload(story, workload, time.monotonic() + share_s)
    for workload in args.workloads:
        story.terminal.bold(f"\n{workload}: medians of "
                            + " and ".join(f"{story.report.rounds(workload, storage)} rounds "
                                           f"({storage})" for storage in args.storages))
        for line in story.report.table(workload, args.storages):
            story.terminal.line(line)
    story.terminal.line()
    for workload in args.workloads:
        for line in story.report.conclusions(workload, args.storages):
            story.terminal.line(line)
    return story.finish()


def choose(all_of):
    """For argparse: a list, separated by commas, of some of these."""
    def parse(text):
        words = text.split(",")
        for word in words:
            if word not in all_of:
                raise argparse.ArgumentTypeError(f"{word}: not one of {', '.join(all_of)}")
        return words
    return parse


def environment_number(name, otherwise):
    value = os.environ.get(name, "")
    return int(value) if value.isdigit() and int(value) > 0 else otherwise


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    full = os.environ.get("FULL", "0") not in ("", "0")
    rounds = environment_number("ROUNDS", 3)
    parser.add_argument("--build", default="build", help="meson's build directory")
    parser.add_argument("--ram", type=int, default=environment_number("RAM", 1024), help="MiB")
    parser.add_argument("--vcpus", type=int, default=2)
    parser.add_argument("--accel", choices=("tcg", "kvm"), help="do not try KVM, take this")
    parser.add_argument("--workloads", type=choose(ALL_WORKLOADS),
                        default=ALL_WORKLOADS if full else DEFAULT_WORKLOADS)
    parser.add_argument("--storages", type=choose(tuple(STORAGES)), default=tuple(STORAGES))
    parser.add_argument("--policies", type=choose(POLICIES), default=POLICIES)
    parser.add_argument("--rounds", type=int, default=rounds, help="from the disk as it is")
    parser.add_argument("--rounds-slow", type=int,
                        default=environment_number("ROUNDS", 2), help="from the slow one")
    parser.add_argument("--minutes", type=float, default=0,
                        help="leave further rounds out that would end later (default: 4.2 for each "
                        "workload)")
    parser.add_argument("--keep", action="store_true", help="keep the images")
    args = parser.parse_args()
    args.minutes = args.minutes or 4.2 * len(args.workloads)
    return args


def main():
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    story = Story(parse_arguments())
    if not os.path.exists(story.tool.path):
        print(f"{story.tool.path} is not there: run make first", file=sys.stderr)
        return 1
    try:
        return tell(story)
    except KeyboardInterrupt:
        story.terminal.line("\ninterrupted; no guest is left")
        return 130
    except ERRORS as err:
        story.terminal.line(f"the demo failed: {err}")
        return 1
    finally:
        if not story.args.keep and os.path.isdir(story.folder):
            story.remove_images()


if __name__ == "__main__":
    sys.exit(main())
