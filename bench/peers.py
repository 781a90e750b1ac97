# SPDX-License-Identifier: MIT
"""The competitors: what others do to wake a VM, each in its best setting, beside Rouse's policies.

    reap, faasnap, lazy-background   policies of `rouse restore` that do as these do, so that image,
                                     reader and transport are the same and only the order differs
    qemu10-mapped-ram                a newer QEMU's own restore from a file

One that cannot be measured here is skipped by name, with the reason: Bench.skip().
docs/performance.md says from which paper each is.
"""

import contextlib
import functools
import json
import os
import re
import subprocess

import common
import iolimit
from common import ERRORS, run_demo
from harness import drop_from_cache, mapped_ram
from harness.guest import last_line
from harness.records import Baseline
from story_report import PEERS, environment
from verdicts import MAPPED_RAM

ROUSE_PEERS = tuple(each for each in PEERS if each != MAPPED_RAM)
SETTINGS = {
    "eager": "the whole image, then the start",
    "lazy": "nothing before the start; faults bring their neighbours, the background follows them",
    "ws": "the image packed for the recorded set, which is loaded before the start",
    "paced": "the image packed for the recorded set; starts as soon as the rest will come in time",
    "auto": "the image packed for the recorded set; the policy that is predicted to be best",
    "qemu": "the stock QEMU loads a migration file (exec:), read ahead through the same throttle",
    "reap": "the image packed for the recorded set (its working-set file), which is read whole "
            "before the start; a page a fault; nothing else unasked for 10 s",
    "faasnap": "the image packed for the recorded set (its loading set); the guest starts at once "
               "and the set is loaded beside it; a fault brings its neighbours; nothing else "
               "unasked for 10 s",
    "lazy-background": "the image as saved; no set; a page a fault, the rest behind it by address",
    MAPPED_RAM: f"QEMU 10, mapped-ram, multifd with {mapped_ram.CHANNELS} channels, direct-io if "
                "the file system has it, state saved by the same QEMU; a slower disk by the "
                "kernel's limit of bytes/s, without the latencies that the others get",
}
INSTALL = os.path.join(common.ROOT, "scripts/install-qemu10.sh")


def known_policies(bench, names):
    """Those of some policies that this tool has; the others are skipped."""
    text = bench.tool.run("restore", "--help")
    known = []
    for name in names:
        if name not in ROUSE_PEERS or re.search(rf"(?<![\w-]){name}(?![\w-])", text):
            known.append(name)
        else:
            bench.skip(name, f"rouse restore --policy has no {name}")
    return known


def can_read_direct(path):
    """Whether the file system has direct I/O for a file."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
    except OSError:
        return False
    return True


def _limit(group, guest):
    """Puts a guest's QEMU, which has read nothing yet, into a cgroup. Its time counts."""
    iolimit.enter(group, guest.process.pid)


class MappedRam:
    """The competitor that is another QEMU: its guests, and its restores.

    Where it cannot be had, `machine` is None and it has been skipped.
    """

    def __init__(self, bench):
        self.bench = bench
        self.machine = None
        self.refused = set()  # storages
        self._disk = None
        found = self._find()
        if found:
            self.machine = bench.machine._replace(qemu=found)
            self._look_at_limits()

    def _find(self):
        """The path of a QEMU that has mapped-ram; None if there is none."""
        stock = mapped_ram.can(self.bench.machine)
        if stock is None:
            return self.bench.machine.qemu  # it is new enough
        build = os.path.abspath(self.bench.args.build)
        done = subprocess.run([INSTALL, build], capture_output=True, text=True, check=False,
                              stdin=subprocess.DEVNULL, timeout=600)
        if done.returncode != 0:
            said = done.stderr.strip().splitlines() or ["scripts/install-qemu10.sh failed"]
            self.bench.skip(MAPPED_RAM, f"{said[-1]}; {stock}")
            return None
        path = os.path.join(build, "qemu10", "qemu-system-x86_64")
        why = mapped_ram.can(self.bench.machine._replace(qemu=path))
        if why:
            self.bench.skip(MAPPED_RAM, why)
        return None if why else path

    def _look_at_limits(self):
        """It opens its file itself: as slow as another disk only by the kernel's limits."""
        slower = [name for name in self.bench.args.storages if common.STORAGES[name]]
        try:
            if slower:
                self._disk = iolimit.whole_disk(self.bench.folder)
                with iolimit.limited_group(self._disk, "sequential", 1 << 30):
                    pass
        except iolimit.Absent as why:
            self.refused = set(slower)
            self.bench.skip(f"{MAPPED_RAM}, {', '.join(slower)}", f"cgroup io limits: {why}")

    def facts(self):
        """What the report's environment has of it."""
        return environment(self.machine, self.bench.folder)["qemu"] if self.machine else None

    def prepared(self, workload, name=None, ram_mb=None):
        """run_demo.Saved of a guest of that workload that this QEMU saved; kept between benchmarks.
        None, and skipped, if it cannot be saved."""
        machine = self.machine._replace(ram_mb=ram_mb or self.bench.machine.ram_mb)
        path = self.bench.file((name or workload) + ".mapped")
        facts = [machine.ram_mb, machine.vcpus, machine.accel, machine.qemu]
        normal = self.bench.kept(path + ".json", [path], facts)
        try:
            if normal is None:
                normal = self._save(machine, workload, path)
                with open(path + ".json", "w", encoding="ascii") as file:
                    json.dump({"machine": facts, "normal": list(normal)}, file)
        except ERRORS as err:
            self.bench.skip(f"{MAPPED_RAM}, {workload}", last_line(err))
            return None
        return run_demo.Saved(workload, machine, None, None, path, Baseline(*normal))

    def _save(self, machine, workload, path):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        own, self.bench.machine = self.bench.machine, machine
        try:
            with run_demo.working_guest(self.bench, workload) as (guest, normal):
                seconds = mapped_ram.save(guest, path)
        finally:
            self.bench.machine = own
        self.bench.say(f"{workload}: saved by QEMU 10 in {seconds:.1f} s: "
                       f"{run_demo.stored_bytes(path) / 1e6:.0f} MB")
        return normal

    @contextlib.contextmanager
    def restore(self, _story, saved, _policy, throttle):
        """One restore, from a cold cache: for run_demo.one_run()."""
        drop_from_cache(saved.stream)
        direct = can_read_direct(saved.stream)
        with contextlib.ExitStack() as stack:
            before = None
            if throttle:
                group = stack.enter_context(
                    iolimit.limited_group(self._disk, "sequential", throttle.bytes_per_s))
                before = functools.partial(_limit, group)
            yield stack.enter_context(
                mapped_ram.restored(saved.machine, saved.stream, direct, before))


class Ways:
    """How each policy of a benchmark restores a prepared guest."""

    def __init__(self, bench):
        """Takes the policies of bench.args that can be measured; the others are skipped."""
        self.bench = bench
        self.mapped = None
        self._saved = {}  # mapped-ram's, by what Rouse saved
        bench.args.policies = known_policies(bench, bench.args.policies)
        if MAPPED_RAM in bench.args.policies:
            self.mapped = MappedRam(bench)
            if self.mapped.machine is None:
                bench.args.policies.remove(MAPPED_RAM)
        bench.report.content["environment"]["qemu10"] = self.mapped and self.mapped.facts()
        bench.report.content["settings"] = {name: SETTINGS[name] for name in bench.args.policies}

    def prepare(self, saved, name=None):
        """What must be there once for a guest that Rouse saved; name: of the files."""
        if MAPPED_RAM in self.bench.args.policies:
            self._saved[saved.image] = self.mapped.prepared(saved.workload, name,
                                                            saved.machine.ram_mb)

    def possible(self, saved, storage, policy):
        """Whether a policy can restore it from there."""
        return policy != MAPPED_RAM or (storage not in self.mapped.refused
                                        and self._saved.get(saved.image) is not None)

    def one_run(self, saved, storage, policy, number):
        """run_demo.one_run(), whatever the policy is."""
        if policy != MAPPED_RAM:
            return run_demo.one_run(self.bench, saved, storage, policy, number)
        return run_demo.one_run(self.bench, self._saved[saved.image], storage, policy, number,
                                self.mapped.restore)
