# SPDX-License-Identifier: MIT
"""Saving and restoring a guest by QEMU's own means and by Rouse, each measured the same way."""

import contextlib
import json
import os
import subprocess
import tempfile
import time
from typing import NamedTuple

from . import cputime
from .guest import Guest, GuestError, RunDir
from .link import now_us
from .qmp import QmpError

WATCH_US = 2_000_000  # a restored guest is watched for so long after its last page
RESTORE_SECONDS = 300


class ToolError(Exception):
    """The tool failed; the message is what it said."""


class Throttle(NamedTuple):
    """A slow disk, as the tool's --throttle has it."""
    bytes_per_s: int
    random_reads_per_s: int  # 0: no limit
    latency_us: int = 0      # of each read that does not go on where the last one ended

    def option(self):
        latency = f",{self.latency_us}us" if self.latency_us else ""
        return f"{self.bytes_per_s},{self.random_reads_per_s}{latency}"


class Tool:
    """The tool `rouse` of a build directory."""

    def __init__(self, build_dir="build"):
        self.path = os.path.join(os.path.abspath(build_dir), "tool", "rouse")

    def run(self, *arguments, timeout=600):
        """Runs it to its end; returns its output. Raises ToolError with what it said."""
        command = [self.path, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False,
                              stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise ToolError(f"{' '.join(command[:2])}: {done.stderr.strip()}")
        return done.stdout

    def run_json(self, *arguments, timeout=600):
        return json.loads(self.run(*arguments, timeout=timeout))


class Restored(NamedTuple):
    """A guest that was restored, and how.

    request_us, start_us, complete_us   on the host's clock; complete: the last page was in place
    stalls                              (from_us, to_us) since the request, as its policy knows them
    report                              the tool's, or None if it was QEMU's own way
    cpu_s                               processor time until the last page was in place: the tool's,
                                        and that of QEMU's threads that do not run the guest; None
                                        if that could not be told
    """
    guest: Guest
    request_us: int
    start_us: int
    complete_us: int
    stalls: list
    report: dict
    cpu_s: float = None


def migrate_to_file(guest, path):
    """Stops the guest and lets QEMU save it to a file (`migrate`); returns the seconds it took."""
    began = time.monotonic()
    guest.qmp.execute("stop")
    guest.qmp.execute("migrate-set-parameters", max_bandwidth=1 << 40)
    guest.qmp.execute("migrate", uri=f"exec:cat > {path}")
    answer = guest.qmp.wait_migration()
    if answer["status"] != "completed":
        raise GuestError(f"migrate to {path}: {answer}")
    return time.monotonic() - began


def _event_us(event):
    """When an event was sent, on the host's monotonic clock (QEMU dates it on the other one)."""
    stamp = event["timestamp"]
    ahead_us = (time.time_ns() - time.monotonic_ns()) // 1000
    return stamp["seconds"] * 1_000_000 + stamp["microseconds"] - ahead_us


def _watch_until(until_us):
    time.sleep(max(0, until_us - now_us()) / 1e6)


def _cpu_s(guest, tool_s):
    """The tool's processor time and QEMU's; None if one of them is not known."""
    try:
        return tool_s + cputime.qemu_other_s(guest.run.qemu_pid(), guest.run.qmp)
    except (OSError, QmpError, TimeoutError, TypeError):
        return None


@contextlib.contextmanager
def loaded_by_qemu(machine, uri, before=None):
    """A new QEMU loads a state from a URI of its own. Yields a Restored.

    before(guest), if given, is called when QEMU waits for the URI; it counts.
    """
    request_us = now_us()
    with Guest.load(machine, "defer") as guest:
        if before:
            before(guest)
        guest.qmp.execute("migrate-incoming", uri=uri)
        answer = guest.qmp.wait_migration(RESTORE_SECONDS)
        if answer["status"] != "completed":
            raise GuestError(f"QEMU does not load {uri}: {answer}\n{guest.run.console_tail()}")
        if not guest.qmp.execute("query-status")["running"]:
            guest.qmp.execute("cont")  # it was saved while it was stopped
        start_us = _event_us(guest.qmp.wait_event("RESUME", RESTORE_SECONDS))
        guest.leave_qmp()
        cpu_s = _cpu_s(guest, 0)
        _watch_until(start_us + WATCH_US)
        stalls = [(0, start_us - request_us)] * machine.vcpus
        yield Restored(guest, request_us, start_us, start_us, stalls, None, cpu_s)


def restored_by_qemu(machine, path, tool=None, throttle=None):
    """QEMU's own way: a new QEMU loads a migration file. Yields a Restored.

    With a `throttle` it reads through the tool's, at the same terms as Rouse.
    """
    reader = f"exec:cat {path}"
    if throttle:
        reader = f"exec:{tool.path} cat --throttle {throttle.option()} {path}"
    return loaded_by_qemu(machine, reader)


def read_stall_log(path):
    """The stalls in a file that --stall-log wrote."""
    with open(path, encoding="ascii") as file:
        lines = [line.split() for line in file if line.strip() and not line.startswith("#")]
    return [(int(words[0]), int(words[1])) for words in lines if words[0].isdigit()]


def write_stall_log(path, stalls, vcpus):
    """The file that --stall-log writes, of a Restored's stalls."""
    with open(path, "w", encoding="ascii") as file:
        file.write(f"rouse-stalls 1\nvcpus {vcpus}\n")
        file.writelines(f"{int(begin)} {int(end)}\n" for begin, end in stalls)


@contextlib.contextmanager
def restored_by_rouse(tool, machine, image, policy, throttle=None, options=()):
    """Rouse's way. Yields a Restored once the last page is in place."""
    with RunDir() as run, tempfile.TemporaryDirectory(prefix="rouse-") as folder:
        stall_log = os.path.join(folder, "stalls")
        command = [tool.path, "restore", "--policy", policy, "--json", "--monitor", run.qmp,
                   "--stall-log", stall_log, *options]
        if throttle:
            command += ["--throttle", throttle.option()]
        command += [image, "--", *machine.command(run, qmp=False)]
        # Files, not pipes: the QEMU that it starts may keep them open.
        with open(os.path.join(folder, "out"), "w+", encoding="utf-8") as out, \
                open(run.errors, "w", encoding="utf-8") as errors:
            request_us = now_us()
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=errors)
            guest = None
            try:
                with contextlib.suppress(Exception):
                    guest = Guest(machine, run, process)
                used = cputime.wait_child(process, RESTORE_SECONDS)
                if process.returncode != 0 or guest is None:
                    raise ToolError(f"rouse restore --policy {policy}: exit code "
                                    f"{process.returncode}\n" + run.console_tail())
                cpu_s = _cpu_s(guest, used.cpu_s)
                out.seek(0)
                report = json.load(out)
                start_us = request_us + int(report["start_ms"] * 1000)
                complete_us = request_us + int((report["complete_ms"] or 0) * 1000)
                _watch_until(max(start_us, complete_us) + WATCH_US)
                yield Restored(guest, request_us, start_us, complete_us,
                               read_stall_log(stall_log), report, cpu_s)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
                if guest:
                    guest.close()
