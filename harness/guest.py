# SPDX-License-Identifier: MIT
"""Guests: a description of what to boot (Machine) and one that runs (Guest)."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from typing import NamedTuple

from .guest_build import GuestFiles
from .link import Link, LinkError, Served, Verified
from .qmp import QmpClient

QEMU = os.environ.get("ROUSE_QEMU", "qemu-system-x86_64")
BOOT_SECONDS = 90
PROBE_SECONDS = 8
# How much of the memory that is free after boot each workload fills.
FILL = {"idle": 0.85, "kv": 0.42, "scan": 0.80, "sql": 0.70}
# no_timer_check: on a busy machine an emulated timer may be late enough for the kernel to panic at
# boot ("IO-APIC + timer doesn't work"); under KVM it does not check either.
KERNEL_LINE = ("console=ttyS0 quiet panic=-1 mitigations=off nokaslr random.trust_cpu=on "
               "no_timer_check")


class GuestError(Exception):
    """A guest did not do what it should; the message ends with what its console said last."""


def last_line(err):
    """The last line of what an exception says: what it is about. Its name, if it says nothing."""
    return (str(err).strip() or type(err).__name__).splitlines()[-1]


class RunDir:
    """The folder of one run of QEMU: its sockets and its console. Gone when it is closed.

    It is in the folder for temporary files, because the paths of sockets must be short.
    """

    def __init__(self):
        self.path = tempfile.mkdtemp(prefix="rouse-")
        self.qmp = os.path.join(self.path, "qmp")
        self.watch = os.path.join(self.path, "watch")
        self.link = os.path.join(self.path, "link")
        self.console = os.path.join(self.path, "console")
        self.errors = os.path.join(self.path, "errors")

    def console_tail(self, lines=12):
        text = ""
        for path in (self.console, self.errors):
            if os.path.exists(path):
                with open(path, errors="replace", encoding="utf-8") as file:
                    text += file.read()
        return "\n".join(text.splitlines()[-lines:])

    def qemu_pids(self):
        """The QEMUs of this run, whoever started them: those with this folder on their command
        line."""
        pids = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    words = file.read().split(b"\0")
            except OSError:
                continue
            if b"qemu-system" in os.path.basename(words[0]) and \
                    any(self.path.encode() + b"/" in word for word in words):
                pids.append(int(name))
        return pids

    def qemu_pid(self):
        """The pid of this run's QEMU, or 0."""
        return next(iter(self.qemu_pids()), 0)

    def end_qemu(self):
        """Ends this run's QEMU, if there is one, whoever started it."""
        for pid in self.qemu_pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for _ in range(500):
            if not self.qemu_pids():
                return
            time.sleep(0.01)

    def close(self):
        self.end_qemu()
        shutil.rmtree(self.path, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Machine(NamedTuple):
    """What to boot, and to load a saved state into: the same for both, as migration needs it."""
    files: GuestFiles
    ram_mb: int = 1024
    vcpus: int = 2
    accel: str = "tcg"      # "kvm" or "tcg"; see choose_accel()
    machine: str = "pc"     # "pc", "q35"
    ram: str = "anon"       # what the RAM is in QEMU: "anon" or "memfd"
    watched: bool = False   # whether there is a second QMP socket, at the RunDir's `watch`
    extra: tuple = ()       # more of QEMU's arguments
    qemu: str = QEMU

    def command(self, run, incoming=None, qmp=True):
        """QEMU's whole command line.

        run       a RunDir: where the sockets and the console go
        incoming  for -incoming: "defer", "exec:...", ...; None boots
        qmp       False leaves QMP out, for a starter that adds its own (rouse restore does)
        """
        accel = {"tcg": "tcg,thread=multi", "kvm": "kvm"}[self.accel]
        command = [self.qemu, "-machine", self.machine, "-accel", accel]
        if self.accel == "kvm":
            command += ["-cpu", "max"]
        command += ["-m", str(self.ram_mb), "-smp", str(self.vcpus), "-nodefaults",
                    "-display", "none", "-no-reboot",
                    "-kernel", self.files.kernel, "-initrd", self.files.initramfs,
                    "-append", KERNEL_LINE,
                    "-chardev", f"file,id=console,path={run.console}", "-serial", "chardev:console",
                    "-chardev", f"socket,id=link,path={run.link},server=on,wait=off"]
        # A microvm takes one -serial only, but has room for a second port on its ISA bus.
        command += (["-device", "isa-serial,chardev=link,index=1"]
                    if self.machine.startswith("microvm") else ["-serial", "chardev:link"])
        if qmp:
            command += ["-qmp", f"unix:{run.qmp},server=on,wait=off"]
        if self.watched:
            command += ["-qmp", f"unix:{run.watch},server=on,wait=off"]
        if self.ram == "memfd":
            command += ["-object", f"memory-backend-memfd,id=ram,size={self.ram_mb}M,share=on",
                        "-machine", "memory-backend=ram"]
        if incoming:
            command += ["-incoming", incoming]
        return command + list(self.extra)


class Guest:
    """A QEMU with the project's guest in it. Use it with `with`: it always ends.

    run         its RunDir
    machine     its Machine
    process     subprocess.Popen of its QEMU, or None if another started it
    link        Link to the driver inside
    qmp         QmpClient; connected when first used
    boot_s      seconds from QEMU's start to the driver's first word (after boot() only)
    hello       what the driver said: CPUs, RAM in KiB, and the workloads it knows
    """

    def __init__(self, machine, run, process=None, qmp_path=None):
        """Takes a QEMU that runs or starts up; boot() and load() are the ways to start one."""
        self.machine = machine
        self.run = run
        self.process = process
        self.boot_s = None
        self.hello = None
        self._qmp = None
        self._qmp_path = qmp_path or run.qmp
        self.link = Link(run.link,
                         still_there=(lambda: process.poll() is None) if process else None)

    @classmethod
    def _spawn(cls, machine, incoming):
        run = RunDir()
        try:
            with open(run.errors, "wb") as errors:
                process = subprocess.Popen(machine.command(run, incoming), stdin=subprocess.DEVNULL,
                                           stdout=errors, stderr=errors)
        except BaseException:
            run.close()
            raise
        try:
            return cls(machine, run, process)
        except BaseException as err:
            tail = run.console_tail()
            process.kill()
            process.wait()
            run.close()
            if isinstance(err, LinkError):
                raise GuestError(f"QEMU did not start: {tail}") from err
            raise

    @classmethod
    def boot(cls, machine, timeout=BOOT_SECONDS):
        """Boots a guest; returns when its driver listens."""
        began = time.monotonic()
        guest = cls._spawn(machine, None)
        try:
            guest.hello = guest.link.wait("hello", timeout)[1:]
            guest.boot_s = time.monotonic() - began
            return guest
        except BaseException as err:
            tail = guest.run.console_tail()
            guest.close()
            if isinstance(err, LinkError):
                raise GuestError(f"the guest did not boot: {err}\n{tail}") from err
            raise

    @classmethod
    def load(cls, machine, incoming):
        """Starts a QEMU that loads a saved state (-incoming); returns at once."""
        return cls._spawn(machine, incoming)

    @property
    def qmp(self):
        if self._qmp is None:
            self._qmp = QmpClient(self._qmp_path)
        return self._qmp

    def leave_qmp(self):
        """Ends the connection of `qmp`, if there is one, so that others can have the socket."""
        if self._qmp:
            self._qmp.close()
            self._qmp = None

    def start(self, workload, size_mb=None, period_us=5000, timeout=300, on_progress=None):
        """Starts a workload; returns the number of stamped pages once its memory is filled.

        size_mb      how much to fill; None: FILL's share of what is free
        period_us    between the starts of two requests on one CPU
        on_progress  called with (label, done, total)
        """
        if size_mb is None:
            size_mb = int(self.meminfo()["free_kb"] / 1024 * FILL[workload])

        def on_line(words):
            if words[0] == "progress" and on_progress:
                on_progress(words[1], int(words[2]), int(words[3]))
        answer = self.link.command(f"start {workload} {size_mb} {period_us}", "ready", timeout,
                                   on_line)
        return int(answer[1])

    def set_period(self, period_us):
        """Changes the microseconds between the starts of two requests on one CPU. With 1 the guest
        never rests: requests follow each other at once."""
        self.link.command(f"period {period_us}", "period")

    def set_quiet(self, quiet):
        """Whether requests are not recorded: a record of each is too much for the link when the
        guest never rests."""
        self.link.command(f"quiet {'on' if quiet else 'off'}", "quiet")

    def served(self):
        """Served(us, requests): how many requests have ended, recorded or not, and when that was by
        the guest's clock."""
        words = self.link.command("served", "served")
        return Served(int(words[1]), int(words[2]))

    def stamp(self, timeout=120):
        """New generations for a part of the pages, now and from now on; returns the number of all
        pages."""
        return int(self.link.command("stamp", "stamped", timeout)[1])

    def verify(self, timeout=300):
        """Compares all stamped memory, inside the guest; returns Verified(pages, errors)."""
        words = self.link.command("verify", "verified", timeout)
        return Verified(int(words[1]), int(words[3]))

    def meminfo(self):
        words = self.link.command("meminfo", "meminfo")
        return dict(zip(("total_kb", "free_kb", "cached_kb", "anon_kb"), map(int, words[1:])))

    def echo(self, text, timeout=30):
        """Whether the driver answers."""
        return self.link.command(f"echo {text}", "echo", timeout)[1:] == text.split()

    def wait_requests(self, count=20, timeout=60):
        """Waits until `count` more requests have been recorded: the guest is alive."""
        goal = len(self.link.records) + count
        deadline = time.monotonic() + timeout
        while len(self.link.records) < goal:
            if time.monotonic() > deadline:
                raise GuestError("the guest makes no requests\n" + self.run.console_tail())
            time.sleep(0.01)

    def close(self):
        """Ends QEMU and removes the run's folder. Once is enough; twice does no harm."""
        self.leave_qmp()
        if self.process and self.process.poll() is None:
            self.process.kill()
        if self.process:
            self.process.wait()
        self.run.end_qemu()
        self.link.close()
        self.run.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def choose_accel(files):
    """("kvm" or "tcg", why): KVM only if this guest's kernel really boots under it in seconds."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg", "there is no /dev/kvm that this user may use"
    try:
        with Guest.boot(Machine(files, ram_mb=256, vcpus=1, accel="kvm"), PROBE_SECONDS) as guest:
            return "kvm", f"the guest booted under KVM in {guest.boot_s:.1f} s"
    except GuestError as err:
        return "tcg", ("/dev/kvm is there, but the guest does not boot under it: "
                       + last_line(err))
