# SPDX-License-Identifier: MIT
"""The estimators that bench_estimators.py judges: a table, and how each one's set is had.

To add one that `rouse save` or a restore has: a line in TABLE. It is skipped, by name, while the
tool's --help does not know it.
"""

import contextlib
import os
import random
import re
import subprocess
import time
from typing import NamedTuple

from harness import Guest
from harness.link import now_us
from harness.qmp import QmpClient
from harness.saving import ToolError
from harness.truth import EXECUTED, WALKED, Truth, TruthError, WatchStop

BASELINE, RESTORE, SAVE = "baseline", "restore", "save"
KEEP = ("--keep-running", "--no-background-snapshot")


class Estimator(NamedTuple):
    """One way to a working set.

    kind     BASELINE: known beforehand; RESTORE: by restoring; SAVE: by the save
    options  of `rouse save` or `rouse restore`; {seconds} and {wset} are replaced
    word     what must be in that one's --help
    policy   of the restores that are timed
    times    how many restores it learns from
    before   whether it watches the VM before the checkpoint, not after it
    cost     what watches the VM meanwhile: a key of scan_cost.WAYS, "" if nothing of ours does
    """
    name: str
    kind: str
    options: tuple = KEEP
    word: str = ""
    policy: str = "ws"
    times: int = 1
    before: bool = False
    cost: str = ""


TABLE = (
    Estimator("none", BASELINE, policy="lazy"),
    Estimator("everything", BASELINE, policy="eager"),
    Estimator("random", BASELINE),
    Estimator("perfect", BASELINE),
    Estimator("recorded", RESTORE, ("--policy", "lazy", "--record", "{wset}:{seconds}"),
              r"--record\b"),
    Estimator("learned", RESTORE, ("--learn", "{wset}:{seconds}"), r"--learn\b", times=4),
    Estimator("trace", SAVE, (*KEEP, "--estimate", "trace:{seconds}"), r"--estimate\b.*\btrace\b",
              cost="trace"),
    Estimator("trace-before", SAVE, (*KEEP, "--estimate", "trace-before:{seconds}"),
              r"--estimate\b.*\btrace-before\b", before=True, cost="trace"),
    Estimator("snapshot-order", SAVE, ("--keep-running", "--estimate", "snapshot-order"),
              r"--estimate\b.*\bsnapshot-order\b"),
    Estimator("scan", SAVE, (*KEEP, "--estimate", "scan:1000,{seconds}"),
              r"--estimate\b.*\bscan\b", cost="scan"),
    Estimator("scan-before", SAVE, (*KEEP, "--estimate", "scan-before:1000,20"),
              r"--estimate\b.*\bscan-before\b", before=True, cost="scan"),
)
# The save that makes the image of all baselines, and shows what a save costs by itself.
PLAIN = Estimator("plain", SAVE)


def known(tool, estimator):
    """Whether the tool has it."""
    verb = "restore" if estimator.kind == RESTORE else "save"
    return re.search(estimator.word, tool.run(verb, "--help"), re.DOTALL) is not None


class TruthOf(NamedTuple):
    """What a guest touched in the first seconds after a checkpoint, as pages of its image."""
    pages: list     # in the order of first touch
    us: list        # of each: since the start
    code: set       # those of them that were only executed
    tables: set     # those that only QEMU has read for the guest: page tables
    lost: int       # touches that could not be followed


class Made(NamedTuple):
    """A set, and all that is known of its making."""
    estimator: Estimator
    image: str        # for the restores that are timed
    pages: list       # of the set, in its order
    truth: TruthOf
    report: dict      # the tool's, of the save; {} if there is none
    errors: int       # wrong pages in the guest that it was made from


# ---- Sets as files -------------------------------------------------------------------------------

def _bench_wset(bench, *arguments, text=None):
    done = subprocess.run([bench.program("bench-wset"), *arguments], input=text, text=True,
                          capture_output=True, check=False, timeout=120)
    if done.returncode:
        raise ToolError(f"bench-wset {arguments[0]}: {done.stderr.strip()}")
    return [line.split() for line in done.stdout.splitlines()]


def pages_of(bench, path):
    """The pages of a set: a file of its own, or the one in an image."""
    return [int(line[0]) for line in _bench_wset(bench, "list", path)]


def pack_for(bench, image, pages, times, out):
    """Lays an image out anew, for these pages."""
    wset = out + ".wset"
    text = "".join(f"{page} {us}\n" for page, us in zip(pages, times))
    _bench_wset(bench, "make", image, wset, text=text)
    bench.tool.run("pack", "-q", image, "-w", wset, out)
    os.unlink(wset)
    return out


def image_pages(bench, image):
    """How many pages an image has."""
    return sum(int(words[1]) for words in _bench_wset(bench, "blocks", image))


# ---- The truth -----------------------------------------------------------------------------------

def truth_of(bench, guest, truth, image, seconds):
    """TruthOf: the notes of the first seconds, as page numbers of the image. The guest stands still
    meanwhile."""
    first = {words[2]: int(words[0]) for words in _bench_wset(bench, "blocks", image)}
    with QmpClient(guest.run.watch) as qmp:
        qmp.execute("stop")
        truth.disarm()
        touches = truth.all_touches(qmp, guest.run.qemu_pid())
        qmp.execute("cont")
    if not touches:
        raise TruthError("the guest touched nothing")
    begin_us = touches[0].us  # when its first vCPU went on
    seen = [touch for touch in touches
            if touch.block in first and touch.us < begin_us + seconds * 1_000_000]
    stray = truth.stray[0] + sum(touch.block not in first for touch in touches)
    return TruthOf([first[touch.block] + touch.page for touch in seen],
                   [touch.us - begin_us for touch in seen],
                   {first[touch.block] + touch.page for touch in seen if touch.kinds == EXECUTED},
                   {first[touch.block] + touch.page for touch in seen if touch.kinds == WALKED},
                   stray + truth.lost + truth.unresolved)


@contextlib.contextmanager
def judged_guest(bench, start):
    """A guest whose truth is known: yields (guest, truth). start(machine) gives the guest."""
    plain = bench.machine
    with Truth(bench.file(f"truth.{os.getpid()}"), plain.ram_mb) as truth:
        judged = plain._replace(extra=(*plain.extra, *truth.options(bench.args.build)),
                                watched=True)
        with start(judged) as guest:
            with QmpClient(guest.run.watch) as qmp:
                truth.learn_map(qmp)
            yield guest, truth


# ---- Making sets ---------------------------------------------------------------------------------

def options_of(estimator, **values):
    """What `rouse save` or `rouse restore` gets for it."""
    return [word.format(**values) for word in estimator.options]


def save_watched(bench, guest, estimator, image, seconds, truth=None):
    """Saves a guest with an estimator; (when it stopped for the checkpoint, when it went on, the
    report).

    The truth, if there is one, is armed at the checkpoint. Returns so many seconds after it.
    """
    with WatchStop(guest.run.watch, truth) as watched:
        report = bench.tool.run_json("save", "--json", "--qmp", guest.run.qmp,
                                     *options_of(estimator, seconds=seconds), image)
        resumed_us = watched.wait_resumed()
    if truth and watched.armed_us > resumed_us:
        raise TruthError(f"{estimator.name}: the VM went on before the truth was armed")
    time.sleep(max(0, resumed_us / 1e6 + seconds - now_us() / 1e6))
    return watched.armed_us, resumed_us, report


def save_judged(bench, guest, truth, estimator, image, seconds):
    """Saves a guest with an estimator while the truth is noted; Made."""
    guest.stamp()
    *_, report = save_watched(bench, guest, estimator, image, seconds, truth)
    found = truth_of(bench, guest, truth, image, seconds)
    return Made(estimator, image, pages_of(bench, image), found, report, guest.verify().errors)


def restore_judged(bench, image, estimator, out, seconds):
    """Learns from restores of an image; the truth is of the last one. Made."""
    wset = out + ".wset"
    options = options_of(estimator, wset=wset, seconds=seconds)
    for number in range(estimator.times):
        with judged_guest(bench, lambda machine: Guest.load(machine, "defer")) as (guest, truth):
            truth.arm()
            bench.tool.run("restore", "-q", *options, "--qmp", guest.run.qmp, image)
            if number + 1 < estimator.times:
                continue
            found = truth_of(bench, guest, truth, image, seconds)
            errors = guest.verify().errors
    bench.tool.run("pack", "-q", image, "-w", wset, out)
    os.unlink(wset)
    return Made(estimator, out, pages_of(bench, out), found, {}, errors)


def baseline_of(bench, estimator, plain, out, seed):
    """A baseline's set, beside the truth of the plain save."""
    truth, image = plain.truth, plain.image
    if estimator.name == "none":
        return Made(estimator, image, [], truth, {}, 0)
    every = image_pages(bench, image)
    if estimator.name == "everything":
        return Made(estimator, image, list(range(every)), truth, {}, 0)
    pages = truth.pages
    if estimator.name == "random":
        pages = random.Random(seed).sample(range(every), len(truth.pages))
    return Made(estimator, pack_for(bench, image, pages, truth.us, out), pages, truth, {}, 0)
